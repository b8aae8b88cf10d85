package hub_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
)

// caughtUp waits for subscribed, and gives what came before it.
func (s *sink) caughtUp(t *testing.T) (lines []string, ids []protocol.Cursor) {
	t.Helper()
	for n := 1; ; n++ {
		lines = s.until(t, n)
		if strings.HasPrefix(lines[n-1], `{"op":"subscribed"`) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return slices.Clone(lines[:n-1]), slices.Clone(s.ids[:n])
		}
	}
}

// resume gives what a new client of wants is sent up to subscribed.
func resume(t *testing.T, h *hub.Hub, wants ...hub.Want) (lines []string, ids []protocol.Cursor) {
	t.Helper()
	s := newSink()
	session := h.Open("acme", s)
	defer session.Close()
	require.NoError(t, session.Subscribe("", wants, 1000))
	return s.caughtUp(t)
}

// kept gives the lines of retained events of topics from seq from on, one each.
func kept(from int, topics ...string) []string {
	lines := make([]string, len(topics))
	for i, topic := range topics {
		lines[i] = fmt.Sprintf("kept %s %d", topic, from+i)
	}
	return lines
}

func gapLine(topic, since string, reason protocol.GapReason) string {
	return string(protocol.Gap{Topic: topic, Since: since, Reason: reason}.Encode())
}

// many gives n topics in turn.
func many(n, topics int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("t.%d", i%topics)
	}
	return all
}

// A hub that was just started reads all from the log, in pieces.
func TestReplayInPieces(t *testing.T) {
	for name, topics := range map[string]int{"few topics": 3, "windows": 100, "more than are asked for at once": 300} {
		t.Run(name, func(t *testing.T) {
			h, _ := open(t, ">:100000/1h")
			all := many(4000, topics)
			first := publish(t, h, all[0])
			publish(t, h, all[1:]...)

			lines, ids := resume(t, h, hub.Want{Pattern: "t.*", Since: first})
			require.Equal(t, kept(2, all[1:]...), lines)
			for i, id := range ids[:len(lines)] {
				require.EqualValues(t, i+2, id.Seq)
			}
			var wants []hub.Want
			for i := range topics {
				wants = append(wants, hub.Want{Pattern: fmt.Sprintf("t.%d", i), Since: first})
			}
			lines, _ = resume(t, h, wants...)
			require.Equal(t, kept(2, all[1:]...), lines)
		})
	}
}

// Seqs that are far apart do not make a replay long: windows grow.
func TestReplayOverGreatDistances(t *testing.T) {
	h, _ := open(t, "busy:1/1h,>:1000/1h")
	first := publish(t, h, "busy")
	busy := make([]protocol.Publication, 1000)
	for i := range busy {
		busy[i] = protocol.Publication{Topic: "busy", Type: "t", Data: []byte("1")}
	}
	want := []string{gapLine(">", first.String(), protocol.GapExpired)}
	for i, topic := range many(100, 100) {
		for range 2 {
			_, err := h.Publish(t.Context(), "acme", busy)
			require.NoError(t, err)
		}
		publish(t, h, topic)
		want = append(want, fmt.Sprintf("kept %s %d", topic, 2001*(i+1)+1))
	}
	last := len(want) - 1
	want = append(want[:last], fmt.Sprintf("kept busy %d", 2001*100), want[last])
	lines, _ := resume(t, h, hub.Want{Pattern: ">", Since: first})
	require.Equal(t, want, lines)
	require.Less(t, h.Stats().Reads.Load(), int64(40))
}

// A gap comes before any id that is beyond what is gone: a client that resumed
// from such an id would never learn of it.
func TestGapComesBeforeIDs(t *testing.T) {
	h, log := open(t, ">:1000/1h")
	first := publish(t, h, "other")
	others := many(90, 90)
	publish(t, h, "a")
	publish(t, h, others...)
	publish(t, h, "a")
	log.Trim("acme", "a", 1)
	lines, _ := resume(t, h, hub.Want{Pattern: ">", Since: first})
	require.Equal(t, gapLine(">", first.String(), protocol.GapExpired), lines[0])
	require.Equal(t, append(kept(3, others...), "kept a 93"), lines[1:])
}

