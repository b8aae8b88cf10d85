package hub_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
)

// noSink takes everything and says when it has subscribed.
type noSink struct {
	subscribed chan struct{} // holds one answer; never closed
	events     atomic.Int64
}

func newNoSink() *noSink { return &noSink{subscribed: make(chan struct{}, 1)} }

func (s *noSink) Event(*protocol.Event, bool) bool { s.events.Add(1); return true }
func (s *noSink) Retained(*protocol.Event, bool)   { s.events.Add(1) }
func (s *noSink) Heartbeat(protocol.Cursor)        {}
func (s *noSink) Flush()                           {}
func (s *noSink) Room(ctx context.Context) error   { return ctx.Err() }
func (s *noSink) Control([]byte, protocol.Cursor)  { s.subscribed <- struct{}{} }

// crowd opens sessions that are live on a pattern.
func crowd(tb testing.TB, h *hub.Hub, n int, pattern func(i int) string) []*noSink {
	sinks := make([]*noSink, n)
	for i := range sinks {
		sinks[i] = newNoSink()
		session := h.Open("acme", sinks[i])
		tb.Cleanup(session.Close)
		require.NoError(tb, session.Subscribe("", []hub.Want{{Pattern: pattern(i)}}, 1))
	}
	for _, s := range sinks {
		<-s.subscribed
	}
	return sinks
}

func quietHub(tb testing.TB) (*hub.Hub, *memlog.Log) {
	log := memlog.New(memlog.Options{})
	h := hub.New(log, hub.Options{})
	tb.Cleanup(func() { h.Close(); log.Close() })
	return h, log
}

var one = []protocol.Publication{{Topic: "jobs.1", Type: "t", Data: []byte(`{"progress":42}`)}}

// One event from Publish to the queues of 10,000 clients.
func BenchmarkFanOut(b *testing.B) {
	const sessions = 10_000
	for name, pattern := range map[string]string{"topic": "jobs.1", "pattern": "jobs.*"} {
		b.Run(name, func(b *testing.B) {
			h, _ := quietHub(b)
			sinks := crowd(b, h, sessions, func(int) string { return pattern })
			b.ReportAllocs()
			for b.Loop() {
				_, _ = h.Publish(b.Context(), "acme", one)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/sessions, "ns/delivery")
			require.GreaterOrEqual(b, sinks[0].events.Load(), int64(b.N))
		})
	}
}

// One event that one of 10,000 clients wants, each on a pattern of its own.
func BenchmarkFanOutToFew(b *testing.B) {
	h, _ := quietHub(b)
	crowd(b, h, 10_000, func(i int) string { return fmt.Sprintf("jobs.%d.>", i) })
	event := []protocol.Publication{{Topic: "jobs.77.log", Type: "t", Data: []byte("1")}}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = h.Publish(b.Context(), "acme", event)
	}
}

// A client comes back to 20 topics, of 1,000 events behind: from the ring, which
// needs no log; from what others read; and each time from the log.
func BenchmarkResume(b *testing.B) {
	all := many(1000, 20)
	run := func(b *testing.B, h *hub.Hub, since protocol.Cursor, pattern string) {
		var wants []hub.Want
		for i := range 20 {
			w := hub.Want{Pattern: fmt.Sprintf("t.%d", i), Since: since}
			if pattern != "" {
				w.Pattern = pattern
			}
			wants = append(wants, w)
		}
		if pattern != "" {
			wants = wants[:1]
		}
		b.ReportAllocs()
		for b.Loop() {
			s := newNoSink()
			session := h.Open("acme", s)
			require.NoError(b, session.Subscribe("", wants, 100))
			<-s.subscribed
			session.Close()
			if s.events.Load() != int64(len(all)-1) {
				b.Fatalf("%d events", s.events.Load())
			}
		}
		b.ReportMetric(float64(h.Stats().Reads.Load())/float64(b.N), "reads/op")
	}
	fill := func(b *testing.B, h *hub.Hub) (first protocol.Cursor) {
		for i, topic := range all {
			ids, err := h.Publish(b.Context(), "acme", []protocol.Publication{{Topic: topic, Type: "t", Data: []byte("1")}})
			require.NoError(b, err)
			if i == 0 {
				first = ids[0]
			}
		}
		return first
	}
	b.Run("ring", func(b *testing.B) {
		h, _ := quietHub(b)
		crowd(b, h, 1, func(int) string { return "none" })
		run(b, h, fill(b, h), "")
	})
	b.Run("tails", func(b *testing.B) {
		h, _ := quietHub(b)
		since := fill(b, h)
		crowd(b, h, 1, func(int) string { return "none" })
		run(b, h, since, "")
	})
	b.Run("log", func(b *testing.B) {
		h, _ := quietHub(b)
		since := fill(b, h)
		crowd(b, h, 1, func(int) string { return "none" })
		run(b, h, since, "t.*") // patterns are not kept in memory
	})
}

// A delivery makes no garbage.
func TestFanOutDoesNotAllocate(t *testing.T) {
	h, _ := quietHub(t)
	const sessions = 1000
	crowd(t, h, sessions, func(i int) string { return [2]string{"jobs.1", "jobs.*"}[i%2] })
	n := testing.AllocsPerRun(100, func() { _, _ = h.Publish(t.Context(), "acme", one) })
	require.Less(t, n, float64(20), "for all of the %d deliveries", sessions)
}
