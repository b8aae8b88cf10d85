package ingest_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
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

func TestMain(m *testing.M) {
	redis.SetLogger(silence{}) // what it says comes as errors too
	goleak.VerifyTestMain(m)
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// instance is one instance's log and ingester.
type instance struct {
	*ingest.Ingester
	log  *redislog.Log
	stop func() // ends it as a clean shutdown does; may be called twice
}

func openLog(t testing.TB, url string) *redislog.Log {
	t.Helper()
	retention, err := hub.ParseRetention(">:100000/1h")
	require.NoError(t, err)
	opts, err := redis.ParseURL(url)
	require.NoError(t, err)
	log, err := redislog.Open(redislog.Options{Redis: opts, Retention: retention})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	return log
}

func options(t testing.TB, log *redislog.Log) ingest.Options {
	t.Helper()
	mapping, err := ingest.ParseMapping(ingest.DefaultMapping)
	require.NoError(t, err)
	return ingest.Options{Log: log, Mapping: mapping, MaxBytes: 64 << 10, Logger: zerolog.New(zerolog.NewTestWriter(t))}
}

// start starts an instance, and waits until it hears.
func start(t testing.TB, url string) *instance {
	t.Helper()
	log := openLog(t, url)
	return run(t, log, ingest.NewQuick(options(t, log)))
}

func run(t testing.TB, log *redislog.Log, in *ingest.Ingester) *instance {
	t.Helper()
	i := &instance{Ingester: in, log: log}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { in.Run(ctx) })
	i.stop = func() { cancel(); run.Wait() }
	t.Cleanup(i.stop)
	eventually(t, i.Stats().Ready.Load)
	return i
}

// leading starts an instance that leads before any other is there.
func leading(t testing.TB, url string) *instance {
	t.Helper()
	i := start(t, url)
	eventually(t, i.Stats().Leading.Load)
	return i
}

func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 30*time.Second, 5*time.Millisecond)
}

func client(t testing.TB, r *logtest.Redis) *redis.Client {
	t.Helper()
	opts, err := redis.ParseURL(r.URL())
	require.NoError(t, err)
	c := redis.NewClient(opts)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// events gives what a topic retains, in order.
func events(t testing.TB, l *redislog.Log, tenant, topic string) (all []string) {
	t.Helper()
	for after := uint64(0); ; {
		v, err := l.Look(t.Context(), tenant, hub.Query{Topics: []hub.TopicQuery{{Topic: topic, After: after}}})
		require.NoError(t, err)
		for _, e := range v.Topics[0].Events {
			all, after = append(all, string(e.JSON)), e.Cursor.Seq
		}
		if !v.Topics[0].More {
			return all
		}
	}
}

// data gives the data of what a topic retains, in order.
func data(t testing.TB, l *redislog.Log, tenant, topic string) []string {
	t.Helper()
	all := events(t, l, tenant, topic)
	for i, e := range all {
		_, d, ok := strings.Cut(e, `"data":`)
		require.True(t, ok)
		all[i] = strings.TrimSuffix(d, "}")
	}
	return all
}

// numbers gives "0", "1" … n-1.
func numbers(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = strconv.Itoa(i)
	}
	return all
}

// settled waits until these instances have nothing more to append.
func settled(t testing.TB, all ...*instance) {
	t.Helper()
	for _, i := range all {
		eventually(t, func() bool { return i.Waiting() == 0 })
	}
}

// talk publishes 0, 1, 2 … to each of some tenants, until it is told to stop.
type talk struct {
	tenants int
	stop    chan struct{} // closed by end
	done    chan error
	sent    int // to each; owned by the goroutine until done
}

func startTalk(t testing.TB, r *logtest.Redis, tenants int, every time.Duration) *talk {
	k := &talk{tenants: tenants, stop: make(chan struct{}), done: make(chan error, 1)}
	c := client(t, r)
	ctx := t.Context()
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-k.stop:
				k.done <- nil
				return
			case <-tick.C:
			}
			for i := range tenants {
				if err := c.Publish(ctx, fmt.Sprintf("alerts:tenant:t%d", i), k.sent).Err(); err != nil {
					k.done <- err
					return
				}
			}
			k.sent++
		}
	}()
	return k
}

// end ends the talk, waits until what was said has settled at these instances,
// and checks that the log has all of it once and in order.
func (k *talk) end(t testing.TB, all ...*instance) {
	t.Helper()
	k.settle(t, all)
	for i := range k.tenants {
		require.Equal(t, numbers(k.sent), data(t, all[0].log, fmt.Sprintf("t%d", i), "alerts"))
	}
}

// settle is end, but for the check.
func (k *talk) settle(t testing.TB, all []*instance) {
	t.Helper()
	close(k.stop)
	require.NoError(t, <-k.done)
	log := all[0].log
	eventually(t, func() bool {
		for i := range k.tenants {
			if len(events(t, log, fmt.Sprintf("t%d", i), "alerts")) < k.sent {
				return false
			}
		}
		return true
	})
	settled(t, all...)
}

