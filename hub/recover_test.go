package hub_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
)

// slowLog takes a while to answer, and notes what it was told.
type slowLog struct {
	hub.Log
	takes time.Duration

	mu    sync.Mutex
	known []protocol.Cursor
}

func (l *slowLog) Look(ctx context.Context, tenant string, q hub.Query) (hub.View, error) {
	l.mu.Lock()
	l.known = append(l.known, q.Known)
	l.mu.Unlock()
	defer time.Sleep(l.takes)
	return l.Log.Look(ctx, tenant, q)
}

func (l *slowLog) told() protocol.Cursor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[len(l.known)-1]
}

// onSlow runs f in a bubble, with a client that is live on everything.
func onSlow(t *testing.T, f func(t *testing.T, h *hub.Hub, log *slowLog, mem *memlog.Log, s *sink)) {
	synctest.Test(t, func(t *testing.T) {
		mem := memlog.New(memlog.Options{})
		log := &slowLog{Log: mem, takes: 100 * time.Millisecond}
		h := hub.New(log, hub.Options{})
		s := newSink()
		session := h.Open("acme", s)
		defer func() { session.Close(); h.Close(); mem.Close() }()
		require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: ">"}}, 9))
		s.caughtUp(t)
		f(t, h, log, mem, s)
	})
}

// A tenant comes back while events go on coming: what comes during the look is
// kept, or it would look for ever.
func TestRecoverUnderTraffic(t *testing.T) {
	onSlow(t, func(t *testing.T, h *hub.Hub, _ *slowLog, mem *memlog.Log, s *sink) {
		mem.Reset("acme")
		for range 200 {
			publish(t, h, "a")
			time.Sleep(10 * time.Millisecond)
		}
		s.until(t, 201)
		require.EqualValues(t, 1, h.Stats().Heals.Load())
	})
}

// However much comes during the look, and more than the log retains: all of it is kept
// that a ring holds.
func TestRecoverUnderMuchTraffic(t *testing.T) {
	onSlow(t, func(t *testing.T, h *hub.Hub, _ *slowLog, mem *memlog.Log, s *sink) {
		mem.Reset("acme")
		synctest.Wait() // it looks, and has missed nothing
		for range 300 {
			publish(t, h, slices.Repeat([]string{"a"}, 30)...)
			time.Sleep(time.Millisecond)
		}
		require.Equal(t, "live a 9000", s.until(t, 9001)[9000])
		require.EqualValues(t, 1, h.Stats().Heals.Load())
	})
}

// A look that a broken connection has overtaken says nothing: what was published while
// nothing was heard may be after it.
func TestRecoverIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memlog.New(memlog.Options{})
		p := newPipe(mem)
		go p.run()
		h := hub.New(&slowLog{Log: p, takes: 100 * time.Millisecond}, hub.Options{})
		defer func() { h.Close(); p.stop(); mem.Close() }()
		s := newSink()
		session := h.Open("acme", s)
		defer session.Close()
		require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: ">"}}, 9))
		s.caughtUp(t)
		p.Reset("acme")
		time.Sleep(50 * time.Millisecond) // it looks
		p.change(func() { p.deaf = true })
		publish(t, h, "a")
		p.Reset("acme")
		time.Sleep(time.Second)
		require.Equal(t, "kept a 1", s.until(t, 2)[1], "without waiting for a verify")
	})
}

// Every look at the log tells it what is known to have been reached: a log that
// lost it has to say so.
func TestLooksTellWhatIsKnown(t *testing.T) {
	onSlow(t, func(t *testing.T, h *hub.Hub, log *slowLog, mem *memlog.Log, s *sink) {
		c := publish(t, h, "a", "a", "a")
		s.until(t, 4)
		time.Sleep(30 * time.Second)
		require.Equal(t, c, log.told(), "verify")

		c = publish(t, h, "a")
		mem.Reset("acme")
		time.Sleep(time.Second)
		require.Equal(t, c, log.told(), "recover")

		last := publish(t, h, "a")
		resume(t, h, hub.Want{Pattern: "*", Since: protocol.Cursor{Epoch: c.Epoch, Seq: 1}, Last: 1})
		synctest.Wait()
		resume(t, h, hub.Want{Pattern: "*", Last: 1})
		require.Equal(t, last, log.told(), "a session")
	})
}

// onPipe runs f in a bubble, on a hub with a channel that can be spoiled.
func onPipe(t *testing.T, f func(t *testing.T, h *hub.Hub, p *pipe)) {
	synctest.Test(t, func(t *testing.T) {
		mem := memlog.New(memlog.Options{})
		p := newPipe(mem)
		synctest.Wait()
		go p.run()
		h := hub.New(p, hub.Options{})
		defer func() { h.Close(); p.stop(); mem.Close() }()
		f(t, h, p)
	})
}

