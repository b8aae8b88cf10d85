package loadtest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Every way in which a server can break or keep its promise, for one subscription
// to which five events were published.
func TestLedgerTellsFaultsApart(t *testing.T) {
	const published = 5
	gap := uint64(0) // in a list of events: a gap message
	for _, test := range []struct {
		name  string
		keyed bool
		came  []uint64
		want  Counts
	}{
		{"all", false, []uint64{1, 2, 3, 4, 5}, Counts{Delivered: 5}},
		{"none", false, nil, Counts{Lost: 5}},
		{"one lost", false, []uint64{1, 2, 4, 5}, Counts{Delivered: 4, Lost: 1}},
		{"the first lost", false, []uint64{2, 3, 4, 5}, Counts{Delivered: 4, Lost: 1}},
		{"the last lost", false, []uint64{1, 2, 3, 4}, Counts{Delivered: 4, Lost: 1}},
		{"twice", false, []uint64{1, 2, 2, 3, 4, 5}, Counts{Delivered: 6, Twice: 1}},
		{"an old one twice", false, []uint64{1, 2, 3, 4, 5, 1}, Counts{Delivered: 6, Twice: 1}},
		{"swapped", false, []uint64{1, 3, 2, 4, 5}, Counts{Delivered: 5, Disorder: 1}},
		{"late", false, []uint64{1, 5, 3, 4, 2}, Counts{Delivered: 5, Disorder: 3}},
		{"late, and twice", false, []uint64{1, 3, 2, 2, 4, 5}, Counts{Delivered: 6, Disorder: 1, Twice: 1}},
		{"a gap", false, []uint64{1, gap, 4, 5}, Counts{Delivered: 3, Announced: 2}},
		{"a gap in which nothing is missing", false, []uint64{1, 2, gap, 3, 4, 5}, Counts{Delivered: 5}},
		{"a gap excuses only what is before its next event", false, []uint64{1, gap, 3, 5}, Counts{Delivered: 3, Announced: 1, Lost: 1}},
		{"a gap at the end", false, []uint64{1, 2, gap}, Counts{Delivered: 2, Announced: 3}},
		{"conflated", true, []uint64{1, 5}, Counts{Delivered: 2, Conflated: 3}},
		{"conflated, but the newest is lost", true, []uint64{1, 4}, Counts{Delivered: 2, Conflated: 2, Lost: 1}},
		{"conflated, and late", true, []uint64{1, 5, 3}, Counts{Delivered: 3, Conflated: 2, Disorder: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, s := newLedger(test.keyed), &subscription{}
			for _, n := range test.came {
				if n == gap {
					l.gap(s)
				} else {
					l.event(s, n)
				}
			}
			l.settle(s, published, true)
			require.Equal(t, test.want, l.counts)
		})
	}
}

func TestLedgerDoesNotOweWhatMayNotHaveBeenPublished(t *testing.T) {
	for _, test := range []struct {
		came []uint64
		want Counts
	}{
		{[]uint64{1, 3}, Counts{Delivered: 2}},
		{[]uint64{1, 2, 3}, Counts{Delivered: 3}},
		{[]uint64{1, 3, 2}, Counts{Delivered: 3, Disorder: 1}},
		{[]uint64{3}, Counts{Delivered: 1, Lost: 1}},
		{[]uint64{1}, Counts{Delivered: 1, Lost: 1}},
	} {
		l, s := newLedger(false), &subscription{topic: 7}
		l.uncertain(7, 2)
		l.uncertain(8, 3) // of another topic
		for _, n := range test.came {
			l.event(s, n)
		}
		l.settle(s, 3, true)
		require.Equal(t, test.want, l.counts, "%v", test.came)
	}
}

func TestLedgerTellsWhoWasDisconnected(t *testing.T) {
	l, s := newLedger(false), &subscription{}
	l.event(s, 1)
	l.settle(s, 3, false)
	require.Equal(t, Counts{Delivered: 1, Cut: 2}, l.counts)
}
