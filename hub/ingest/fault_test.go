package ingest_test

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/ingest"
	"github.com/pushhub/pushhub/hub/logtest"
)

// behind starts an instance that reaches Redis by a proxy.
func behind(t testing.TB, r *logtest.Redis) (*proxy, func() *instance) {
	p := newProxy(t, r.Addr())
	return p, func() *instance { return start(t, p.url()) }
}

// pair starts one that leads and one that does not.
func pair(t testing.TB, r *logtest.Redis) (leader, standby *instance, pl, ps *proxy) {
	pl, startLeader := behind(t, r)
	ps, startStandby := behind(t, r)
	leader = startLeader()
	eventually(t, leader.Stats().Leading.Load)
	return leader, startStandby(), pl, ps
}

func heard(i *instance, n int64) func() bool {
	from := i.Stats().Heard.Load()
	return func() bool { return i.Stats().Heard.Load() >= from+n }
}

// An instance that is cut off from one moment to the next is missed for a moment.
func TestLeaderDies(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	a, b, pa, _ := pair(t, r)
	k := startTalk(t, r, 3, time.Millisecond)
	eventually(t, heard(a, 1000))
	pa.set(cut, raw, commands)
	eventually(t, b.Stats().Leading.Load)
	eventually(t, heard(b, 1000))
	k.end(t, b)
}

// Who leads and is not heard any more by Redis gives the lease up, and hears anew.
func TestLeaderIsCut(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	a, b, pa, _ := pair(t, r)
	k := startTalk(t, r, 3, time.Millisecond)
	eventually(t, heard(a, 1000))
	pa.set(cut, raw)
	eventually(t, func() bool { return !a.Stats().Leading.Load() && b.Stats().Leading.Load() })
	pa.set(pass, raw)
	eventually(t, a.Stats().Ready.Load)
	eventually(t, heard(a, 1000))
	require.True(t, b.Stats().Leading.Load())
	k.end(t, a, b)
}

// Killed in the midst of it, again and again: whoever leads then, and has which holes,
// nothing is lost, and nothing twice or out of order.
func TestKilledOften(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	a, b, _, _ := pair(t, r)
	c := client(t, r)
	k := startTalk(t, r, 3, time.Millisecond)
	for range 8 {
		one := a
		if b.Stats().Leading.Load() {
			one = b
		}
		eventually(t, heard(one, 200))
		list, err := c.ClientList(t.Context()).Result()
		require.NoError(t, err)
		ids := idsOf(list, "pushhub-ingest")
		require.Len(t, ids, 2)
		// One at a time: the other hears what the one misses.
		require.NoError(t, c.ClientKillByFilter(t.Context(), "ID", ids[0]).Err())
		eventually(t, func() bool {
			list, err := c.ClientList(t.Context()).Result()
			now := idsOf(list, "pushhub-ingest")
			return err == nil && len(now) == 2 && now[0] != ids[0]
		})
		eventually(t, func() bool { return a.Stats().Ready.Load() && b.Stats().Ready.Load() })
	}
	eventually(t, func() bool { return a.Stats().Leading.Load() != b.Stats().Leading.Load() })
	k.end(t, a, b)
}

// An instance that ends brings in what it has heard, also if Redis does not take it at
// once.
func TestLeaveTriesAgain(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	p, startOne := behind(t, r)
	i := startOne()
	eventually(t, i.Stats().Leading.Load)
	p.set(hold, commands)
	c := client(t, r)
	for n := range 10 {
		require.NoError(t, c.Publish(t.Context(), "alerts:tenant:t0", n).Err())
	}
	eventually(t, func() bool { return i.Stats().Heard.Load() == 10 })
	p.set(cut, commands)
	time.AfterFunc(100*time.Millisecond, func() { p.set(pass, commands) })
	i.stop()
	require.Equal(t, numbers(10), data(t, openLog(t, r.URL()), "t0", "alerts"))
}

// Also what it takes another to have heard, who leads and does not know yet that it is
// deaf.
func TestLeaveLeavesNothingToTheDeaf(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	a, b, pa, _ := pair(t, r)
	pa.set(hold, raw)
	require.NoError(t, client(t, r).Publish(t.Context(), "alerts:tenant:t0", 0).Err())
	eventually(t, func() bool { return b.Stats().Heard.Load() == 1 })
	b.stop()
	pa.set(cut, raw)
	pa.set(pass, raw)
	require.Equal(t, numbers(1), data(t, a.log, "t0", "alerts"))
}

