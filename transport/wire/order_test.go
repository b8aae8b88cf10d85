package wire_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/quiet"
	"github.com/pushhub/pushhub/transport/wire"
)

// short is a socket whose writes end early, where cuts says; after that it takes
// all. What it took is read once the Conn is done.
type short struct {
	cuts []int // bytes that the next writes take
	got  bytes.Buffer
}

func (s *short) Write(p []byte) (int, error) {
	if len(s.cuts) > 0 && s.cuts[0] < len(p) {
		p = p[:s.cuts[0]]
	}
	s.cuts = s.cuts[min(1, len(s.cuts)):]
	return s.got.Write(p)
}

func (s *short) Read([]byte) (int, error)         { return 0, io.EOF }
func (s *short) SetWriteDeadline(time.Time) error { return nil }
func (s *short) Close() error                     { return nil }

// queue puts one of everything into a Conn and gives what must come out.
func queue(c *wire.Conn) []byte {
	e := event("a", 1, 40)
	c.Raw([]byte("raw\n\n"))
	c.Event(e, true)
	c.Control([]byte("{}"), protocol.Cursor{Epoch: "e", Seq: 7})
	c.Retained(e, false)
	c.Heartbeat(protocol.Cursor{})
	b := append([]byte("raw\n\n"), e.Frame(protocol.SSE)...)
	b = protocol.AppendSSE(b, "e-7", protocol.ControlName, []byte("{}"))
	b = append(b, e.Frame(protocol.SSENoID)...)
	return protocol.AppendComment(b)
}

// Wherever writes end early, once or twice, what comes out is whole and in order.
func TestPartialWritesAtEveryByte(t *testing.T) {
	var seen counts
	length := len(queue(newConn(t, &short{}, nil, options(&seen))))
	for first := range length {
		second := rand.IntN(length)
		socket := &short{cuts: []int{first, second}}
		c := newConn(t, socket, nil, options(&seen))
		queue(c)
		c.Close(protocol.Drain) // drops all of it: nothing was flushed
		<-c.Done()
		require.Equal(t, "event: bye\ndata: 1012 \n\n", socket.got.String())

		socket = &short{cuts: []int{first, second}}
		c = newConn(t, socket, nil, options(&seen))
		want := append(queue(c), ":\n\n"...)
		c.Finish()
		<-c.Done()
		require.Equal(t, string(want), socket.got.String(), "cut at %d and then at %d", first, second)
		require.Equal(t, wire.Stats{Events: 2, Bytes: int64(len(want))}, c.Stats())
	}
	require.EqualValues(t, length, seen.delivered.Load(), "live events only")
}

// The same where the engine writes: wherever a socket took a part, or nothing, and
// whenever the poller says that it takes more.
func TestEngineWritesAtEveryByte(t *testing.T) {
	e := wire.NewEngine()
	defer e.Close()
	var mu sync.Mutex
	var cuts []int // of the next writes
	var conn *wire.Conn
	e.Cut(func(frames [][]byte) (taken [][]byte) {
		mu.Lock()
		defer mu.Unlock()
		if len(cuts) == 0 {
			return frames
		}
		room := cuts[0]
		cuts = cuts[1:]
		for _, f := range frames {
			if n := min(room, len(f)); n > 0 {
				taken = append(taken, f[:n])
				room -= n
			}
		}
		go conn.Writable() // before what was taken is accounted for, or after it
		return taken
	})
	l, err := wire.Listen(t.Context(), "tcp4", "127.0.0.1:0", time.Minute)
	require.NoError(t, err)
	defer l.Close()
	var seen counts
	for first, length := 0, 1; first < length; first++ {
		far, err := net.Dial("tcp4", l.Addr().String())
		require.NoError(t, err)
		near, err := l.Accept()
		require.NoError(t, err)
		o := options(&seen)
		c := e.New(near, quiet.TCP(near), &o.Options, &o, nil)
		mu.Lock()
		conn, cuts = c, []int{first, rand.IntN(length)}
		mu.Unlock()
		c.Run(nil)
		want := append(queue(c), ":\n\n"...)
		length = len(want)
		c.Finish()
		got, err := io.ReadAll(far)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), "cut at %d", first)
		require.NoError(t, far.Close())
		<-c.Done()
		require.Equal(t, wire.Stats{Events: 2, Bytes: int64(len(want))}, c.Stats())
	}
}

