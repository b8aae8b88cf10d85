package memlog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLog(t *testing.T) {
	logtest.Run(t, func(t *testing.T, retention hub.Retention) (a, b hub.Log) {
		l := open(t, retention)
		return l, l
	})
}

func open(t testing.TB, retention hub.Retention) *Log {
	l := New(Options{Retention: retention})
	t.Cleanup(l.Close)
	return l
}

func rules(t testing.TB, s string) hub.Retention {
	r, err := hub.ParseRetention(s)
	require.NoError(t, err)
	return r
}

func on(topic string) protocol.Publication {
	return protocol.Publication{Topic: topic, Type: "test.v1", Data: []byte(`{"progress":42}`)}
}

func once(topic, dedupe string) protocol.Publication {
	p := on(topic)
	p.Dedupe = dedupe
	return p
}

// publish gives the seqs.
func publish(t testing.TB, l *Log, tenant string, events ...protocol.Publication) []uint64 {
	t.Helper()
	cursors, err := l.Publish(t.Context(), tenant, events)
	require.NoError(t, err)
	var seqs []uint64
	for _, c := range cursors {
		seqs = append(seqs, c.Seq)
	}
	return seqs
}

func look(t testing.TB, l *Log, tenant string, topics ...string) hub.View {
	t.Helper()
	q := hub.Query{Index: true}
	for _, topic := range topics {
		q.Topics = append(q.Topics, hub.TopicQuery{Topic: topic})
	}
	v, err := l.Look(t.Context(), tenant, q)
	require.NoError(t, err)
	return v
}

func seqs(events []*protocol.Event) []uint64 {
	var all []uint64
	for _, e := range events {
		all = append(all, e.Cursor.Seq)
	}
	return all
}

func TestDefaultRetention(t *testing.T) {
	l := open(t, nil)
	publish(t, l, "t", slices.Repeat([]protocol.Publication{on("jobs.1"), on("a")}, 1001)...)
	v := look(t, l, "t", "jobs.1", "a")
	require.Len(t, v.Topics[0].Events, 100)
	require.Len(t, v.Topics[1].Events, 1000)
}

func TestClose(t *testing.T) {
	l := New(Options{})
	r := logtest.NewRecorder(t)
	l.Listen(r)
	l.Watch("t")
	r.AwaitCount(t, "t", logtest.Covered, 1)

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				if _, err := l.Publish(context.Background(), "t", []protocol.Publication{on("a")}); err != nil {
					assert.ErrorIs(t, err, hub.ErrUnavailable)
					return
				}
			}
		})
	}
	r.AwaitCount(t, "t", logtest.Live, 100)
	wg.Go(l.Close)
	l.Close()
	state := l.tenant("t")
	state.mu.Lock()
	require.False(t, state.watched, "a Publish that is still under way tells nobody")
	state.mu.Unlock()
	calls := len(r.Calls("t"))
	l.Watch("u")
	l.Reset("t")
	wg.Wait()
	require.Len(t, r.Calls("t"), calls, "no callback comes after Close")
	require.Empty(t, r.Calls("u"))
	_, err := l.Look(t.Context(), "t", hub.Query{})
	require.ErrorIs(t, err, hub.ErrUnavailable)
}

