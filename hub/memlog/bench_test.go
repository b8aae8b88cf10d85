package memlog

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// nobody is a Listener that does nothing but say that it covers.
type nobody struct {
	covered chan struct{}
	events  int
}

func (n *nobody) Covered(string)               { close(n.covered) }
func (n *nobody) Lost(string)                  {}
func (n *nobody) Live(string, *protocol.Event) { n.events++ }

func openWatched(t testing.TB) (*Log, *nobody) {
	l := open(t, nil)
	n := &nobody{covered: make(chan struct{})}
	l.Listen(n)
	l.Watch("t")
	<-n.covered
	return l, n
}

// BenchmarkPublish is one event to a watched tenant, all the way to Live.
func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct {
		name string
		p    protocol.Publication
	}{{"new", on("jobs.1")}, {"duplicate", once("jobs.1", "x")}} {
		b.Run(c.name, func(b *testing.B) {
			l, _ := openWatched(b)
			events := []protocol.Publication{c.p}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Publish(b.Context(), "t", events); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLook is a verify that finds nothing new, in a tenant of many topics.
func BenchmarkLook(b *testing.B) {
	l, _ := openWatched(b)
	for i := range 10_000 {
		publish(b, l, "t", on("jobs."+string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676))))
	}
	q := hub.Query{Index: true, IndexAfter: 10_000}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Look(b.Context(), "t", q); err != nil {
			b.Fatal(err)
		}
	}
}

func TestPublishAllocates(t *testing.T) {
	l, n := openWatched(t)
	events := []protocol.Publication{on("jobs.1")}
	runs := 0
	allocs := testing.AllocsPerRun(1000, func() {
		runs++
		if _, err := l.Publish(t.Context(), "t", events); err != nil {
			t.Fatal(err)
		}
	})
	require.Equal(t, runs, n.events)
	require.LessOrEqual(t, allocs, 3.0, "the cursors, the event, its JSON")
}
