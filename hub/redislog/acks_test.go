package redislog

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/protocol"
)

// A primary that was replaced goes on for a while. What it acknowledges after the
// new one has begun its epoch, and announced that, begins another; what it
// acknowledged before that does not.
func TestSplitBrain(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]bool{"acknowledged before the new epoch": false, "after it": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old := logtest.StartRedis(t)
			next := old.StartReplica()
			network := newProxy(t, old.Addr())
			l, there := openAt(t, network.addr()), openAt(t, next.Addr())
			replicated := func() { require.EqualValues(t, 1, admin(t, old, "WAIT", 1, 20_000)) }
			admin(t, old, "SET", "x", 1) // the first replica has the primary name its life anew
			replicated()
			first := publish(t, l, "t", event("a", 1))
			replicated()

			admin(t, next, "REPLICAOF", "NO", "ONE")
			lose := func() protocol.Cursor { return publish(t, l, "t", event("a", 2), event("b", 3))[1] }
			if !late {
				lose()
				elapse(t, next, time.Second) // what a call takes counts as if it had come later
			}
			second := publish(t, there, "t", event("a", 4))
			require.NotEqual(t, first[0].Epoch, second[0].Epoch)
			if late {
				elapse(t, next, 2*time.Millisecond) // times are in whole ms
				require.Equal(t, first[0].Epoch, lose().Epoch)
			}
			network.turn(next.Addr())

			third := publishSoon(t, l, event("a", 5)) // it is connected, which wakes the check
			base := third.Seq
			if third.Epoch != second[0].Epoch { // the check was quicker
				require.True(t, late)
				base--
			}
			checked := func() bool {
				v := look(t, there, "t", hub.Query{})
				return v.Epoch != second[0].Epoch && len(v.Past) > 0 && v.Past[0] == protocol.Cursor{Epoch: second[0].Epoch, Seq: base}
			}
			if late {
				require.Eventually(t, checked, 20*time.Second, 10*time.Millisecond)
			} else {
				for of, it := range l.servers.acks.all() {
					touch(t, l, of, it)
				}
				require.False(t, checked())
			}
		})
	}
}

// TestSplitBrainForgetful: the old primary was started again, with nothing, and what it
// takes is in an epoch that the new one has never heard of. Who was told so finds out,
// also if it has nothing else to say to the new one.
func TestSplitBrainForgetful(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*testing.T, *Log) bool{
		"published": func(t *testing.T, l *Log) bool {
			_, err := l.Publish(t.Context(), "t", []protocol.Publication{event("a", 2)})
			return err == nil
		},
		"appended": func(t *testing.T, l *Log) bool {
			a, err := l.Append(t.Context(), "t", raws(1, 1, 1), time.Minute)
			return err == nil && a.Fresh == 1
		},
		"appended, and the answer lost": func(t *testing.T, l *Log) bool {
			_, err := l.Append(t.Context(), "t", raws(1, 1, 1), time.Minute)
			if err != nil {
				return false
			}
			l.servers.acks.mu.Lock()
			clear(l.servers.acks.newest)
			l.servers.acks.mu.Unlock()
			require.Zero(t, tryAppend(t, l, raws(1, 1, 1)).Fresh)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, next := logtest.StartRedis(t), logtest.StartRedis(t)
			network := newProxy(t, old.Addr())
			l, there := openAt(t, network.addr()), openAt(t, next.Addr())
			old.Stop()
			old.Start()
			second := publish(t, there, "t", event("a", 1))
			elapse(t, next, 2*time.Millisecond) // times are in whole ms
			require.Eventually(t, func() bool { return lose(t, l) }, 20*time.Second, 10*time.Millisecond)
			// It asks the old one, to which it has connected, and then has no reason to ask again.
			before := scripts(t, old)
			require.Eventually(t, func() bool { return scripts(t, old) > before }, 20*time.Second, 10*time.Millisecond)
			network.turn(next.Addr())
			require.Eventually(t, func() bool {
				v := look(t, there, "t", hub.Query{})
				return v.Epoch != second[0].Epoch && len(v.Past) > 0 && v.Past[0].Epoch == second[0].Epoch
			}, 3*poll, 10*time.Millisecond)
			for of, it := range l.servers.acks.all() { // and once is enough
				before := look(t, there, "t", hub.Query{})
				touch(t, l, of, it)
				require.Equal(t, before.Epoch, look(t, there, "t", hub.Query{}).Epoch)
			}
		})
	}
}

