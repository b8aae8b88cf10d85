package redislog

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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
			host, port, err := net.SplitHostPort(old.Addr())
			require.NoError(t, err)
			next := logtest.StartRedis(t, "--replicaof", host+" "+port, "--repl-diskless-sync-delay", "0")
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
				time.Sleep(time.Second) // what a call takes counts as if it had come later
			}
			second := publish(t, there, "t", event("a", 4))
			require.NotEqual(t, first[0].Epoch, second[0].Epoch)
			if late {
				time.Sleep(5 * time.Millisecond) // times are in whole ms
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
				return v.Epoch != second[0].Epoch && v.PrevEpoch == second[0].Epoch && v.Base == base
			}
			if late {
				require.Eventually(t, checked, 20*time.Second, 10*time.Millisecond)
			} else {
				for of, it := range l.servers.acks.recent() {
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
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, next := logtest.StartRedis(t), logtest.StartRedis(t)
			network := newProxy(t, old.Addr())
			l, there := openAt(t, network.addr()), openAt(t, next.Addr())
			old.Stop()
			old.Start()
			second := publish(t, there, "t", event("a", 1))
			time.Sleep(5 * time.Millisecond) // times are in whole ms
			require.Eventually(t, func() bool { return lose(t, l) }, 20*time.Second, 10*time.Millisecond)
			// It asks the old one, to which it has connected, and then has no reason to ask again.
			before := scripts(t, old)
			require.Eventually(t, func() bool { return scripts(t, old) > before }, 20*time.Second, 10*time.Millisecond)
			network.turn(next.Addr())
			require.Eventually(t, func() bool {
				v := look(t, there, "t", hub.Query{})
				return v.Epoch != second[0].Epoch && v.PrevEpoch == second[0].Epoch
			}, 3*poll, 10*time.Millisecond)
			for of, it := range l.servers.acks.recent() { // and once is enough
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
		all := l.servers.acks.recent()
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

// What is kept of acknowledgements is the newest, for ten minutes.
func TestAcks(t *testing.T) {
	t.Parallel()
	a := newAcks()
	at := func(epoch string, seq uint64) protocol.Cursor { return protocol.Cursor{Epoch: epoch, Seq: seq} }
	a.note("t", []protocol.Cursor{at("old", 2), at("e", 7), at("e", 3)})
	a.note("t", []protocol.Cursor{at("e", 5)})
	a.note("t", []protocol.Cursor{at("f", 6)})
	a.note("u", []protocol.Cursor{at("e", 1)})
	seqs := map[life]uint64{}
	for of, it := range a.recent() {
		seqs[of] = it.seq
	}
	require.Equal(t, map[life]uint64{{"t", "e"}: 7, {"t", "f"}: 6, {"u", "e"}: 1}, seqs)
	for of, it := range a.newest {
		it.at = it.at.Add(-2 * ackAge)
		a.newest[of] = it
	}
	a.prune = 0
	a.note("v", []protocol.Cursor{at("e", 1)})
	require.Len(t, a.newest, 1)
}