// After a gap comes everything that is retained, whatever the floor.
func TestReplayBelowTheFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := hub.ParseRetention("gone:9/30s,>:9/1h")
		require.NoError(t, err)
		log := memlog.New(memlog.Options{Retention: r})
		h := hub.New(log, hub.Options{})
		defer func() { h.Close(); log.Close() }()
		first := publish(t, h, "other")
		publish(t, h, "a", "gone", "b")
		time.Sleep(2 * time.Minute)
		publish(t, h, "other")
		lines, _ := resume(t, h, hub.Want{Pattern: ">", Since: first})
		require.Equal(t, []string{gapLine(">", first.String(), protocol.GapExpired), "kept a 2", "kept b 4", "kept other 5"}, lines)

		lines, _ = resume(t, h, hub.Want{Pattern: "gone", Since: first}, hub.Want{Pattern: "a", Since: first}, hub.Want{Pattern: "never", Since: first})
		require.Equal(t, []string{gapLine("gone", first.String(), protocol.GapExpired), gapLine("never", first.String(), protocol.GapExpired), "kept a 2"}, sortGaps(lines))
	})
}

// sortGaps puts the gaps at the front in order: their order means nothing.
func sortGaps(lines []string) []string {
	n := 0
	for n < len(lines) && strings.HasPrefix(lines[n], `{"op":"gap"`) {
		n++
	}
	slices.Sort(lines[:n])
	return lines
}

// A cursor ahead of the log stands before everything retained.
func TestReplayFromAhead(t *testing.T) {
	h, _ := open(t, hub.DefaultRetention)
	c := publish(t, h, "a", "b", "a")
	c.Seq = 99
	lines, _ := resume(t, h, hub.Want{Pattern: ">", Since: c}, hub.Want{Pattern: "a", Since: c})
	require.Equal(t, []string{gapLine(">", c.String(), protocol.GapEpoch), gapLine("a", c.String(), protocol.GapEpoch),
		"kept a 1", "kept b 2", "kept a 3"}, sortGaps(lines))
}

// A cursor of an epoch before stands where that ended, or at itself: not before
// everything retained, as one of an epoch that nobody remembers.
func TestReplayFromEpochsBefore(t *testing.T) {
	h, log := open(t, hub.DefaultRetention)
	heads := []protocol.Cursor{publish(t, h, "a")}
	for range hub.MaxPast + 1 {
		log.NewEpoch("acme", 0)
		heads = append(heads, publish(t, h, "a"))
	}
	from := func(since protocol.Cursor, seq int) {
		t.Helper()
		lines, _ := resume(t, h, hub.Want{Pattern: "a", Since: since})
		want := []string{}
		if since.Epoch != heads[len(heads)-1].Epoch {
			want = []string{gapLine("a", since.String(), protocol.GapEpoch)}
		}
		for ; seq <= len(heads); seq++ {
			want = append(want, kept(seq, "a")...)
		}
		require.Equal(t, want, lines)
	}
	from(heads[0], 1) // too old
	for n, c := range heads[1:] {
		from(c, n+3)
		c.Seq-- // the last of the epoch before, or where this one began
		from(c, n+2)
	}
	lost := heads[1]
	lost.Seq = 99
	from(lost, 3)

	// Epochs that ended after what is left of them.
	log.NewEpoch("acme", 5)
	before := heads[2:]
	heads = append(slices.Clone(heads[:5]), publish(t, h, "a"))
	for _, c := range before {
		from(c, int(min(c.Seq, 5))+1)
	}
}

// Who is connected hears again only what is new, however many epochs began while
// the channel was away.
func TestLiveOverEpochs(t *testing.T) {
	onPipe(t, func(t *testing.T, h *hub.Hub, p *pipe) {
		first := publish(t, h, "a", "a")
		s := newSink()
		session := h.Open("acme", s)
		defer session.Close()
		require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: "a"}}, 9))
		s.caughtUp(t)
		p.change(func() { p.deaf = true })
		for range 3 {
			p.NewEpoch("acme", 0)
			publish(t, h, "a")
		}
		time.Sleep(25 * time.Second)
		require.Equal(t, append([]string{gapLine("a", first.String(), protocol.GapEpoch)}, kept(3, "a", "a", "a")...), s.until(t, 5)[1:])
	})
}

