package logtest

import (
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

func testFreshTenant(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	v := look(t, a, tenant, hub.Query{Index: true, Topics: []hub.TopicQuery{{Topic: "a"}, {Topic: "b", Newest: 1}}})
	require.Regexp(t, regexp.MustCompile(`^[a-z0-9]{1,32}$`), v.Epoch)
	require.Equal(t, hub.View{Epoch: v.Epoch, Index: v.Index, Topics: v.Topics}, v)
	require.Empty(t, v.Index)
	for _, top := range v.Topics {
		require.Zero(t, top.Last)
		require.Empty(t, top.Events)
		require.False(t, top.More)
	}
	require.Equal(t, v.Epoch, look(t, b, tenant, hub.Query{}).Epoch)
	require.Equal(t, protocol.Cursor{Epoch: v.Epoch, Seq: 1}, publish(t, b, tenant, on("a", 1))[0])
}

// testFreshTenantRace has many need an epoch at once: all must get the same.
func testFreshTenantRace(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	epochs := make([]string, 8)
	var wg sync.WaitGroup
	for i := range epochs {
		wg.Go(func() {
			l := a
			if i%2 == 1 {
				l = b
			}
			if i < 4 {
				if c, ok := tryPublish(t, l, tenant, on("a", i)); ok {
					epochs[i] = c[0].Epoch
				}
				return
			}
			v, err := l.Look(t.Context(), tenant, hub.Query{})
			if err == nil {
				epochs[i] = v.Epoch
			}
		})
	}
	wg.Wait()
	require.Len(t, slices.Compact(epochs), 1)
	require.NotEmpty(t, epochs[0])
}

func testLookIsNew(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	for i := range 50 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		c := publish(t, from, tenant, on("a", i))[0]
		v := look(t, to, tenant, hub.Query{Index: true, Topics: []hub.TopicQuery{{Topic: "a", Newest: 1}}})
		require.Equal(t, c, protocol.Cursor{Epoch: v.Epoch, Seq: v.Head})
		require.Equal(t, []hub.TopicLast{{Topic: "a", Last: c.Seq}}, v.Index)
		require.Equal(t, []uint64{c.Seq}, seqs(v.Topics[0].Events))
	}
}

func testTopicQueries(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	for i := range 5 {
		publish(t, a, tenant, on("x", i), on("y", i)) // x has 1, 3, 5, 7, 9
	}
	type s = []uint64
	for _, c := range []struct {
		name string
		q    hub.TopicQuery
		want s
		more bool
	}{
		{"all", hub.TopicQuery{}, s{1, 3, 5, 7, 9}, false},
		{"after is exclusive", hub.TopicQuery{After: 3}, s{5, 7, 9}, false},
		{"after another topic's seq", hub.TopicQuery{After: 4}, s{5, 7, 9}, false},
		{"to is inclusive", hub.TopicQuery{To: 5}, s{1, 3, 5}, false},
		{"to another topic's seq", hub.TopicQuery{To: 6}, s{1, 3, 5}, false},
		{"between", hub.TopicQuery{After: 1, To: 7}, s{3, 5, 7}, false},
		{"to the head", hub.TopicQuery{After: 7, To: 10}, s{9}, false},
		{"to beyond the head", hub.TopicQuery{After: 7, To: protocol.MaxSeq}, s{9}, false},
		{"to beyond any head", hub.TopicQuery{After: 7, To: math.MaxUint64}, s{9}, false},
		{"nothing after", hub.TopicQuery{After: 9}, s{}, false},
		{"after beyond the head", hub.TopicQuery{After: 1000}, s{}, false},
		{"after beyond any head", hub.TopicQuery{After: math.MaxUint64}, s{}, false},
		{"nothing between", hub.TopicQuery{After: 5, To: 6}, s{}, false},
		{"empty span", hub.TopicQuery{After: 5, To: 5}, s{}, false},
		{"inverted span", hub.TopicQuery{After: 7, To: 3}, s{}, false},
		{"limit", hub.TopicQuery{Limit: 2}, s{1, 3}, true},
		{"limit of one", hub.TopicQuery{After: 3, Limit: 1}, s{5}, true},
		{"limit reached just at the end", hub.TopicQuery{Limit: 5}, s{1, 3, 5, 7, 9}, false},
		{"limit reached just at to", hub.TopicQuery{To: 5, Limit: 3}, s{1, 3, 5}, false},
		{"limit not reached", hub.TopicQuery{Limit: 6}, s{1, 3, 5, 7, 9}, false},
		{"limit and nothing", hub.TopicQuery{After: 9, Limit: 2}, s{}, false},
		{"newest", hub.TopicQuery{Newest: 2}, s{7, 9}, false},
		{"newest of fewer", hub.TopicQuery{Newest: 1000}, s{1, 3, 5, 7, 9}, false},
		{"newest of all, whatever else is said", hub.TopicQuery{Newest: 3, After: 7, To: 3, Limit: 1}, s{5, 7, 9}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.q.Topic = "x"
			v := lookAt(t, b, tenant, c.q)
			require.Equal(t, c.want, seqs(v.Events))
			require.Equal(t, c.more, v.More)
			require.EqualValues(t, 9, v.Last)
		})
	}
}