// TestStorm has everything happen at once, and then checks what must always hold.
func TestStorm(t *testing.T) {
	l := open(t, rules(t, "few.>:2/1s,>:50/1h"))
	r := logtest.NewRecorder(t)
	l.Listen(r)
	tenants := []string{"t1", "t2", "t3"}
	topics := []string{"few.1", "few.2", "a", "b", "c"}
	const steps = 1000

	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range steps {
				tenant, topic := pick(tenants), pick(topics)
				cursors, err := l.Publish(context.Background(), tenant, []protocol.Publication{
					on(topic), once(pick(topics), strconv.Itoa(rand.IntN(100))), on("new." + strconv.Itoa(rand.IntN(1000))),
				})
				assert.NoError(t, err)
				v, err := l.Look(context.Background(), tenant, hub.Query{
					Known: cursors[2], Index: true, IndexAfter: cursors[0].Seq,
					Topics: []hub.TopicQuery{{Topic: topic, After: cursors[0].Seq - 1}, {Topic: pick(topics), Newest: 3}},
				})
				assert.NoError(t, err)
				assert.GreaterOrEqual(t, v.Head, v.Floor)
			}
		})
	}
	for _, tenant := range tenants { // Watch and Unwatch go by turns
		wg.Go(func() {
			for range steps {
				l.Watch(tenant)
				l.Reset(tenant)
				l.Unwatch(tenant)
			}
			l.Watch(tenant)
		})
	}
	wg.Go(func() {
		for range steps {
			tenant := pick(tenants)
			switch rand.IntN(5) {
			case 0:
				l.NewEpoch(tenant, rand.IntN(10))
			case 1:
				l.Trim(tenant, pick(topics), rand.IntN(3))
			case 2:
				l.Deafen(tenant)
			case 3:
				l.Forget(tenant)
			case 4:
				state := l.tenant(tenant)
				state.mu.Lock()
				state.sweep(l.clock() + 500)
				state.mu.Unlock()
			}
		}
	})
	wg.Wait()
	for _, tenant := range tenants {
		covered := r.Count(tenant, logtest.Covered)
		l.Reset(tenant)
		r.AwaitCount(t, tenant, logtest.Covered, covered+1)
		c, err := l.Publish(t.Context(), tenant, []protocol.Publication{on("a")})
		require.NoError(t, err)
		r.AwaitEvent(t, tenant, c[0])
		require.NoError(t, l.tenant(tenant).check())
	}
	l.notes.mu.Lock()
	defer l.notes.mu.Unlock()
	require.Len(t, l.notes.wishes, len(tenants))
}

func pick(all []string) string { return all[rand.IntN(len(all))] }

// check says what is wrong with a tenant's state.
func (t *tenant) check() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch == "" || t.floor > t.head {
		return fmt.Errorf("epoch %q, floor %d, head %d", t.epoch, t.floor, t.head)
	}
	if len(t.topics) != t.index.Len() {
		return fmt.Errorf("%d topics, %d in the index", len(t.topics), t.index.Len())
	}
	before := uint64(0)
	for el := t.index.Front(); el != nil; el = el.Next() {
		top := el.Value.(*topic)
		if t.topics[top.name] != el || top.last < before {
			return fmt.Errorf("%s with last %d is not in its place", top.name, top.last)
		}
		before = top.last
		if err := top.check(t.head); err != nil {
			return fmt.Errorf("%s: %w", top.name, err)
		}
	}
	if len(t.ids) != len(t.firsts) {
		return fmt.Errorf("%d ids, %d firsts", len(t.ids), len(t.firsts))
	}
	for i, d := range t.ids {
		if t.firsts[d.publicID].Seq != d.seq || i > 0 && d.at < t.ids[i-1].at {
			return fmt.Errorf("id %v", d)
		}
	}
	return nil
}

func (top *topic) check(head uint64) error {
	if top.first == 0 || top.first > top.last || top.last > head {
		return fmt.Errorf("first %d, last %d, head %d", top.first, top.last, head)
	}
	n := len(top.events)
	if n > top.rule.Events || n != len(top.came) {
		return fmt.Errorf("%d events, %d came", n, len(top.came))
	}
	if n > 0 && top.events[n-1].Cursor.Seq != top.last {
		return fmt.Errorf("newest %v, last %d", top.events[n-1].Cursor, top.last)
	}
	for i := 1; i < n; i++ {
		if a, b := top.events[i-1], top.events[i]; b.Prev != a.Cursor.Seq || b.Cursor.Seq <= b.Prev || top.came[i] < top.came[i-1] {
			return fmt.Errorf("%v before %v, which has prev %d", a.Cursor, b.Cursor, b.Prev)
		}
	}
	return nil
}
