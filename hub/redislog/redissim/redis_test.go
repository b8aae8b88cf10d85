package redissim_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/hub/redislog"
	"github.com/pushhub/pushhub/hub/redislog/redissim"
)

// The log passes the suite of all logs on the model Redis too.
func TestLog(t *testing.T) {
	sim := redissim.New(redissim.Options{})
	logtest.Run(t, func(t *testing.T, retention hub.Retention) (a, b hub.Log) {
		return open(t, sim, "a", retention), open(t, sim, "b", retention)
	})
}

func open(t *testing.T, sim *redissim.Redis, client string, retention hub.Retention) *redislog.Log {
	l, err := redislog.Open(redislog.Options{
		Redis:     &redis.Options{Addr: "redis:6379", Dialer: sim.Dialer(client)},
		Retention: retention,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// What a command may be given. Some of it is wrong on purpose.
var (
	keys     = rapid.SampledFrom([]string{"k", "h", "z", "s", "other"})
	names    = rapid.SampledFrom([]string{"a", "b", "c"})
	values   = rapid.SampledFrom([]string{"", "1", "x y\r\nz"})
	numbers  = rapid.SampledFrom([]string{"0", "1", "2", "3", "-1", "-2", "x"})
	scores   = rapid.SampledFrom([]string{"0", "1", "2", "1.5", "-3", "9007199254740991", "x"})
	bounds   = rapid.SampledFrom([]string{"0", "1", "(1", "2", "(2", "+inf", "-inf", "x"})
	ids      = rapid.SampledFrom([]string{"1-0", "2-0", "3-0", "3-1", "7", "9-0", "0-0", "x"})
	edges    = rapid.SampledFrom([]string{"-", "+", "1-0", "(2-0", "3", "(3", "9-0", "x"})
	counts   = rapid.SampledFrom([]string{"0", "1", "2", "10", "-1", "x"})
	channels = rapid.SampledFrom([]string{"c1", "c2"})
)

// shapes are the commands, each with what makes its arguments.
var shapes = []func(t *rapid.T) []string{
	func(t *rapid.T) []string { return []string{"GET", draw(t, keys)} },
	func(t *rapid.T) []string { return []string{"SET", draw(t, keys), draw(t, values)} },
	func(t *rapid.T) []string {
		return []string{"SET", draw(t, keys), draw(t, values), "EX", draw(t, rapid.SampledFrom([]string{"100", "0", "x"}))}
	},
	func(t *rapid.T) []string { return append([]string{"DEL"}, many(t, keys)...) },
	func(t *rapid.T) []string { return append([]string{"EXISTS"}, many(t, keys)...) },
	func(t *rapid.T) []string {
		return []string{"PEXPIREAT", draw(t, keys), draw(t, rapid.SampledFrom([]string{"1", "99999999999999", "x"}))}
	},
	func(t *rapid.T) []string {
		return append([]string{"HSET", draw(t, keys)}, many(t, rapid.OneOf(names, values))...)
	},
	func(t *rapid.T) []string { return []string{"HGET", draw(t, keys), draw(t, names)} },
	func(t *rapid.T) []string { return append([]string{"HMGET", draw(t, keys)}, many(t, names)...) },
	func(t *rapid.T) []string { return append([]string{"HDEL", draw(t, keys)}, many(t, names)...) },
	func(t *rapid.T) []string {
		return []string{"ZADD", draw(t, keys), draw(t, scores), draw(t, names), draw(t, scores), draw(t, names)}
	},
	func(t *rapid.T) []string { return append([]string{"ZREM", draw(t, keys)}, many(t, names)...) },
	func(t *rapid.T) []string { return []string{"ZSCORE", draw(t, keys), draw(t, names)} },
	func(t *rapid.T) []string { return []string{"ZCARD", draw(t, keys)} },
	func(t *rapid.T) []string {
		return maybe(t, []string{draw(t, rapid.SampledFrom([]string{"ZRANGE", "ZREVRANGE"})), draw(t, keys), draw(t, numbers), draw(t, numbers)}, "WITHSCORES")
	},
	func(t *rapid.T) []string {
		return maybe(t, []string{"ZRANGEBYSCORE", draw(t, keys), draw(t, bounds), draw(t, bounds)}, "WITHSCORES")
	},
	func(t *rapid.T) []string { return []string{"XADD", draw(t, keys), draw(t, ids), "f", draw(t, values)} },
	func(t *rapid.T) []string {
		return []string{"XADD", draw(t, keys), "MAXLEN", "=", draw(t, numbers), draw(t, ids), "f", draw(t, values)}
	},
	func(t *rapid.T) []string { return []string{"XLEN", draw(t, keys)} },
	func(t *rapid.T) []string {
		return []string{draw(t, rapid.SampledFrom([]string{"XRANGE", "XREVRANGE"})), draw(t, keys), draw(t, edges), draw(t, edges)}
	},
	func(t *rapid.T) []string {
		return []string{draw(t, rapid.SampledFrom([]string{"XRANGE", "XREVRANGE"})), draw(t, keys), draw(t, edges), draw(t, edges), "COUNT", draw(t, counts)}
	},
	func(t *rapid.T) []string { return []string{"XTRIM", draw(t, keys), "MINID", draw(t, ids)} },
	func(t *rapid.T) []string { return []string{"FLUSHALL"} },
	func(t *rapid.T) []string { return append([]string{"SSUBSCRIBE"}, many(t, channels)...) },
	func(t *rapid.T) []string { return append([]string{"SUNSUBSCRIBE"}, many(t, channels)...) },
	func(t *rapid.T) []string { return []string{"SPUBLISH", draw(t, channels), draw(t, values)} },
	func(t *rapid.T) []string {
		body := draw(t, rapid.SampledFrom(scripts))
		if rapid.IntRange(0, 2).Draw(t, "by sha") == 0 {
			return []string{draw(t, rapid.SampledFrom([]string{"EVALSHA", "EVALSHA_RO"})), redis.NewScript(body).Hash(), "1", draw(t, keys), draw(t, values), draw(t, names)}
		}
		return []string{draw(t, rapid.SampledFrom([]string{"EVAL", "EVAL_RO"})), body, "1", draw(t, keys), draw(t, values), draw(t, names)}
	},
}

// scripts try what Lua makes of answers, and Redis of what Lua gives.
var scripts = []string{
	"#!lua\nreturn redis.call('HMGET', KEYS[1], 'a', 'b')",
	"#!lua flags=no-writes\nreturn {redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), 3.9, ARGV[1], true, false, 7}",
	"#!lua\nlocal e = redis.pcall('XADD', KEYS[1], 'MAXLEN', '=', 2, '5-0', 'f', ARGV[1])\nreturn type(e) == 'table' and e.err or e",
	"#!lua flags=no-writes\nlocal e = redis.pcall('SET', KEYS[1], 'v')\nreturn e.err",
	"#!lua\nreturn redis.call('SET', KEYS[1], 12345678901, 'EX', 600)",
	"#!lua\nreturn redis.error_reply('PUSHHUB it is full')",
	"#!lua flags=no-writes\nlocal v = redis.pcall('GET', KEYS[1])\nreturn {type(v), tonumber(v) or 'none', #ARGV, string.format('%.0f', 9007199254740991)}",
	"#!lua\nreturn redis.call('SPUBLISH', 'c1', ARGV[1])",
	"#!lua\nredis.call('HSET', KEYS[1], ARGV[2], 2 ^ 40)\nreturn redis.call('HGET', KEYS[1], ARGV[2])",
	"#!lua\nif redis.call('EXISTS', KEYS[1]) == 0 then return {} end\nreturn redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 9)",
}

func draw[T any](t *rapid.T, g *rapid.Generator[T]) T { return g.Draw(t, "argument") }

func many(t *rapid.T, g *rapid.Generator[string]) []string {
	return rapid.SliceOfN(g, 1, 4).Draw(t, "arguments")
}

func maybe(t *rapid.T, args []string, more string) []string {
	if rapid.Bool().Draw(t, more) {
		args = append(args, more)
	}
	return args
}

// The model answers as a real Redis does, byte for byte. One connection asks for
// data, the other subscribes.
func TestAsRedis(t *testing.T) {
	server := logtest.StartRedis(t)
	rapid.Check(t, func(rt *rapid.T) {
		sim := redissim.New(redissim.Options{})
		var asker, listener [2]*talk
		for _, c := range []*[2]*talk{&asker, &listener} {
			real, err := net.Dial("tcp", server.Addr())
			require.NoError(rt, err)
			defer real.Close()
			model, err := sim.Dialer("client")(t.Context(), "", "")
			require.NoError(rt, err)
			defer model.Close()
			c[0], c[1] = newTalk(real), newTalk(model)
		}
		asker[0].ask(rt, "FLUSHALL")
		asker[0].ask(rt, "SCRIPT", "FLUSH")
		for range rapid.IntRange(1, 40).Draw(rt, "commands") {
			args := rapid.SampledFrom(shapes).Draw(rt, "shape")(rt)
			c := &asker
			if strings.HasSuffix(args[0], "SUBSCRIBE") {
				c = &listener
			}
			require.Equal(rt, c[0].ask(rt, args...), c[1].ask(rt, args...), "%q", args)
			require.Equal(rt, listener[0].ask(rt), listener[1].ask(rt), "%q", args)
		}
	})
}

// talk is one connection.
type talk struct {
	nc net.Conn
	in *bufio.Reader
}

func newTalk(nc net.Conn) *talk { return &talk{nc, bufio.NewReader(nc)} }

// ask gives the answers to a command as they are on the wire, and all that was
// said before it. Where in a script an error came up is left out.
func (c *talk) ask(t require.TestingT, args ...string) string {
	var b strings.Builder
	for _, command := range [][]string{args, {"PING"}} {
		if len(command) == 0 {
			continue
		}
		fmt.Fprintf(&b, "*%d\r\n", len(command))
		for _, a := range command {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
		}
	}
	_, err := io.WriteString(c.nc, b.String())
	require.NoError(t, err)
	b.Reset()
	for {
		one := c.answer(t)
		if b.WriteString(one); one == "+PONG\r\n" || one == "*2\r\n$4\r\npong\r\n$0\r\n\r\n" {
			return b.String()
		}
	}
}

func (c *talk) answer(t require.TestingT) string {
	line, err := c.in.ReadString('\n')
	require.NoError(t, err)
	n, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
	switch line[0] {
	case '-':
		line, _, _ = strings.Cut(line, " script: ")
	case '$':
		if n >= 0 {
			rest := make([]byte, n+2)
			_, err := io.ReadFull(c.in, rest)
			require.NoError(t, err)
			line += string(rest)
		}
	case '*':
		for range n {
			line += c.answer(t)
		}
	}
	return line
}
