package logtest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// noTime stands for a time that is not used.
var noTime time.Time

func testSequence(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	var cursors []protocol.Cursor
	for i, topics := range [][]string{{"alerts"}, {"jobs.1", "alerts"}, {"jobs.2"}, {"jobs.1", "jobs.1", "jobs.1"}, {"alerts"}} {
		l := a
		if i%2 == 1 {
			l = b
		}
		var events []protocol.Publication
		for _, topic := range topics {
			events = append(events, on(topic, i))
		}
		cursors = append(cursors, publish(t, l, tenant, events...)...)
	}
	v := look(t, b, tenant, hub.Query{Topics: []hub.TopicQuery{{Topic: "alerts"}, {Topic: "jobs.1"}, {Topic: "jobs.2"}}})
	for i, c := range cursors {
		require.Equal(t, protocol.Cursor{Epoch: v.Epoch, Seq: uint64(i) + 1}, c)
	}
	require.EqualValues(t, len(cursors), v.Head)
	require.Empty(t, v.Past)

	for i, want := range [][]uint64{{1, 3, 8}, {2, 5, 6, 7}, {4}} {
		require.Equal(t, want, seqs(v.Topics[i].Events))
		require.Equal(t, want[len(want)-1], v.Topics[i].Last)
		prev := uint64(0)
		for _, e := range v.Topics[i].Events {
			require.Equal(t, prev, e.Prev, "prev of %v", e.Cursor)
			prev = e.Cursor.Seq
		}
	}
}

