package redislog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub/logtest"
)

// listener is one Hear that is under way, and its ear.
type listener struct {
	unmarked chan struct{}
	marks    chan struct{}
	came     chan string // pattern, count, channel and payload
	ended    chan error  // of one
	stop     context.CancelFunc
}

func (l *listener) Begins() Claim {
	return Claim{Owner: "listener", Open: OpenFromMark, Stale: time.Minute}
}
func (l *listener) Unmarked()    { l.unmarked <- struct{}{} }
func (l *listener) Marked(int64) { l.marks <- struct{}{} }
func (l *listener) Message(name RawName, channel string, payload []byte) {
	l.came <- fmt.Sprintf("%s %d %s %q %t", name.Pattern, name.N, channel, payload, payload == nil)
}

func listenTo(t *testing.T, l *Log, max int, patterns ...string) *listener {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	e := &listener{unmarked: make(chan struct{}, 1), marks: make(chan struct{}, 100), came: make(chan string, 1000), ended: make(chan error, 1), stop: stop}
	go func() { e.ended <- l.Hear(ctx, patterns, max, e) }()
	t.Cleanup(stop)
	return e
}

// begin waits until it has the mark that is set with the subscription.
func (e *listener) begin() {
	<-e.marks
}

func setMark(t *testing.T, l *Log) {
	t.Helper()
	_, err := l.Lease(t.Context(), Claim{Owner: "nobody"})
	require.NoError(t, err)
}

func (e *listener) end(t *testing.T) {
	t.Helper()
	e.stop()
	require.ErrorIs(t, <-e.ended, context.Canceled)
}

func TestHear(t *testing.T) {
	server := logtest.StartRedis(t)
	l := openAt(t, server.Addr())
	say := func(channel, payload string) {
		require.NoError(t, l.Client().Publish(t.Context(), channel, payload).Err())
	}
	e := listenTo(t, l, 100, "a:*", "*:b", "?:c")
	e.begin()
	require.Equal(t, int64(3), l.Client().PubSubNumPat(t.Context()).Val())
	garbage := string([]byte{0, 13, 10, 255, '$', '*', '-', 13, 10})
	hundred, more := strings.Repeat("x", 100), strings.Repeat("y", 101)
	for _, m := range [][2]string{{"a:a", "1"}, {"b:b", "2"}, {"other", "3"}, {"a:" + garbage, garbage}, {"a:", ""}, {"a:a", hundred}, {"a:a", more}, {"a:" + strings.Repeat("z", maxShort), "4"}, {"b:c", "5"}} {
		say(m[0], m[1])
	}
	for _, noise := range []string{"", "1", "x y", "-1 z", "99999999999999999999 z"} {
		say(leaseKey, noise)
	}
	setMark(t, l)
	say("a:d", "6")
	for _, want := range []string{
		`a:* 1 a:a "1" false`, `*:b 1 b:b "2" false`, fmt.Sprintf("a:* 2 a:%s %q false", garbage, garbage), `a:* 3 a: "" false`,
		`a:* 4 a:a "` + hundred + `" false`, `a:* 5 a:a "" true`, `a:* 6  "4" false`, `?:c 1 b:c "5" false`,
		`a:* 1 a:d "6" false`,
	} {
		require.Equal(t, want, <-e.came)
	}
	e.end(t)
	require.Eventually(t, func() bool { return l.Client().PubSubNumPat(t.Context()).Val() == 0 }, 20*time.Second, time.Millisecond)
}

// Without transactions what comes before the first mark has no name. Where no mark
// can be set nobody is listened to, so that PUBLISH does not say that somebody heard.
func TestHearWithoutAMark(t *testing.T) {
	server := logtest.StartRedis(t)
	admin := openAt(t, server.Addr())
	say := func(payload string) int64 {
		heard, err := admin.Client().Publish(t.Context(), "a", payload).Result()
		require.NoError(t, err)
		return heard
	}
	listen := func(without string) *listener {
		require.NoError(t, admin.Client().Do(t.Context(), "ACL", "SETUSER", "u", "reset", "on", ">p", "~*", "&*", "+@all", "-"+without).Err())
		return listenTo(t, openLog(t, Options{Redis: &redis.Options{Addr: server.Addr(), Username: "u", Password: "p"}}, quick), 100, "a")
	}
	e := listen("multi")
	<-e.unmarked
	stand, err := admin.Lease(t.Context(), Claim{Owner: "another", Mark: time.Hour, Stale: time.Hour})
	require.NoError(t, err)
	require.NotZero(t, stand.Open, "others know that it listens")
	require.EqualValues(t, 1, say("lost"))
	setMark(t, admin)
	<-e.marks
	say("heard")
	require.Equal(t, `a 1 a "heard" false`, <-e.came)
	e.end(t)

	for _, without := range []string{"eval", "hset", "publish"} {
		require.ErrorContains(t, <-listen(without).ended, "refused", without)
		require.Eventually(t, func() bool { return say("to nobody") == 0 }, 20*time.Second, time.Millisecond)
	}
	require.NoError(t, admin.Client().ConfigSet(t.Context(), "maxmemory", "1").Err())
	require.ErrorContains(t, <-listenTo(t, admin, 100, "a").ended, "OOM")
}

