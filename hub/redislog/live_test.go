package redislog

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/logtest"
)

// publishers publish until stopped, and then say what they published.
type publishers struct {
	wg   sync.WaitGroup
	stop chan struct{} // closed by end
}

func startPublishers(t *testing.T, l *Log, tenant string) *publishers {
	p := &publishers{stop: make(chan struct{})}
	for i := range 3 {
		p.wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-p.stop:
					return
				default:
				}
				if _, err := l.Publish(t.Context(), tenant, events(1+n%3, "alerts", "jobs."+strconv.Itoa(i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	return p
}

func (p *publishers) end() {
	close(p.stop)
	p.wg.Wait()
}

// requireWhole checks that between each Covered and the Lost after it the events
// came in the order of their seqs, without a hole.
func requireWhole(t *testing.T, calls []logtest.Call) {
	t.Helper()
	var last uint64
	covered := false
	for _, c := range calls {
		switch c.Kind {
		case logtest.Covered:
			require.False(t, covered)
			covered, last = true, 0
		case logtest.Lost:
			require.True(t, covered, "Lost comes only after Covered")
			covered = false
		default:
			require.True(t, covered, "nothing comes of a lost connection")
			require.True(t, last == 0 || c.Event.Cursor.Seq == last+1, "%d after %d", c.Event.Cursor.Seq, last)
			last = c.Event.Cursor.Seq
		}
	}
}

// TestKilled has Redis kill the live connection in the midst of traffic, again
// and again: after each Covered all comes that a Look then does not have.
func TestKilled(t *testing.T) {
	server := logtest.StartRedis(t)
	l, other := openAt(t, server.Addr()), openAt(t, server.Addr())
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	l.Watch("t")
	rec.AwaitCount(t, "t", logtest.Covered, 1)
	traffic := startPublishers(t, other, "t")
	type span struct{ from, calls int }
	var spans []span
	for round := 1; round <= 5; round++ {
		admin(t, server, "CLIENT", "KILL", "TYPE", "pubsub")
		rec.AwaitCount(t, "t", logtest.Lost, round)
		rec.AwaitCount(t, "t", logtest.Covered, round+1)
		head := look(t, l, "t", hub.Query{}).Head
		next := publish(t, other, "t", event("alerts", round))[0]
		rec.AwaitEvent(t, "t", next)
		spans = append(spans, span{int(head), int(next.Seq)})
	}
	traffic.end()
	calls := rec.Calls("t")
	requireWhole(t, calls)
	came := map[uint64]bool{}
	for _, e := range logtest.Events(calls) {
		require.False(t, came[e.Cursor.Seq], "twice")
		came[e.Cursor.Seq] = true
	}
	for _, s := range spans {
		for seq := s.from + 1; seq <= s.calls; seq++ {
			require.True(t, came[uint64(seq)], "%d was published after Covered", seq)
		}
	}
	require.EqualValues(t, 5, l.Stats().Reconnects)
	require.Zero(t, l.Stats().Malformed)
}

// A connection that has gone deaf for everything is found by its silence.
func TestDeafConnection(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	p := newProxy(t, server.Addr())
	l, direct := openAt(t, p.addr()), openAt(t, server.Addr())
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	l.Watch("t")
	rec.AwaitCount(t, "t", logtest.Covered, 1)
	p.set(stall)
	rec.AwaitCount(t, "t", logtest.Lost, 1)
	require.False(t, l.Up())
	publish(t, direct, "t", event("a", 1))
	p.set(pass)
	rec.AwaitCount(t, "t", logtest.Covered, 2)
	require.True(t, l.Up())
	rec.AwaitEvent(t, "t", publish(t, direct, "t", event("a", 2))[0])
	requireWhole(t, rec.Calls("t"))
}

// A subscription that is not confirmed ends the connection, though it is not quiet.
func TestUnconfirmed(t *testing.T) {
	server := logtest.StartRedis(t)
	p := newProxy(t, server.Addr())
	hurried := quick
	hurried.answer = 200 * time.Millisecond
	l := openLog(t, Options{Redis: &redis.Options{Addr: p.addr()}}, hurried)
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	l.Watch("a")
	rec.AwaitCount(t, "a", logtest.Covered, 1)
	p.set(stall)
	l.Watch("b")
	rec.AwaitCount(t, "a", logtest.Lost, 1)
	p.set(pass)
	rec.AwaitCount(t, "a", logtest.Covered, 2)
	rec.AwaitCount(t, "b", logtest.Covered, 1)
	require.Zero(t, rec.Count("b", logtest.Lost), "it had never been covered")
}

// After Close the Listener is told nothing.
func TestCloseIsSilent(t *testing.T) {
	server := logtest.StartRedis(t)
	l, other := openAt(t, server.Addr()), openAt(t, server.Addr())
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	l.Watch("t")
	rec.AwaitCount(t, "t", logtest.Covered, 1)
	traffic := startPublishers(t, other, "t")
	rec.AwaitCount(t, "t", logtest.Live, 10)
	require.NoError(t, l.Close())
	calls := len(rec.Calls("t"))
	l.Watch("u")
	l.Unwatch("t")
	l.Reset("t")
	traffic.end()
	require.Len(t, rec.Calls("t"), calls)
	require.Zero(t, rec.Count("t", logtest.Lost))
	_, err := l.Publish(t.Context(), "t", events(1, "a"))
	require.ErrorIs(t, err, hub.ErrUnavailable)
	require.NoError(t, l.Close())
}

// Somebody else's message on the channel is a hole for the hub, and no more.
func TestMalformedMessage(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	l.Watch("t")
	rec.AwaitCount(t, "t", logtest.Covered, 1)
	publish(t, l, "t", event("a", 1))
	for _, s := range []string{"", "x", "{}", "1\tx-1\t0\t0\t0\ta\tt\t\n{}"} {
		require.NoError(t, l.Client().SPublish(t.Context(), keysOf("t").channel(), s).Err())
	}
	rec.AwaitEvent(t, "t", publish(t, l, "t", event("a", 2))[0])
	require.EqualValues(t, 4, l.Stats().Malformed)
	requireWhole(t, rec.Calls("t"))

	// In the stream it is left out, and the chain shows it.
	stream := keysOf("t").stream("a")
	require.NoError(t, l.Client().XDel(t.Context(), stream, "2-0").Err())
	publish(t, l, "t", event("a", 3))
	top := retained(t, l, "t", "a")[0]
	require.Equal(t, []uint64{1, 3}, seqs(top))
	require.EqualValues(t, 2, top.Events[1].Prev)
	require.NoError(t, l.Client().XAdd(t.Context(), &redis.XAddArgs{Stream: stream, ID: "4-0", Values: []string{"r", "x"}}).Err())
	require.Equal(t, []uint64{1, 3}, seqs(retained(t, l, "t", "a")[0]))
}

// TestStorm does everything at once, and then wants everything to be in order.
func TestStorm(t *testing.T) {
	const tenants, workers, rounds = 7, 6, 60
	server := logtest.StartRedis(t)
	l, other := openAt(t, server.Addr()), openAt(t, server.Addr())
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	names := make([]string, tenants)
	locks := make([]sync.Mutex, tenants) // a tenant is watched by one at a time
	watched := make([]bool, tenants)     // guarded by locks
	for i := range names {
		names[i] = "t" + strconv.Itoa(i)
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 1))
			for range rounds {
				i := random.IntN(tenants)
				switch random.IntN(6) {
				case 0, 1:
					locks[i].Lock()
					if watched[i] {
						l.Unwatch(names[i])
					} else {
						l.Watch(names[i])
					}
					watched[i] = !watched[i]
					locks[i].Unlock()
				case 2:
					l.Reset(names[i])
				case 3:
					assert.NoError(t, other.Client().ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err())
				default:
					_, err := other.Publish(t.Context(), names[i], events(1+random.IntN(3), "a", "b"))
					assert.NoError(t, err)
				}
			}
		})
	}
	wg.Wait()

	for i, tenant := range names {
		if watched[i] {
			l.Unwatch(tenant)
		}
	}
	requireTidy(t, l.live, nil)
	for _, tenant := range names {
		covered := rec.Count(tenant, logtest.Covered)
		l.Watch(tenant)
		rec.AwaitCount(t, tenant, logtest.Covered, covered+1)
	}
	for _, tenant := range names {
		rec.AwaitEvent(t, tenant, publish(t, other, tenant, event("a", 1))[0])
	}
	requireTidy(t, l.live, names)
}

