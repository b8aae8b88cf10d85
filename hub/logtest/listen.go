package logtest

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// watchers are the instances of a test with what they are told: one or two.
type watchers []watcher

type watcher struct {
	hub.Log
	*Recorder
}

// watching has the instances watch tenants, and waits until they are covered.
func watching(t *testing.T, a, b hub.Log, tenants ...string) watchers {
	t.Helper()
	ra, rb := listen(t, a, b)
	all := watchers{{a, ra}}
	if a != b {
		all = append(all, watcher{b, rb})
	}
	for _, w := range all {
		for _, tenant := range tenants {
			w.Watch(tenant)
		}
	}
	for _, w := range all {
		for _, tenant := range tenants {
			w.AwaitCount(t, tenant, Covered, 1)
		}
	}
	return all
}

// after gives the seqs of those events whose seq is greater, as they came.
func after(seq uint64, events []*protocol.Event) []uint64 {
	var all []uint64
	for _, e := range events {
		if e.Cursor.Seq > seq {
			all = append(all, e.Cursor.Seq)
		}
	}
	return all
}

// between gives from+1, from+2 … to.
func between(from, to uint64) []uint64 { return from1(int(to))[from:] }

// traffic is publishers at work on both instances until they are told to stop.
type traffic struct {
	wg   sync.WaitGroup
	stop chan struct{} // closed by end
}

func startTraffic(t *testing.T, a, b hub.Log, tenant string) *traffic {
	tr := &traffic{stop: make(chan struct{})}
	for i := range 4 {
		l := a
		if i%2 == 1 {
			l = b
		}
		tr.wg.Go(func() {
			for n, left := 0, 30; left > 0; n++ {
				select {
				case <-tr.stop:
					left--
				default:
				}
				events := []protocol.Publication{on("jobs."+strconv.Itoa(n%7), n), on("alerts", n), once("jobs.x", strconv.Itoa(n), n)}
				if _, ok := tryPublish(t, l, tenant, events[:1+n%3]...); !ok {
					return
				}
			}
		})
	}
	return tr
}

// end has each publisher publish a little more, and waits for them.
func (tr *traffic) end() {
	close(tr.stop)
	tr.wg.Wait()
}

func testWatch(t *testing.T, a, b hub.Log) {
	tenant, other := newTenant(), newTenant()
	publish(t, a, tenant, on("a", 1))
	ws := watching(t, a, b, tenant)
	publish(t, b, other, on("a", 0))
	publish(t, b, tenant, on("b", 2))
	last := publish(t, a, tenant, on("a", 3), on("c", 4))[1]
	for _, w := range ws {
		w.AwaitEvent(t, tenant, last)
		calls := w.Calls(tenant)
		require.Equal(t, 1, Count(calls, Covered))
		require.Zero(t, Count(calls, Lost))
		require.Equal(t, []uint64{2, 3, 4}, after(1, Events(calls)))
		require.Empty(t, w.Calls(other), "nobody watches it")
	}
}

