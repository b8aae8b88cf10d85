package redislog

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/protocol"
)

// tryPublish publishes what must fail, in time.
func tryPublish(t *testing.T, l *Log, events ...protocol.Publication) error {
	t.Helper()
	began := time.Now()
	_, err := l.Publish(t.Context(), "t", events)
	require.Error(t, err)
	require.Less(t, time.Since(began), 5*time.Second)
	return err
}

func TestRedisComesLater(t *testing.T) {
	server := logtest.StartRedis(t)
	server.Stop()
	states := make(chan error, 10)
	opts := Options{Redis: &redis.Options{Addr: server.Addr()}, OnState: func(up bool, err error) {
		require.Equal(t, up, err == nil)
		states <- err
	}}
	l := openLog(t, opts, quick)
	require.Error(t, <-states)
	require.False(t, l.Up())
	require.Positive(t, l.Down())
	require.ErrorIs(t, tryPublish(t, l, event("a", 1)), hub.ErrUnavailable)
	_, err := l.Look(t.Context(), "t", hub.Query{})
	require.ErrorIs(t, err, hub.ErrUnavailable)

	server.Start()
	require.NoError(t, <-states)
	require.True(t, l.Up())
	require.Zero(t, l.Down())
	require.EqualValues(t, 1, publish(t, l, "t", event("a", 2))[0].Seq)
	require.Zero(t, l.Stats().Reconnects)

	server.Stop()
	require.Error(t, <-states)
	require.False(t, l.Up())
	server.Start()
	require.NoError(t, <-states)
	require.EqualValues(t, 1, l.Stats().Reconnects)
}

// A Redis that stands still is found by a ping, though nobody watches.
func TestRedisStandsStill(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	states := make(chan error, 10)
	opts := Options{Redis: &redis.Options{Addr: server.Addr()}, OnState: func(_ bool, err error) { states <- err }}
	l := openLog(t, opts, quick)
	require.NoError(t, <-states)
	publish(t, l, "t", event("a", 1))

	server.Pause()
	require.ErrorIs(t, <-states, errNoAnswer)
	require.ErrorIs(t, tryPublish(t, l, event("a", 2)), hub.ErrUnknown)
	server.Continue()
	require.NoError(t, <-states)
	require.LessOrEqual(t, look(t, l, "t", hub.Query{}).Head, uint64(2), "it is there once, or not")
}

// A command that gets no answer makes the live connection prove itself, long
// before it would be asked for being quiet.
func TestDoubt(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	states := make(chan error, 10)
	slow := quick
	slow.quiet = time.Hour
	opts := Options{Redis: &redis.Options{Addr: server.Addr()}, OnState: func(_ bool, err error) { states <- err }}
	l := openLog(t, opts, slow)
	require.NoError(t, <-states)
	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := l.Look(ctx, "t", hub.Query{})
	require.ErrorIs(t, err, hub.ErrUnavailable)
	require.ErrorIs(t, <-states, errNoAnswer)
	server.Continue()
	require.NoError(t, <-states)
}

// TestLostRequestsAndReplies loses what a publish says, or what it is answered.
// It must not be repeated: the event is in the log never or once.
func TestLostRequestsAndReplies(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	p := newProxy(t, server.Addr())
	l, direct := openAt(t, p.addr()), openAt(t, server.Addr())
	head := func() uint64 { return look(t, direct, "t", hub.Query{}).Head }
	for _, c := range []struct {
		fate  fate
		added uint64
	}{{loseReplies, 1}, {loseRequests, 0}, {loseReplies, 1}, {stall, 0}} {
		publish(t, l, "t", event("a", 1)) // so that a connection is there
		before := head()
		p.set(c.fate)
		require.ErrorIs(t, tryPublish(t, l, event("a", 2)), hub.ErrUnknown)
		p.set(pass)
		require.Equal(t, before+c.added, head())
		require.Eventually(t, l.Up, 20*time.Second, time.Millisecond)
		require.Equal(t, before+c.added, head(), "and not later either")
	}
	// With a dedupe it can be repeated, by the one who knows.
	once := event("a", 3)
	once.Dedupe = "x"
	publish(t, l, "t", event("a", 1))
	p.set(loseReplies)
	require.ErrorIs(t, tryPublish(t, l, once), hub.ErrUnknown)
	p.set(pass)
	at := head()
	require.Equal(t, at, publish(t, l, "t", once)[0].Seq)
	require.Equal(t, at, head())
}

