package ingest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub/redislog"
)

// Who brings in what, and when. This instance has heard all from mark 50 on.
func TestTimely(t *testing.T) {
	t.Parallel()
	const now, later, never = 0, 2 * time.Second, 5 * time.Second
	for _, test := range []struct {
		name  string
		leads bool
		mark  int64 // of the message
		stand redislog.Standing
		after time.Duration // it was heard
	}{
		{"who leads does at once", true, 60, redislog.Standing{From: 50}, now},
		{"what others hold it has heard, too", true, 60, redislog.Standing{From: 50, Held: 55}, now},
		{"and from its own mark on", true, 60, redislog.Standing{From: 50, Held: 50}, now},
		{"not while another holds what it has not heard", true, 60, redislog.Standing{From: 50, Held: 49}, never},
		{"what it heard on an earlier connection is older still", true, 40, redislog.Standing{From: 50, Held: 49}, now},
		{"or is not", true, 49, redislog.Standing{From: 50, Held: 40}, never},
		{"others leave it to who leads", false, 60, redislog.Standing{From: 45}, later},
		{"also what is held by many", false, 60, redislog.Standing{From: 45, Held: 60}, later},
		{"one after the other", false, 60, redislog.Standing{From: 45, Held: 59}, never},
		{"who leads has not heard it", false, 60, redislog.Standing{From: 61}, now},
		{"nor the other who holds older ones", false, 60, redislog.Standing{From: 61, Held: 59}, never},
		{"nobody leads", false, 60, redislog.Standing{}, later},
		{"and another holds older ones", false, 60, redislog.Standing{Held: 59}, never},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := New(Options{})
				g.pace.tick = time.Hour // nothing else is to be known
				g.from, g.leading = 50, test.leads
				g.stands(test.stand, time.Now())
				require.True(t, g.take("t", redislog.Raw{Name: redislog.RawName{Mark: test.mark}}))
				require.Equal(t, test.mark, g.oldest())
				q := g.queues["t"]
				if test.after > 0 {
					time.Sleep(test.after - time.Millisecond)
					require.Zero(t, g.due(q))
					time.Sleep(time.Millisecond)
				}
				require.Equal(t, 1, g.due(q))
			})
		})
	}
}

// One who has to wait with a message brings in those before it.
func TestDueUpToOthers(t *testing.T) {
	g := New(Options{MaxBytes: 1 << 10})
	g.from, g.leading = 50, true
	g.stands(redislog.Standing{From: 50, Held: 45}, time.Now())
	for _, mark := range []int64{43, 45, 50} {
		require.True(t, g.take("t", redislog.Raw{Name: redislog.RawName{Mark: mark}}))
	}
	require.Equal(t, 2, g.due(g.queues["t"]))
}

// An instance that ends leaves to who leads what that one has heard, and brings in the
// rest at once.
func TestTimelyAtTheEnd(t *testing.T) {
	for from, want := range map[int64]int{0: 1, 60: 0, 61: 1} {
		g := New(Options{})
		g.stands(redislog.Standing{From: from}, time.Now())
		require.True(t, g.take("t", redislog.Raw{Name: redislog.RawName{Mark: 60}}))
		g.closing = true
		g.turnDue()
		require.Len(t, g.turns, want, "who leads has heard all from %d on", from)
	}
}

// Where Redis has not answered for a while, all others may hold what they could not
// say: only when they had time to is it known who goes first.
func TestTimelyAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{})
		g.from, g.leading = 50, true
		stand := redislog.Standing{From: 50}
		g.stands(stand, time.Now())
		require.True(t, g.take("t", redislog.Raw{Name: redislog.RawName{Mark: 60}}))
		due := func() int { return g.due(g.queues["t"]) }
		require.Equal(t, 1, due())
		asked := time.Now()
		time.Sleep(g.fresh() + time.Millisecond)
		require.Zero(t, due(), "nothing was heard for a while")
		g.stands(stand, asked)
		require.Zero(t, due(), "it was asked for long ago")
		g.stands(stand, time.Now())
		require.Zero(t, due(), "others may not have been heard yet")
		time.Sleep(2 * g.pace.tick)
		require.Equal(t, 1, due())

		stand.Held = 20
		for range 12 { // 6 s
			g.stands(stand, time.Now())
			require.Zero(t, due())
			time.Sleep(g.pace.tick)
			stand.Held++
		}
		for range 10 {
			g.stands(stand, time.Now())
			require.Zero(t, due())
			time.Sleep(g.pace.tick)
		}
		require.Equal(t, 1, due(), "the other brings nothing in")
	})
}
