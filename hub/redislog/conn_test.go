package redislog

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub/logtest"
)

// fakeRedis answers live connections as Redis does, until something else is said
// for a command: then it says that instead, once.
type fakeRedis struct {
	// fixed after construction
	ln   net.Listener
	work sync.WaitGroup // accept and the connections

	mu      sync.Mutex
	conns   []net.Conn          // guarded by mu
	instead map[string][]string // guarded by mu; command and first argument → answers
}

func newFakeRedis(t *testing.T) *fakeRedis {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f := &fakeRedis{ln: ln, instead: map[string][]string{}}
	f.work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			f.work.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		f.mu.Lock()
		for _, c := range f.conns {
			c.Close()
		}
		f.mu.Unlock()
		f.work.Wait()
	})
	return f
}

const helloAnswer = "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:2\r\n" +
	"$2\r\nid\r\n:3\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"

func (f *fakeRedis) serve(c net.Conn) {
	defer c.Close()
	r := newReader(c)
	for {
		_, n, err := r.line()
		if err != nil {
			return
		}
		var args []string
		for range must(strconv.Atoi(string(n))) {
			arg, err := r.short()
			if err != nil {
				return
			}
			args = append(args, string(arg))
		}
		answer := ""
		switch args[0] {
		case "HELLO":
			answer = helloAnswer
		case "PING":
			answer = "*2\r\n$4\r\npong\r\n$0\r\n\r\n"
		default:
			answer = confirmation(strings.ToLower(args[0]), args[1])
		}
		f.mu.Lock()
		key := strings.Join(append(args, "")[:2], " ")
		if list := f.instead[key]; len(list) > 0 {
			answer, f.instead[key] = list[0], list[1:]
		}
		f.mu.Unlock()
		if _, err := c.Write([]byte(answer)); err != nil || answer == "" {
			return
		}
	}
}

func must(n int, err error) int {
	if err != nil {
		panic(err)
	}
	return n
}

func confirmation(kind, channel string) string {
	return fmt.Sprintf("*3\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n:1\r\n", len(kind), kind, len(channel), channel)
}

// say says something to the newest connection.
func (f *fakeRedis) say(t *testing.T, s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.conns[len(f.conns)-1].Write([]byte(s))
	require.NoError(t, err)
}

// answer has a command answered otherwise, once.
func (f *fakeRedis) answer(command, with string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.instead[command] = append(f.instead[command], with)
}

func (f *fakeRedis) watch(t *testing.T) (*Log, *logtest.Recorder) {
	l := openLog(t, Options{Redis: &redis.Options{Addr: f.ln.Addr().String()}}, quick)
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	l.Watch("t")
	return l, rec
}

const channelT = "pushhub:{t}:live"

// TestWhatRedisNeverSays: whatever does not fit what was asked ends the
// connection, and a new one covers what the old one had.
func TestWhatRedisNeverSays(t *testing.T) {
	smessage := func(channel, record string) string {
		return string(appendCommand(nil, "smessage", channel, record))
	}
	for name, said := range map[string]string{
		"a confirmation that was not asked for": confirmation("ssubscribe", channelT),
		"an end of what never was":              confirmation("sunsubscribe", "pushhub:{u}:live"),
		"a message of another channel":          smessage("pushhub:{u}:live", record("e", 1)),
		"a message of classic pub/sub":          string(appendCommand(nil, "message", channelT, record("e", 1))),
		"a pong":                                "+PONG\r\n",
		"an error":                              "-ERR something\r\n",
		"MOVED":                                 "-MOVED 1 127.0.0.1:1\r\n",
		"an integer":                            ":1\r\n",
		"an empty line":                         "\r\n",
		"not RESP":                              "HTTP/1.1 400 Bad Request\r\n\r\n",
		"a line without end":                    strings.Repeat("*", readBuffer+1),
		"a string that is no string":            "*3\r\n:1\r\n",
		"no string":                             "*3\r\n$8\r\nsmessage\r\n$-1\r\n",
		"a name without end":                    "*3\r\n$8\r\nsmessagexx\r\n",
		"a name that is too long":               "*3\r\n$9999\r\n" + strings.Repeat("x", 9999) + "\r\n",
		"a record without end":                  "*3\r\n$8\r\nsmessage\r\n$16\r\n" + channelT + "\r\n$1\r\nxyz",
		"a record that is too long":             "*3\r\n$8\r\nsmessage\r\n$16\r\n" + channelT + "\r\n$999999999\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeRedis(t)
			l, rec := f.watch(t)
			rec.AwaitCount(t, "t", logtest.Covered, 1)
			requireTidy(t, l.live, []string{"t"})
			f.say(t, said)
			rec.AwaitCount(t, "t", logtest.Lost, 1)
			rec.AwaitCount(t, "t", logtest.Covered, 2)
			requireTidy(t, l.live, []string{"t"})
			require.EqualValues(t, 1, l.Stats().Reconnects)
			f.say(t, smessage(channelT, record("e", 1)))
			rec.AwaitCount(t, "t", logtest.Live, 1)
		})
	}
}

