package hub_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
)

// slowSink has no room until it is told.
type slowSink struct {
	*sink
	room chan struct{}
}

func (s slowSink) Room(ctx context.Context) error {
	select {
	case <-s.room:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func wants(since protocol.Cursor, patterns ...string) []hub.Want {
	var all []hub.Want
	for _, p := range patterns {
		all = append(all, hub.Want{Pattern: p, Since: since})
	}
	return all
}

// What a client asks while a replay of its is under way is done in its turn.
func TestSessionInTurn(t *testing.T) {
	h, _ := open(t, hub.DefaultRetention)
	first := publish(t, h, "a")
	last := publish(t, h, "a", "b")
	s := slowSink{newSink(), make(chan struct{})}
	session := h.Open("acme", s)
	defer session.Close()
	require.NoError(t, session.Subscribe("1", wants(first, "a"), 2))
	s.until(t, 1)
	session.Unsubscribe("2", []string{"a", "never"})
	require.NoError(t, session.Subscribe("3", wants(first, "a", "b"), 2))
	require.ErrorIs(t, session.Subscribe("4", wants(first, "c"), 2), hub.ErrTooMany)
	close(s.room)
	lines := s.until(t, 6)
	require.Equal(t, []string{
		"kept a 2",
		`{"op":"subscribed","ref":"1","topics":[{"topic":"a","resumed":true,"replayed":1}],"cursor":"` + last.String() + `"}`,
		`{"op":"unsubscribed","ref":"2","topics":["a","never"]}`,
		"kept a 2", "kept b 3",
		`{"op":"subscribed","ref":"3","topics":[{"topic":"a","resumed":true,"replayed":1},{"topic":"b","resumed":true,"replayed":1}],"cursor":"` + last.String() + `"}`,
	}, lines)
	require.True(t, s.ids[1].IsZero(), "the second request was not done, so there was no position for all")
	require.Equal(t, last, s.ids[5])
	publish(t, h, "a")
	require.Equal(t, "live a 4", s.until(t, 7)[6])
	session.Unsubscribe("5", []string{"a", "b"})
	require.NoError(t, session.Subscribe("6", wants(first, "c", "d"), 2))
}

// A narrower token takes away what is subscribed, and what waits to be: no answer names it.
func TestRevoke(t *testing.T) {
	h, _ := open(t, hub.DefaultRetention)
	first := publish(t, h, "a")
	publish(t, h, "a", "b", "c")
	s := slowSink{newSink(), make(chan struct{})}
	session := h.Open("acme", s)
	defer session.Close()
	require.NoError(t, session.Subscribe("1", wants(first, "a"), 9))
	s.until(t, 1)
	require.NoError(t, session.Subscribe("2", wants(first, "b", "c"), 9))
	session.Revoke(func(p string) bool { return p == "c" })
	close(s.room)
	lines := s.until(t, 5)
	require.Equal(t, `{"op":"unsubscribed","topics":["a","b"]}`, lines[1])
	require.Contains(t, lines[2], `"ref":"1","topics":[],`)
	require.Equal(t, "kept c 4", lines[3])
	require.Contains(t, lines[4], `"ref":"2","topics":[{"topic":"c","resumed":true,"replayed":1}],`)
	publish(t, h, "a", "b", "c")
	require.Equal(t, "live c 7", s.until(t, 6)[5])
}

// What another subscription has already is left out; where that began later than
// the cursor, or went away meanwhile, there is a gap.
func TestOverlappingSubscriptions(t *testing.T) {
	h, _ := open(t, hub.DefaultRetention)
	first := publish(t, h, "jobs.1")
	second := publish(t, h, "jobs.1", "jobs.2")
	s := newSink()
	session := h.Open("acme", s)
	defer session.Close()
	require.NoError(t, session.Subscribe("1", wants(second, "jobs.1"), 9))
	s.until(t, 1)
	require.NoError(t, session.Subscribe("2", wants(first, "jobs.*"), 9))
	require.Equal(t, []string{"kept jobs.2 3", gapLine("jobs.*", first.String(), protocol.GapExpired)}, s.until(t, 4)[1:3])
	require.NoError(t, session.Subscribe("3", wants(second, ">"), 9))
	require.Contains(t, s.until(t, 5)[4], `{"op":"subscribed","ref":"3","topics":[{"topic":">","resumed":true,"replayed":0}]`)
	publish(t, h, "jobs.1")
	require.Equal(t, "live jobs.1 4", s.until(t, 6)[5])
	publish(t, h, "x")
	require.Equal(t, "live x 5", s.until(t, 7)[6], "the one before came once")
}

// A fresh subscription begins with the newest of each topic, without ids.
func TestLastOfTopics(t *testing.T) {
	h, log := open(t, ">:1000/1h")
	publish(t, h, "jobs.1", "jobs.2", "jobs.1", "jobs.3", "jobs.1", "jobs.2")
	log.Trim("acme", "jobs.3", 0)
	for name, want := range map[string]struct {
		wants []hub.Want
		lines []string
	}{
		"a pattern":           {[]hub.Want{{Pattern: "jobs.*", Last: 2}}, []string{"kept jobs.2 2", "kept jobs.1 3", "kept jobs.1 5", "kept jobs.2 6"}},
		"more than there is":  {[]hub.Want{{Pattern: "jobs.*", Last: 9}}, []string{"kept jobs.1 1", "kept jobs.2 2", "kept jobs.1 3", "kept jobs.1 5", "kept jobs.2 6"}},
		"one, if it is there": {[]hub.Want{{Pattern: "jobs.*", Last: 1}}, []string{"kept jobs.1 5", "kept jobs.2 6"}},
		"none":                {[]hub.Want{{Pattern: ">"}, {Pattern: "jobs.1"}}, nil},
		"the most of two":     {[]hub.Want{{Pattern: "jobs.*", Last: 1}, {Pattern: "*.*", Last: 2}}, []string{"kept jobs.2 2", "kept jobs.1 3", "kept jobs.1 5", "kept jobs.2 6"}},
		"exact topics":        {[]hub.Want{{Pattern: "jobs.1", Last: 2}, {Pattern: "jobs.3", Last: 2}, {Pattern: "no", Last: 2}}, []string{"kept jobs.1 3", "kept jobs.1 5"}},
	} {
		t.Run(name, func(t *testing.T) {
			lines, ids := resume(t, h, want.wants...)
			require.Equal(t, want.lines, append([]string(nil), lines...))
			for _, id := range ids[:len(lines)] {
				require.True(t, id.IsZero())
			}
			require.EqualValues(t, 6, ids[len(lines)].Seq)
		})
	}
}

// The newest n come also where one answer of the log does not hold them.
func TestLastOfLargeEvents(t *testing.T) {
	h, _ := open(t, ">:1000/1h")
	large := []byte(`"` + strings.Repeat("x", 300<<10) + `"`)
	for range 12 {
		_, err := h.Publish(t.Context(), "acme", []protocol.Publication{{Topic: "a", Type: "t", Data: large}})
		require.NoError(t, err)
	}
	lines, _ := resume(t, h, hub.Want{Pattern: "a", Last: 7})
	require.Equal(t, kept(6, "a", "a", "a", "a", "a", "a", "a"), lines)
}

// Other users' topics are nowhere to be seen: in a replay from the log, from
// memory, from the ring, as the newest, and live.
func TestPrivateTopics(t *testing.T) {
	h, log := open(t, ">:2/1h")
	first := publish(t, h, "users.u1")
	publish(t, h, "users.u1.in", "users.u2.in", "users.u2", "a")
	hidden := func(p string, since protocol.Cursor, last int) hub.Want {
		return hub.Want{Pattern: p, Since: since, Last: last, Hide: true, User: "u1"}
	}
	for range 2 { // the second from memory, where it can be
		lines, _ := resume(t, h, hidden(">", first, 0))
		require.Equal(t, []string{"kept users.u1.in 2", "kept a 5"}, lines)
		lines, _ = resume(t, h, hidden("*.*", first, 0), hidden("*.*.*", first, 0))
		require.Equal(t, []string{"kept users.u1.in 2"}, lines)
		lines, _ = resume(t, h, hidden(">", protocol.Cursor{}, 2))
		require.Equal(t, []string{"kept users.u1 1", "kept users.u1.in 2", "kept a 5"}, lines)
	}
	s := newSink()
	session := h.Open("acme", s)
	defer session.Close()
	require.NoError(t, session.Subscribe("", []hub.Want{hidden(">", protocol.Cursor{}, 0), hidden("*.*.*", protocol.Cursor{}, 0)}, 9))
	s.caughtUp(t)
	for range 3 {
		publish(t, h, "users.u2.in", "users.u2", "users.u3")
	}
	publish(t, h, "users.u1.in")
	require.Equal(t, "live users.u1.in 15", s.until(t, 2)[1])
	log.Trim("acme", "users.u2.in", 0)
	lines, _ := resume(t, h, hidden(">", protocol.Cursor{Epoch: first.Epoch, Seq: 5}, 0)) // the ring
	require.Equal(t, []string{"kept users.u1.in 15"}, lines)
	fresh := hub.New(log, hub.Options{Linger: time.Millisecond})
	defer fresh.Close()
	lines, _ = resume(t, fresh, hidden(">", protocol.Cursor{Epoch: first.Epoch, Seq: 5}, 0))
	require.Equal(t, []string{"kept users.u1.in 15"}, lines, "not even a gap tells of the others")
}

// A heartbeat has a cursor only where all is complete to it.
func TestHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New(memlog.Options{})
		h := hub.New(log, hub.Options{})
		defer func() { h.Close(); log.Close() }()
		first := publish(t, h, "a")
		publish(t, h, "a", "b")
		s := slowSink{newSink(), make(chan struct{})}
		session := h.Open("acme", s)
		defer session.Close()
		beat := func() protocol.Cursor {
			session.Heartbeat()
			return s.ids[len(s.ids)-1]
		}
		require.NoError(t, session.Subscribe("1", wants(first, "a"), 9))
		synctest.Wait()
		require.True(t, beat().IsZero(), "a replay is under way")
		close(s.room)
		synctest.Wait()
		require.EqualValues(t, 3, beat().Seq)
		publish(t, h, "b")
		synctest.Wait()
		require.EqualValues(t, 4, beat().Seq, "a quiet subscription moves on too")
		log.Deafen("acme")
		publish(t, h, "b")
		synctest.Wait()
		require.EqualValues(t, 4, beat().Seq, "what the log has is not what was sent")
		time.Sleep(time.Minute)
		require.EqualValues(t, 5, beat().Seq)
		require.NoError(t, h.Check())
	})
}

// Nothing of a session is left when it was closed, nor of the hub.
func TestCloseInTheMiddle(t *testing.T) {
	h, _ := open(t, hub.DefaultRetention)
	first := publish(t, h, "a")
	publish(t, h, "a")
	for n := range 20 {
		s := slowSink{newSink(), make(chan struct{})}
		session := h.Open("acme", s)
		require.NoError(t, session.Subscribe("1", wants(first, "a"), 9))
		if n%2 == 0 {
			s.until(t, 1)
		}
		session.Unsubscribe("2", []string{"a"})
		session.Close()
		session.Close()
		require.NoError(t, session.Subscribe("3", wants(first, "b"), 9), "it does nothing")
	}
	require.NoError(t, h.Check())
	require.Zero(t, h.Stats().Sessions.Load())
	require.Zero(t, h.Stats().Subscriptions.Load())
	h.Close() // goleak finds what it leaves
}
