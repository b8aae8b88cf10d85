package redissim_test

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub/redislog/redissim"
)

// dial gives a connection of a client, a live one if it is to be.
func dial(t *testing.T, sim *redissim.Redis, client string, live bool) *talk {
	t.Helper()
	nc, err := sim.Dialer(client)(t.Context(), "", "")
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	c := newTalk(nc)
	name := "other"
	if live {
		name = "pushhub-live"
	}
	require.Contains(t, c.ask(t, "HELLO", "2", "SETNAME", name), "master")
	return c
}

const setScript = "#!lua\nreturn redis.call('SET', KEYS[1], ARGV[1])"

// set writes by a script, and gives the answer.
func (c *talk) set(t require.TestingT, value string) string {
	return c.ask(t, "EVAL", setScript, "1", "k", value)
}

const (
	pong = "+PONG\r\n"
	okay = "+OK\r\n" + pong
)

func TestFailover(t *testing.T) {
	var lines []int
	sim := redissim.New(redissim.Options{Observe: func(t redissim.Transaction) { lines = append(lines, t.Line) }})
	c := dial(t, sim, "a", false)
	life := c.ask(t, "INFO", "replication")
	require.Contains(t, life, sim.Life())
	for _, v := range []string{"1", "2", "3"} {
		require.Equal(t, okay, c.set(t, v))
	}
	sim.Failover(2, redissim.Dies)
	_, err := c.nc.Write([]byte("x"))
	require.ErrorIs(t, err, io.EOF)
	c = dial(t, sim, "a", false)
	require.NotEqual(t, life, c.ask(t, "INFO", "replication"))
	require.Equal(t, "$1\r\n1\r\n"+pong, c.ask(t, "GET", "k"))
	require.Contains(t, c.ask(t, "EVALSHA", "0123", "0"), "NOSCRIPT")
	require.Equal(t, okay, c.set(t, "4"))
	require.Equal(t, []int{0, 0, 0, 1}, lines)
}

// In a split both primaries take what they are told, and only one of them remains.
func TestSplit(t *testing.T) {
	sim := redissim.New(redissim.Options{})
	old := dial(t, sim, "a", false)
	live := dial(t, sim, "a", true)
	live.ask(t, "SSUBSCRIBE", "c1")
	require.Equal(t, okay, old.set(t, "1"))
	sim.Failover(0, redissim.GoesOn)
	fresh := dial(t, sim, "a", false)
	require.Equal(t, okay, old.set(t, "2"))
	require.Equal(t, "$1\r\n1\r\n"+pong, fresh.ask(t, "GET", "k"))
	require.Equal(t, ":0\r\n"+pong, fresh.ask(t, "SPUBLISH", "c1", "m"), "who listens to the old one hears nothing of the new one")
	require.Equal(t, ":1\r\n"+pong, old.ask(t, "SPUBLISH", "c1", "m"))
	sim.EndSplit()
	_, err := old.nc.Write([]byte("x"))
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, "$1\r\n1\r\n"+pong, fresh.ask(t, "GET", "k"))
}

// Who is still connected to an old primary that was demoted reads there what was,
// and writes nothing.
func TestDemoted(t *testing.T) {
	sim := redissim.New(redissim.Options{})
	old := dial(t, sim, "a", false)
	require.Equal(t, okay, old.set(t, "1"))
	require.Equal(t, okay, old.set(t, "2"))
	sim.Failover(1, redissim.Demoted)
	require.Contains(t, old.set(t, "3"), "-READONLY ")
	fresh := dial(t, sim, "a", false)
	require.Equal(t, okay, fresh.set(t, "4"))
	const get = "#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])"
	require.Equal(t, "$1\r\n1\r\n"+pong, old.ask(t, "EVAL_RO", get, "1", "k"))
	sim.Replicate()
	require.Equal(t, "$1\r\n4\r\n"+pong, old.ask(t, "EVAL_RO", get, "1", "k"))
	was, _, _ := strings.Cut(old.ask(t, "INFO", "replication"), "+PONG")
	is, _, _ := strings.Cut(fresh.ask(t, "INFO", "replication"), "+PONG")
	require.Contains(t, was, "role:slave")
	require.Contains(t, is, "role:master")
	require.Equal(t, strings.Split(was, "replid:")[1], strings.Split(is, "replid:")[1])
}

func TestRestart(t *testing.T) {
	sim := redissim.New(redissim.Options{})
	c := dial(t, sim, "a", false)
	life := c.ask(t, "INFO", "server")
	c.set(t, "1")
	c.set(t, "2")
	sim.Restart(1)
	c = dial(t, sim, "a", false)
	require.NotEqual(t, life, c.ask(t, "INFO", "server"))
	require.Equal(t, "$1\r\n1\r\n"+pong, c.ask(t, "GET", "k"))
	sim.Restart(-1)
	require.Equal(t, "$-1\r\n"+pong, dial(t, sim, "a", false).ask(t, "GET", "k"))
}