// Of several cursors for a topic its own wins, else the lowest.
func TestCursorsOfTopics(t *testing.T) {
	h, _ := open(t, hub.DefaultRetention)
	c := publish(t, h, "jobs.1", "jobs.2", "jobs.3", "jobs.1", "jobs.2", "jobs.3", "jobs.1", "jobs.2", "jobs.3")
	at := func(seq uint64) protocol.Cursor { return protocol.Cursor{Epoch: c.Epoch, Seq: seq} }
	lines, _ := resume(t, h,
		hub.Want{Pattern: "jobs.*", Since: at(5)}, hub.Want{Pattern: "jobs.>", Since: at(3)},
		hub.Want{Pattern: "jobs.1", Since: at(6)}, hub.Want{Pattern: "jobs.2", Since: at(1)},
		hub.Want{Pattern: "jobs.3", Last: 1}) // without a cursor of its own: that of the patterns
	require.Equal(t, []string{"kept jobs.2 2", "kept jobs.2 5", "kept jobs.3 6", "kept jobs.1 7", "kept jobs.2 8", "kept jobs.3 9"}, lines)
}

// spoiled is a log that spoils what Look answers.
type spoiled struct {
	hub.Log
	looks atomic.Int64
	spoil func(n int64, v *hub.View) error
}

func (s *spoiled) Look(ctx context.Context, tenant string, q hub.Query) (hub.View, error) {
	v, err := s.Log.Look(ctx, tenant, q)
	if err == nil {
		err = s.spoil(s.looks.Add(1), &v)
	}
	return v, err
}

func onSpoiled(t *testing.T, spoil func(int64, *hub.View) error) *hub.Hub {
	log := memlog.New(memlog.Options{})
	h := hub.New(&spoiled{Log: log, spoil: spoil}, hub.Options{Linger: time.Millisecond})
	t.Cleanup(func() { h.Close(); log.Close() })
	return h
}

// unreadable spoils a log: it does not give the events of those seqs.
func unreadable(from, to uint64) func(int64, *hub.View) error {
	return func(_ int64, v *hub.View) error {
		for i := range v.Topics {
			v.Topics[i].Events = slices.DeleteFunc(v.Topics[i].Events, func(e *protocol.Event) bool { return e.Cursor.Seq >= from && e.Cursor.Seq <= to })
		}
		return nil
	}
}

// An event that a log cannot read any more shows in the chain of the others; the newest
// in that the topic ends after the others.
func TestReplayOverADamagedEvent(t *testing.T) {
	for damaged, rest := range map[uint64][]string{
		4: {"kept a 2", "kept b 3", "kept b 5", "kept a 6"},
		6: {"kept a 2", "kept b 3", "kept a 4", "kept b 5"},
	} {
		h := onSpoiled(t, unreadable(damaged, damaged))
		first := publish(t, h, "a")
		publish(t, h, "a", "b", "a", "b", "a")
		lines, _ := resume(t, h, hub.Want{Pattern: "a", Since: first}, hub.Want{Pattern: "b", Since: first})
		require.Equal(t, append([]string{gapLine("a", first.String(), protocol.GapExpired)}, rest...), lines)
	}
}

// Nothing of a piece can be read, and there is more behind it.
func TestReplayOverManyDamagedEvents(t *testing.T) {
	h := onSpoiled(t, unreadable(2, 149))
	first := publish(t, h, "a")
	for range 200 {
		publish(t, h, "a")
	}
	lines, _ := resume(t, h, hub.Want{Pattern: "a", Since: first})
	require.Equal(t, gapLine("a", first.String(), protocol.GapExpired), lines[0])
	require.Equal(t, []string{"kept a 150", "kept a 201"}, []string{lines[1], lines[len(lines)-1]}, "and what can be read follows")
	require.Len(t, lines, 1+52)
}

// What was read of a topic for who asked for its newest, one of which cannot be read, is
// not all that there is of it for others.
func TestDamagedEventAmongTheNewest(t *testing.T) {
	h := onSpoiled(t, unreadable(9, 9))
	first := publish(t, h, "a")
	publish(t, h, "a", "a", "a", "a", "a", "a", "a", "a", "a")
	stays := h.Open("acme", newSink())
	defer stays.Close()
	resume(t, h, hub.Want{Pattern: "a", Last: 3})
	lines, _ := resume(t, h, hub.Want{Pattern: "a", Since: first})
	want := append([]string{gapLine("a", first.String(), protocol.GapExpired)}, kept(2, "a", "a", "a", "a", "a", "a", "a")...)
	require.Equal(t, append(want, "kept a 10"), lines)
}