// With a socket that takes little at a time frames are cut by the kernel.
func TestSmallSocket(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		l.open(small, nil)
		const events = 300
		var all sync.WaitGroup
		all.Go(func() {
			for seq := uint64(1); seq <= events; seq++ {
				l.send(event("a", seq, rand.IntN(5000)))
			}
		})
		for seq := 1; seq <= events; seq++ {
			require.Equal(t, fmt.Sprintf("e-%d", seq), l.next().id)
		}
		all.Wait()
		require.Eventually(t, func() bool { return l.delivered.Load() == events }, 10*time.Second, time.Millisecond)
		require.Zero(t, l.conn.Waiting())
	})
}

// Many producers at once, each with a topic of its own: nothing is torn, lost or
// out of order, whoever writes.
func TestConcurrentProducers(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		l.open(small, nil)
		const producers, each = 8, 200
		var all sync.WaitGroup
		for p := range producers {
			all.Go(func() {
				for seq := uint64(1); seq <= each; seq++ {
					e := event(fmt.Sprint(p), seq, rand.IntN(500))
					switch seq % 4 {
					case 0:
						l.conn.Retained(e, true)
					case 1:
						l.conn.Heartbeat(protocol.Cursor{})
						fallthrough
					default:
						l.conn.Event(e, true)
					}
					if seq%3 > 0 {
						l.conn.Flush()
					}
				}
				l.conn.Flush()
			})
		}
		last := map[string]uint64{}
		for got := 0; got < producers*each; {
			b := l.next()
			if b == (block{}) {
				continue // a comment
			}
			seq, topic := seqOf(t, b), topicOf(t, b)
			require.Equal(t, last[topic]+1, seq, topic)
			last[topic] = seq
			got++
		}
		all.Wait()
		require.Eventually(t, func() bool { return l.conn.Stats().Events == producers*each }, 10*time.Second, time.Millisecond)
		require.EqualValues(t, producers*each*3/4, l.delivered.Load())
	})
}

// Frames are shared by all clients: writing them changes nothing in them, nor in
// the memory behind them.
func TestSharedFramesStay(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		l.open(small, nil)
		var before, frames [][]byte
		for seq := uint64(1); seq <= 100; seq++ {
			e := event("a", seq, 100)
			frame := e.Frame(protocol.SSE)
			frames = append(frames, frame[:cap(frame)])
			before = append(before, bytes.Clone(frame[:cap(frame)]))
			l.conn.Event(e, true)
		}
		l.conn.Flush()
		for seq := uint64(1); seq <= 100; seq++ {
			require.Equal(t, seq, seqOf(t, l.next()))
		}
		require.Equal(t, before, frames)
	})
}

// What came while a write was under way goes out with the next one.
func TestManyFramesInFewWrites(t *testing.T) {
	near, far := net.Pipe()
	defer func() { _ = far.Close() }()
	var seen counts
	writes := &counting{Socket: near}
	c := newConn(t, writes, nil, options(&seen))
	for seq := uint64(1); seq <= 60; seq++ {
		c.Event(event("a", seq, 10), true)
	}
	c.Flush()
	in := bufio.NewReader(far)
	for seq := 1; seq <= 60; seq++ {
		b, err := next(in)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("e-%d", seq), b.id)
	}
	c.Abort()
	require.LessOrEqual(t, writes.n, 3, "frames that wait go out together")
}

// counting counts the writes to a socket.
type counting struct {
	wire.Socket
	n int
}

func (c *counting) Write(p []byte) (int, error) { c.n++; return c.Socket.Write(p) }
