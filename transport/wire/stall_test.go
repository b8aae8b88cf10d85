package wire_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

// A client that was behind and has caught up is as good as any other: no deadline
// of the time when it was behind is left.
func TestCaughtUpLivesOn(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		const stall = 100 * time.Millisecond
		l.open(small, func(o *setup) { o.Stall = stall })
		last := l.clog(0)
		for seq := uint64(1); seq <= last; seq++ {
			require.Equal(t, seq, seqOf(t, l.next()))
		}
		require.Eventually(t, func() bool { return l.conn.Idle() > 2*stall }, 10*time.Second, time.Millisecond)
		for range 3 { // nor is it taken for one that is behind
			last++
			l.conn.Event(keyed(event("a", last, 10), false), true)
		}
		l.conn.Flush()
		for seq := last - 2; seq <= last; seq++ {
			require.Equal(t, seq, seqOf(t, l.next()))
		}
		require.Zero(t, l.conn.Code())
	})
}

// A client that takes nothing for the stall time is cut off as too slow.
func TestStall(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		l.open(small, func(o *setup) { o.Stall = 50 * time.Millisecond })
		began := time.Now()
		for seq := range uint64(100) { // far more than the kernel takes
			l.send(event("a", seq+1, 1000))
		}
		<-l.conn.Done()
		require.Less(t, time.Since(began), 5*time.Second)
		require.Equal(t, protocol.SlowConsumer, l.conn.Code())
	})
	synctest.Test(t, func(t *testing.T) { // to the moment
		near, far := net.Pipe()
		var seen counts
		opts := options(&seen)
		opts.Stall = 30 * time.Second
		c := newConn(t, near, nil, opts)
		began := time.Now()
		c.Event(event("a", 1, 1), true)
		c.Flush()
		<-c.Done()
		require.Equal(t, opts.Stall, time.Since(began))
		_ = far.Close()
	})
}

// One that is slow, but takes something again and again, is not.
func TestSlowAndSteady(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		const stall = 250 * time.Millisecond
		l.open(small, func(o *setup) { o.Stall = stall })
		for seq := range uint64(500) {
			l.conn.Retained(event("a", seq+1, 2000), true)
		}
		l.conn.Flush()
		require.NoError(t, l.far.SetReadDeadline(time.Now().Add(10*time.Second)))
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for began := time.Now(); time.Since(began) < 3*stall; <-tick.C {
			_, err := io.CopyN(io.Discard, l.far, 4096)
			require.NoError(t, err)
		}
		require.Zero(t, l.conn.Code())
		require.NotZero(t, l.conn.Waiting(), "it was behind all the time")
	})
}

// Idle counts from what moves the client's position, so that pings and answers
// keep no heartbeat back.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		var seen counts
		c := newConn(t, near, nil, options(&seen))
		at := protocol.Cursor{Epoch: "e", Seq: 1}
		var all sync.WaitGroup
		all.Go(func() { _, _ = io.Copy(io.Discard, far) })
		for _, step := range []struct {
			queue func()
			reset bool
		}{
			{func() {}, false},
			{func() { c.Event(event("a", 1, 1), true) }, true},
			{func() { c.Raw([]byte{0x89, 0}) }, false},
			{func() { c.Control([]byte(`{"op":"pong"}`), protocol.Cursor{}) }, false},
			{func() { c.Heartbeat(protocol.Cursor{}) }, false},
			{func() { c.Heartbeat(at) }, true},
			{func() { c.Control([]byte("{}"), at) }, true},
			{func() { c.Retained(event("a", 1, 1), false) }, true},
		} {
			time.Sleep(time.Second) // of the bubble: no time at all
			before := c.Idle()
			require.GreaterOrEqual(t, before, 900*time.Millisecond)
			step.queue()
			c.Flush()
			synctest.Wait()
			if step.reset {
				before = 0
			}
			require.InDelta(t, before, c.Idle(), float64(100*time.Millisecond))
		}
		c.Abort()
		all.Wait()
	})
}

// Room is there when the replay is on its way, and for whoever gives up or goes.
func TestRoom(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		l.open(small, nil)
		require.NoError(t, room(l.conn))
		seq := l.behind()
		require.NoError(t, room(l.conn), "live events do not count")
		for range 200 { // more than one write takes
			seq++
			l.conn.Retained(event("a", seq, 1000), true)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, l.conn.Room(gone), context.Canceled)
		var all sync.WaitGroup
		came := make(chan time.Time, 3)
		for range cap(came) {
			all.Go(func() {
				require.NoError(t, room(l.conn))
				came <- time.Now()
			})
		}
		select {
		case <-came:
			t.Fatal("there is no room")
		default:
		}
		for b := l.next(); seqOf(t, b) != seq; b = l.next() {
		}
		all.Wait()
		l.behind()
		for range 200 {
			l.conn.Retained(event("a", seq, 1000), true)
		}
		all.Go(func() { require.NoError(t, room(l.conn), "nothing is to be waited for any more") })
		l.conn.Close(protocol.Drain)
		all.Wait()
		require.NoError(t, room(l.conn))
	})
}
