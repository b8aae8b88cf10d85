package wire_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// onBothPaths runs a test with a Conn that writes to its TCP socket directly,
// and with one that has a goroutine for it, as TLS and HTTP/2 do.
func onBothPaths(t *testing.T, test func(t *testing.T, l *link)) {
	for name, direct := range map[string]bool{"direct": true, "goroutine": false} {
		t.Run(name, func(t *testing.T) { test(t, &link{t: t, direct: direct}) })
	}
}

// link is a Conn on a real socket, and the client at its far end.
type link struct {
	t      testing.TB
	direct bool
	tls    *tls.Config // of the server; nil: none
	conn   *wire.Conn
	near   *net.TCPConn
	far    net.Conn
	in     *bufio.Reader // of far
	early  []byte        // what the client said before Run
	counts
}

// counts is what the Conn reported.
type counts struct{ delivered, conflated atomic.Int64 }

// Sizes of the kernel's buffers, as it is asked for them.
const (
	small  = 2 << 10
	medium = 32 << 10
	usual  = 0
)

// open connects, with kernel buffers of a size.
func (l *link) open(buffers int, change func(*setup)) {
	l.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(l.t, err)
	defer func() { _ = listener.Close() }()
	dialer := net.Dialer{}
	if buffers != usual {
		dialer.Control = func(_, _ string, raw syscall.RawConn) error {
			var err error
			return firstOf(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, buffers) }), &err)
		}
	}
	l.far, err = dialer.Dial("tcp", listener.Addr().String())
	require.NoError(l.t, err)
	socket, err := listener.Accept()
	require.NoError(l.t, err)
	l.near = socket.(*net.TCPConn)
	if buffers != usual {
		require.NoError(l.t, l.near.SetWriteBuffer(buffers))
	}
	near := wire.Socket(l.near)
	if l.tls != nil {
		near = tls.Server(l.near, l.tls)
		l.far = tls.Client(l.far, &tls.Config{InsecureSkipVerify: true}) // who it is is not the question here
	}
	l.in = bufio.NewReader(l.far)
	opts := options(&l.counts)
	if change != nil {
		change(&opts)
	}
	var tcp *net.TCPConn
	if l.direct {
		tcp = l.near
	}
	l.conn = newConn(l.t, near, tcp, opts)
	switch {
	case l.direct:
		l.conn.Run(l.early)
	case opts.MaxMessage > 0: // the others say nothing
		var run sync.WaitGroup
		run.Go(func() { l.conn.Run(l.early) })
		l.t.Cleanup(func() {
			l.conn.Abort()
			run.Wait()
		})
	}
	l.t.Cleanup(func() { _ = l.far.Close() })
}

// certificate makes the server's side of TLS.
func certificate(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func firstOf(err error, other *error) error {
	if err != nil {
		return err
	}
	return *other
}

// setup is what a test says about a Conn.
type setup struct {
	wire.Options
	head    []byte
	bye     func(code protocol.CloseCode, position protocol.Cursor) []byte
	message func(frames []byte) bool
	due     func() time.Duration
	ended   func()
}

// Bye implements wire.Peer, as do the others.
func (s *setup) Bye(code protocol.CloseCode, position protocol.Cursor) []byte {
	return s.bye(code, position)
}
func (s *setup) Message(frames []byte) bool { return s.message(frames) }
func (s *setup) Due() time.Duration         { return s.due() }
func (s *setup) Ended()                     { s.ended() }

// options are those of an event stream whose bye tells its arguments.
func options(c *counts) setup {
	return setup{
		Options: wire.Options{
			Encoding:  protocol.SSE,
			Delivered: func(_ *protocol.Event, n int) { c.delivered.Add(int64(n)) },
			Conflated: func() { c.conflated.Add(1) },
		},
		bye: func(code protocol.CloseCode, position protocol.Cursor) []byte {
			return protocol.AppendSSE(nil, "", "bye", fmt.Appendf(nil, "%d %s", code, position))
		},
		message: func([]byte) bool { return true },
		due:     func() time.Duration { return 0 },
		ended:   func() {},
	}
}

// newConn makes a Conn of an engine of its own.
func newConn(t testing.TB, socket wire.Socket, tcp *net.TCPConn, s setup) *wire.Conn {
	t.Helper()
	e := wire.NewEngine()
	c := e.New(socket, tcp, &s.Options, &s, s.head)
	t.Cleanup(func() {
		c.Abort()
		e.Close()
	})
	return c
}

// event makes an event of a topic, about size bytes long on the wire.
func event(topic string, seq uint64, size int) *protocol.Event {
	p := protocol.Publication{Topic: topic, Type: "t", Data: fmt.Appendf(nil, `"%s"`, strings.Repeat("x", size))}
	c := protocol.Cursor{Epoch: "e", Seq: seq}
	return &protocol.Event{
		Cursor: c, Topic: topic, Type: "t", At: time.Now().UnixMilli(),
		JSON: p.AppendBody(fmt.Appendf(nil, `{"id":%q`, c), time.Now()),
	}
}

func keyed(e *protocol.Event, final bool) *protocol.Event {
	e.Key, e.Final = "k", final
	return e
}

// send queues a live event and flushes.
func (l *link) send(e *protocol.Event) {
	l.conn.Event(e, true)
	l.conn.Flush()
}

// block is one block of the stream; of a comment all is empty.
type block struct{ id, name, data string }

// next reads one block whole; the error is that of the socket.
func next(in *bufio.Reader) (b block, err error) {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return block{data: line}, err
		}
		line = strings.TrimSuffix(line, "\n")
		switch field, value, _ := strings.Cut(line, ": "); field {
		case "id":
			b.id = value
		case "event":
			b.name = value
		case "data":
			b.data = value
		case "":
			return b, nil
		}
	}
}

func (l *link) next() block {
	l.t.Helper()
	require.NoError(l.t, l.far.SetReadDeadline(time.Now().Add(10*time.Second)))
	b, err := next(l.in)
	require.NoError(l.t, err)
	return b
}

// end expects that the socket ends here, without a torn block.
func (l *link) end() {
	l.t.Helper()
	require.NoError(l.t, l.far.SetReadDeadline(time.Now().Add(10*time.Second)))
	rest, err := l.in.ReadString('\n')
	require.Equal(l.t, io.EOF, err)
	require.Empty(l.t, rest)
}

// clog fills the socket: after it the Conn is behind, by one event at least that
// waits. It gives the seq of the last event.
func (l *link) clog(seq uint64) uint64 {
	l.t.Helper()
	for range 10_000 {
		seq++
		l.send(event("clog", seq, 1000))
		if l.conn.Waiting() > 0 {
			return seq
		}
	}
	l.t.Fatal("the socket takes everything")
	return 0
}

// room waits until nothing of a replay waits, at most ten seconds.
func room(c *wire.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return c.Room(ctx)
}

func seqOf(t testing.TB, b block) uint64 {
	t.Helper()
	c, err := protocol.ParseCursor(b.id)
	require.NoError(t, err)
	return c.Seq
}

func topicOf(t testing.TB, b block) string {
	t.Helper()
	var e struct{ Topic string }
	require.NoError(t, json.Unmarshal([]byte(b.data), &e), b.data)
	return e.Topic
}
