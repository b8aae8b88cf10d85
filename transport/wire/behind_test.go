package wire_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

// behind clogs the socket until the Conn knows it: after it, keyed events are
// conflated. It gives the seq of the last event.
func (l *link) behind() uint64 {
	l.t.Helper()
	seq := l.clog(0)
	before := l.conflated.Load()
	deadline := time.Now().Add(10 * time.Second)
	for l.conflated.Load() == before {
		require.True(l.t, time.Now().Before(deadline), "nothing is ever conflated")
		seq++
		e := event("probe", seq, 1)
		e.Key = "probe"
		l.send(e)
	}
	return seq
}

// Who is behind gets the newest of each key, every final one, and all that has
// no key; ids still rise.
func TestConflation(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		l.open(small, nil)
		first := l.behind() + 1
		for range 200 { // more than one write takes: what comes now waits for certain
			l.send(event("fill", first, 1000))
			first++
		}
		seq := first
		put := func(topic string, key string, final bool) uint64 {
			e := event(topic, seq, 10)
			e.Key, e.Final = key, final
			l.send(e)
			seq++
			return seq - 1
		}
		var want []uint64
		keep := func(n uint64) { want = append(want, n) }
		conflated := l.conflated.Load()
		put("job", "progress", false)
		put("job", "progress", false)
		keep(put("alerts", "", false))
		keep(put("job", "other", false))
		keep(put("job2", "progress", false)) // the same key of another topic
		put("job", "progress", false)
		keep(put("job", "progress", true)) // supersedes the three before it
		keep(put("job", "progress", true)) // a final one is never superseded
		put("job", "progress", false)      // nor does it come again after one
		keep(put("job", "progress", false))
		require.EqualValues(t, 4, l.conflated.Load()-conflated)
		var got []uint64
		for b := l.next(); ; b = l.next() {
			n := seqOf(t, b)
			if n >= first {
				got = append(got, n)
			}
			if n == seq-1 {
				break
			}
		}
		require.Equal(t, want, got)
	})
}

// A client that keeps up gets every event of a key, however quickly they come:
// conflation is by back-pressure. Nor does a burst make it a slow consumer.
func TestBurstIsNoBackPressure(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		const burst = 2000
		l.open(usual, func(o *setup) { o.MaxEvents, o.MaxBytes = 4, 1000 })
		go func() {
			for seq := uint64(1); seq <= burst; seq++ {
				l.send(keyed(event("job", seq, 20), false))
			}
		}()
		for seq := uint64(1); seq <= burst; seq++ {
			require.Equal(t, seq, seqOf(t, l.next()))
		}
		require.Zero(t, l.conflated.Load())
	})
}

// Over the budget of what must be kept the client is told that it is too slow.
func TestBudget(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		for name, limit := range map[string]func(*setup){
			"events": func(o *setup) { o.MaxEvents = 10 },
			"bytes":  func(o *setup) { o.MaxBytes = 20_000 },
		} {
			l.open(small, limit)
			seq := l.behind()
			for range 500 { // of one key: they take the place of one
				seq++
				l.send(keyed(event("job", seq, 1000), false))
			}
			require.Zero(t, l.conn.Code(), name)
			for began := time.Now(); l.conn.Code() == 0; {
				require.Less(t, time.Since(began), 10*time.Second)
				seq++
				l.send(event("a", seq, 1000))
			}
			require.Equal(t, protocol.SlowConsumer, l.conn.Code(), name)
			last := ""
			b := l.next()
			for ; b.name == ""; b = l.next() {
				last = b.id
			}
			require.Equal(t, block{"", "bye", "4413 " + last}, b, name)
			l.end()
			l.conn.Abort()
		}
	})
}

// A replay does not count against the queue, whatever its size.
func TestReplayIsNotCounted(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		l.open(small, func(o *setup) { o.MaxEvents, o.MaxBytes = 10, 20_000 })
		seq := l.behind()
		for range 100 {
			seq++
			l.conn.Retained(event("a", seq, 1000), true)
		}
		for range 3 {
			seq++
			l.send(event("a", seq, 1000))
		}
		require.Zero(t, l.conn.Code())
		for b := l.next(); seqOf(t, b) != seq; b = l.next() {
		}
	})
}

// One event that is larger than the whole budget can be sent all the same.
func TestLargeEvent(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		l.open(small, func(o *setup) { o.MaxBytes = 100_000 })
		seq := l.behind() + 1
		go func() {
			for range 10_000 { // what waits at first is counted too
				if l.conn.Waiting() == 0 {
					break
				}
				time.Sleep(time.Millisecond)
			}
			l.send(event("a", seq, 200_000))
		}()
		for b := l.next(); seqOf(t, b) != seq; b = l.next() {
		}
		require.Zero(t, l.conn.Code())
	})
}

// Who asks and asks and does not read the answers is a slow consumer too.
func TestAnswersAreBounded(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		const bound = 50_000
		l.open(small, func(o *setup) { o.MaxBytes = bound })
		l.clog(0)
		most := 0
		for n := 0; l.conn.Code() == 0; n++ {
			require.Less(t, n, 100_000)
			l.conn.Control([]byte(`{"op":"pong"}`), protocol.Cursor{})
			l.conn.Raw([]byte{0x8a, 0})
			l.conn.Flush()
			most = max(most, l.conn.Waiting())
		}
		require.Equal(t, protocol.SlowConsumer, l.conn.Code())
		require.Less(t, most, bound+128<<10)
	})
	onBothPaths(t, func(t *testing.T, l *link) { // but who reads them may ask for ever
		l.open(usual, func(o *setup) { o.MaxBytes = 1000 })
		for n := range 3000 {
			l.conn.Control(fmt.Appendf(nil, `{"op":"pong","ref":"%d"}`, n), protocol.Cursor{})
			l.conn.Flush()
			require.Contains(t, l.next().data, fmt.Sprint(n))
		}
		require.Zero(t, l.conn.Code())
	})
}