// All who listen come to the same names, whenever they began.
func TestNames(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	a := listenTo(t, l, 100, "a:*", "b:*")
	a.begin()
	stop := make(chan struct{})
	said := make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				said <- nil
				return
			default:
			}
			if err := l.Client().Publish(t.Context(), []string{"a:1", "b:1", "b:2"}[n%3], n).Err(); err != nil {
				said <- err
				return
			}
			if n%50 == 0 {
				if _, err := l.Lease(t.Context(), Claim{Owner: "nobody"}); err != nil {
					said <- err
					return
				}
			}
			<-a.came
		}
	}()
	b, c := hearNames(t, l, "a:*", "b:*"), hearNames(t, l, "b:*") // another map of channels
	<-b.enough
	<-c.enough
	close(stop)
	require.NoError(t, <-said)
	b.stop()
	c.stop()
	<-b.ended
	<-c.ended
	same := 0
	for name, payload := range c.heard {
		if other, is := b.heard[name]; is {
			require.Equal(t, other, payload)
			same++
		}
	}
	require.Greater(t, same, 300)
	payloads := map[string]bool{}
	for _, p := range b.heard {
		require.False(t, payloads[p], "two names for %s", p)
		payloads[p] = true
	}
	a.end(t)
}

// namesOf is a Hear that remembers what had which name.
type namesOf struct {
	heard  map[RawName]string // owned by Hear until ended
	enough chan struct{}      // closed when 500 came
	ended  chan error         // of one
	stop   context.CancelFunc
}

func (*namesOf) Begins() Claim { return Claim{} }
func (*namesOf) Unmarked()     {}
func (*namesOf) Marked(int64)  {}
func (n *namesOf) Message(name RawName, _ string, payload []byte) {
	if n.heard[name] = string(payload); len(n.heard) == 500 {
		close(n.enough)
	}
}

func hearNames(t *testing.T, l *Log, patterns ...string) *namesOf {
	ctx, stop := context.WithCancel(t.Context())
	n := &namesOf{heard: map[RawName]string{}, enough: make(chan struct{}), ended: make(chan error, 1), stop: stop}
	go func() { n.ended <- l.Hear(ctx, patterns, 100, n) }()
	t.Cleanup(stop)
	return n
}

// Large messages that nobody wants break nothing, and are read past at once.
func TestHearLarge(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	e := listenTo(t, l, 10, "*")
	e.begin()
	<-e.came // the mark: it is a message too
	large := strings.Repeat("x", 3<<20)
	for i := range 20 {
		require.NoError(t, l.Client().Publish(t.Context(), "a", large).Err())
		require.NoError(t, l.Client().Publish(t.Context(), "a", i).Err())
	}
	for i := range 20 {
		require.Equal(t, fmt.Sprintf(`* %d a "" true`, 2*i+2), <-e.came)
		require.Equal(t, fmt.Sprintf(`* %d a "%d" false`, 2*i+3, i), <-e.came)
	}
	e.end(t)
}

// The connection ends with what ends connections, and always says so.
func TestHearEnds(t *testing.T) {
	server := logtest.StartRedis(t)
	l := openAt(t, server.Addr())
	for name, end := range map[string]func(){
		"killed":  func() { admin(t, server, "CLIENT", "KILL", "TYPE", "pubsub") },
		"the end": func() { server.Stop(); server.Start() },
		"too slow": func() {
			admin(t, server, "CONFIG", "SET", "client-output-buffer-limit", "pubsub 1 0 0")
			admin(t, server, "PUBLISH", "a", strings.Repeat("x", 1<<20))
			admin(t, server, "CONFIG", "SET", "client-output-buffer-limit", "pubsub 33554432 8388608 60")
		},
	} {
		e := listenTo(t, l, 100, "*")
		e.begin()
		end()
		require.Error(t, <-e.ended, name)
	}
	server.Stop()
	require.Error(t, <-listenTo(t, l, 100, "*").ended)
	server.Start()

	admin(t, server, "ACL", "SETUSER", "deaf", "on", ">w", "~*", "resetchannels", "+@all")
	deaf := openLog(t, Options{Redis: &redis.Options{Addr: server.Addr(), Username: "deaf", Password: "w"}}, quick)
	require.ErrorContains(t, <-listenTo(t, deaf, 100, "*").ended, "NOPERM")
	admin(t, server, "REPLICAOF", "127.0.0.1", 1)
	require.ErrorIs(t, <-listenTo(t, l, 100, "*").ended, errRefused)
}

