package wire

import (
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller hears which sockets can be read or written, by an epoll that is nested
// in the one of Go's runtime: while nothing happens no thread waits in it. Each
// socket is registered once, for edges.
type poller struct {
	// fixed after construction
	file *os.File
	raw  syscall.RawConn
	fd   int

	mu     sync.Mutex
	closed bool
	conns  []*Conn // by descriptor
	gen    int32   // of the last registration: an event of an older one is void
}

// edges are what a socket is registered for.
const edges = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// newPoller gives nil if there is none to be had.
func newPoller() *poller {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that os has the runtime poll it
		_ = unix.Close(fd)
		return nil
	}
	p := &poller{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil
	}
	return p
}

// close ends run, and gives the Conns that are left. None can be added any more.
func (p *poller) close() []*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	_ = p.file.Close()
	return slices.DeleteFunc(slices.Clone(p.conns), func(c *Conn) bool { return c == nil })
}

// add registers c by its descriptor.
func (p *poller) add(c *Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	for len(p.conns) <= int(c.fd) {
		p.conns = append(p.conns, nil)
	}
	p.gen++
	p.conns[c.fd], c.gen = c, p.gen
	ev := unix.EpollEvent{Events: edges, Fd: c.fd, Pad: c.gen}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, int(c.fd), &ev))
}

// forget is called before the descriptor of c is closed, which ends its
// registration.
func (p *poller) forget(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(c.fd) < len(p.conns) && p.conns[c.fd] == c {
		p.conns[c.fd] = nil
	}
}

func (p *poller) find(fd, gen int32) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.conns[fd]; c != nil && c.gen == gen {
		return c
	}
	return nil
}

func (p *poller) run() {
	buf := make([]byte, 64<<10)
	events := make([]unix.EpollEvent, 256)
	for {
		n := 0
		err := p.raw.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events, 0)
			return n != 0 // an error (EINTR) says nothing of what is ready: it is asked again
		})
		if err != nil {
			return // closed
		}
		for i := range max(n, 0) {
			ev := &events[i]
			c := p.find(ev.Fd, ev.Pad)
			if c == nil {
				continue
			}
			if ev.Events&unix.EPOLLOUT != 0 {
				c.writable()
			}
			if ev.Events&^unix.EPOLLOUT != 0 {
				c.readable(buf, ev.Events&^(unix.EPOLLIN|unix.EPOLLOUT) != 0)
			}
			if i%yield == yield-1 {
				runtime.Gosched()
			}
		}
	}
}

// takeOver gives a descriptor of a connection's socket that is ours alone: the
// connection is closed, which the other side does not see.
func takeOver(tcp *net.TCPConn) (fd int, err error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return -1, err
	}
	var dupErr error
	err = raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil {
		err = os.NewSyscallError("fcntl", dupErr)
	}
	if err != nil {
		return -1, err
	}
	_ = tcp.Close() // it has no say any more
	return fd, nil
}

func closeSocket(fd int) { _ = unix.Close(fd) }

// shutSocket ends both sides of a socket that is still used.
func shutSocket(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) }

// closeWrite ends the sending side: the other side reads the end.
func closeWrite(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) }

// readSocket reads what is there; again says that nothing is now. The scheduler is
// not told: see package quiet.
func readSocket(fd int, p []byte) (n int, again bool, err error) {
	for {
		got, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(got), false, nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, true, nil
		}
		return 0, false, errno
	}
}

// vector is how the kernel wants to be told of several frames.
type vector struct {
	frames [batchFrames]unix.Iovec
	head   unix.Msghdr
}

// writeSocket writes what the socket takes now, 0 if it is full. The scheduler is not
// told: see package quiet.
func writeSocket(fd int, frames [][]byte, v *vector) (int, error) {
	const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	for {
		var n uintptr
		var errno unix.Errno
		if len(frames) == 1 {
			n, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
				uintptr(unsafe.Pointer(unsafe.SliceData(frames[0]))), uintptr(len(frames[0])), flags, 0, 0)
		} else {
			for i, f := range frames {
				v.frames[i].Base = unsafe.SliceData(f)
				v.frames[i].SetLen(len(f))
			}
			v.head.Iov = &v.frames[0]
			v.head.SetIovlen(len(frames))
			n, _, errno = unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.head)), flags)
		}
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, nil
		}
		return 0, errno
	}
}