// For an instance that has ended nobody waits, though it held what another had yet to
// bring in.
func TestNothingIsOpenToTheDead(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	a, b, _, _ := pair(t, r)
	k := startTalk(t, r, 3, time.Millisecond)
	eventually(t, heard(b, 100))
	b.stop()
	all, err := client(t, r).HGetAll(t.Context(), "pushhub:ingest").Result()
	require.NoError(t, err)
	open := 0
	for field, said := range all {
		if strings.HasPrefix(field, "open ") && !strings.HasPrefix(said, "0 ") {
			open++
		}
	}
	require.Equal(t, 1, open, "to the one that lives: %v", all)
	k.end(t, a)
}

// A lone instance goes on where it was.
func TestLoneIsCut(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	p, startOne := behind(t, r)
	i := startOne()
	eventually(t, i.Stats().Leading.Load)
	c := client(t, r)
	send := func(from, to int) {
		for n := from; n < to; n++ {
			require.NoError(t, c.Publish(t.Context(), "alerts:tenant:t0", n).Err())
		}
	}
	for round := range 3 {
		send(100*round, 100*round+50)
		eventually(t, func() bool { return i.Stats().Appended.Load() == int64(100*round+50) })
		p.set(cut, raw)
		eventually(t, func() bool { return !i.Stats().Ready.Load() })
		p.set(pass, raw)
		eventually(t, i.Stats().Ready.Load)
		send(100*round+50, 100*round+100)
		eventually(t, func() bool { return i.Stats().Appended.Load() == int64(100*round+100) })
		require.Equal(t, numbers(100*round+100), data(t, i.log, "t0", "alerts"))
	}
}

// A standby that misses something, or hears it much too late, appends nothing
// that is there.
func TestStandbyIsCut(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	a, b, _, pb := pair(t, r)
	k := startTalk(t, r, 3, time.Millisecond)
	for range 3 {
		eventually(t, heard(b, 500))
		pb.set(cut, raw)
		eventually(t, func() bool { return !b.Stats().Ready.Load() })
		pb.set(pass, raw)
		eventually(t, b.Stats().Ready.Load)
	}
	k.end(t, a, b)
	require.Zero(t, b.Stats().Second.Load())
}

// Answers that are lost: what they answered was done, or not.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	a, b, pa, pb := pair(t, r)
	k := startTalk(t, r, 3, time.Millisecond)
	for range 20 {
		eventually(t, heard(a, 50))
		pa.set(loseReplies, commands)
		pb.set(loseReplies, commands)
		eventually(t, heard(a, 50))
		pa.set(pass, commands)
		pb.set(pass, commands)
	}
	k.end(t, a, b)
}

// Who leads and hears nothing notices that, and leaves it to the other, who has
// heard all.
func TestDeaf(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	a, b, pa, _ := pair(t, r)
	k := startTalk(t, r, 3, time.Millisecond)
	eventually(t, heard(a, 500))
	pa.set(hold, raw)
	eventually(t, func() bool { return !a.Stats().Leading.Load() && b.Stats().Leading.Load() })
	require.False(t, a.Stats().Ready.Load())
	pa.set(pass, raw)
	eventually(t, a.Stats().Ready.Load)
	eventually(t, heard(a, 500))
	k.end(t, a, b)
}

// What the one who leads cannot append, though it keeps the lease, the others do,
// and what it says again after that is there already.
func TestSecondLook(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	a, b, pa, _ := pair(t, r)
	k := startTalk(t, r, 3, 10*time.Millisecond)
	eventually(t, heard(a, 100))
	pa.set(hold, commands)
	eventually(t, func() bool { return b.Stats().Second.Load() > 0 })
	eventually(t, b.Stats().Leading.Load)
	pa.set(pass, commands)
	eventually(t, heard(a, 500))
	k.end(t, a, b)
}

// Three, of which two die one after the other.
func TestThree(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	all := map[*instance]*proxy{}
	for range 3 {
		p, startOne := behind(t, r)
		all[startOne()] = p
	}
	k := startTalk(t, r, 3, time.Millisecond)
	for len(all) > 1 {
		var leader *instance
		eventually(t, func() bool {
			for i := range all {
				if i.Stats().Leading.Load() {
					leader = i
				}
			}
			return leader != nil
		})
		eventually(t, heard(leader, 1000))
		all[leader].set(cut, raw, commands)
		delete(all, leader)
	}
	for i := range all {
		eventually(t, i.Stats().Leading.Load)
		k.end(t, i)
	}
}

