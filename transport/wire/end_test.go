package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/wire"
)

// Wherever the socket stopped, bye follows a whole block, and tells exactly the
// last event that was written before it.
func TestByeTellsTheLastEventWritten(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		for range 30 {
			l.open(small, nil)
			seq := l.clog(uint64(rand.IntN(3)))
			for range rand.IntN(5) {
				seq++
				l.send(event("a", seq, rand.IntN(9000)))
			}
			l.conn.Close(protocol.Drain)
			l.conn.Event(event("a", seq+1, 1), true) // too late
			l.conn.Raw([]byte("late\n\n"))
			l.conn.Close(protocol.SlowConsumer) // the first code counts
			reached, last := "", uint64(0)
			b := l.next()
			for ; b.name != "bye"; b = l.next() {
				require.True(t, last == 0 || seqOf(t, b) == last+1, "%d after %d", seqOf(t, b), last)
				reached, last = b.id, seqOf(t, b)
			}
			require.Equal(t, "1012 "+reached, b.data)
			l.end()
			require.Equal(t, protocol.Drain, l.conn.Code())
			l.conn.Abort()
		}
	})
}

// The same with a socket that stops after every single byte.
func TestByeAfterEveryByte(t *testing.T) {
	events := []*protocol.Event{event("a", 1, 5), event("a", 2, 9), event("a", 3, 1)}
	length := 0
	for _, e := range events {
		length += len(e.Frame(protocol.SSE))
	}
	for after := range length + 1 {
		socket := &gate{open: after, hold: make(chan struct{}), held: make(chan struct{})}
		var seen counts
		c := newConn(t, socket, nil, options(&seen))
		written := int64(0)
		for _, e := range events {
			c.Event(e, true)
			c.Flush()
			written += int64(len(e.Frame(protocol.SSE)))
			socket.settle(c, written)
		}
		c.Close(protocol.GoingAway)
		close(socket.hold)
		<-c.Done()
		in := bufio.NewReader(&socket.got)
		reached := ""
		b, err := next(in)
		for ; err == nil && b.name == ""; b, err = next(in) {
			reached = b.id
		}
		require.NoError(t, err)
		require.Equal(t, "1001 "+reached, b.data, "stopped after %d bytes", after)
		require.EqualValues(t, c.Stats().Events, seen.delivered.Load())
		_, err = next(in)
		require.Equal(t, io.EOF, err)
	}
}

// A position is what a client can resume from: an event with its id, a control
// message with one; nothing else, and nothing that was only queued.
func TestPositions(t *testing.T) {
	at := func(seq uint64) protocol.Cursor { return protocol.Cursor{Epoch: "e", Seq: seq} }
	for name, c := range map[string]struct {
		queue func(c *wire.Conn)
		want  string
	}{
		"nothing":                 {func(c *wire.Conn) {}, ""},
		"welcome without":         {func(c *wire.Conn) { c.Control([]byte("{}"), protocol.Cursor{}) }, ""},
		"welcome of a resume":     {func(c *wire.Conn) { c.Control([]byte("{}"), at(5)) }, "e-5"},
		"an event":                {func(c *wire.Conn) { c.Event(event("a", 6, 1), true) }, "e-6"},
		"an event without its id": {func(c *wire.Conn) { c.Control([]byte("{}"), at(5)); c.Event(event("a", 6, 1), false) }, "e-5"},
		"shown for last":          {func(c *wire.Conn) { c.Retained(event("a", 6, 1), false) }, ""},
		"a replay":                {func(c *wire.Conn) { c.Retained(event("a", 6, 1), true) }, "e-6"},
		"a heartbeat":             {func(c *wire.Conn) { c.Event(event("a", 6, 1), true); c.Heartbeat(at(9)) }, "e-9"},
		"a comment":               {func(c *wire.Conn) { c.Event(event("a", 6, 1), true); c.Heartbeat(protocol.Cursor{}) }, "e-6"},
	} {
		t.Run(name, func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, l *link) {
				l.open(usual, nil)
				c.queue(l.conn)
				l.conn.Raw([]byte("event: mark\n\n"))
				l.conn.Flush()
				for l.next().name != "mark" {
				}
				l.conn.Retained(event("a", 100, 1), true) // queued, never flushed
				l.conn.Close(protocol.Drain)
				require.Equal(t, block{"", "bye", "1012 " + c.want}, l.next())
				l.end()
			})
		})
	}
}

