package redissim_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub/redislog/redissim"
)

// at gives a connection to a node of a Cluster.
func at(t *testing.T, sim *redissim.Redis, addr string) *talk {
	t.Helper()
	nc, err := sim.Dialer("a")(t.Context(), "tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	return newTalk(nc)
}

// The slot of {b}, 3300, moves from the first node to the second, key by key.
func TestMigration(t *testing.T) {
	sim := redissim.New(redissim.Options{Moves: "{b}"})
	first, second := at(t, sim, redissim.Nodes[0]), at(t, sim, redissim.Nodes[1])
	const script = "#!lua\nfor _, key in ipairs(KEYS) do redis.call('SET', key, 'v') end\nreturn #KEYS"
	both := []string{"EVAL", script, "2", "x{b}", "y{b}"}
	const done = ":2\r\n" + pong
	moved := func(addr string) string { return "-MOVED 3300 " + addr + "\r\n" + pong }

	require.Equal(t, done, first.ask(t, both...))
	require.Equal(t, moved(redissim.Nodes[0]), second.ask(t, both...))
	require.Equal(t, "-CROSSSLOT Keys in request don't hash to the same slot\r\n"+pong, first.ask(t, "EVAL", script, "2", "x{b}", "y{c}"))
	subscribed := "*3\r\n$10\r\nssubscribe\r\n$7\r\nlive{b}\r\n:1\r\n"
	live := at(t, sim, redissim.Nodes[0])
	require.Contains(t, live.ask(t, "SSUBSCRIBE", "live{b}"), subscribed)
	require.Equal(t, moved(redissim.Nodes[0]), second.ask(t, "SSUBSCRIBE", "live{b}"))

	sim.Migrate(0)
	require.True(t, sim.Moving())
	require.Equal(t, done, first.ask(t, both...), "all is still here")
	require.Equal(t, "-ASK 3300 "+redissim.Nodes[1]+"\r\n"+pong, first.ask(t, "EVAL", script, "1", "new{b}"))
	sim.Migrate(1)
	require.Contains(t, first.ask(t, both...), "-TRYAGAIN ")
	require.Equal(t, moved(redissim.Nodes[0]), second.ask(t, both...))
	sim.Migrate(1)
	require.Contains(t, first.ask(t, both...), "-ASK ")

	sim.FinishMigration()
	require.False(t, sim.Moving())
	require.Equal(t, moved(redissim.Nodes[1]), first.ask(t, both...))
	require.Equal(t, done, second.ask(t, both...))
	require.Equal(t, "*3\r\n$12\r\nsunsubscribe\r\n$7\r\nlive{b}\r\n:0\r\n", live.answer(t))
	require.Contains(t, second.ask(t, "SSUBSCRIBE", "live{b}"), subscribed)
}

// A primary that was replaced while the slot moved, and goes on, knows that it moves.
func TestMigrationInASplit(t *testing.T) {
	sim := redissim.New(redissim.Options{Moves: "{b}"})
	old := at(t, sim, redissim.Nodes[0])
	const script = "#!lua\nfor _, key in ipairs(KEYS) do redis.call('SET', key, 'v') end\nreturn #KEYS"
	both := []string{"EVAL", script, "2", "x{b}", "y{b}"}
	require.Equal(t, ":2\r\n"+pong, old.ask(t, both...))
	sim.Migrate(1)
	sim.Failover(0, redissim.GoesOn)
	require.Contains(t, old.ask(t, both...), "-TRYAGAIN ")
	require.Contains(t, old.ask(t, "EVAL", script, "1", "x{b}"), "-ASK ")
	require.Equal(t, ":1\r\n"+pong, old.ask(t, "EVAL", script, "1", "y{b}"))
}

// A node that was demoted keeps its address, and sends everybody to the new one.
func TestDemotedNode(t *testing.T) {
	sim := redissim.New(redissim.Options{Moves: "{b}"})
	old := at(t, sim, redissim.Nodes[0])
	require.NotContains(t, old.ask(t, "CLUSTER", "SLOTS"), "redis2")
	sim.Failover(0, redissim.Demoted)
	require.Contains(t, old.ask(t, "CLUSTER", "SLOTS"), "$6\r\nredis2\r\n:7000\r\n")
	require.Equal(t, "-MOVED 3300 redis2:7000\r\n"+pong, old.ask(t, "SSUBSCRIBE", "live{b}"))
	require.Contains(t, at(t, sim, redissim.Nodes[0]).ask(t, "HELLO", "2", "SETNAME", "pushhub-live"), "replica")
	require.Contains(t, at(t, sim, "redis2:7000").ask(t, "SSUBSCRIBE", "live{b}"), "ssubscribe")
}
