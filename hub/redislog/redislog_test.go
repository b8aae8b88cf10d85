package redislog

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/protocol"
)

func TestMain(m *testing.M) {
	redis.SetLogger(silence{}) // what it says comes as errors too
	goleak.VerifyTestMain(m)
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// quick is a pace for tests that wait for a connection to be given up.
var quick = pace{
	tick: 20 * time.Millisecond, quiet: 100 * time.Millisecond, answer: time.Second,
	least: 5 * time.Millisecond, most: 50 * time.Millisecond, steady: 5 * time.Second,
}

func TestLog(t *testing.T) {
	server := logtest.StartRedis(t)
	logtest.Run(t, func(t *testing.T, retention hub.Retention) (a, b hub.Log) {
		opts := Options{Redis: &redis.Options{Addr: server.Addr()}, Retention: retention}
		return openLog(t, opts, defaultPace), openLog(t, opts, defaultPace)
	})
}

// openLog gives a log that is closed when t ends.
func openLog(t testing.TB, opts Options, p pace) *Log {
	t.Helper()
	if opts.Retention == nil {
		opts.Retention = defaultRetention
	}
	l, err := open(opts, p)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// openAt gives a log on the server at an address.
func openAt(t testing.TB, addr string) *Log {
	t.Helper()
	return openLog(t, Options{Redis: &redis.Options{Addr: addr}}, quick)
}

// event is a small event for a topic.
func event(topic string, n int) protocol.Publication {
	return protocol.Publication{Topic: topic, Type: "test.v1", Time: "2026-05-27T10:15:00Z", Data: []byte(strconv.Itoa(n))}
}

// events are n events for topics in turn.
func events(n int, topics ...string) []protocol.Publication {
	all := make([]protocol.Publication, n)
	for i := range all {
		all[i] = event(topics[i%len(topics)], i)
	}
	return all
}

func publish(t testing.TB, l *Log, tenant string, events ...protocol.Publication) []protocol.Cursor {
	t.Helper()
	cursors, err := l.Publish(t.Context(), tenant, events)
	require.NoError(t, err)
	return cursors
}

func look(t testing.TB, l *Log, tenant string, q hub.Query) hub.View {
	t.Helper()
	v, err := l.Look(t.Context(), tenant, q)
	require.NoError(t, err)
	return v
}

// retained gives what is retained of topics.
func retained(t testing.TB, l *Log, tenant string, topics ...string) []hub.TopicView {
	t.Helper()
	q := hub.Query{}
	for _, topic := range topics {
		q.Topics = append(q.Topics, hub.TopicQuery{Topic: topic})
	}
	return look(t, l, tenant, q).Topics
}

func seqs(v hub.TopicView) []uint64 {
	all := []uint64{}
	for _, e := range v.Events {
		all = append(all, e.Cursor.Seq)
	}
	return all
}

func TestOpenRefusesBadOptions(t *testing.T) {
	one := &redis.Options{Addr: "127.0.0.1:1"}
	for name, opts := range map[string]Options{
		"nothing":          {Retention: defaultRetention},
		"two":              {Retention: defaultRetention, Redis: one, Cluster: &redis.ClusterOptions{Addrs: []string{one.Addr}}},
		"no retention":     {Redis: one},
		"no address":       {Retention: defaultRetention, Redis: &redis.Options{}},
		"no master's name": {Retention: defaultRetention, Sentinel: &redis.FailoverOptions{SentinelAddrs: []string{one.Addr}}},
		"no addresses":     {Retention: defaultRetention, Cluster: &redis.ClusterOptions{}},
	} {
		_, err := Open(opts)
		require.Error(t, err, name)
	}
}

func TestOptionsAreCopied(t *testing.T) {
	opt := redis.Options{Addr: "127.0.0.1:1"}
	openLog(t, Options{Redis: &opt}, quick)
	require.Equal(t, "127.0.0.1:1", opt.Addr)
	require.Zero(t, opt.MaxRetries)
	require.Zero(t, opt.ReadTimeout)
}

// What nobody could read again must not get into the log.
func TestPublishRefusesWhatIsMalformed(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	tab := event("a", 1)
	tab.Type = "a\tb"
	line := event("a", 1)
	line.Key = "a\nb"
	for tenant, p := range map[string]protocol.Publication{
		"t}":  event("a", 1),
		"":    event("a", 1),
		"top": event("a:b", 1),
		"typ": tab,
		"key": line,
	} {
		_, err := l.Publish(t.Context(), tenant, []protocol.Publication{event("a", 0), p})
		require.ErrorIs(t, err, protocol.ErrMalformed, "%q %v", tenant, p)
	}
	require.Zero(t, look(t, l, "top", hub.Query{}).Head)

	cursors, err := l.Publish(t.Context(), "top", nil)
	require.NoError(t, err)
	require.Empty(t, cursors)
}

func TestLargeBatch(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	l.Watch("t")
	rec.AwaitCount(t, "t", logtest.Covered, 1)

	batch := events(protocol.MaxBatch, "alerts", "jobs.1", "jobs.2")
	for i := range batch {
		batch[i].Dedupe = strconv.Itoa(i)
	}
	cursors := publish(t, l, "t", batch...)
	require.Len(t, cursors, len(batch))
	rec.AwaitEvent(t, "t", cursors[len(cursors)-1])
	for i, e := range rec.Events("t") {
		require.Equal(t, cursors[i], e.Cursor)
		require.Equal(t, batch[i].Topic, e.Topic)
	}
	require.Equal(t, cursors, publish(t, l, "t", batch...), "each was published before")
	require.EqualValues(t, len(batch), look(t, l, "t", hub.Query{}).Head)
}

func TestScriptFlush(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	for i := range 5 {
		require.NoError(t, l.Client().ScriptFlush(t.Context()).Err())
		require.EqualValues(t, 2*i+1, publish(t, l, "t", event("a", i))[0].Seq)
		require.EqualValues(t, 2*i+2, publish(t, l, "t", event("a", i))[0].Seq)
		require.NoError(t, l.Client().ScriptFlush(t.Context()).Err())
		require.EqualValues(t, 2*i+2, look(t, l, "t", hub.Query{}).Head)
	}
}
