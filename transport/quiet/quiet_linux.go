// Package quiet has TCP connections whose reads and writes Go's scheduler is not told
// of: they do not block. To be told of one wakes the runtime's monitor, a thread that
// then looks every 20 µs at what is soon idle again. Where little is done at a time,
// a publish or a command of Redis, that is a good part of what it costs.
package quiet

import (
	"io"
	"net"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn gives conn as a quiet one where it is a plain TCP connection, else as it is.
// Nobody else may use conn any more.
func Conn(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	q := &quiet{TCPConn: tcp}
	q.in.wait, q.in.call, q.in.op = raw.Read, unix.SYS_RECVFROM, "read"
	q.out.wait, q.out.call, q.out.op = raw.Write, unix.SYS_SENDTO, "write"
	q.in.try, q.out.try = q.in.once, q.out.once
	return q
}

// TCP gives the TCP connection if conn is one, quiet or not, and nothing else; else
// nil.
func TCP(conn net.Conn) *net.TCPConn {
	if q, ok := conn.(*quiet); ok {
		return q.TCPConn
	}
	tcp, _ := conn.(*net.TCPConn)
	return tcp
}

type quiet struct {
	*net.TCPConn
	in, out direction
}

// direction is one of reading and writing.
type direction struct {
	// fixed after construction
	wait func(func(fd uintptr) (done bool)) error // calls until done, each time that it may go on; until the deadline
	try  func(fd uintptr) (done bool)             // once
	call uintptr
	op   string

	mu    sync.Mutex
	p     []byte // guarded by mu, as the rest: what is read or written
	n     int
	errno unix.Errno
}

// Read implements net.Conn.
func (q *quiet) Read(p []byte) (int, error) {
	n, err := q.do(&q.in, p)
	if n == 0 && err == nil && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (q *quiet) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = q.do(&q.out, p[n:])
		n += more
	}
	return n, err
}

func (q *quiet) do(d *direction, p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.p, d.n, d.errno = p, 0, 0
	err := d.wait(d.try)
	d.p = nil
	if err == nil && d.errno != 0 {
		err = &net.OpError{Op: d.op, Net: "tcp", Source: q.LocalAddr(), Addr: q.RemoteAddr(), Err: os.NewSyscallError(d.op, d.errno)}
	}
	return d.n, err
}

// once reads or writes what can be now. With mu held.
func (d *direction) once(fd uintptr) (done bool) {
	for {
		n, _, errno := unix.RawSyscall6(d.call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(d.p))), uintptr(len(d.p)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			d.n = int(n)
			return true
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		d.errno = errno
		return true
	}
}
