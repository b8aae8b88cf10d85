package loadtest

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// RaiseFiles raises the limit of open files, as far as it may, to what so many
// clients need, and says what bounds them where it is too little. Servers that are
// started later have the limit too.
func RaiseFiles(clients int) error {
	need := uint64(clients) + 100
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= need {
		return nil
	}
	hard := limit.Max
	limit.Cur = max(need, limit.Max)
	limit.Max = limit.Cur
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		return nil
	}
	limit.Cur, limit.Max = hard, hard
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if hard < need {
		return fmt.Errorf("%d clients need %d open files, and this process may open %d: raise the hard limit (ulimit -Hn)", clients, need, hard)
	}
	return nil
}

// perSource is how many connections one source address carries to one server; the
// system has about 28,000 ports for each, of which closed ones stay taken for a while.
const perSource = 4000

// source is the loopback address that client i connects from: 127.0.0.1,
// 127.0.0.2, …
func source(i int) [4]byte {
	n := i/perSource + 1
	return [4]byte{127, 0, byte(n >> 8), byte(n)}
}

func (s *Swarm) connectNext() {
	for s.inflight < s.config.Inflight && len(s.queue) > 0 {
		i := s.queue[0]
		s.queue = s.queue[1:]
		if c := &s.clients[i]; c.state == waiting {
			s.connect(c)
		}
	}
}

func (s *Swarm) connect(c *client) {
	addr, err := netip.ParseAddrPort(s.config.Addr)
	if err != nil || !addr.Addr().Is4() {
		s.refuse(c, fmt.Errorf("%s is no IPv4 address and port", s.config.Addr))
		return
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.refuse(c, err)
		return
	}
	c.fd, c.life, c.began = int32(fd), c.life+1, now()
	s.inflight++
	s.enter(c, connecting)
	if err := s.dial(c, addr); err != nil {
		s.fail(c, err.Error())
		return
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: c.index, Pad: c.life}
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		s.fail(c, err.Error())
	}
}

func (s *Swarm) dial(c *client, addr netip.AddrPort) error {
	fd := int(c.fd)
	if s.config.Buffer > 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, s.config.Buffer); err != nil {
			return err
		}
	}
	if addr.Addr().IsLoopback() {
		// The port is chosen at connect, so that each server may be reached from all.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: source(int(c.index))}); err != nil {
			return err
		}
	}
	err := unix.Connect(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())})
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("no free port on the source address: %w", err)
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return os.NewSyscallError("connect", err)
	}
	return nil
}

// refuse is the failure of a client that has no socket.
func (s *Swarm) refuse(c *client, err error) {
	s.errors[err.Error()]++
	s.enter(c, failed)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// fail is the end of a handshake that did not succeed.
func (s *Swarm) fail(c *client, why string) {
	if c.fd < 0 {
		return // it has failed already
	}
	s.errors[why]++
	s.hangUp(c, failed)
	s.connectNext()
}

// connected sends the request on a socket that is connected.
func (s *Swarm) connected(c *client) {
	if code, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
		s.fail(c, "connect: "+unix.Errno(code).Error())
		return
	}
	_ = unix.SetsockoptInt(int(c.fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	request := s.request(c)
	if n, err := unix.Write(int(c.fd), request); err != nil || n < len(request) {
		s.fail(c, fmt.Sprintf("the request could not be sent: %v", err))
		return
	}
	s.enter(c, upgrading)
}

func (s *Swarm) endpoint(c *client) *Endpoint {
	if c.sse {
		return s.config.Peer.SSE
	}
	return s.config.Peer.WebSocket
}

// key and accept are the challenge of RFC 6455, section 1.3. Clients do not need
// one each: it guards caches, and nothing is cached here.
const (
	key    = "dGhlIHNhbXBsZSBub25jZQ=="
	accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

func (s *Swarm) request(c *client) []byte {
	places := s.places(c)
	end := s.endpoint(c)
	b := make([]byte, 0, 1024)
	b = append(b, "GET "+fill(end.Path, places...)+" HTTP/1.1\r\nHost: "+s.config.Addr+"\r\n"...)
	for name, value := range end.Headers {
		b = append(b, name+": "+fill(value, places...)+"\r\n"...)
	}
	if c.sse {
		return append(b, "Accept: text/event-stream\r\n\r\n"...)
	}
	return append(b, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+key+"\r\n\r\n"...)
}

// places are those of a client's texts.
func (s *Swarm) places(c *client) []string {
	i := int(c.index)
	var names []string
	subs := s.subsOf(c)
	for j := range subs {
		names = append(names, s.config.Topics[subs[j].topic])
	}
	token := ""
	if s.config.Tokens != nil {
		token = s.config.Tokens[i]
	}
	return []string{"{topic}", names[0], "{topics}", strings.Join(names, ","), "{number}", strconv.Itoa(int(subs[0].topic)),
		"{token}", token, "{user}", user(i), "{cursor}", string(c.cursor)}
}

// user is the user of client i: each is one of its own.
func user(i int) string { return "load-" + strconv.Itoa(i) }

// answer reads the head of the answer to a handshake and its length, 0 while it
// is incomplete, and why it is none.
func (s *Swarm) answer(c *client, b []byte) (size int, why string) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > 64<<10 {
			return 0, "the answer has an endless head"
		}
		return 0, ""
	}
	head := strings.Split(string(b[:end]), "\r\n")
	status := strings.SplitN(head[0], " ", 3)
	want := "101"
	if c.sse {
		want = "200"
	}
	if len(status) < 2 || status[1] != want {
		return 0, "handshake: " + head[0] + " " + string(b[end+4:min(len(b), end+204)])
	}
	accepted := false
	for _, line := range head[1:] {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "transfer-encoding":
			c.chunked = strings.EqualFold(value, "chunked")
		case "sec-websocket-accept":
			accepted = value == accept
		case "content-type":
			accepted = accepted || c.sse && strings.HasPrefix(value, "text/event-stream")
		}
	}
	if !accepted {
		return 0, "handshake: neither a WebSocket nor an event stream was answered"
	}
	s.enter(c, opened)
	ep := s.endpoint(c)
	for _, text := range ep.Send {
		s.send(c, opText, []byte(fill(text, s.places(c)...)))
		if c.fd < 0 {
			return 0, "the first messages could not be sent"
		}
	}
	if ep.Ready == "" {
		s.subscribed(c)
	}
	return end + 4, ""
}

// subscribed is the end of a handshake that succeeded.
func (s *Swarm) subscribed(c *client) {
	s.inflight--
	s.enter(c, ready)
	s.latency.handshake(now() - c.began)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	s.connectNext()
}