// requireTidy waits until nothing is under way, and checks that what live knows
// fits together: every watched tenant and the probe is covered on the connection,
// and nothing is left of others.
func requireTidy(t *testing.T, l *live, tenants []string) {
	t.Helper()
	want := append(slices.Clone(tenants), probe)
	tidy := func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.subs) != len(want) || len(l.waiting) != 0 || l.down != 0 {
			return false
		}
		for _, tenant := range want {
			s := l.subs[tenant]
			if s == nil || s.conn == nil || !s.covered || !s.subscribed || s.pending != 0 || s.noted || s.down {
				return false
			}
			if _, ok := s.conn.subs[s]; !ok || l.conns[s.conn.at.Addr] != s.conn {
				return false
			}
		}
		for _, c := range l.conns {
			for s := range c.subs {
				if l.subs[s.tenant] != s {
					return false
				}
			}
		}
		return true
	}
	require.Eventually(t, tidy, 20*time.Second, time.Millisecond)
}

// TestWatchChurn watches and unwatches faster than Redis confirms. Each answer
// must still be taken for the request that it belongs to.
func TestWatchChurn(t *testing.T) {
	server := logtest.StartRedis(t)
	l, other := openAt(t, server.Addr()), openAt(t, server.Addr())
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	names := []string{"t0", "t1", "t2"}
	for n := range 1000 {
		tenant := names[n%len(names)]
		l.Watch(tenant)
		for range n % 4 {
			l.Unwatch(tenant)
			l.Watch(tenant)
		}
		if n%8 == 0 {
			publish(t, other, tenant, event("a", n))
		}
		l.Unwatch(tenant)
	}
	requireTidy(t, l.live, nil)
	require.Zero(t, l.Stats().Reconnects, "an answer that fits no request ends the connection")
	for _, tenant := range names {
		covered := rec.Count(tenant, logtest.Covered)
		l.Watch(tenant)
		rec.AwaitCount(t, tenant, logtest.Covered, covered+1)
		rec.AwaitEvent(t, tenant, publish(t, other, tenant, event("a", 1))[0])
	}
	requireTidy(t, l.live, names)
}

// An address that cannot be reached is tried less and less often, but for ever.
func TestBackoff(t *testing.T) {
	l := &live{pace: defaultPace, pauses: map[string]*backoff{}}
	pauseOf := func(madeAt time.Time) time.Duration {
		c := &conn{at: endpoint{Options: &redis.Options{Addr: "a"}}, madeAt: madeAt}
		began := time.Now()
		l.pauseAfter(c)
		return l.pauses["a"].until.Sub(began)
	}
	longest := 50 * time.Millisecond
	for range 100 {
		pause := pauseOf(time.Time{})
		require.GreaterOrEqual(t, pause, longest/2)
		require.Less(t, pause, longest+time.Second)
		longest = min(2*longest, 2*time.Second)
	}
	require.Zero(t, l.reconnects.Load())
	require.GreaterOrEqual(t, pauseOf(time.Now()), time.Second, "one that breaks at once is no better")
	require.Less(t, pauseOf(time.Now().Add(-time.Minute)), time.Second, "one that lived begins anew")
	require.EqualValues(t, 2, l.reconnects.Load())
}