func testTopicOrder(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	publish(t, a, tenant, on("x", 1), on("y", 2))
	v := look(t, b, tenant, hub.Query{Topics: []hub.TopicQuery{
		{Topic: "y"}, {Topic: "nobody"}, {Topic: "x"}, {Topic: "y", After: 2}, {Topic: "x", Newest: 1},
	}})
	require.Empty(t, v.Index, "nobody asked for it")
	for i, want := range []struct {
		last   uint64
		events []uint64
	}{
		{2, []uint64{2}}, {0, []uint64{}}, {1, []uint64{1}}, {2, []uint64{}}, {1, []uint64{1}},
	} {
		require.Equal(t, want.last, v.Topics[i].Last, i)
		require.Equal(t, want.events, seqs(v.Topics[i].Events), i)
		require.False(t, v.Topics[i].More, i)
	}
}

// testBoundOfAnswer asks for more than one answer may hold.
func testBoundOfAnswer(t *testing.T, a, b hub.Log) {
	const events, size = 60, 1 << 16
	tenant := newTenant()
	large := on("large", 0)
	large.Data = []byte(`"` + strings.Repeat("x", size-2) + `"`)
	for range events / 10 {
		publish(t, a, tenant, slices.Repeat([]protocol.Publication{large}, 10)...)
	}
	also := large
	also.Topic = "also"
	publish(t, a, tenant, also, also)
	publish(t, a, tenant, on("small", 1))

	// Every topic has its part, and the whole is bounded.
	for _, q := range []hub.TopicQuery{{Topic: "large"}, {Topic: "large", Newest: events}, {Topic: "large", Limit: events}} {
		v := look(t, b, tenant, hub.Query{Topics: []hub.TopicQuery{q, {Topic: "also"}, {Topic: "nobody"}, {Topic: "small"}}})
		sum := 0
		for _, top := range v.Topics {
			for _, e := range top.Events {
				sum += len(e.JSON)
			}
		}
		require.Less(t, sum, 2<<20)
		require.True(t, v.Topics[0].More)
		require.Greater(t, len(v.Topics[0].Events), 1, "about 1 MiB holds more than one")
		require.NotEmpty(t, v.Topics[1].Events)
		require.Equal(t, len(v.Topics[1].Events) < 2, v.Topics[1].More)
		require.Equal(t, hub.TopicView{Events: v.Topics[2].Events}, v.Topics[2])
		require.Equal(t, []uint64{events + 3}, seqs(v.Topics[3].Events))
		require.False(t, v.Topics[3].More)
	}

	// The rest follows, after what was given.
	for _, q := range []hub.TopicQuery{{}, {Newest: events}, {Limit: events - 1}} {
		q.Topic = "large"
		var got []*protocol.Event
		for more := true; more; {
			v := lookAt(t, b, tenant, q)
			require.NotEmpty(t, v.Events)
			got = append(got, v.Events...)
			more = v.More
			q.After, q.Newest = got[len(got)-1].Cursor.Seq, 0
		}
		require.Equal(t, from1(events), seqs(got))
	}
}

func testIndex(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	for _, topic := range []string{"a", "b.b", "a", "c", "b.b", "users.1"} {
		publish(t, a, tenant, on(topic, 0))
	}
	all := []hub.TopicLast{{Topic: "a", Last: 3}, {Topic: "c", Last: 4}, {Topic: "b.b", Last: 5}, {Topic: "users.1", Last: 6}}
	for after, want := range [][]hub.TopicLast{all, all, all, all[1:], all[2:], all[3:], {}, {}} {
		v := look(t, b, tenant, hub.Query{Index: true, IndexAfter: uint64(after)})
		require.ElementsMatch(t, want, v.Index, "after %d", after)
	}
	require.Empty(t, look(t, b, tenant, hub.Query{Index: true, IndexAfter: math.MaxUint64}).Index)
	require.Empty(t, look(t, b, tenant, hub.Query{IndexAfter: 1}).Index)
}