func TestFaultsOfScripts(t *testing.T) { synctest.Test(t, testFaultsOfScripts) }

func testFaultsOfScripts(t *testing.T) {
	sim := redissim.New(redissim.Options{})
	other := dial(t, sim, "b", false)
	has := func(value string) {
		t.Helper()
		require.Equal(t, "$1\r\n"+value+"\r\n"+pong, other.ask(t, "GET", "k"))
	}
	c := dial(t, sim, "a", false)
	require.Equal(t, okay, c.set(t, "0"))

	sim.Spoil("a", redissim.OOM, true, 1)
	require.Equal(t, okay, c.set(t, "1"), "it does not only read")
	sim.Spoil("a", redissim.OOM, false, 1)
	require.Contains(t, c.set(t, "2"), "-OOM ")
	has("1")

	for _, f := range []redissim.Fault{redissim.LateRequest, redissim.LateAnswer} {
		sim.Spoil("a", f, false, 1)
		done := make(chan string)
		go func() { done <- c.set(t, "3") }()
		synctest.Wait()
		require.Equal(t, 1, sim.Held())
		if f == redissim.LateAnswer {
			has("3")
		} else {
			has("1")
		}
		sim.Release(0)
		require.Equal(t, okay, <-done)
		has("3")
	}

	sim.Spoil("a", redissim.LoseRequest, false, 1)
	_, err := c.nc.Write([]byte("*4\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n0\r\n$1\r\nx\r\n"))
	require.NoError(t, err)
	_, err = c.in.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	has("3")
}

// What befalls live connections befalls no others, and those of one client only.
func TestFaultsOfLiveConnections(t *testing.T) {
	sim := redissim.New(redissim.Options{})
	c, live, other := dial(t, sim, "a", false), dial(t, sim, "a", true), dial(t, sim, "b", true)
	for _, l := range []*talk{live, other} {
		l.ask(t, "SSUBSCRIBE", "c1")
	}
	said := 0
	say := func() string {
		said++
		c.ask(t, "SPUBLISH", "c1", string(rune('a'+said)))
		return "*3\r\n$8\r\nsmessage\r\n$2\r\nc1\r\n$1\r\n" + string(rune('a'+said)) + "\r\n"
	}
	const end = "*2\r\n$4\r\npong\r\n$0\r\n\r\n"

	sim.Deafen("a", 1)
	say()
	heard := say()
	require.Equal(t, heard+end, live.ask(t), "the second")
	sim.Deafen("a", -1)
	say()
	require.Equal(t, end, live.ask(t))
	sim.Deafen("a", 0)

	sim.Hold("a", true)
	one, two := say(), say()
	sim.Pass("a", 1)
	require.Equal(t, one, live.answer(t))
	sim.Hold("a", false)
	require.Equal(t, two+end, live.ask(t))

	sim.Stall("a", true)
	_, err := live.nc.Write([]byte("*2\r\n$12\r\nSUNSUBSCRIBE\r\n$2\r\nc1\r\n"))
	require.NoError(t, err)
	still := say()
	sim.Take("a")
	require.Equal(t, still+"*3\r\n$12\r\nsunsubscribe\r\n$2\r\nc1\r\n:0\r\n", live.answer(t)+live.answer(t))
	sim.Stall("a", false)

	sim.Elsewhere("a", 1)
	require.Contains(t, live.ask(t, "SSUBSCRIBE", "c1"), "-MOVED ")
	require.NotContains(t, live.ask(t, "SSUBSCRIBE", "c1"), "-MOVED ")
	sim.Move("a")
	require.Contains(t, live.answer(t), "sunsubscribe")

	sim.Mislead("a", 1)
	nc, err := sim.Dialer("a")(t.Context(), "", "")
	require.NoError(t, err)
	require.Contains(t, newTalk(nc).ask(t, "HELLO", "2", "SETNAME", "pushhub-live"), "replica")
	nc.Close()

	sim.Break("a", false)
	_, err = live.in.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, pong, c.ask(t))
	sim.Break("a", true)
	_, err = c.in.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	sim.Refuse("a", true)
	_, err = sim.Dialer("a")(t.Context(), "", "")
	require.Error(t, err)
	require.Contains(t, other.ask(t), "smessage", "all the time it heard everything")
}

// A command that the model lacks is the test's failure, not only an answer.
func TestUnknownCommand(t *testing.T) {
	said := ""
	sim := redissim.New(redissim.Options{Fail: func(what string) { said = what }})
	require.Contains(t, dial(t, sim, "a", false).ask(t, "LPUSH", "k", "v"), "-ERR unknown command")
	require.Contains(t, said, `"lpush"`)
}