// What Redis never says ends the connection.
func TestHearNonsense(t *testing.T) {
	for name, said := range map[string]string{
		"an error":                 "-ERR something\r\n",
		"a simple pong":            "+PONG\r\n",
		"an integer":               ":1\r\n",
		"an empty line":            "\r\n",
		"not RESP":                 "HTTP/1.1 400 Bad Request\r\n\r\n",
		"a line without end":       strings.Repeat("*", readBuffer+1),
		"a mark of another server": string(appendCommand(nil, "message", leaseKey, "8 another")),
		"a second standing":        "*3\r\n:1\r\n:2\r\n:3\r\n",
		"a mark from before":       string(appendCommand(nil, "message", leaseKey, "6 s")),
		"a sharded message":        string(appendCommand(nil, "smessage", "a", "x")),
		"an end of a subscription": confirmation("punsubscribe", "*"),
		"no payload":               "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$-1\r\n",
		"a number for a payload":   "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n:1\r\n",
		"a payload that goes on":   "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$1\r\nxyz\r\n",
		"a long mark":              string(appendCommand(nil, "message", leaseKey, strings.Repeat("1", 9999))),
		"a length that is none":    "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$1x\r\n",
		"a length beyond all":      "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$9999999999\r\n",
		"a pattern that is long":   "*4\r\n$8\r\npmessage\r\n$9999\r\n" + strings.Repeat("x", 9999) + "\r\n$1\r\na\r\n$1\r\nx\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			e := &sequence{t: t}
			h := hearing{r: newReader(strings.NewReader(began + said + string(appendCommand(nil, "pmessage", "*", "a", "x")))), max: 10, patterns: 1, ear: e, server: "s", counts: map[string]int64{}}
			for range 3 {
				require.NoError(t, h.read())
			}
			require.Equal(t, "marked ", e.told.String())
			err := h.read()
			require.Error(t, err)
			require.False(t, errors.Is(err, io.EOF), "%v", err)
			require.Equal(t, "marked ", e.told.String())
		})
	}
}

// FuzzHear lets a server say anything, once the handshake is done.
func FuzzHear(f *testing.F) {
	pmessage := string(appendCommand(nil, "pmessage", "a:*", "a:b", "0123456789"))
	mark := string(appendCommand(nil, "message", leaseKey, "9 s"))
	for _, s := range []string{
		began + pmessage + mark + pmessage, pmessage + mark + pmessage,
		began + string(appendCommand(nil, "pmessage", "a:*", "a:b", "01234567890")) + pmessage,
		confirmation("punsubscribe", "a:*"), "-ERR x\r\n", "*4\r\n$8\r\npmessage\r\n$-1\r\n", helloAnswer,
		began + "*3\r\n:1\r\n:0\r\n:0\r\n" + pmessage, "*3\r\n:1\r\n+0\r\n" + began,
		"$20\r\n# Server\r\nrun_id:s\r\n\r\n" + began, "-NOPERM x\r\n" + began,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, said string) {
		e := &sequence{t: t, said: said}
		h := hearing{r: newReader(strings.NewReader(said)), max: 10, patterns: 1, ear: e, claimed: true, counts: map[string]int64{}}
		if said != "" && (said[0] == '-' || said[0] == '$') && h.identify() != nil {
			return
		}
		for h.read() == nil {
		}
	})
}

var began = confirmation("psubscribe", "*") + confirmation("subscribe", leaseKey) + string(appendCommand(nil, "message", leaseKey, "7 s"))

// sequence is an Ear that checks in which order it is told what.
type sequence struct {
	t    *testing.T
	said string
	told strings.Builder
	last map[string]RawName
}

func (e *sequence) Begins() Claim { return Claim{} }

func (e *sequence) Unmarked() {
	if e.told.WriteString("unmarked "); e.told.Len() > 9 {
		e.t.Errorf("%s", e.told.String())
	}
}

func (e *sequence) Marked(int64) { e.told.WriteString("marked ") }

func (e *sequence) Message(name RawName, channel string, payload []byte) {
	e.told.WriteString("message ")
	if e.last == nil {
		e.last = map[string]RawName{}
	}
	last := e.last[name.Pattern]
	e.last[name.Pattern] = name
	if name.Mark < last.Mark || name.Mark == last.Mark && name.N != last.N+1 || name.Mark > last.Mark && name.N != 1 ||
		len(payload) > 10 || len(channel) > maxShort || !strings.Contains(e.said, string(payload)) ||
		!slices.Contains(strings.Fields(e.told.String()), "marked") {
		e.t.Errorf("%+v after %+v: %q %q", name, last, channel, payload)
	}
}