// TestAcksAreAskedOnce: a primary is asked of each tenant once, and then of one for all.
func TestAcksAreAskedOnce(t *testing.T) {
	t.Parallel()
	const tenants = 50
	server := logtest.StartRedis(t)
	l := openAt(t, server.Addr())
	for n := range tenants {
		publish(t, l, "t"+strconv.Itoa(n), event("a", 1))
	}
	require.Eventually(t, func() bool {
		all := l.servers.acks.all()
		return len(all) == tenants && !slices.ContainsFunc(slices.Collect(maps.Values(all)), func(a ack) bool { return a.of == "" })
	}, 20*time.Second, 10*time.Millisecond)
	before := scripts(t, server)
	for n := range 2 { // as if there were new connections; when the second is seen to, the first has been
		signal(l.servers.acks.dialed)
		require.Eventually(t, func() bool { return scripts(t, server) > before+n }, 20*time.Second, 10*time.Millisecond)
	}
	require.Less(t, scripts(t, server), before+tenants)
}

// scripts gives how many scripts a server has run, by their sha.
func scripts(t *testing.T, server *logtest.Redis) (n int) {
	t.Helper()
	all, _ := admin(t, server, "INFO", "commandstats").(string)
	_, calls, _ := strings.Cut(all, "cmdstat_evalsha:calls=")
	_, err := fmt.Sscan(strings.NewReplacer(",", " ").Replace(calls), &n)
	require.NoError(t, err)
	return n
}

// elapse waits until the clock of a server has gone on.
func elapse(t *testing.T, server *logtest.Redis, d time.Duration) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	clock := func() time.Time {
		now, err := client.Time(t.Context()).Result()
		require.NoError(t, err)
		return now
	}
	for until := clock().Add(d); clock().Before(until); {
	}
}

func touch(t *testing.T, l *Log, of life, it ack) {
	t.Helper()
	_, err := l.touch(t.Context(), of, it)
	require.NoError(t, err)
}

// publishSoon publishes as soon as there is a server again.
func publishSoon(t *testing.T, l *Log, p protocol.Publication) (at protocol.Cursor) {
	t.Helper()
	require.Eventually(t, func() bool {
		ids, err := l.Publish(t.Context(), "t", []protocol.Publication{p})
		if err != nil {
			return false
		}
		at = ids[0]
		return true
	}, 20*time.Second, 10*time.Millisecond)
	return at
}

// newLife gives a primary another life, and takes nothing from it.
func newLife(t *testing.T, server *logtest.Redis) {
	t.Helper()
	admin(t, server, "REPLICAOF", "127.0.0.1", "1")
	admin(t, server, "REPLICAOF", "NO", "ONE")
}

// TestDedupeOfOldEpoch: to repeat a publish whose event is of an epoch long past begins
// no other.
func TestDedupeOfOldEpoch(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	l := openAt(t, server.Addr())
	again := event("a", 1)
	again.Dedupe = "once"
	first := publish(t, l, "t", again)
	for n := range 2 {
		newLife(t, server)
		publishSoon(t, l, event("a", 2+n))
	}
	elapse(t, server, 2*time.Millisecond) // times are in whole ms
	require.Equal(t, first[0], publishSoon(t, l, again))
	before := look(t, l, "t", hub.Query{}).Epoch
	require.NotEqual(t, first[0].Epoch, before)
	require.True(t, l.checkAll(t.Context(), true))
	require.Equal(t, before, look(t, l, "t", hub.Query{}).Epoch)
}

// TestRefusingPrimary: what one primary refuses keeps nobody from asking the others.
func TestRefusingPrimary(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	l := c.open(t, nil, nil)
	nodes := map[string]int{}
	for n := range 40 {
		tenant := "t" + strconv.Itoa(n)
		_, nodes[tenant] = c.slot(t, tenant)
		require.Eventually(t, func() bool {
			_, err := l.Publish(t.Context(), tenant, []protocol.Publication{event("a", 1)})
			return err == nil
		}, 20*time.Second, 10*time.Millisecond)
	}
	c.do(t, 1, "CONFIG", "SET", "min-replicas-to-write", 1)
	l.servers.acks.mu.Lock()
	for of, it := range l.servers.acks.newest { // as if a primary had said so that is gone
		it.of, it.asked = "", ""
		l.servers.acks.newest[of] = it
	}
	l.servers.acks.mu.Unlock()
	require.False(t, l.checkAll(t.Context(), true))
	for of, it := range l.servers.acks.all() {
		require.Equal(t, nodes[of.tenant] != 1, it.asked != "", of.tenant)
	}
}