// A channel that is deaf twice in a row is replaced.
func TestDeafChannelIsReplaced(t *testing.T) {
	onPipe(t, func(t *testing.T, h *hub.Hub, p *pipe) {
		s := newSink()
		session := h.Open("acme", s)
		defer session.Close()
		require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: ">"}}, 9))
		s.caughtUp(t)
		deaf := func(is bool) {
			p.change(func() { p.deaf = is })
			publish(t, h, "a")
			time.Sleep(25 * time.Second)
		}
		for _, is := range []bool{true, false, true, false} {
			deaf(is)
		}
		s.until(t, 5)
		require.Zero(t, p.resets, "never twice in a row")
		deaf(true)
		deaf(true)
		s.until(t, 7)
		require.Equal(t, 1, p.resets)
		publish(t, h, "a")
		synctest.Wait()
		require.Equal(t, "live a 7", s.until(t, 8)[7], "without waiting for a verify")
	})
}

// A tenant without clients is watched on for a while, and then not.
func TestLinger(t *testing.T) {
	onPipe(t, func(t *testing.T, h *hub.Hub, p *pipe) {
		watched := func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.watched
		}
		for range 2 {
			h.Open("acme", newSink()).Close()
			time.Sleep(9 * time.Second)
			require.True(t, watched())
			session := h.Open("acme", newSink())
			time.Sleep(time.Minute)
			require.True(t, watched())
			session.Close()
			time.Sleep(11 * time.Second)
			require.False(t, watched())
		}
	})
}

// A channel that is only late is not taken for a deaf one.
func TestLateChannelIsWaitedFor(t *testing.T) {
	onPipe(t, func(t *testing.T, h *hub.Hub, p *pipe) {
		first := publish(t, h, "a")
		other := newSink()
		session := h.Open("acme", other)
		defer session.Close()
		require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: "b"}}, 9))
		synctest.Wait()

		p.change(func() { p.held = true })
		publish(t, h, "a")
		publish(t, h, "b")
		s := newSink()
		back := h.Open("acme", s)
		defer back.Close()
		// The log is asked, because the cursor is from ahead as far as the hub knows.
		since := protocol.Cursor{Epoch: first.Epoch, Seq: 2}
		require.NoError(t, back.Subscribe("", []hub.Want{{Pattern: "b", Since: since}}, 9))
		time.Sleep(300 * time.Millisecond)
		require.Equal(t, []string{"kept b 3"}, s.until(t, 1), "it is read, and waits for the channel to come there")
		p.change(func() { p.held = false })
		require.Contains(t, s.until(t, 2)[1], `"resumed":true,"replayed":1`)
		require.Equal(t, "live b 3", other.until(t, 2)[1])
		require.Zero(t, h.Stats().Heals.Load())
	})
}

// Nor is one that is behind joined with a client who has more of one topic, whatever it
// brought for another.
func TestClientIsAheadOfTheChannel(t *testing.T) {
	onPipe(t, func(t *testing.T, h *hub.Hub, p *pipe) {
		stays := h.Open("acme", newSink()) // from now on the ring has everything
		defer stays.Close()
		synctest.Wait()
		p.change(func() { p.held = true })
		last := publish(t, h, "a", "b", "a")
		forged := protocol.Cursor{Epoch: last.Epoch, Seq: 99}
		s := newSink()
		session := h.Open("acme", s)
		defer session.Close()
		require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: "a", Since: forged}, {Pattern: "b", Since: last}}, 9))
		time.Sleep(300 * time.Millisecond)
		require.Equal(t, []string{gapLine("a", forged.String(), protocol.GapEpoch)}, s.until(t, 1))
		p.change(func() { p.held = false })
		lines, _ := s.caughtUp(t)
		require.Equal(t, []string{"kept a 1", "kept a 3"}, lines[1:])
	})
}

// Nothing crosses from one tenant to another.
func TestTenantsApart(t *testing.T) {
	h, _ := open(t, hub.DefaultRetention)
	publish(t, h, "a")
	s := newSink()
	session := h.Open("evil", s)
	defer session.Close()
	require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: ">", Last: 9}}, 9))
	lines, _ := s.caughtUp(t)
	require.Empty(t, lines)
	publish(t, h, "a")
	_, err := h.Publish(t.Context(), "evil", []protocol.Publication{{Topic: "own", Type: "t", Data: []byte("1")}})
	require.NoError(t, err)
	require.Equal(t, "live own 1", s.until(t, 2)[1])
	require.NoError(t, h.Check())
}

// flushed counts Flushes.
type flushed struct {
	*sink
	times atomic.Int32
}

func (f *flushed) Flush() { f.times.Add(1) }

// What can be said before the log is read is sent before that.
func TestGapDoesNotWaitForTheLog(t *testing.T) {
	onSlow(t, func(t *testing.T, h *hub.Hub, _ *slowLog, _ *memlog.Log, _ *sink) {
		s := &flushed{sink: newSink()}
		session := h.Open("acme", s)
		defer session.Close()
		require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: "a", Since: protocol.Cursor{Epoch: "another", Seq: 1}}, {Pattern: "b", Last: 1}}, 9))
		require.Len(t, s.until(t, 1), 1, "the gap")
		require.NotZero(t, s.times.Load())
		require.Contains(t, s.until(t, 2)[1], "subscribed")
	})
}