// testLiveAsLooked compares what comes live with what Look gives.
func testLiveAsLooked(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	ws := watching(t, a, b, tenant)
	full := once("jobs.1", "x", 1)
	full.Key, full.Final, full.Source, full.Type = "progress", true, `"s" ü`, `\`
	full.Data = []byte(`["\u0000\\",1e400,"😀"]`)
	large := on("jobs.2", 2)
	large.Data = []byte(`"` + strings.Repeat("|", 1<<16) + `"`)
	untimed := on("alerts", 3)
	untimed.Time = ""
	publish(t, a, tenant, full, untimed)
	publish(t, b, tenant, full, large) // full is there already
	last := publish(t, b, tenant, on("jobs.1", 4), full, on("jobs.1", 5))[2]
	for _, w := range ws {
		w.AwaitEvent(t, tenant, last)
		live := w.Events(tenant)
		require.Equal(t, from1(5), seqs(live))
		v := look(t, w, tenant, hub.Query{Topics: []hub.TopicQuery{{Topic: "jobs.1"}, {Topic: "jobs.2"}, {Topic: "alerts"}}})
		looked := slices.Concat(v.Topics[0].Events, v.Topics[1].Events, v.Topics[2].Events)
		require.Len(t, looked, len(live))
		for _, e := range looked {
			l := live[e.Cursor.Seq-1]
			requireEvent(t, protocol.Publication{Topic: e.Topic, Type: e.Type, Key: e.Key, Final: e.Final}, e.Cursor, e.Prev, l)
			require.Equal(t, e.At, l.At)
			require.Equal(t, string(e.JSON), string(l.JSON))
		}
	}
}

// testLiveComplete begins to watch in the midst of traffic. What is published
// after a Look that follows Covered must come in order, once.
func testLiveComplete(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	tr := startTraffic(t, a, b, tenant)
	ws := watching(t, a, b, tenant)
	from := look(t, a, tenant, hub.Query{}).Head
	tr.end()
	v := look(t, b, tenant, hub.Query{})
	require.Greater(t, v.Head, from)
	for _, w := range ws {
		w.AwaitEvent(t, tenant, protocol.Cursor{Epoch: v.Epoch, Seq: v.Head})
		require.Equal(t, between(from, v.Head), after(from, w.Events(tenant)))
		require.Zero(t, w.Count(tenant, Lost))
	}
}

func testLiveOverEpochs(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	ws := watching(t, a, b, tenant)
	old := publish(t, a, tenant, on("a", 1))[0]
	v := look(t, b, tenant, hub.Query{Known: protocol.Cursor{Epoch: old.Epoch, Seq: 7}})
	c := publish(t, b, tenant, on("a", 2))[0]
	require.Equal(t, protocol.Cursor{Epoch: v.Epoch, Seq: 2}, c)
	for _, w := range ws {
		e := w.AwaitEvent(t, tenant, c)
		requireEvent(t, on("a", 2), c, 1, e)
		require.Equal(t, []uint64{1, 2}, seqs(w.Events(tenant)))
		require.Equal(t, old, w.Events(tenant)[0].Cursor)
	}
}

// testUnwatch waits until a tenant has become silent, by the side of one that is
// still watched.
func testUnwatch(t *testing.T, a, b hub.Log) {
	tenant, control := newTenant(), newTenant()
	ws := watching(t, a, b, tenant, control)
	w := ws[0]
	w.Unwatch(tenant)

	deadline := time.Now().Add(patience)
	var last protocol.Cursor
	for quiet := 0; quiet < 5; {
		require.True(t, time.Now().Before(deadline), "events still come")
		last = publish(t, b, tenant, on("a", 1))[0]
		w.AwaitEvent(t, control, publish(t, b, control, on("a", 1))[0])
		if came := w.Events(tenant); len(came) > 0 && came[len(came)-1].Cursor == last {
			quiet = 0
		} else {
			quiet++
		}
	}
	require.Equal(t, 1, w.Count(tenant, Covered), "Covered needs a new Watch")
	for _, other := range ws[1:] {
		other.AwaitEvent(t, tenant, last)
		require.Equal(t, from1(int(last.Seq)), seqs(other.Events(tenant)), "the other instance still watches")
	}

	w.Watch(tenant)
	w.AwaitCount(t, tenant, Covered, 2)
	next := publish(t, b, tenant, on("a", 2), on("b", 2))[1]
	w.AwaitEvent(t, tenant, next)
	require.Equal(t, []uint64{last.Seq + 1, last.Seq + 2}, after(last.Seq, w.Events(tenant)))
}

func testReset(t *testing.T, a, b hub.Log) {
	tenant, control := newTenant(), newTenant()
	ws := watching(t, a, b, tenant, control)
	w := ws[0]
	start := look(t, a, tenant, hub.Query{}).Head
	from := start
	for round := 1; round <= 3; round++ {
		before := len(w.Calls(tenant))
		tr := startTraffic(t, a, b, tenant)
		w.Reset(tenant)
		w.AwaitCount(t, tenant, Covered, round+1)
		covered := look(t, b, tenant, hub.Query{}).Head
		tr.end()
		v := look(t, b, tenant, hub.Query{})
		w.AwaitEvent(t, tenant, protocol.Cursor{Epoch: v.Epoch, Seq: v.Head})

		calls := w.Calls(tenant)
		require.Equal(t, round, Count(calls, Lost))
		require.Equal(t, round+1, Count(calls, Covered))
		calls = calls[before:]
		lost := slices.IndexFunc(calls, func(c Call) bool { return c.Kind == Lost })
		again := slices.IndexFunc(calls, func(c Call) bool { return c.Kind == Covered })
		require.Less(t, lost, again)
		if got := after(from, Events(calls[:lost])); len(got) > 0 {
			require.Equal(t, between(from, got[len(got)-1]), got, "no hole before Lost")
		}
		require.Equal(t, between(covered, v.Head), after(covered, Events(calls)), "no hole after Covered")
		from = v.Head
	}
	// The other instance was told of all, and its connection is its own.
	for _, other := range ws[1:] {
		head := look(t, b, tenant, hub.Query{})
		other.AwaitEvent(t, tenant, protocol.Cursor{Epoch: head.Epoch, Seq: head.Head})
		require.Equal(t, between(start, head.Head), seqs(other.Events(tenant)))
		require.Zero(t, other.Count(tenant, Lost))
	}
	// Other tenants that came by the same means are covered again, or still are.
	w.Await(t, "end of the loss", control, func(calls []Call) bool { return Count(calls, Covered) == Count(calls, Lost)+1 })
	w.AwaitEvent(t, control, publish(t, b, control, on("a", 1))[0])
}
