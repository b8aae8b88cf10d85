package hub_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink is a client that reads at once and keeps what it got, one line each.
type sink struct {
	mu    sync.Mutex
	lines []string
	ids   []protocol.Cursor
	fresh chan struct{}
}

func newSink() *sink { return &sink{fresh: make(chan struct{}, 1)} }

func (s *sink) add(line string, id protocol.Cursor) {
	s.mu.Lock()
	s.lines, s.ids = append(s.lines, line), append(s.ids, id)
	s.mu.Unlock()
	select {
	case s.fresh <- struct{}{}:
	default:
	}
}

func (s *sink) event(kind string, e *protocol.Event, id bool) {
	c := protocol.Cursor{}
	if id {
		c = e.Cursor
	}
	s.add(fmt.Sprintf("%s %s %d", kind, e.Topic, e.Cursor.Seq), c)
}

func (s *sink) Event(e *protocol.Event, id bool) bool     { s.event("live", e, id); return true }
func (s *sink) Retained(e *protocol.Event, id bool)       { s.event("kept", e, id) }
func (s *sink) Control(message []byte, c protocol.Cursor) { s.add(string(message), c) }
func (s *sink) Heartbeat(c protocol.Cursor)               { s.add("heartbeat", c) }
func (s *sink) Flush()                                    {}
func (s *sink) Room(ctx context.Context) error            { return ctx.Err() }

// until waits for n lines.
func (s *sink) until(t *testing.T, n int) []string {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		s.mu.Lock()
		lines := s.lines
		s.mu.Unlock()
		if len(lines) >= n {
			return lines
		}
		select {
		case <-s.fresh:
		case <-late:
			require.FailNow(t, "too few lines", "want %d, got %d, at the end %q", n, len(lines), lines[max(0, len(lines)-30):])
		}
	}
}

func open(t *testing.T, retention string) (*hub.Hub, *memlog.Log) {
	t.Helper()
	r, err := hub.ParseRetention(retention)
	require.NoError(t, err)
	log := memlog.New(memlog.Options{Retention: r})
	h := hub.New(log, hub.Options{Linger: time.Millisecond})
	t.Cleanup(func() { h.Close(); log.Close() })
	return h, log
}

func publish(t *testing.T, h *hub.Hub, topics ...string) protocol.Cursor {
	t.Helper()
	var last protocol.Cursor
	for _, topic := range topics {
		ids, err := h.Publish(t.Context(), "acme", []protocol.Publication{{Topic: topic, Type: "t", Data: []byte("1")}})
		require.NoError(t, err)
		last = ids[0]
	}
	return last
}

func TestResume(t *testing.T) {
	h, _ := open(t, hub.DefaultRetention)
	first := publish(t, h, "alerts")
	publish(t, h, "jobs.1", "nodes.a", "alerts", "jobs.2")

	s := newSink()
	session := h.Open("acme", s)
	defer session.Close()
	require.NoError(t, session.Subscribe("7", []hub.Want{{Pattern: "alerts", Since: first}, {Pattern: "jobs.*", Since: first}}, 100))
	lines := s.until(t, 4)
	require.Equal(t, []string{"kept jobs.1 2", "kept alerts 4", "kept jobs.2 5",
		`{"op":"subscribed","ref":"7","topics":[{"topic":"alerts","resumed":true,"replayed":1},{"topic":"jobs.*","resumed":true,"replayed":2}],"cursor":"` + first.Epoch + `-5"}`}, lines)
	publish(t, h, "nodes.a", "jobs.9")
	require.Equal(t, "live jobs.9 7", s.until(t, 5)[4])
	session.Heartbeat()
	require.Equal(t, protocol.Cursor{Epoch: first.Epoch, Seq: 7}, s.ids[5])
}

func TestLast(t *testing.T) {
	h, _ := open(t, hub.DefaultRetention)
	publish(t, h, "jobs.1", "jobs.2", "jobs.1", "jobs.1", "alerts")
	s := newSink()
	session := h.Open("acme", s)
	defer session.Close()
	require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: "jobs.*", Last: 1}}, 100))
	require.Equal(t, []string{"kept jobs.2 2", "kept jobs.1 4"}, s.until(t, 3)[:2])
	require.True(t, s.ids[0].IsZero())
	require.NoError(t, session.Subscribe("2", []hub.Want{{Pattern: "alerts", Last: 3}}, 100))
	require.Equal(t, "kept alerts 5", s.until(t, 5)[3])
}

func TestGaps(t *testing.T) {
	h, _ := open(t, ">:2/1h")
	first := publish(t, h, "a")
	publish(t, h, "a", "a", "a", "b")
	for name, want := range map[string]struct {
		since protocol.Cursor
		lines []string
	}{
		"trimmed": {first, []string{`{"op":"gap","topic":"a","since":"` + first.String() + `","reason":"expired"}`, "kept a 3", "kept a 4", "kept b 5"}},
		"foreign": {protocol.Cursor{Epoch: "zz", Seq: 3}, []string{`{"op":"gap","topic":"a","since":"zz-3","reason":"epoch"}`, `{"op":"gap","topic":"b","since":"zz-3","reason":"epoch"}`, "kept a 3", "kept a 4", "kept b 5"}},
		"ahead":   {protocol.Cursor{Epoch: first.Epoch, Seq: 9}, []string{`{"op":"gap","topic":"a","since":"` + first.Epoch + `-9","reason":"epoch"}`, `{"op":"gap","topic":"b","since":"` + first.Epoch + `-9","reason":"epoch"}`, "kept a 3", "kept a 4", "kept b 5"}},
		"exact":   {protocol.Cursor{Epoch: first.Epoch, Seq: 2}, []string{"kept a 3", "kept a 4", "kept b 5"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSink()
			session := h.Open("acme", s)
			defer session.Close()
			require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: "a", Since: want.since}, {Pattern: "b", Since: want.since}}, 100))
			lines := s.until(t, len(want.lines)+1)
			require.Equal(t, want.lines, lines[:len(lines)-1])
		})
	}
}