// Redis is restarted: what it had acknowledged stays, and all goes on by itself.
func TestRestart(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	a, b, _, _ := pair(t, r)
	c := client(t, r)
	sent := 0
	send := func(n int) {
		for range n {
			require.NoError(t, c.Publish(t.Context(), "alerts:tenant:t0", sent).Err())
			sent++
		}
	}
	for range 3 {
		send(200)
		settledAt := func() bool { return len(events(t, a.log, "t0", "alerts")) == sent }
		eventually(t, settledAt)
		settled(t, a, b)
		before := events(t, a.log, "t0", "alerts")
		r.Stop()
		eventually(t, func() bool { return !a.Stats().Ready.Load() && !b.Stats().Ready.Load() })
		r.Start()
		eventually(t, func() bool { return a.Stats().Ready.Load() && b.Stats().Ready.Load() })
		send(200)
		eventually(t, settledAt)
		settled(t, a, b)
		require.Equal(t, before, events(t, a.log, "t0", "alerts")[:len(before)])
		require.Equal(t, numbers(sent), data(t, a.log, "t0", "alerts"))
	}
}

// While Redis refuses to append, messages wait, within bounds; then all go in.
func TestRefused(t *testing.T) {
	r := logtest.StartRedis(t)
	a, b, _, _ := pair(t, r)
	c := client(t, r)
	refuse := func(bytes string) { require.NoError(t, c.ConfigSet(t.Context(), "maxmemory", bytes).Err()) }
	k := startTalk(t, r, 20, time.Millisecond)
	eventually(t, heard(a, 1000))
	refuse("1")
	eventually(t, heard(a, 1000))
	before := runtime.NumGoroutine()
	eventually(t, heard(a, 8_000))
	require.Less(t, runtime.NumGoroutine(), before+50) // connections of the workers, with the proxies'
	require.Greater(t, a.Waiting(), 5_000)
	refuse("0")
	k.end(t, a, b)
	require.Zero(t, a.Stats().Lost.Load()+b.Stats().Lost.Load())
}

// What waits has a bound: beyond it new ones are given up.
func TestTooMuch(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	log := openLog(t, r.URL())
	in := ingest.NewQuick(options(t, log))
	const n, bound = 1000, 1 << 20
	in.Bound(bound)
	i := run(t, log, in)
	eventually(t, i.Stats().Leading.Load)
	c := client(t, r)
	require.NoError(t, c.ConfigSet(t.Context(), "maxmemory", "1").Err())
	large := strings.Repeat("x", 10<<10)
	for k := range n {
		payload := fmt.Sprintf(`{"a":"%s","n":%d}`, large, k)
		require.NoError(t, c.Publish(t.Context(), "events:tenant:t0:a", payload).Err())
	}
	eventually(t, func() bool { return i.Stats().Lost.Load()+int64(i.Waiting()) == n })
	require.LessOrEqual(t, i.HeldBytes(), bound)
	given := i.Stats().Lost.Load()
	require.Greater(t, given, int64(n/2))
	require.NoError(t, c.ConfigSet(t.Context(), "maxmemory", "0").Err())
	settled(t, i)
	require.Zero(t, i.HeldBytes())
	require.Equal(t, n-given, i.Stats().Appended.Load())
	v, err := i.log.Look(t.Context(), "t0", hub.Query{Topics: []hub.TopicQuery{{Topic: "a", Limit: 1}}})
	require.NoError(t, err)
	require.Contains(t, string(v.Topics[0].Events[0].JSON), fmt.Sprintf(`"n":%d}`, 0))
	require.EqualValues(t, n-given, v.Head)
}

// A burst goes in as it came.
func TestBurst(t *testing.T) {
	t.Parallel()
	for _, tenants := range []int{1, 50} {
		t.Run(strconv.Itoa(tenants), func(t *testing.T) {
			r := logtest.StartRedis(t)
			a, b, _, _ := pair(t, r)
			c := client(t, r)
			const n = 10_000
			pipe := c.Pipeline()
			for k := range n {
				pipe.Publish(t.Context(), fmt.Sprintf("alerts:tenant:t%d", k%tenants), k/tenants)
			}
			_, err := pipe.Exec(t.Context())
			require.NoError(t, err)
			eventually(t, func() bool { return a.Stats().Heard.Load() == n && b.Stats().Heard.Load() == n })
			settled(t, a, b)
			for i := range tenants {
				require.Equal(t, numbers(n/tenants), data(t, a.log, fmt.Sprintf("t%d", i), "alerts"))
			}
		})
	}
}