// A context that ends while Redis works leaves the outcome unknown; one that had
// ended before changes nothing.
func TestContextEnds(t *testing.T) {
	server := logtest.StartRedis(t)
	l := openAt(t, server.Addr())
	publish(t, l, "t", event("a", 1))

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := l.Publish(ended, "t", events(1, "a"))
	require.ErrorIs(t, err, hub.ErrUnavailable)
	require.ErrorIs(t, err, context.Canceled)
	_, err = l.Look(ended, "t", hub.Query{})
	require.ErrorIs(t, err, context.Canceled)
	require.EqualValues(t, 1, look(t, l, "t", hub.Query{}).Head)

	server.Pause()
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err = l.Publish(short, "t", events(1, "a"))
	require.ErrorIs(t, err, hub.ErrUnknown)
	server.Continue()
}

// TestRefusals has Redis refuse a publish before it ran: nothing is in the log.
func TestRefusals(t *testing.T) {
	server := logtest.StartRedis(t)
	l := openAt(t, server.Addr())
	publish(t, l, "t", event("a", 1))
	for _, c := range []struct {
		name      string
		make, end []any
	}{
		{"OOM", []any{"CONFIG", "SET", "maxmemory", 1}, []any{"CONFIG", "SET", "maxmemory", 0}},
		{"NOREPLICAS", []any{"CONFIG", "SET", "min-replicas-to-write", 1}, []any{"CONFIG", "SET", "min-replicas-to-write", 0}},
		{"READONLY", []any{"REPLICAOF", "127.0.0.1", 1}, []any{"REPLICAOF", "NO", "ONE"}},
	} {
		admin(t, server, c.make...)
		err := tryPublish(t, l, events(3, "b")...)
		require.ErrorIs(t, err, hub.ErrUnavailable, c.name)
		require.ErrorContains(t, err, c.name)
		admin(t, server, c.end...)
		v := look(t, l, "t", hub.Query{Topics: []hub.TopicQuery{{Topic: "b"}}})
		require.EqualValues(t, 1, v.Head, c.name)
		require.Zero(t, v.Topics[0].Last, c.name)
	}
	require.EqualValues(t, 2, publish(t, l, "t", event("a", 1))[0].Seq)
}

// The seqs of a tenant end where JSON readers and Redis scores cease to hold them.
func TestSeqsUsedUp(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	publish(t, l, "t", event("a", 1))
	require.NoError(t, l.Client().HSet(t.Context(), keysOf("t").prefix+"m", "seq", protocol.MaxSeq-2).Err())
	require.ErrorIs(t, tryPublish(t, l, events(3, "a")...), hub.ErrUnavailable)
	require.EqualValues(t, protocol.MaxSeq-2, look(t, l, "t", hub.Query{}).Head)

	last := publish(t, l, "t", events(2, "a", "b")...)[1]
	require.EqualValues(t, protocol.MaxSeq, last.Seq)
	require.ErrorIs(t, tryPublish(t, l, event("a", 1)), hub.ErrUnavailable)
	v := look(t, l, "t", hub.Query{Index: true, IndexAfter: protocol.MaxSeq - 1, Topics: []hub.TopicQuery{{Topic: "b"}, {Topic: "a"}}})
	require.EqualValues(t, protocol.MaxSeq, v.Head)
	require.Equal(t, []hub.TopicLast{{Topic: "b", Last: protocol.MaxSeq}}, v.Index)
	require.Equal(t, []uint64{protocol.MaxSeq}, seqs(v.Topics[0]))
	require.Equal(t, []uint64{1, protocol.MaxSeq - 1}, seqs(v.Topics[1]))
}