func TestMapped(t *testing.T) {
	r := logtest.StartRedis(t)
	i := start(t, r.URL())
	c := client(t, r)
	send := func(channel, payload string) { require.NoError(t, c.Publish(t.Context(), channel, payload).Err()) }
	send("alerts:tenant:acme", ` {"severity": "high", "type":"alert.disk.v1", "source_agent":"a7", "timestamp":"2026-05-27T10:15:00Z"} `)
	send("render:tenant:acme:job:j1", `{"status":"completed","progress":100}`)
	send("events:tenant:acme:nodes.n1.heat", `[1, 2.50]`)
	send("events:tenant:acme:nodes..n1", `1`)
	send("alerts:tenant:acme", `{"severity": `)
	send("alerts:tenant:acme", `"last"`)
	eventually(t, func() bool { return i.Stats().Appended.Load() == 4 })
	require.EqualValues(t, 2, i.Stats().Dropped.Load())
	alerts := events(t, i.log, "acme", "alerts")
	require.Contains(t, alerts[0], `"topic":"alerts","type":"alert.disk.v1","time":"2026-05-27T10:15:00Z","source":"a7","data":{"severity":"high","type":"alert.disk.v1","source_agent":"a7","timestamp":"2026-05-27T10:15:00Z"}}`)
	require.Contains(t, alerts[1], `"type":"alert.v1"`)
	require.Contains(t, events(t, i.log, "acme", "nodes.n1.heat")[0], `"data":[1,2.50]}`)
	v, err := i.log.Look(t.Context(), "acme", hub.Query{Topics: []hub.TopicQuery{{Topic: "jobs.j1", Newest: 1}}})
	require.NoError(t, err)
	require.True(t, v.Topics[0].Events[0].Final)
	require.Equal(t, "progress", v.Topics[0].Events[0].Key)
}

// What cannot be an event does not disturb what can.
func TestDropped(t *testing.T) {
	r := logtest.StartRedis(t)
	i := leading(t, r.URL())
	c := client(t, r)
	garbage := string([]byte{0, 255, 13, 10, '*', '3', 13, 10})
	for _, m := range [][2]string{
		{"alerts:tenant:t0", `"` + strings.Repeat("x", 64<<10) + `"`}, // more than an event
		{"alerts:tenant:t0", `"` + strings.Repeat("x", 3<<20) + `"`},  // more than is read
		{"alerts:tenant:t0", strings.Repeat(" ", 900<<10) + `"y"`},    // little, written large
		{"alerts:tenant:t0", garbage}, {"alerts:tenant:t0", ""}, {"alerts:tenant:t0", `"` + garbage + `"`},
		{"alerts:tenant:" + garbage, `1`}, {"alerts:tenant:" + strings.Repeat("t", 100<<10), `1`},
		{"alerts:tenant:t0", strings.Repeat("[", 100_000)},
		{"events:tenant:t0:" + strings.Repeat("a.", 5000), `1`},
		{"alerts:tenant:t0", `0`},
	} {
		require.NoError(t, c.Publish(t.Context(), m[0], m[1]).Err())
	}
	eventually(t, func() bool { return i.Stats().Appended.Load() == 2 })
	require.EqualValues(t, 9, i.Stats().Dropped.Load())
	require.Equal(t, []string{`"y"`, "0"}, data(t, i.log, "t0", "alerts"))
	require.True(t, i.Stats().Leading.Load())
}

// One instance ingests, however many hear; when it goes the next takes over, and
// each message is in the log once and in order, equal ones too.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	r := logtest.StartRedis(t)
	a := leading(t, r.URL())
	b := start(t, r.URL())
	c := client(t, r)
	const n = 3000
	sent := make(chan error, 1)
	go func() {
		for k := range n {
			payload := strconv.Itoa(k)
			if k%100 < 5 {
				payload = `"same"`
			}
			if err := c.Publish(context.Background(), fmt.Sprintf("alerts:tenant:t%d", k%5), payload).Err(); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	eventually(t, func() bool { return a.Stats().Appended.Load() > n/3 })
	require.False(t, b.Stats().Leading.Load())
	a.stop()
	require.NoError(t, <-sent)
	eventually(t, func() bool { return b.Stats().Leading.Load() && b.Stats().Heard.Load() == n })
	settled(t, b)
	for tenant := range 5 {
		want := numbers(n)[:0]
		for k := tenant; k < n; k += 5 {
			if k%100 < 5 {
				want = append(want, `"same"`)
			} else {
				want = append(want, strconv.Itoa(k))
			}
		}
		require.Equal(t, want, data(t, b.log, fmt.Sprintf("t%d", tenant), "alerts"))
	}
}
