package ingest_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/ingest"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/hub/redislog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// instance is one instance's log and ingester.
type instance struct {
	log  *redislog.Log
	in   *ingest.Ingester
	stop func() // ends it as a clean shutdown does; may be called twice
}

func start(t *testing.T, r *logtest.Redis) *instance {
	t.Helper()
	retention, err := hub.ParseRetention(">:100000/1h")
	require.NoError(t, err)
	opts, err := redis.ParseURL(r.URL())
	require.NoError(t, err)
	log, err := redislog.Open(redislog.Options{Redis: opts, Retention: retention})
	require.NoError(t, err)
	mapping, err := ingest.ParseMapping(ingest.DefaultMapping)
	require.NoError(t, err)
	i := &instance{log: log, in: ingest.New(ingest.Options{Log: log, Mapping: mapping, MaxBytes: 64 << 10, Logger: zerolog.New(zerolog.NewTestWriter(t))})}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { i.in.Run(ctx) })
	i.stop = func() { cancel(); run.Wait() }
	t.Cleanup(func() {
		i.stop()
		require.NoError(t, log.Close())
	})
	eventually(t, func() bool { return i.in.Stats().Ready.Load() })
	return i
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 20*time.Second, 5*time.Millisecond)
}

func client(t *testing.T, r *logtest.Redis) *redis.Client {
	t.Helper()
	opts, err := redis.ParseURL(r.URL())
	require.NoError(t, err)
	c := redis.NewClient(opts)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// events gives the data of what a topic retains, in order.
func events(t *testing.T, l *redislog.Log, tenant, topic string) []string {
	t.Helper()
	v, err := l.Look(t.Context(), tenant, hub.Query{Topics: []hub.TopicQuery{{Topic: topic, Newest: 100_000}}})
	require.NoError(t, err)
	var all []string
	for _, e := range v.Topics[0].Events {
		all = append(all, string(e.JSON))
	}
	return all
}

func TestMapped(t *testing.T) {
	r := logtest.StartRedis(t)
	i := start(t, r)
	c := client(t, r)
	send := func(channel, payload string) { require.NoError(t, c.Publish(t.Context(), channel, payload).Err()) }
	send("alerts:tenant:acme", ` {"severity": "high", "type":"alert.disk.v1", "source_agent":"a7", "timestamp":"2026-05-27T10:15:00Z"} `)
	send("render:tenant:acme:job:j1", `{"status":"completed","progress":100}`)
	send("events:tenant:acme:nodes.n1.heat", `[1, 2.50]`)
	send("events:tenant:acme:nodes..n1", `1`)
	send("alerts:tenant:acme", `{"severity": `)
	send("alerts:tenant:acme", `"last"`)
	eventually(t, func() bool { return i.in.Stats().Appended.Load() == 4 })
	require.EqualValues(t, 2, i.in.Stats().Dropped.Load())
	alerts := events(t, i.log, "acme", "alerts")
	require.Contains(t, alerts[0], `"topic":"alerts","type":"alert.disk.v1","time":"2026-05-27T10:15:00Z","source":"a7","data":{"severity":"high","type":"alert.disk.v1","source_agent":"a7","timestamp":"2026-05-27T10:15:00Z"}}`)
	require.Contains(t, alerts[1], `"type":"alert.v1"`)
	require.Contains(t, events(t, i.log, "acme", "nodes.n1.heat")[0], `"data":[1,2.50]}`)
	v, err := i.log.Look(t.Context(), "acme", hub.Query{Topics: []hub.TopicQuery{{Topic: "jobs.j1", Newest: 1}}})
	require.NoError(t, err)
	require.True(t, v.Topics[0].Events[0].Final)
	require.Equal(t, "progress", v.Topics[0].Events[0].Key)
}

// One instance ingests, however many hear; when it goes the next takes over, and
// each message is in the log once and in order, equal ones too.
func TestTakeOver(t *testing.T) {
	r := logtest.StartRedis(t)
	a, b := start(t, r), start(t, r)
	eventually(t, func() bool { return a.in.Stats().Leading.Load() != b.in.Stats().Leading.Load() })
	if b.in.Stats().Leading.Load() {
		a, b = b, a
	}
	c := client(t, r)
	const n = 3000
	sent := make(chan error, 1)
	go func() {
		for k := range n {
			payload := fmt.Sprintf(`{"n":%d}`, k)
			if k%10 == 0 {
				payload = `"same"`
			}
			if err := c.Publish(context.Background(), fmt.Sprintf("alerts:tenant:t%d", k%5), payload).Err(); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	eventually(t, func() bool { return a.in.Stats().Appended.Load() > n/3 })
	a.stop()
	require.NoError(t, <-sent)
	eventually(t, func() bool { return b.in.Stats().Leading.Load() })
	count := func() (total int) {
		for k := range 5 {
			total += len(events(t, b.log, fmt.Sprintf("t%d", k), "alerts"))
		}
		return total
	}
	eventually(t, func() bool { return count() >= n })
	require.Equal(t, n, count())
	for tenant := range 5 {
		k := tenant
		for _, e := range events(t, b.log, fmt.Sprintf("t%d", tenant), "alerts") {
			want := fmt.Sprintf(`"data":{"n":%d}}`, k)
			if k%10 == 0 {
				want = `"data":"same"}`
			}
			require.Contains(t, e, want)
			k += 5
		}
	}
}