// TestWrongAnswers answers a subscription otherwise than Redis does: it must not
// count as confirmed.
func TestWrongAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"another channel": confirmation("ssubscribe", "pushhub:{u}:live"),
		"another kind":    confirmation("sunsubscribe", channelT),
		"classic pub/sub": confirmation("subscribe", channelT),
		"a pong":          "*2\r\n$4\r\npong\r\n$0\r\n\r\n",
		"NOPERM":          "-NOPERM this user has no permissions\r\n",
		"the end":         "",
		"half an answer":  confirmation("ssubscribe", channelT)[:20] + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeRedis(t)
			f.answer("SSUBSCRIBE "+channelT, answer)
			l, rec := f.watch(t)
			rec.AwaitCount(t, "t", logtest.Covered, 1)
			requireTidy(t, l.live, []string{"t"})
			require.Zero(t, rec.Count("t", logtest.Lost))
			require.EqualValues(t, 1, l.Stats().Reconnects)
		})
	}
}

// A slot that leaves takes only its tenants along.
func TestSlotLeaves(t *testing.T) {
	f := newFakeRedis(t)
	f.answer("SSUBSCRIBE "+channelT, "-MOVED 1 127.0.0.1:1\r\n")
	f.answer("SSUBSCRIBE "+channelT, "-CLUSTERDOWN Hash slot not served\r\n")
	l, rec := f.watch(t)
	l.Watch("u")
	rec.AwaitCount(t, "u", logtest.Covered, 1)
	rec.AwaitCount(t, "t", logtest.Covered, 1)
	require.Zero(t, rec.Count("t", logtest.Lost))
	requireTidy(t, l.live, []string{"t", "u"})

	f.say(t, confirmation("sunsubscribe", channelT))
	rec.AwaitCount(t, "t", logtest.Lost, 1)
	rec.AwaitCount(t, "t", logtest.Covered, 2)
	requireTidy(t, l.live, []string{"t", "u"})
	require.Zero(t, rec.Count("u", logtest.Lost))
	require.Zero(t, l.Stats().Reconnects)

	// An end that is refused has come all the same.
	f.answer("SUNSUBSCRIBE "+channelT, "-MOVED 1 127.0.0.1:1\r\n")
	l.Unwatch("t")
	requireTidy(t, l.live, []string{"u"})
	require.Zero(t, l.Stats().Reconnects)
}

// TestHandshakes refuses connections before anything is subscribed.
func TestHandshakes(t *testing.T) {
	for name, answer := range map[string]string{
		"refused":     "-WRONGPASS no\r\n",
		"a replica":   strings.Replace(helloAnswer, "$6\r\nmaster", "$7\r\nreplica", 1),
		"no map":      "+OK\r\n",
		"endless map": "*1000000\r\n",
		"nested map":  "*2\r\n$1\r\na\r\n" + strings.Repeat("*1\r\n", 100),
		"no value":    "*2\r\n$1\r\na\r\n$\r\n",
		"odd value":   "*2\r\n$1\r\na\r\n_\r\n",
		"the end":     "",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeRedis(t)
			f.answer("HELLO 2", answer)
			l, rec := f.watch(t)
			rec.AwaitCount(t, "t", logtest.Covered, 1)
			require.Zero(t, l.Stats().Reconnects, "it had not been connected")
		})
	}
}

// FuzzConn lets a server say anything, once the handshake is done.
func FuzzConn(f *testing.F) {
	for _, s := range []string{
		string(appendCommand(nil, "smessage", channelT, record("e", 1))),
		confirmation("ssubscribe", channelT), confirmation("sunsubscribe", channelT),
		"+PONG\r\n", "*2\r\n$4\r\npong\r\n$0\r\n\r\n", "-MOVED 1 x\r\n", ":1\r\n", helloAnswer,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, said string) {
		var got counter
		l := &live{ctx: t.Context(), pace: quick, servers: &servers{}, pauses: map[string]*backoff{}, subs: map[string]*sub{}, wake: make(chan struct{}, 1)}
		c := newConn(l, endpoint{Options: &redis.Options{}})
		s := &sub{tenant: "t", channel: channelT, calls: &l.calls[0], listener: &got, conn: c, subscribed: true, covered: true}
		s.wanted.Store(true)
		l.subs["t"], c.subs[s], c.channels[channelT] = s, struct{}{}, s
		c.asked = []request{{kind: ping}, {subscribe, s, time.Time{}}, {unsubscribe, s, time.Time{}}, {subscribe, s, time.Time{}}}
		s.pending = 3
		r := newReader(strings.NewReader(said))
		for c.read(r) == nil {
		}
		l.ended(c, errReset)
		if s.conn != nil || s.covered || s.pending != 0 || len(l.waiting) != 1 {
			t.Errorf("%+v", s)
		}
		r = newReader(strings.NewReader(said))
		if facts, err := r.flatMap(); err == nil && len(facts) > 50 {
			t.Errorf("%d facts", len(facts))
		}
	})
}
