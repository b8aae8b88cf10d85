package logtest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// model is a tenant's log in its plainest form. It knows no age and no bound on
// the bytes of an answer.
type model struct {
	tenant  string
	a, b    hub.Log
	keep    map[string]int // topic → events retained
	epochs  []string       // oldest first
	past    []protocol.Cursor
	events  []published // all that ever were
	firsts  map[[2]string]protocol.Cursor
	counter int
}

type published struct {
	protocol.Publication
	cursor protocol.Cursor
	prev   uint64
}

// testModel compares a log with the model, in random steps.
func testModel(t *testing.T, a, b hub.Log) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{
			tenant: newTenant(), a: a, b: b,
			keep:   map[string]int{"few.a": 3, "few.b": 3, "a": 1000, "a.b": 1000},
			firsts: make(map[[2]string]protocol.Cursor),
		}
		m.epochs = []string{look(t, a, m.tenant, hub.Query{}).Epoch}
		t.Repeat(map[string]func(*rapid.T){
			"publish": m.publish,
			"look":    m.look,
		})
	})
}

func (m *model) instance(t *rapid.T) hub.Log {
	if rapid.Bool().Draw(t, "peer") {
		return m.b
	}
	return m.a
}

func (m *model) epoch() string { return m.epochs[len(m.epochs)-1] }
func (m *model) head() uint64  { return uint64(len(m.events)) }

// topic draws a topic; nobody publishes to one of them.
func (m *model) topic(t *rapid.T, more ...string) string {
	return rapid.SampledFrom(append([]string{"few.a", "few.b", "a", "a.b"}, more...)).Draw(t, "topic")
}

// seq draws a seq around those that there are.
func (m *model) seq(t *rapid.T, label string) uint64 {
	return rapid.Uint64Range(0, m.head()+2).Draw(t, label)
}

func (m *model) publish(t *rapid.T) {
	events := make([]protocol.Publication, rapid.IntRange(1, 5).Draw(t, "events"))
	want := make([]protocol.Cursor, len(events))
	for i := range events {
		m.counter++
		p := once(m.topic(t), rapid.SampledFrom([]string{"", "", "1", "2"}).Draw(t, "dedupe"), m.counter)
		p.Key = rapid.SampledFrom([]string{"", "k"}).Draw(t, "key")
		p.Final = rapid.Bool().Draw(t, "final")
		events[i], want[i] = p, m.append(p)
	}
	require.Equal(t, want, publish(t, m.instance(t), m.tenant, events...))
}

func (m *model) append(p protocol.Publication) protocol.Cursor {
	id := [2]string{p.Topic, p.Dedupe}
	if c, ok := m.firsts[id]; ok {
		return c
	}
	e := published{p, protocol.Cursor{Epoch: m.epoch(), Seq: m.head() + 1}, m.last(p.Topic)}
	m.events = append(m.events, e)
	if p.Dedupe != "" {
		m.firsts[id] = e.cursor
	}
	return e.cursor
}

func (m *model) last(topic string) uint64 {
	for _, e := range slices.Backward(m.events) {
		if e.Topic == topic {
			return e.cursor.Seq
		}
	}
	return 0
}

func (m *model) look(t *rapid.T) {
	q := hub.Query{
		Index:      rapid.Bool().Draw(t, "index"),
		IndexAfter: m.seq(t, "index after"),
	}
	if rapid.IntRange(0, 4).Draw(t, "known") == 0 {
		q.Known = protocol.Cursor{Epoch: rapid.SampledFrom(m.epochs).Draw(t, "known epoch"), Seq: m.seq(t, "known seq")}
	}
	for range rapid.IntRange(0, 3).Draw(t, "topics") {
		tq := hub.TopicQuery{Topic: m.topic(t, "nobody")}
		if rapid.Bool().Draw(t, "ask newest") {
			tq.Newest = rapid.IntRange(1, 6).Draw(t, "newest")
		} else {
			tq.After, tq.To = m.seq(t, "after"), m.seq(t, "to")
			tq.Limit = rapid.IntRange(0, 6).Draw(t, "limit")
		}
		q.Topics = append(q.Topics, tq)
	}
	v := look(t, m.instance(t), m.tenant, q)

	if q.Known.Epoch == m.epoch() && q.Known.Seq > m.head() {
		require.NotContains(t, m.epochs, v.Epoch)
		m.past = append([]protocol.Cursor{{Epoch: m.epoch(), Seq: m.head()}}, m.past...)
		m.past = m.past[:min(len(m.past), hub.MaxPast)]
		m.epochs = append(m.epochs, v.Epoch)
	}
	require.Equal(t, m.epoch(), v.Epoch)
	require.Equal(t, m.past, v.Past)
	require.Equal(t, [2]uint64{m.head(), 0}, [2]uint64{v.Head, v.Floor})
	m.checkIndex(t, q, v.Index)
	for i, tq := range q.Topics {
		m.checkTopic(t, tq, v.Topics[i])
	}
}

func (m *model) checkIndex(t *rapid.T, q hub.Query, got []hub.TopicLast) {
	var want []hub.TopicLast
	for topic := range m.keep {
		if last := m.last(topic); q.Index && last > q.IndexAfter {
			want = append(want, hub.TopicLast{Topic: topic, Last: last})
		}
	}
	require.ElementsMatch(t, want, got)
}

func (m *model) checkTopic(t *rapid.T, q hub.TopicQuery, got hub.TopicView) {
	var want []published
	for _, e := range m.events {
		if e.Topic == q.Topic {
			want = append(want, e)
		}
	}
	want = want[max(0, len(want)-m.keep[q.Topic]):]
	more := false
	if q.Newest > 0 {
		want = want[max(0, len(want)-q.Newest):]
	} else {
		want = slices.DeleteFunc(want, func(e published) bool {
			return e.cursor.Seq <= q.After || q.To > 0 && e.cursor.Seq > q.To
		})
		if q.Limit > 0 && len(want) > q.Limit {
			want, more = want[:q.Limit], true
		}
	}
	require.Equal(t, m.last(q.Topic), got.Last)
	require.Equal(t, more, got.More)
	require.Len(t, got.Events, len(want), fmt.Sprint(seqs(got.Events)))
	for i, e := range want {
		requireEvent(t, e.Publication, e.cursor, e.prev, got.Events[i])
	}
}
