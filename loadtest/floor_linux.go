package loadtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Yardstick is what a server for comparison needs to know.
type Yardstick struct {
	Listener *net.TCPListener // clients
	Control  *net.TCPListener // one connection, orders (see orderSize); nil for Upgrade
	Size     int              // bytes of an event's data
	Stats    io.Writer        // told in a line what was dropped, at the end; nil: nowhere
}

// Floor is the least that a push server can do: one thread, one frame for each
// event, one send for each client. What it costs is the kernel's price. It runs
// until its control connection ends. A socket that is full has its frame dropped
// and counted; half a frame ends the connection.
func Floor(y Yardstick) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f := &floor{size: y.Size, sse: map[int32]bool{}, heads: map[int32][]byte{}}
	err := f.run(y)
	if y.Stats != nil {
		fmt.Fprintf(y.Stats, "floor: sent %d, dropped %d, cut %d\n", f.sent, f.dropped, f.cut)
	}
	return err
}

type floor struct {
	size               int
	epoll              int
	topics             [2][][]int32 // WebSocket and SSE: the sockets of each topic
	sse                map[int32]bool
	heads              map[int32][]byte // requests that have not come whole
	order              []byte           // the start of an order
	sent, dropped, cut int
	buffer             [64 << 10]byte
	event              []byte
	frame              [2][]byte // of the event, for WebSocket and SSE
}

func (f *floor) run(y Yardstick) (err error) {
	control, err := y.Control.AcceptTCP()
	if err != nil {
		return err
	}
	defer control.Close()
	// Descriptors of our own: the runtime's poller must not have them too.
	listening, err := y.Listener.File()
	if err != nil {
		return err
	}
	defer listening.Close()
	ordering, err := control.File()
	if err != nil {
		return err
	}
	defer ordering.Close()
	l, o := int32(listening.Fd()), int32(ordering.Fd())
	if f.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(f.epoll)
	for _, fd := range []int32{l, o} {
		if err := errors.Join(unix.SetNonblock(int(fd), true), f.watch(fd)); err != nil {
			return err
		}
	}
	events := make([]unix.EpollEvent, 256)
	for {
		for _, e := range events[:poll(f.epoll, events, -1)] {
			switch e.Fd {
			case l:
				f.accept(int(l))
			case o:
				n, errno := receive(int(o), f.buffer[:])
				if errno == 0 && n == 0 {
					return nil
				}
				f.obey(f.buffer[:max(n, 0)])
			default:
				f.read(e.Fd)
			}
		}
	}
}

func (f *floor) watch(fd int32) error {
	return unix.EpollCtl(f.epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: fd})
}

func (f *floor) accept(l int) {
	for {
		fd, _, err := unix.Accept4(l, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if f.watch(int32(fd)) != nil {
			_ = unix.Close(fd)
		}
	}
}

// read takes a request: GET /ws?topic=3, or any other path for SSE. What comes
// after it is not looked at.
func (f *floor) read(fd int32) {
	n, errno := receive(int(fd), f.buffer[:])
	if errno == unix.EAGAIN {
		return
	}
	if errno != 0 || n == 0 {
		f.forget(fd)
		return
	}
	if _, known := f.sse[fd]; known {
		return
	}
	head := append(f.heads[fd], f.buffer[:n]...)
	if f.heads[fd] = head; !bytes.Contains(head, []byte("\r\n\r\n")) {
		return
	}
	delete(f.heads, fd)
	path := strings.SplitN(string(head), " ", 3)[1]
	_, topic, _ := strings.Cut(path, "topic=")
	k, _ := strconv.Atoi(topic) // 0 if none
	answer, kind := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+accept+"\r\n\r\n", 0
	if !strings.HasPrefix(path, "/ws") {
		answer, kind = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", 1
	}
	f.sse[fd] = kind == 1
	for len(f.topics[kind]) <= k {
		f.topics[kind] = append(f.topics[kind], nil)
	}
	f.topics[kind][k] = append(f.topics[kind][k], fd)
	_, _ = unix.Write(int(fd), []byte(answer))
}

func (f *floor) forget(fd int32) {
	for kind := range f.topics {
		for k, fds := range f.topics[kind] {
			for i := range fds {
				if fds[i] == fd {
					f.topics[kind][k] = append(fds[:i], fds[i+1:]...)
					break
				}
			}
		}
	}
	delete(f.sse, fd)
	delete(f.heads, fd)
	_ = unix.Close(int(fd))
}

// obey carries out the orders in b, and those whose start came before.
func (f *floor) obey(b []byte) {
	f.order = append(f.order, b...)
	done := 0
	for ; len(f.order)-done >= orderSize; done += orderSize {
		m := parseOrder(f.order[done:])
		f.event = appendEvent(f.event[:0], m, f.size)
		f.frame[0] = appendFrame(f.frame[0][:0], opText, f.event, false)
		f.frame[1] = append(append(append(f.frame[1][:0], "data: "...), f.event...), "\n\n"...)
		for kind, frame := range f.frame {
			if int(m.k) < len(f.topics[kind]) {
				f.write(f.topics[kind][m.k], frame)
			}
		}
	}
	f.order = append(f.order[:0], f.order[done:]...)
}

func (f *floor) write(fds []int32, frame []byte) {
	for _, fd := range fds {
		n, errno := transmit(int(fd), frame)
		switch {
		case errno == 0 && n == len(frame):
			f.sent++
		case errno == 0:
			f.cut++
			_ = unix.Shutdown(int(fd), unix.SHUT_RDWR) // its end is read later
		default:
			f.dropped++
		}
	}
}