// Many topics, of which one has nearly all events: each read brings as many as it may.
func TestReplayOfOneBusyTopicOfMany(t *testing.T) {
	h, _ := open(t, ">:100000/1h")
	first := publish(t, h, "other")
	for range 3000 {
		publish(t, h, "t.busy")
	}
	publish(t, h, many(70, 70)...)
	lines, _ := resume(t, h, hub.Want{Pattern: "t.*", Since: first})
	require.Len(t, lines, 3070)
	require.Less(t, h.Stats().Reads.Load()+h.Stats().SharedReads.Load(), int64(300))
}

// What a log begins with is not lost to who asks it while it is empty, between
// whatever reads the first event comes.
func TestReplayOfAnEmptyLog(t *testing.T) {
	var topics []hub.Want
	for i := range 300 {
		topics = append(topics, hub.Want{Pattern: fmt.Sprintf("t.%d", i), Last: 1})
	}
	for name, wants := range map[string][]hub.Want{
		"topic":                 {{Pattern: "t.0", Last: 1}},
		"pattern":               {{Pattern: "t.*", Last: 1}},
		"both":                  {{Pattern: "t.*", Last: 1}, {Pattern: "t.0", Last: 2}},
		"more than in one read": topics,
	} {
		for _, cursor := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, cursor %v", name, cursor), func(t *testing.T) {
				came := true
				for after := int64(1); came; after++ {
					came = firstEventAfterRead(t, after, slices.Clone(wants), cursor)
				}
			})
		}
	}
}

// firstEventAfterRead subscribes wants, and beside them one without a cursor, in an empty
// log, and publishes an event after so many reads; it says whether there were so many. The
// event has to come, once.
func firstEventAfterRead(t *testing.T, after int64, wants []hub.Want, cursor bool) (came bool) {
	var h *hub.Hub
	var reads atomic.Int64
	reads.Store(math.MinInt64)
	h = onSpoiled(t, func(int64, *hub.View) error {
		if reads.Add(1) == after {
			publish(t, h, "t.0")
			came = true
		}
		return nil
	})
	s := newSink()
	session := h.Open("acme", s)
	defer session.Close()
	require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: "nothing"}}, 1000))
	_, ids := s.caughtUp(t)
	reads.Store(0)
	if cursor {
		for i := range wants {
			wants[i].Since, wants[i].Last = ids[0], 0
		}
	}
	require.NoError(t, session.Subscribe("", append(wants, hub.Want{Pattern: "other", Last: 1}), 1000))
	got := 0
	for n := 2; ; n++ {
		line := s.until(t, n)[n-1]
		if strings.Contains(line, " t.0 1") {
			got++
		}
		if !strings.HasPrefix(line, `{"op":"subscribed"`) {
			continue
		}
		if !came { // all reads are over
			return false
		}
		last := publish(t, h, "t.0") // live: what was to come before it came
		for n++; !strings.HasSuffix(s.until(t, n)[n-1], fmt.Sprintf(" t.0 %d", last.Seq)); n++ {
			if strings.Contains(s.until(t, n)[n-1], " t.0 1") {
				got++
			}
		}
		require.Equal(t, 1, got, "the event after read %d", after)
		return true
	}
}

// A log that fails in between makes a replay late, and nothing else.
func TestReplayWithFailures(t *testing.T) {
	h := onSpoiled(t, func(n int64, _ *hub.View) error {
		if n%2 == 0 {
			return errors.New("down")
		}
		return nil
	})
	all := many(500, 70)
	first := publish(t, h, "other")
	publish(t, h, all...)
	lines, _ := resume(t, h, hub.Want{Pattern: "t.>", Since: first})
	require.Equal(t, kept(2, all...), lines)
}

// What was read of a topic before the log forgot it is not chained to what comes
// after: nothing is lost to who comes fresh.
func TestForgottenMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		retention, err := hub.ParseRetention(">:100/20s")
		require.NoError(t, err)
		log := memlog.New(memlog.Options{Retention: retention})
		h := hub.New(log, hub.Options{})
		defer func() { h.Close(); log.Close() }()
		time.Sleep(35 * time.Second)
		stay := h.Open("acme", newSink()) // the hub remembers what was read
		defer stay.Close()
		publish(t, h, "a", "a", "b")
		lines, _ := resume(t, h, hub.Want{Pattern: "a", Last: 9})
		require.Equal(t, []string{"kept a 1", "kept a 2"}, lines)
		time.Sleep(30 * time.Second) // the log sweeps each minute
		publish(t, h, "c")
		publish(t, h, "a")
		lines, _ = resume(t, h, hub.Want{Pattern: "a", Last: 9})
		require.Equal(t, []string{"kept a 5"}, lines)
	})
}