func testEventAsPublished(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	full := protocol.Publication{
		Topic:  "jobs.7b0c.A_b-1",
		Type:   `q"uo\te <&> ü 日本 😀`,
		Time:   "2026-05-27T10:15:00.123456789+02:00",
		Source: `the "source"\`,
		Data:   []byte(`{"b":1.0e+5,"a":"\u0000\n\u00e9é😀","a":[],"big":123456789012345678901234567890,"%s":"%d{1}"}`),
		Key:    `pro:gr|ess "ü"`,
		Final:  true,
		Dedupe: `id: {x} \ "1"`,
	}
	longest := on(strings.Repeat(strings.Repeat("t", 49)+".", 3)+strings.Repeat("t", 50), 0)
	longest.Type, longest.Source = strings.Repeat("y", 128), strings.Repeat("s", 128)
	longest.Key, longest.Dedupe = strings.Repeat("k", 128), strings.Repeat("d", 128)
	longest.Data = []byte(`"` + strings.Repeat("x", 1<<16-2) + `"`)
	plain := on("a", 0)
	plain.Data = []byte("null")
	require.NoError(t, protocol.CheckTopic(longest.Topic))

	all := []protocol.Publication{full, longest, plain}
	cursors := publish(t, a, tenant, all...)
	for i, p := range all {
		v := lookAt(t, b, tenant, hub.TopicQuery{Topic: p.Topic})
		require.Len(t, v.Events, 1)
		e := v.Events[0]
		requireEvent(t, p, cursors[i], 0, e)
		require.True(t, json.Valid(e.JSON))
		require.WithinDuration(t, time.Now(), time.UnixMilli(e.At), time.Minute)
	}
}

func testTimeOfTheLog(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	p := on("a", 0)
	p.Time = ""
	publish(t, a, tenant, p)
	e := lookAt(t, b, tenant, hub.TopicQuery{Topic: "a"}).Events[0]
	var members struct{ Time time.Time }
	require.NoError(t, json.Unmarshal(e.JSON, &members))
	require.WithinDuration(t, time.Now(), members.Time, time.Minute)
	p.Time = members.Time.Format("2006-01-02T15:04:05.000Z07:00")
	require.Equal(t, string(bytesOf(p, e.Cursor)), string(e.JSON))
}

func testDedupe(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	first := publish(t, a, tenant, once("jobs.1", "x", 1))
	require.Equal(t, first, publish(t, a, tenant, once("jobs.1", "x", 2)))
	require.Equal(t, first, publish(t, b, tenant, once("jobs.1", "x", 3)), "over instances")

	// The id counts within its topic, and an event without one is never a second.
	others := publish(t, b, tenant, once("jobs.2", "x", 4), once("jobs.1", "y", 5), on("jobs.1", 6), on("jobs.1", 6))
	for i, c := range others {
		require.EqualValues(t, i+2, c.Seq)
	}
	v := look(t, a, tenant, hub.Query{Topics: []hub.TopicQuery{{Topic: "jobs.1"}}})
	require.EqualValues(t, 5, v.Head)
	require.Equal(t, []uint64{1, 3, 4, 5}, seqs(v.Topics[0].Events))
	requireEvent(t, once("jobs.1", "x", 1), first[0], 0, v.Topics[0].Events[0])

	// Another tenant has ids of its own.
	require.EqualValues(t, 1, publish(t, a, newTenant(), once("jobs.1", "x", 1))[0].Seq)
}

func testDedupeWithinOneBatch(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	publish(t, a, tenant, once("jobs.1", "old", 0))
	cursors := publish(t, b, tenant,
		once("jobs.1", "x", 1),
		once("jobs.1", "old", 2),
		once("jobs.1", "x", 3),
		once("jobs.2", "x", 4),
		on("jobs.1", 5),
	)
	var got []uint64
	for _, c := range cursors {
		got = append(got, c.Seq)
	}
	require.Equal(t, []uint64{2, 1, 2, 3, 4}, got)
	v := look(t, a, tenant, hub.Query{Topics: []hub.TopicQuery{{Topic: "jobs.1"}}})
	require.EqualValues(t, 4, v.Head)
	require.Equal(t, []uint64{1, 2, 4}, seqs(v.Topics[0].Events))
	requireEvent(t, once("jobs.1", "x", 1), cursors[0], 1, v.Topics[0].Events[1])
}

func testDedupeRace(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	const publishers = 8
	cursors := make([][]protocol.Cursor, publishers)
	var wg sync.WaitGroup
	for i := range publishers {
		wg.Go(func() {
			l := a
			if i%2 == 1 {
				l = b
			}
			cursors[i], _ = tryPublish(t, l, tenant, once("jobs.1", "x", i), on("jobs.2", i))
		})
	}
	wg.Wait()
	for _, c := range cursors {
		require.Len(t, c, 2)
		require.Equal(t, cursors[0][0], c[0])
	}
	require.EqualValues(t, 1+publishers, look(t, a, tenant, hub.Query{}).Head)
	require.Len(t, lookAt(t, a, tenant, hub.TopicQuery{Topic: "jobs.1"}).Events, 1)
}

// testBatchesAreAtomic has only batches of one size published, so that every
// Look must see a multiple of it.
func testBatchesAreAtomic(t *testing.T, a, b hub.Log) {
	const publishers, batches, size = 4, 50, 20
	tenant := newTenant()
	var batch []protocol.Publication
	for n := range size {
		batch = append(batch, on("x", n))
	}
	given := make([][]protocol.Cursor, publishers)
	var publishing sync.WaitGroup
	for i := range publishers {
		l := a
		if i%2 == 1 {
			l = b
		}
		publishing.Go(func() {
			for range batches {
				cursors, ok := tryPublish(t, l, tenant, batch...)
				if !ok {
					return
				}
				given[i] = append(given[i], cursors...)
			}
		})
	}
	done := make(chan struct{}) // closed when all is published
	var looking sync.WaitGroup
	for _, l := range []hub.Log{a, b, a, b} {
		looking.Go(func() {
			q := hub.Query{Index: true, Topics: []hub.TopicQuery{{Topic: "x", Newest: size}}}
			for {
				v, err := l.Look(t.Context(), tenant, q)
				if !assert.NoError(t, err) || !assert.Zero(t, v.Head%size, "a batch in part") {
					return
				}
				top := v.Topics[0]
				if v.Head > 0 && !(assert.Equal(t, []hub.TopicLast{{Topic: "x", Last: v.Head}}, v.Index) &&
					assert.Equal(t, v.Head, top.Last) &&
					assert.Equal(t, between(v.Head-size, v.Head), seqs(top.Events))) {
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	publishing.Wait()
	close(done)
	looking.Wait()

	all := slices.Concat(given...)
	for i, c := range all {
		require.Equal(t, all[i-i%size].Seq+uint64(i%size), c.Seq, "nothing came between the events of a batch")
	}
	slices.SortFunc(all, func(a, b protocol.Cursor) int { return cmp.Compare(a.Seq, b.Seq) })
	require.Len(t, all, publishers*batches*size)
	for i, c := range all {
		require.Equal(t, uint64(i)+1, c.Seq, "each cursor is given once")
	}
}

// testTenantsApart uses names that begin alike: no key of one may be a key of
// another.
func testTenantsApart(t *testing.T, a, b hub.Log) {
	base := newTenant()
	tenants := []string{base, base + "-", base + "_1", base + "1", base + "-a"}
	ra, rb := listen(t, a, b)
	for _, tenant := range tenants {
		a.Watch(tenant)
		if a != b {
			b.Watch(tenant)
		}
	}
	for _, tenant := range tenants {
		ra.AwaitCount(t, tenant, Covered, 1)
		rb.AwaitCount(t, tenant, Covered, 1)
	}
	cursors := make(map[string][]protocol.Cursor)
	for round := range 3 {
		for i, tenant := range tenants {
			for range i + 1 {
				cursors[tenant] = append(cursors[tenant], publish(t, a, tenant, on("a", round), on("a.a", round))...)
			}
		}
	}
	epochs := make(map[string]string)
	for i, tenant := range tenants {
		v := look(t, b, tenant, hub.Query{Index: true, Topics: []hub.TopicQuery{{Topic: "a"}}})
		head := uint64(3 * 2 * (i + 1))
		require.Equal(t, head, v.Head)
		require.ElementsMatch(t, []hub.TopicLast{{Topic: "a", Last: head - 1}, {Topic: "a.a", Last: head}}, v.Index)
		require.Len(t, v.Topics[0].Events, int(head)/2)
		require.Empty(t, epochs[v.Epoch], "an epoch is one tenant's own")
		epochs[v.Epoch] = tenant
		for _, r := range []*Recorder{ra, rb} {
			r.AwaitEvent(t, tenant, cursors[tenant][head-1])
			require.Equal(t, from1(int(head)), seqs(r.Events(tenant)))
			require.Equal(t, v.Epoch, r.Events(tenant)[0].Cursor.Epoch)
		}
	}
}

func testTopicsApart(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	topics := []string{"a", "a.b", "a.b.c", "a_b", "a-b", "A", "ab", "b"}
	for _, topic := range topics {
		publish(t, a, tenant, once(topic, "b", 1), once(topic, "b.c", 2), once(topic, "c", 3))
	}
	for i, topic := range topics {
		v := lookAt(t, b, tenant, hub.TopicQuery{Topic: topic})
		first := uint64(3*i) + 1
		require.Equal(t, []uint64{first, first + 1, first + 2}, seqs(v.Events), "%s", topic)
	}
}

func testCancelledContext(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	publish(t, a, tenant, on("a", 1))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := a.Publish(ctx, tenant, []protocol.Publication{on("a", 2)})
	requireNoAnswer(t, err)
	_, err = a.Look(ctx, tenant, hub.Query{})
	requireNoAnswer(t, err)
	require.EqualValues(t, 1, look(t, b, tenant, hub.Query{}).Head, "what was cancelled before it began is not published")
}

// requireNoAnswer checks that err is one of those that a Log may return.
func requireNoAnswer(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	known := errors.Is(err, context.Canceled) || errors.Is(err, hub.ErrUnavailable) || errors.Is(err, hub.ErrUnknown)
	require.True(t, known, "%v wraps no error of the contract", err)
}