func testKnownNotAhead(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	c := publish(t, a, tenant, on("a", 1), on("a", 2))[1]
	for _, known := range []protocol.Cursor{
		{},
		{Epoch: c.Epoch, Seq: 0},
		{Epoch: c.Epoch, Seq: 1},
		c,
		{Epoch: "another", Seq: 1000},
		{Epoch: c.Epoch + "x", Seq: 1000},
	} {
		v := look(t, b, tenant, hub.Query{Known: known})
		require.Equal(t, hub.View{Epoch: c.Epoch, Head: 2, Index: v.Index, Topics: v.Topics}, v, "known %v", known)
	}
}

// testKnownAhead knows of events that the log does not have.
func testKnownAhead(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	old := publish(t, a, tenant, on("a", 1), on("b", 2), once("b", "x", 3))
	known := protocol.Cursor{Epoch: old[2].Epoch, Seq: 4}
	v := look(t, b, tenant, hub.Query{Known: known, Index: true, Topics: []hub.TopicQuery{{Topic: "a"}}})
	require.NotEqual(t, known.Epoch, v.Epoch)
	require.Equal(t, hub.View{
		Epoch: v.Epoch, Past: []protocol.Cursor{old[2]}, Head: 3, Index: v.Index, Topics: v.Topics,
	}, v)
	require.Len(t, v.Index, 2)
	require.Equal(t, old[0], v.Topics[0].Events[0].Cursor, "what is retained keeps its cursor")

	// It is known from now on, and changes nothing more.
	require.Equal(t, v.Epoch, look(t, a, tenant, hub.Query{Known: known}).Epoch)

	// Seqs and chains go on, and so do dedupes.
	cursors := publish(t, a, tenant, on("a", 4), once("b", "x", 5))
	require.Equal(t, []protocol.Cursor{{Epoch: v.Epoch, Seq: 4}, old[2]}, cursors)
	top := lookAt(t, b, tenant, hub.TopicQuery{Topic: "a"})
	require.Len(t, top.Events, 2)
	requireEvent(t, on("a", 1), old[0], 0, top.Events[0])
	requireEvent(t, on("a", 4), cursors[0], 1, top.Events[1])

	// Again, from the new epoch.
	again := look(t, a, tenant, hub.Query{Known: protocol.Cursor{Epoch: v.Epoch, Seq: 1000}})
	require.NotContains(t, []string{v.Epoch, known.Epoch}, again.Epoch)
	require.Equal(t, hub.View{
		Epoch: again.Epoch, Past: []protocol.Cursor{cursors[0], old[2]}, Head: 4, Index: again.Index, Topics: again.Topics,
	}, again)

	// And again: so many are known.
	past := again.Past
	for range hub.MaxPast {
		past = append([]protocol.Cursor{{Epoch: again.Epoch, Seq: again.Head}}, past...)
		publish(t, b, tenant, on("a", 6))
		past[0].Seq++
		again = look(t, b, tenant, hub.Query{Known: protocol.Cursor{Epoch: again.Epoch, Seq: 1000}})
		require.Equal(t, past[:min(len(past), hub.MaxPast)], again.Past)
	}
}

// testKnownAheadRace has many say the same at once: one new epoch is enough.
func testKnownAheadRace(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	c := publish(t, a, tenant, on("a", 1))[0]
	q := hub.Query{Known: protocol.Cursor{Epoch: c.Epoch, Seq: 2}}
	views := make([]hub.View, 8)
	var wg sync.WaitGroup
	for i := range views {
		wg.Go(func() {
			l := a
			if i%2 == 1 {
				l = b
			}
			// A view that was not given fails below.
			views[i], _ = l.Look(t.Context(), tenant, q)
		})
	}
	wg.Wait()
	require.NotEmpty(t, views[0].Epoch)
	for _, v := range views {
		require.Equal(t, views[0], v)
		require.Equal(t, []protocol.Cursor{c}, v.Past)
	}
}