// elsewhere is what a primary acknowledged that is gone.
var elsewhere = life{"t", "zzzzzzzzzz"}

// begins says whether an acknowledgement from elsewhere has an epoch begun.
func begins(t *testing.T, l *Log) bool {
	t.Helper()
	before := look(t, l, "t", hub.Query{}).Epoch
	touch(t, l, elsewhere, ack{seq: 9, at: time.Now()})
	return look(t, l, "t", hub.Query{}).Epoch != before
}

// TestTouchWhenFull: a Redis that is full announces what is lost all the same.
func TestTouchWhenFull(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	l := openAt(t, server.Addr())
	publish(t, l, "t", event("a", 1))
	admin(t, server, "CONFIG", "SET", "maxmemory", 1)
	_, err := l.Publish(t.Context(), "t", []protocol.Publication{event("a", 2)})
	require.ErrorIs(t, err, hub.ErrUnavailable)
	elapse(t, server, 2*time.Millisecond) // times are in whole ms
	require.True(t, begins(t, l))
}

// TestTouchAndTheClock: an epoch that began in the future, before the clock was set
// back, makes nobody believe that all was acknowledged before it.
func TestTouchAndTheClock(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	l := openAt(t, server.Addr())
	publish(t, l, "t", event("a", 1))
	admin(t, server, "HSET", keysOf("t").prefix+"m", "born", time.Now().Add(20*time.Second).UnixMilli())
	require.True(t, begins(t, l))
}

// TestSomeMayNotAskInfo: who may not ask for the life of the primary leaves it as it is.
func TestSomeMayNotAskInfo(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	admin(t, server, "ACL", "SETUSER", "noinfo", "on", ">x", "~*", "&*", "+@all", "-info")
	a := openAt(t, server.Addr())
	b := openLog(t, Options{Redis: &redis.Options{Addr: server.Addr(), Username: "noinfo", Password: "x"}}, quick)
	first := publish(t, a, "t", event("a", 1))
	for range 2 {
		require.Equal(t, first[0].Epoch, publish(t, b, "t", event("a", 2))[0].Epoch)
		require.Equal(t, first[0].Epoch, look(t, a, "t", hub.Query{}).Epoch)
		require.Equal(t, first[0].Epoch, publish(t, a, "t", event("a", 3))[0].Epoch)
	}
}

// TestReplicaThatTakesWrites: a replica with replica-read-only no acknowledges nothing.
func TestReplicaThatTakesWrites(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	replica := server.StartReplica("--replica-read-only", "no")
	_, err := openAt(t, replica.Addr()).Publish(t.Context(), "t", []protocol.Publication{event("a", 1)})
	require.ErrorIs(t, err, hub.ErrUnavailable)
	require.ErrorContains(t, err, "READONLY")
}

// What is kept of acknowledgements is the newest, and for ten minutes once a primary was
// asked of it.
func TestAcks(t *testing.T) {
	t.Parallel()
	a := newAcks()
	for _, c := range []struct {
		of  life
		seq uint64
	}{{life{"t", "e"}, 7}, {life{"t", "e"}, 5}, {life{"t", "f"}, 6}, {life{"u", "e"}, 1}} {
		a.note(c.of, c.seq)
	}
	seqs := map[life]uint64{}
	for of, it := range a.all() {
		seqs[of] = it.seq
		a.settled(of, it)
	}
	require.Equal(t, map[life]uint64{{"t", "e"}: 7, {"t", "f"}: 6, {"u", "e"}: 1}, seqs)
	require.Len(t, a.all(), 3)
	for of, it := range a.newest {
		it.at = it.at.Add(-2 * ackAge)
		a.newest[of] = it
	}
	old := a.all()
	require.Len(t, old, 3)
	a.note(life{"u", "e"}, 2)
	for of, it := range old {
		a.settled(of, it)
	}
	require.Len(t, a.all(), 1)
}
