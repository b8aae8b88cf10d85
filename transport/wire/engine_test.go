package wire_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/quiet"
	"github.com/pushhub/pushhub/transport/wire"
)

// more opens another Conn on an engine, directly, and gives the client's end.
func more(t testing.TB, e *wire.Engine, change func(*setup)) (*wire.Conn, net.Conn) {
	t.Helper()
	o := options(new(counts))
	o.Encoding, o.MaxMessage = protocol.WebSocket, 8000
	o.bye = func(code protocol.CloseCode, _ protocol.Cursor) []byte { return protocol.AppendCloseFrame(nil, code) }
	if change != nil {
		change(&o)
	}
	c, far := still(t, e, &o)
	c.Run(nil)
	return c, far
}

// still makes a Conn that does not run.
func still(t testing.TB, e *wire.Engine, o *setup) (*wire.Conn, net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	far, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	near, err := listener.Accept()
	require.NoError(t, err)
	return e.New(near, near.(*net.TCPConn), &o.Options, o, nil), far
}

// A client that says things without end does not keep the poller.
func TestFlood(t *testing.T) {
	e := wire.NewEngine()
	o := options(new(counts))
	c, far := still(t, e, &o)
	blocks := make([]byte, 0, 64<<10)
	for n := range 1000 {
		blocks = append(blocks, fmt.Sprintf("%-64d", n)...)
	}
	_, err := far.Write(blocks)
	require.NoError(t, err)
	buf := make([]byte, 64)
	c.Readable(buf) // in place of the poller, which does not know this one
	last, err := strconv.Atoi(strings.TrimSpace(string(buf)))
	require.NoError(t, err)
	require.Less(t, last, 10, "blocks are read with the poller's buffer; the others by a goroutine")
	require.NoError(t, far.Close())
	e.Close()
	c.Abort()
}

// What comes while a message is handled is read after it, however that falls.
func TestReadsAfterMessages(t *testing.T) {
	e := wire.NewEngine()
	var got atomic.Int64
	arrived := make(chan struct{}, 1)
	sent, begun := make(chan struct{}), make(chan struct{})
	c, far := more(t, e, func(o *setup) {
		o.message = func(p []byte) bool {
			if len(p) < 100 {
				begun <- struct{}{}
				<-sent // what follows waits in the socket
			}
			if got.Add(1)%9 == 0 {
				arrived <- struct{}{}
			}
			return true
		}
	})
	defer e.Close()
	defer far.Close()
	var others sync.WaitGroup
	defer others.Wait()
	stop := make(chan struct{})
	defer close(stop)
	for range 2 { // who want the Conn's lock, as the fan-out does
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					c.Stats()
				}
			}
		})
	}
	asLongAsARead := bytes.Repeat(text(string(bytes.Repeat([]byte("x"), 4096-8))), 8)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for range 3000 {
		_, err := far.Write(text("first"))
		require.NoError(t, err)
		<-begun
		_, err = far.Write(asLongAsARead)
		require.NoError(t, err)
		sent <- struct{}{}
		select {
		case <-arrived:
		case <-time.After(20 * time.Second):
			require.Fail(t, "no more comes", "%d messages", got.Load())
		}
	}
}

// A client that is closed while its socket is full is waited for some seconds, not
// for the stall time, whatever else is due meanwhile.
func TestLingerOfAFullSocket(t *testing.T) {
	t.Parallel()
	onBothPaths(t, func(t *testing.T, l *link) {
		l.open(usual, func(o *setup) {
			o.Stall = time.Hour
			o.due = func() time.Duration { return 50 * time.Minute }
		})
		for l.conn.Waiting() < 1<<20 {
			l.send(event("a", 1, 60_000))
			time.Sleep(time.Millisecond)
		}
		l.conn.Wake(time.Second)
		l.conn.Close(protocol.Drain)
		select {
		case <-l.conn.Done():
		case <-time.After(time.Minute):
			require.Fail(t, "it is waited for")
		}
	})
}

// What a client says counts from when it was said, also while the wheel is late.
func TestSilentWhileTheWheelIsLate(t *testing.T) {
	t.Parallel()
	e := wire.NewEngine()
	defer e.Close()
	late, turn := make(chan struct{}), make(chan struct{})
	defer close(turn)
	slow, farther := more(t, e, func(o *setup) {
		o.due = func() time.Duration { late <- struct{}{}; <-turn; return 0 }
	})
	defer farther.Close()
	heard := make(chan struct{}, 1)
	c, far := more(t, e, func(o *setup) { o.message = func([]byte) bool { heard <- struct{}{}; return true } })
	defer far.Close()
	slow.Wake(0)
	<-late
	before := time.Now()
	time.Sleep(500 * time.Millisecond) // time itself is what this is about; Silent is exact to 100 ms
	_, err := far.Write(text("here I am"))
	require.NoError(t, err)
	<-heard
	require.Less(t, c.Silent(), time.Since(before)-250*time.Millisecond)
}

// An engine that ends takes its connections along; those that come later end too.
func TestEngineEnds(t *testing.T) {
	e := wire.NewEngine()
	direct, far := more(t, e, nil)
	defer far.Close()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	o := options(new(counts))
	piped := e.New(ours, nil, &o.Options, &o, nil)
	var run sync.WaitGroup
	begun := make(chan struct{})
	run.Go(func() { close(begun); piped.Run(nil) })
	<-begun
	e.Close()
	<-direct.Done()
	run.Wait() // whether it had entered or not
	<-piped.Done()
	again, farther := more(t, e, nil)
	defer farther.Close()
	<-again.Done()
	_, err := far.Read(make([]byte, 1))
	require.Error(t, err)
}

// An idle connection has no goroutine, however many there are.
func TestIdleHasNoGoroutine(t *testing.T) {
	e := wire.NewEngine()
	defer e.Close()
	l, err := wire.Listen(t.Context(), "tcp4", "127.0.0.1:0", time.Minute)
	require.NoError(t, err)
	defer l.Close()
	var seen counts
	open := func(n int) {
		for range n {
			far, err := net.Dial("tcp4", l.Addr().String())
			require.NoError(t, err)
			t.Cleanup(func() { _ = far.Close() })
			near, err := l.Accept()
			require.NoError(t, err)
			o := options(&seen)
			o.Encoding, o.MaxMessage = protocol.WebSocket, 100
			c := e.New(near, quiet.TCP(near), &o.Options, &o, nil)
			c.Run(nil)
			c.Raw([]byte("hello"))
			c.Flush()
			_, err = io.ReadFull(far, make([]byte, 5))
			require.NoError(t, err)
		}
	}
	open(1) // the engine has begun
	before := runtime.NumGoroutine()
	open(200)
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		require.True(t, time.Now().Before(end), "%d goroutines, before %d", runtime.NumGoroutine(), before)
	}
}
