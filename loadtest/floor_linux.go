package loadtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
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
// and counted; half a frame ends the connection, as does half a request.
func Floor(y Yardstick) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	control, err := y.Control.AcceptTCP()
	if err != nil {
		return err
	}
	defer control.Close()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(epoll)
	f := &floor{epoll: epoll, size: y.Size, clients: map[int32]wants{}}
	// Descriptors of our own: the runtime's poller must not have them too.
	listening, err1 := y.Listener.File()
	ordering, err2 := control.File()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	err = f.run(listening, ordering)
	if y.Stats != nil {
		fmt.Fprintf(y.Stats, "floor: sent %d, dropped %d, cut %d\n", f.sent, f.dropped, f.cut)
	}
	return errors.Join(err, listening.Close(), ordering.Close())
}

type floor struct {
	epoll, size        int
	clients            map[int32]wants // by socket
	topics             [2][][]int32    // WebSocket and SSE: the sockets of each topic
	order, event       []byte          // the start of an order; an event
	frame              [2][]byte       // of the event, for WebSocket and SSE
	buffer             [64 << 10]byte
	sent, dropped, cut int
}

// wants is what a client asked for: as 0, WebSocket, or 1, SSE.
type wants struct {
	kind   int
	topics []int
}

func (f *floor) run(listening, ordering *os.File) error {
	l, o := int32(listening.Fd()), int32(ordering.Fd())
	if err := errors.Join(f.watch(l), f.watch(o)); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 256)
	for {
		for _, e := range events[:poll(f.epoll, events, -1)] {
			if e.Fd == l {
				if fd, _, err := unix.Accept4(int(l), unix.SOCK_CLOEXEC); err == nil && f.watch(int32(fd)) != nil {
					_ = unix.Close(fd)
				}
				continue
			}
			n, errno := receive(int(e.Fd), f.buffer[:])
			switch got := f.buffer[:max(n, 0)]; {
			case errno == unix.EAGAIN:
			case e.Fd == o && n <= 0:
				return nil
			case e.Fd == o:
				f.obey(got)
			case n <= 0 || !f.ask(e.Fd, got):
				f.forget(e.Fd)
			}
		}
	}
}

func (f *floor) watch(fd int32) error {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return errors.Join(unix.SetNonblock(int(fd), true),
		unix.EpollCtl(f.epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: fd}))
}

// ask takes a request: GET /ws?topics=3,4, or any other path for SSE; without
// topics it is for 0. What a client says after it is not looked at.
func (f *floor) ask(fd int32, request []byte) bool {
	if _, known := f.clients[fd]; known {
		return true
	}
	path := strings.Fields(string(request) + " . .")[1]
	answer, w := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+accept+"\r\n\r\n", wants{}
	if !strings.HasPrefix(path, "/ws") {
		answer, w.kind = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", 1
	}
	_, names, _ := strings.Cut(path, "topics=")
	for name := range strings.SplitSeq(names, ",") {
		k, _ := strconv.ParseUint(name, 10, 16) // 0 if none
		w.topics = append(w.topics, int(k))
		for len(f.topics[w.kind]) <= int(k) {
			f.topics[w.kind] = append(f.topics[w.kind], nil)
		}
		f.topics[w.kind][k] = append(f.topics[w.kind][k], fd)
	}
	f.clients[fd] = w
	_, errno := transmit(int(fd), []byte(answer))
	return errno == 0 && bytes.HasSuffix(request, []byte("\r\n\r\n"))
}

func (f *floor) forget(fd int32) {
	w := f.clients[fd]
	for _, k := range w.topics {
		f.topics[w.kind][k] = slices.DeleteFunc(f.topics[w.kind][k], func(of int32) bool { return of == fd })
	}
	delete(f.clients, fd)
	_ = unix.Close(int(fd))
}

// obey carries out the orders in b, and one whose start came before.
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
		switch n, errno := transmit(int(fd), frame); {
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
