package ingest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub/redislog"
)

// Who brings in what, and when. This instance has heard all from mark 50 on, and is told
// so far how things stand.
func TestTimely(t *testing.T) {
	t.Parallel()
	const now, later, never = 0, 2 * time.Second, 1 * time.Hour
	for _, test := range []struct {
		name  string
		leads bool
		mark  int64 // of the message
		stand redislog.Standing
		after time.Duration // it was heard
	}{
		{"who leads does at once", true, 60, redislog.Standing{From: 50}, now},
		{"what is open to others it has heard, too", true, 60, redislog.Standing{From: 50, Open: 55}, now},
		{"and from its own mark on", true, 60, redislog.Standing{From: 50, Open: 50}, now},
		{"not while what it has not heard is open to another", true, 60, redislog.Standing{From: 50, Open: 49}, never},
		{"others leave it to who leads", false, 60, redislog.Standing{From: 45}, later},
		{"also what is open to many", false, 60, redislog.Standing{From: 45, Open: 50}, later},
		{"one after the other", false, 60, redislog.Standing{From: 45, Open: 49}, never},
		{"who leads has not heard it", false, 60, redislog.Standing{From: 61}, now},
		{"nor the other to whom older ones are open", false, 60, redislog.Standing{From: 61, Open: 49}, never},
		{"nobody leads", false, 60, redislog.Standing{}, now},
		{"and older ones are open to another", false, 60, redislog.Standing{Open: 49}, never},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := New(Options{})
				ear{g}.Marked(50)
				g.leading = test.leads
				require.True(t, g.take("t", redislog.Raw{Name: redislog.RawName{Mark: test.mark}}))
				require.Equal(t, test.mark, g.oldest())
				q := g.queues["t"]
				require.Zero(t, g.due(q), "before anything is known")
				g.stands(test.stand, 50)
				if test.after > 0 {
					time.Sleep(test.after - time.Millisecond)
					require.Zero(t, g.due(q))
					time.Sleep(time.Millisecond)
				}
				if test.after == never {
					require.Zero(t, g.due(q))
					test.stand.Open = 0
					g.stands(test.stand, 50)
				}
				require.Equal(t, 1, g.due(q))
			})
		})
	}
}

// One who has to wait with a message brings in those before it, of an earlier connection.
func TestDueUpToOthers(t *testing.T) {
	g := New(Options{MaxBytes: 1 << 10})
	for _, from := range []int64{43, 45, 50} {
		g.missing()
		ear{g}.Marked(from)
		require.True(t, g.take("t", redislog.Raw{Name: redislog.RawName{Mark: 60}}))
	}
	g.leading = true
	g.stands(redislog.Standing{From: 50, Open: 45}, 50)
	require.Equal(t, 2, g.due(g.queues["t"]))
	g.stands(redislog.Standing{From: 50}, 45)
	require.Equal(t, 2, g.due(g.queues["t"]), "the last had not begun when that was asked")
	g.stands(redislog.Standing{From: 50}, 50)
	require.Equal(t, 3, g.due(g.queues["t"]))
}

// Marks fall where Redis lost the last: what waits has no order any more with what comes,
// and does not wait for ever.
func TestMarksFall(t *testing.T) {
	g := New(Options{MaxBytes: 1 << 10})
	for _, mark := range []int64{1000, 500} {
		g.missing()
		ear{g}.Marked(mark)
		require.True(t, g.take("t", redislog.Raw{Name: redislog.RawName{Mark: mark}}))
		g.stands(redislog.Standing{From: 1, Open: 400}, mark)
	}
	g.leading = true
	require.Zero(t, g.due(g.queues["t"]))
	g.stands(redislog.Standing{From: 500, Open: 500}, 500)
	require.Equal(t, 2, g.due(g.queues["t"]))
}

// Another who brings nothing in is waited for as long as it takes to say so ten times, and
// not by a clock: it could not, either, while Redis was stopped.
func TestPatience(t *testing.T) {
	require.Greater(t, patience*defaultPace.tick, defaultPace.stale)
	g := New(Options{})
	g.hangUp = func(error) {}
	ear{g}.Marked(50)
	asked := time.Now()
	require.True(t, g.take("t", redislog.Raw{Name: redislog.RawName{Mark: 60}}))
	stand, claim := redislog.Standing{Leads: true, From: 50, Open: 20}, g.claim()
	for range 12 {
		asked = asked.Add(time.Hour)
		g.heed(claim, 50, stand, asked)
		require.Zero(t, g.due(g.queues["t"]))
		stand.Open++
	}
	for range 2 * patience {
		g.heed(claim, 50, stand, asked)
		require.Zero(t, g.due(g.queues["t"]), "within a tick")
	}
	for range patience {
		require.Zero(t, g.due(g.queues["t"]))
		asked = asked.Add(g.pace.tick)
		g.unheard = 0
		g.heed(claim, 50, stand, asked)
	}
	asked = asked.Add(g.pace.tick)
	g.heed(claim, 50, stand, asked)
	require.Equal(t, 1, g.due(g.queues["t"]))
}

// What is published while nobody listens is lost.
func TestListenAgain(t *testing.T) {
	t.Parallel()
	pause, all := time.Duration(0), []time.Duration{}
	for _, heard := range []bool{true, true, false, false, false, false, false, false, false, true, false, true, true} {
		pause = listenAgain(pause, heard)
		all = append(all, pause/time.Millisecond)
	}
	require.Equal(t, []time.Duration{50, 50, 100, 200, 400, 800, 1600, 2000, 2000, 50, 100, 50, 50}, all)
}