// admin sends a command as an operator would.
func admin(t testing.TB, server *logtest.Redis, args ...any) any {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	answer, err := client.Do(t.Context(), args...).Result()
	require.NoError(t, err, "%v", args)
	return answer
}

func TestPasswords(t *testing.T) {
	server := logtest.StartRedis(t)
	admin(t, server, "ACL", "SETUSER", "hub", "on", ">word", "~pushhub:*", "&pushhub:*", "+@all")
	admin(t, server, "CONFIG", "SET", "requirepass", "secret")
	connects := func(name string, opt redis.Options) error {
		t.Helper()
		states := make(chan error, 10)
		opt.Addr = server.Addr()
		l := openLog(t, Options{Redis: &opt, OnState: func(_ bool, err error) { states <- err }}, quick)
		err := <-states
		_, perr := l.Publish(t.Context(), "t", events(1, "a"))
		require.Equal(t, err == nil, perr == nil, "%s: %v %v", name, err, perr)
		if perr != nil {
			require.ErrorIs(t, perr, hub.ErrUnavailable, name)
		}
		return err
	}
	require.NoError(t, connects("password", redis.Options{Password: "secret"}))
	require.NoError(t, connects("user", redis.Options{Username: "hub", Password: "word"}))
	require.NoError(t, connects("provider", redis.Options{CredentialsProvider: func() (string, string) { return "hub", "word" }}))
	require.NoError(t, connects("provider", redis.Options{CredentialsProviderContext: func(context.Context) (string, string, error) {
		return "hub", "word", nil
	}}))
	require.ErrorContains(t, connects("none", redis.Options{}), "NOAUTH")
	require.ErrorContains(t, connects("wrong", redis.Options{Password: "wrong"}), "WRONGPASS")
}

// TestForbidden has users who may not do all that the log needs.
func TestForbidden(t *testing.T) {
	server := logtest.StartRedis(t)
	admin(t, server, "ACL", "SETUSER", "noinfo", "on", ">w", "~pushhub:*", "&pushhub:*", "+@all", "-info")
	admin(t, server, "ACL", "SETUSER", "nochannel", "on", ">w", "~pushhub:*", "resetchannels", "+@all")
	as := func(name string) *Log {
		return openLog(t, Options{Redis: &redis.Options{Addr: server.Addr(), Username: name, Password: "w"}}, quick)
	}
	// Without INFO failovers are found by what is known, as before.
	l := as("noinfo")
	c := publish(t, l, "t", events(2, "a")...)[1]
	require.Equal(t, c.Epoch, look(t, l, "t", hub.Query{Known: c}).Epoch)
	c.Seq = 7
	require.NotEqual(t, c.Epoch, look(t, l, "t", hub.Query{Known: c}).Epoch)

	// Without the channel the script fails in the middle: no seq may come twice.
	l = as("nochannel")
	for n := range uint64(2) {
		_, err := l.Publish(t.Context(), "u", events(3, "a"))
		require.ErrorIs(t, err, hub.ErrUnknown)
		require.ErrorContains(t, err, "can't publish")
		require.EqualValues(t, 3*(n+1), look(t, l, "u", hub.Query{}).Head)
	}
	require.False(t, l.Up(), "nor can it be heard")
}

// A server that is a replica brings what is published until it loses its primary
// and says nothing: it is not taken.
func TestReplica(t *testing.T) {
	replica := logtest.StartRedis(t).StartReplica()
	states := make(chan error, 10)
	openLog(t, Options{Redis: &redis.Options{Addr: replica.Addr()}, OnState: func(_ bool, err error) { states <- err }}, quick)
	require.ErrorIs(t, <-states, errRefused)
}
