package hub_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
)

// Page after page the feed gives what is retained, once, in order; what is gone
// before it could be read is announced, on that page or one before.
func TestFeedInPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		retention, err := hub.ParseRetention(rapid.SampledFrom([]string{">:1000/1h", ">:3/1h"}).Draw(t, "retention"))
		require.NoError(t, err)
		log := memlog.New(memlog.Options{Retention: retention})
		defer log.Close()
		h := hub.New(log, hub.Options{})
		defer h.Close()
		width := rapid.SampledFrom([]int{2, 5, 90}).Draw(t, "topics")
		var first protocol.Cursor
		var all []string // the topic of each seq
		say := func(n int) {
			for range n {
				topic := fmt.Sprintf("t.%d", rapid.IntRange(0, width-1).Draw(t, "topic"))
				ids, err := h.Publish(t.Context(), "acme", []protocol.Publication{{Topic: topic, Type: "t", Data: []byte("1")}})
				require.NoError(t, err)
				if all = append(all, topic); len(all) == 1 {
					first = ids[0]
				}
			}
		}
		say(rapid.IntRange(1, 300).Draw(t, "n"))
		q := hub.FeedQuery{
			Wants: wants(first, rapid.SampledFrom([][]string{{">"}, {"t.*"}, {"t.0", "t.1"}, {"t.1", "t.*"}}).Draw(t, "patterns")...),
			Limit: rapid.IntRange(1, 40).Draw(t, "limit"),
		}
		wanted := func(topic string) bool {
			return slices.ContainsFunc(q.Wants, func(w hub.Want) bool { return protocol.Match(w.Pattern, topic) })
		}
		at := 1
		got := map[int]bool{1: true}
		told := map[string]int{} // topic → seq up to which a gap stands
		for pages := 0; ; pages++ {
			head := len(all)
			page, err := h.Feed(t.Context(), "acme", q)
			require.NoError(t, err)
			require.LessOrEqual(t, len(page.Events), q.Limit)
			for _, gap := range page.Gaps {
				for _, topic := range all {
					if protocol.Match(gap, topic) {
						told[topic] = head
					}
				}
			}
			for _, e := range page.Events {
				seq := int(e.Cursor.Seq)
				require.Greater(t, seq, at)
				at, got[seq] = seq, true
			}
			require.GreaterOrEqual(t, int(page.Next.Seq), at)
			at = int(page.Next.Seq)
			for seq := 2; seq <= at; seq++ {
				if topic := all[seq-1]; wanted(topic) && !got[seq] && seq > told[topic] {
					t.Fatalf("page %d ends at %d, and neither %s %d came nor a gap for it: %v", pages, at, topic, seq, page.Gaps)
				}
			}
			if at == head {
				return
			}
			require.True(t, len(page.Events) > 0 || page.Next != q.Wants[0].Since, "it makes no way")
			for i := range q.Wants {
				q.Wants[i].Since = page.Next
			}
			if rapid.IntRange(0, 3).Draw(t, "trim") == 0 {
				log.Trim("acme", rapid.SampledFrom(all).Draw(t, "trimmed"), rapid.IntRange(0, 2).Draw(t, "keep"))
			}
			if pages < 50 && rapid.IntRange(0, 3).Draw(t, "more") == 0 {
				say(rapid.IntRange(1, 5).Draw(t, "n"))
			}
		}
	})
}

func TestFeed(t *testing.T) {
	h, log := open(t, ">:1000/1h")
	first := publish(t, h, "a")
	publish(t, h, "b", "a", "c", "a")
	seqs := func(q hub.FeedQuery) (seqs []uint64, page hub.Page) {
		if q.Limit == 0 {
			q.Limit = 100
		}
		page, err := h.Feed(t.Context(), "acme", q)
		require.NoError(t, err)
		for _, e := range page.Events {
			seqs = append(seqs, e.Cursor.Seq)
		}
		return seqs, page
	}
	got, page := seqs(hub.FeedQuery{Wants: []hub.Want{{Pattern: ">"}}})
	require.Equal(t, []uint64{1, 2, 3, 4, 5}, got)
	require.EqualValues(t, 5, page.Next.Seq)
	require.Empty(t, page.Gaps)

	got, page = seqs(hub.FeedQuery{Wants: []hub.Want{{Pattern: "a", Last: 2}, {Pattern: "b", Last: 2}}})
	require.Equal(t, []uint64{2, 3, 5}, got)
	require.EqualValues(t, 5, page.Next.Seq)

	got, page = seqs(hub.FeedQuery{Wants: []hub.Want{{Pattern: ">"}}, Limit: 2, Keep: func(e *protocol.Event) bool { return e.Topic == "a" }})
	require.Equal(t, []uint64{1, 3}, got)
	require.EqualValues(t, 3, page.Next.Seq)

	log.Trim("acme", "a", 1)
	got, page = seqs(hub.FeedQuery{Wants: wants(first, "a", "b")})
	require.Equal(t, []uint64{2, 5}, got)
	require.Equal(t, []string{"a"}, page.Gaps)

	foreign := protocol.Cursor{Epoch: "zz", Seq: 4}
	got, page = seqs(hub.FeedQuery{Wants: wants(foreign, "b", "c")})
	require.Equal(t, []uint64{2, 4}, got)
	require.Equal(t, []string{"b", "c"}, page.Gaps)

	publish(t, h, many(300, 1)...)
	got, page = seqs(hub.FeedQuery{Wants: wants(first, "t.0"), Limit: 128})
	require.Len(t, got, 128)
	require.EqualValues(t, 133, page.Next.Seq)

	got, page = seqs(hub.FeedQuery{Wants: []hub.Want{{Pattern: "none"}}})
	require.Empty(t, got)
	require.EqualValues(t, 305, page.Next.Seq)
}

// 204 is for a client that has the final event.
func TestFinished(t *testing.T) {
	h, log := open(t, ">:1000/1h")
	say := func(final bool) protocol.Cursor {
		ids, err := h.Publish(t.Context(), "acme", []protocol.Publication{{Topic: "jobs.1", Type: "t", Data: []byte("1"), Final: final}})
		require.NoError(t, err)
		return ids[0]
	}
	check := func(want bool, c protocol.Cursor) {
		t.Helper()
		for range 2 { // also from memory
			got, err := h.Finished(t.Context(), "acme", "jobs.1", c)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	}
	session := h.Open("acme", newSink())
	defer session.Close()
	before := say(false)
	check(false, before)
	end := say(true)
	check(false, before)
	check(true, end)
	check(false, protocol.Cursor{Epoch: "zz", Seq: end.Seq})
	check(false, protocol.Cursor{Epoch: end.Epoch, Seq: end.Seq + 1})
	say(false)
	check(false, end)
	last := say(true)
	check(true, last)
	log.Trim("acme", "jobs.1", 0)
	resumed := hub.New(log, hub.Options{})
	defer resumed.Close()
	got, err := resumed.Finished(t.Context(), "acme", "jobs.1", last)
	require.NoError(t, err)
	require.False(t, got, "nothing is retained that says so")
}