// Abort frees everything at once, also in the middle of a write that waits.
func TestAbortWhileBlocked(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		l.open(small, nil)
		l.clog(0)
		l.conn.Retained(event("a", 1<<20, 1), true)
		var all sync.WaitGroup
		all.Go(func() { require.NoError(t, room(l.conn)) })
		l.conn.Abort()
		<-l.conn.Done()
		all.Wait()
		l.conn.Abort()
		l.conn.Close(protocol.Drain)
		l.send(event("a", 1<<20+1, 1))
		require.Zero(t, l.conn.Waiting())
		require.NoError(t, l.far.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, err := io.Copy(io.Discard, l.in)
		require.NotErrorIs(t, err, context.DeadlineExceeded, "the socket is closed: %v", err)
	})
}

// Finish lets the client have what waits, and then closes.
func TestFinish(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		l.open(small, nil)
		last := l.clog(0)
		l.conn.Raw([]byte("event: close\n\n"))
		l.conn.Finish()
		for seq := uint64(1); seq <= last; seq++ {
			require.Equal(t, fmt.Sprintf("e-%d", seq), l.next().id)
		}
		require.Equal(t, "close", l.next().name)
		require.Equal(t, block{}, l.next())
		l.end()
		<-l.conn.Done()
		require.Zero(t, l.conn.Code(), "it was the client's doing")
		l.conn.Finish()

		l.open(usual, nil) // where nothing waits it is the end
		l.conn.Finish()
		<-l.conn.Done()
		require.Equal(t, block{}, l.next())
		l.end()
	})
}

// A client that does not close after bye, or does not even take it, is cut off
// after some seconds.
func TestLinger(t *testing.T) {
	for name, end := range map[string]func(*wire.Conn){
		"bye not taken":            func(c *wire.Conn) { c.Close(protocol.Drain) },
		"finish while it is stuck": (*wire.Conn).Finish,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				var seen counts
				c := newConn(t, near, nil, options(&seen))
				c.Event(event("a", 1, 1), true)
				c.Flush()
				began := time.Now()
				end(c)
				<-c.Done()
				require.Equal(t, 5*time.Second, time.Since(began))
				_ = far.Close()
			})
		})
	}
	for code, wait := range map[protocol.CloseCode]time.Duration{
		protocol.Drain:  5 * time.Second,
		protocol.NoPong: 0, // it would not answer this either
	} {
		t.Run(fmt.Sprint("the client does not close after ", code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				var seen counts
				c := newConn(t, halfClosing{near}, nil, options(&seen))
				began := time.Now()
				c.Close(code)
				b, err := next(bufio.NewReader(far))
				require.NoError(t, err)
				require.Equal(t, fmt.Sprint(int(code), " "), b.data)
				<-c.Done()
				require.Equal(t, wait, time.Since(began))
				_ = far.Close()
			})
		})
	}
}

// halfClosing is a socket whose sending side can be closed alone.
type halfClosing struct{ wire.Socket }

func (halfClosing) CloseWrite() error { return nil }

// gate is a socket that takes so many bytes, and the rest when hold is closed.
type gate struct {
	got  bytes.Buffer
	open int
	hold chan struct{}
	held chan struct{} // closed when a write waits
	once sync.Once
}

func (g *gate) Write(p []byte) (int, error) {
	n, _ := g.got.Write(p[:min(len(p), g.open)])
	if g.open -= n; n == len(p) {
		return n, nil
	}
	g.once.Do(func() { close(g.held) })
	<-g.hold
	g.open = 1 << 20
	g.got.Write(p[n:])
	return len(p), nil
}

func (g *gate) Read([]byte) (int, error)         { return 0, io.EOF }
func (g *gate) SetWriteDeadline(time.Time) error { return nil }
func (g *gate) Close() error                     { return nil }

// settle waits until so many bytes are written, or something waits at the gate.
func (g *gate) settle(c *wire.Conn, written int64) {
	for c.Stats().Bytes < written {
		select {
		case <-g.held:
			return
		default:
			runtime.Gosched()
		}
	}
}
