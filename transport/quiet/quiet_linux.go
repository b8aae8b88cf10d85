// Package quiet has TCP connections whose reads and writes Go's scheduler is not told
// of: they do not block. To be told of one wakes the runtime's monitor, a thread that
// then looks every 20 µs at what is soon idle again. Where little is done at a time,
// a publish or a command of Redis, that is a good part of what it costs. The race
// detector does not see that what is written on one side comes before it is read on
// the other.
package quiet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
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
	return &quiet{TCPConn: tcp, raw: raw}
}

// Pooled is Conn for a connection of a pool that peeks at it before each use, to see
// whether the other side has gone or has sent what nobody asked for. That of go-redis does
// so by its SyscallConn, with a call that the scheduler is told of; while there is nothing
// to see, Read there does not call what it is given.
func Pooled(conn net.Conn) net.Conn {
	q, ok := Conn(conn).(*quiet)
	if !ok {
		return conn
	}
	return &pooled{q, peeked{q.raw}}
}

type pooled struct {
	*quiet
	peeked syscall.RawConn
}

// SyscallConn implements syscall.Conn.
func (p *pooled) SyscallConn() (syscall.RawConn, error) { return p.peeked, nil }

type peeked struct{ syscall.RawConn }

// Read implements syscall.RawConn but for calling f only where something has come.
func (p peeked) Read(f func(fd uintptr) (done bool)) error {
	return p.RawConn.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		return errno == unix.EAGAIN || f(fd)
	})
}

// TCP gives the TCP connection if conn is one, quiet or not, and nothing else; else
// nil.
func TCP(conn net.Conn) *net.TCPConn {
	switch q := conn.(type) {
	case *quiet:
		return q.TCPConn
	case *pooled:
		return q.TCPConn
	}
	tcp, _ := conn.(*net.TCPConn)
	return tcp
}

type quiet struct {
	*net.TCPConn
	raw     syscall.RawConn
	in, out direction
}

// direction is one of reading and writing.
type direction struct {
	mu    sync.Mutex
	try   func(fd uintptr) (done bool) // guarded by mu, as the rest; does what it is for once
	p     []byte                       // what is read or written
	n     int
	errno unix.Errno
}

// Read implements net.Conn.
func (q *quiet) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	q.in.mu.Lock()
	defer q.in.mu.Unlock()
	if q.in.try == nil {
		q.in.try = func(fd uintptr) bool { return q.in.once(unix.SYS_RECVFROM, fd) }
	}
	n, err := q.do(&q.in, p, q.raw.Read, "read")
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (q *quiet) Write(p []byte) (n int, err error) {
	q.out.mu.Lock()
	defer q.out.mu.Unlock()
	if q.out.try == nil {
		q.out.try = func(fd uintptr) bool { return q.out.once(unix.SYS_SENDTO, fd) }
	}
	for n < len(p) && err == nil {
		var more int
		more, err = q.do(&q.out, p[n:], q.raw.Write, "write")
		n += more
	}
	return n, err
}

// do has wait call d.try until it is done, each time that it may go on, or until the
// deadline.
func (q *quiet) do(d *direction, p []byte, wait func(func(fd uintptr) (done bool)) error, op string) (int, error) {
	d.p, d.n, d.errno = p, 0, 0
	err := wait(d.try)
	d.p = nil
	if err == nil && d.errno != 0 {
		err = &net.OpError{Op: op, Net: "tcp", Source: q.LocalAddr(), Addr: q.RemoteAddr(), Err: os.NewSyscallError(op, d.errno)}
	}
	return d.n, err
}

// once reads or writes what can be now.
func (d *direction) once(call, fd uintptr) (done bool) {
	for {
		n, _, errno := unix.RawSyscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(d.p))), uintptr(len(d.p)),
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
