package history

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// story is a history that is told line by line, a millisecond each; a record's time
// comes on top.
type story struct {
	b  bytes.Buffer
	at time.Duration
}

func (s *story) tell(records ...Record) *story {
	for _, r := range records {
		s.at += time.Millisecond + time.Duration(r.At)
		r.At = int64(s.at)
		b, _ := json.Marshal(r)
		s.b.Write(append(b, '\n'))
	}
	return s
}

// begin has two topics and a reader of both, subscribed, and a fault after which gaps
// are right.
func begin() *story {
	return new(story).tell(
		Record{Kind: Topic, Topic: "t/a"}, Record{Kind: Topic, Topic: "t/jobs.1", Keyed: true},
		Record{Kind: Reader, Reader: 1, Tenant: "t", Topics: []string{"a", "jobs.>"}},
		Record{Kind: Open, Reader: 1}, Record{Kind: Subscribed, Reader: 1, ID: "e-0"},
		Record{Kind: Fault, Epoch: true}, Record{Kind: Healed})
}

func published(topic string, n int, id string) []Record {
	return []Record{{Kind: Publish, Topic: topic, N: n}, {Kind: Ack, Topic: topic, N: n, ID: id}}
}

func got(topic string, n int, id string) Record {
	return Record{Kind: Event, Reader: 1, Topic: topic, N: n, ID: id}
}

func gap(topic, why string) Record { return Record{Kind: Gap, Reader: 1, Topic: topic, Why: why} }

func (s *story) check(t *testing.T) *Account {
	t.Helper()
	a, err := Check(&s.b)
	require.NoError(t, err)
	return a
}

// three are the first three events of a topic.
func three(topic string) []Record {
	var all []Record
	for n, id := range []string{"e-1", "e-2", "e-3"} {
		all = append(all, published(topic, n+1, id)...)
	}
	return all
}

func TestCheck(t *testing.T) {
	t.Parallel()
	final := published("t/jobs.1", 2, "e-2")
	final[0].Final = true
	late := slices.Clip(append(published("t/a", 1, "e-1"), Record{Kind: Event, Reader: 1, Topic: "t/a", N: 1, ID: "e-1", At: int64(tardy)}))
	later := append(published("t/jobs.1", 1, "e-2"), published("t/jobs.1", 2, "e-3")...)
	jobs := func(n int, id string, after time.Duration) Record {
		e := got("t/jobs.1", n, id)
		e.At = int64(after)
		return e
	}
	for name, c := range map[string]struct {
		told []Record
		want Account // of what is counted but the published
	}{
		"all arrive":       {append(three("t/a"), got("t/a", 1, "e-1"), got("t/a", 2, "e-2"), got("t/a", 3, "e-3")), Account{Delivered: 3}},
		"one is lost":      {append(three("t/a"), got("t/a", 1, "e-1"), got("t/a", 3, "e-3")), Account{Delivered: 2, Lost: 1}},
		"the last is lost": {append(three("t/a"), got("t/a", 1, "e-1"), got("t/a", 2, "e-2")), Account{Delivered: 2, Lost: 1}},
		"all are lost":     {three("t/a"), Account{Lost: 3}},
		"twice":            {append(three("t/a"), got("t/a", 1, "e-1"), got("t/a", 2, "e-2"), got("t/a", 3, "e-3"), Record{Kind: Open, Reader: 1}, got("t/a", 3, "e-3")), Account{Delivered: 4, Twice: 1}},
		"out of order":     {append(three("t/a"), got("t/a", 1, "e-1"), got("t/a", 3, "e-3"), Record{Kind: Open, Reader: 1}, got("t/a", 2, "e-2")), Account{Delivered: 3, Disorder: 1}},
		"an id goes back":  {append(append(published("t/a", 1, "e-2"), published("t/jobs.1", 1, "e-1")...), got("t/a", 1, "e-2"), got("t/jobs.1", 1, "e-1")), Account{Delivered: 2, Disorder: 1}},
		"an id is below where it subscribed": {append(published("t/a", 1, "e-5"), Record{Kind: Open, Reader: 1}, Record{Kind: Subscribed, Reader: 1, ID: "e-7"}, got("t/a", 1, "e-5")),
			Account{Delivered: 1, Disorder: 1}},
		"a gap":               {append(three("t/a"), got("t/a", 1, "e-1"), gap("a", "expired"), got("t/a", 3, "e-3")), Account{Delivered: 2, Gaps: 1, Announced: 1}},
		"a gap of a pattern":  {append(three("t/jobs.1"), got("t/jobs.1", 1, "e-1"), gap("jobs.>", "expired")), Account{Delivered: 1, Gaps: 1, Announced: 2}},
		"a gap of another":    {append(three("t/a"), got("t/a", 1, "e-1"), gap("jobs.>", "expired"), got("t/a", 3, "e-3")), Account{Delivered: 2, Gaps: 1, Lost: 1}},
		"a gap too early":     {append([]Record{gap("a", "expired")}, append(three("t/a"), got("t/a", 1, "e-1"), got("t/a", 3, "e-3"))...), Account{Delivered: 2, Gaps: 1, Lost: 1}},
		"a gap too late":      {append(three("t/a"), got("t/a", 1, "e-1"), got("t/a", 3, "e-3"), gap("a", "expired")), Account{Delivered: 2, Gaps: 1, Lost: 1}},
		"a gap of an epoch":   {append(append(three("t/a"), gap("a", "epoch")), append(published("t/a", 4, "f-3"), got("t/a", 4, "f-3"))...), Account{Delivered: 1, Gaps: 1, Announced: 3}},
		"in the epoch itself": {append(append(three("t/a"), gap("a", "epoch")), append(published("t/a", 4, "e-4"), got("t/a", 4, "e-4"))...), Account{Delivered: 1, Gaps: 1, Lost: 3}},
		"in the epoch itself, which lost a part": {append([]Record{{Kind: Fault, Epoch: true, Parts: true}}, append(append(three("t/a"), gap("a", "epoch")), append(published("t/a", 4, "e-4"), got("t/a", 4, "e-4"))...)...),
			Account{Delivered: 1, Faults: 1, Gaps: 1, Announced: 3}},
		"in the epoch itself, which had lost a part before": {append([]Record{{Kind: Fault, Epoch: true, Parts: true}, {Kind: Healed}}, append(append(three("t/a"), gap("a", "epoch")), append(published("t/a", 4, "e-4"), got("t/a", 4, "e-4"))...)...),
			Account{Delivered: 1, Faults: 1, Gaps: 1, Lost: 3}},
		"again after a gap of an epoch": {append(three("t/a"), got("t/a", 1, "e-1"), got("t/a", 2, "e-2"), got("t/a", 3, "e-3"), gap("a", "epoch"), got("t/a", 2, "e-2"), got("t/a", 3, "e-3")),
			Account{Delivered: 5, Again: 2, Gaps: 1}},
		"late, with two primaries": {append([]Record{{Kind: Fault, Two: true, Epoch: true}}, append(three("t/a"), got("t/a", 1, "e-1"), got("t/a", 3, "e-3"), gap("a", "epoch"))...),
			Account{Delivered: 2, Faults: 1, Gaps: 1, Late: 1}},
		"late, after two primaries": {append(append([]Record{{Kind: Fault, Two: true, Epoch: true}}, append(three("t/a"), got("t/a", 1, "e-1"), got("t/a", 3, "e-3"))...), Record{Kind: Healed}, gap("a", "epoch")),
			Account{Delivered: 2, Faults: 1, Gaps: 1, Late: 1}},
		"late, lost before there were two": {append(append(three("t/a"), got("t/a", 1, "e-1"), got("t/a", 3, "e-3"), Record{Kind: Fault, Two: true, Epoch: true}, Record{Kind: Healed}), gap("a", "epoch")),
			Account{Delivered: 2, Faults: 1, Gaps: 1, Lost: 1}},
		"late, lost after there were two": {append(append([]Record{{Kind: Fault, Two: true, Epoch: true}, {Kind: Healed}, {Kind: Fault}}, three("t/a")...), got("t/a", 1, "e-1"), got("t/a", 3, "e-3"), Record{Kind: Healed}, gap("a", "epoch")),
			Account{Delivered: 2, Faults: 2, Gaps: 1, Lost: 1}},
		"late, with one": {append([]Record{{Kind: Fault, Epoch: true}}, append(three("t/a"), got("t/a", 1, "e-1"), got("t/a", 3, "e-3"), gap("a", "epoch"))...),
			Account{Delivered: 2, Faults: 1, Gaps: 1, Lost: 1}},
		"conflated":               {append(three("t/jobs.1"), jobs(3, "e-3", tardy)), Account{Delivered: 1, Conflated: 2}},
		"conflated, and quick":    {append(three("t/jobs.1"), jobs(3, "e-3", tardy/2)), Account{Delivered: 1, Lost: 2}},
		"behind by another topic": {append(append(late, later...), jobs(2, "e-3", 0)), Account{Delivered: 2, Conflated: 1}},
		"behind, and past it before the next": {append(append(append(published("t/jobs.1", 1, "e-1"), published("t/a", 1, "e-2")...),
			Record{Kind: Event, Reader: 1, Topic: "t/a", N: 1, ID: "e-2", At: int64(tardy)}), append(published("t/jobs.1", 2, "e-3"), jobs(2, "e-3", 0))...),
			Account{Delivered: 2, Lost: 1}},
		"behind, and it has caught up": {append(append(append(late, Record{Kind: Fault, At: int64(catchUp)}), later...), jobs(2, "e-3", 0)), Account{Delivered: 2, Faults: 1, Lost: 1}},
		"the newest of a key":          {append(three("t/jobs.1"), jobs(1, "e-1", tardy)), Account{Delivered: 1, Conflated: 1, Lost: 1}},
		"a final one":                  {append(append(append(published("t/jobs.1", 1, "e-1"), final...), published("t/jobs.1", 3, "e-3")...), jobs(3, "e-3", tardy)), Account{Delivered: 1, Conflated: 1, Lost: 1}},
		"nobody knows":                 {[]Record{{Kind: Publish, Topic: "t/a", N: 1}, {Kind: Unknown, Topic: "t/a", N: 1}}, Account{Unknown: 1}},
		"unknown, and it came":         {[]Record{{Kind: Publish, Topic: "t/a", N: 1}, {Kind: Unknown, Topic: "t/a", N: 1}, got("t/a", 1, "e-1")}, Account{Unknown: 1, Delivered: 1}},
		"unknown, and too late":        {append([]Record{{Kind: Publish, Topic: "t/a", N: 1}, {Kind: Unknown, Topic: "t/a", N: 1}}, append(published("t/a", 2, "e-2"), got("t/a", 2, "e-2"), Record{Kind: Open, Reader: 1}, got("t/a", 1, "e-1"))...), Account{Unknown: 1, Delivered: 2, Disorder: 1}},
		"heard by nobody":              {[]Record{{Kind: Publish, Topic: "t/a", N: 1}, {Kind: Unheard, Topic: "t/a", N: 1}}, Account{Unheard: 1}},
		"never published":              {[]Record{got("t/a", 1, "e-1")}, Account{Delivered: 1, Strange: 1}},
		"of another tenant":            {append([]Record{{Kind: Topic, Topic: "u/a"}}, append(published("u/a", 1, "e-1"), got("u/a", 1, "e-1"))...), Account{Delivered: 1, Strange: 1}},
		"of no wish":                   {append([]Record{{Kind: Topic, Topic: "t/b"}}, append(published("t/b", 1, "e-1"), got("t/b", 1, "e-1"))...), Account{Delivered: 1, Strange: 1}},
		"one id, two events":           {append(published("t/a", 1, "e-1"), append(published("t/jobs.1", 1, "e-1"), got("t/a", 1, "e-1"), Record{Kind: Open, Reader: 1}, got("t/jobs.1", 1, "e-1"))...), Account{Delivered: 2, Strange: 3}},
		"it gives up":                  {[]Record{{Kind: GaveUp, Reader: 1}}, Account{GaveUp: 1}},
		"it does not come back":        {[]Record{{Kind: Drop, Reader: 1}}, Account{Drops: 1, Wrong: 1}},
		"it comes back":                {append(published("t/a", 1, "e-1"), Record{Kind: Drop, Reader: 1}, Record{Kind: Open, Reader: 1}, got("t/a", 1, "e-1"), Record{Kind: Subscribed, Reader: 1, ID: "e-1"}), Account{Drops: 1, Delivered: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := begin().tell(c.told...).check(t)
			problems := len(a.Problems) > 0
			require.Equal(t, a.Failed(), problems, a.Problems)
			want := c.want
			want.Faults++
			want.Readers, want.Seconds, want.Published, want.Acknowledged = 1, a.Seconds, a.Published, a.Acknowledged
			want.Recovery, want.Outage, want.Delay, want.Connects, want.Problems = a.Recovery, a.Outage, a.Delay, a.Connects, a.Problems
			require.Equal(t, &want, a)
		})
	}
}

// The readers of an instance that drains come to others evenly.
func TestCheckDrain(t *testing.T) {
	t.Parallel()
	const readers = 200
	for name, c := range map[string]struct {
		second func(i int) int // in which the reader comes back
		want   []int
		wrong  int
	}{
		"evenly":     {func(i int) int { return i / 40 }, []int{40, 40, 40, 40, 40}, 0},
		"two late":   {func(i int) int { return min(i/40, 2) }, []int{40, 40, 120}, 0},
		"at once":    {func(i int) int { return 5 * min(i/190, 1) }, []int{190, 0, 0, 0, 0, 10}, 1},
		"few of all": {func(i int) int { return 15 * min(i/190, 1) }, []int{190, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			w := json.NewEncoder(&b)
			add := func(at time.Duration, r Record) {
				r.At = int64(at)
				require.NoError(t, w.Encode(r))
			}
			for i := range readers {
				add(0, Record{Kind: Reader, Reader: i + 1, Tenant: "t"})
				add(0, Record{Kind: Open, Reader: i + 1, Why: "hub1"})
				add(0, Record{Kind: Subscribed, Reader: i + 1})
			}
			add(time.Second, Record{Kind: Ending, Why: "hub1"})
			for i := range readers {
				at := time.Second + time.Duration(c.second(i))*time.Second + time.Duration(i)
				add(at, Record{Kind: Drop, Reader: i + 1})
				add(at, Record{Kind: Open, Reader: i + 1, Why: "hub2"})
				add(at, Record{Kind: Subscribed, Reader: i + 1})
			}
			add(time.Minute, Record{Kind: Drop, Reader: 1}) // later, of another: does not count
			add(time.Minute, Record{Kind: Open, Reader: 1, Why: "hub1"})
			add(time.Minute, Record{Kind: Subscribed, Reader: 1})
			a, err := Check(&b)
			require.NoError(t, err)
			require.Len(t, a.Drains, 1)
			require.Equal(t, c.want, a.Drains[0].Connects)
			require.Equal(t, c.wrong, a.Wrong, a.Problems)
		})
	}
}

// The id of what was published raw is known by who gets it, be that later.
func TestCheckConflatedByOne(t *testing.T) {
	t.Parallel()
	other := func(r Record) Record { r.Reader = 2; return r }
	for name, c := range map[string]struct {
		first string // the id of the raw one
		want  int
	}{"it was past it": {"e-1", 1}, "it was not": {"e-3", 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := begin().tell(Record{Kind: Reader, Reader: 2, Tenant: "t", Topics: []string{"jobs.1"}}, Record{Kind: Open, Reader: 2}, Record{Kind: Subscribed, Reader: 2, ID: "e-0"})
			s.tell(published("t/jobs.1", 1, "")...).tell(published("t/a", 1, "e-2")...)
			s.tell(Record{Kind: Event, Reader: 1, Topic: "t/a", N: 1, ID: "e-2", At: int64(tardy)})
			s.tell(published("t/jobs.1", 2, "")...).tell(got("t/jobs.1", 2, "e-4"), other(got("t/jobs.1", 1, c.first)), other(got("t/jobs.1", 2, "e-4")))
			a := s.check(t)
			require.Equal(t, c.want, a.Lost, a.Problems)
			require.Equal(t, 1-c.want, a.Conflated)
			require.Len(t, a.Problems, c.want)
		})
	}
}

// A gap that nothing was the reason for is a fault.
func TestCheckNeedless(t *testing.T) {
	t.Parallel()
	lossy, quiet := []Record{{Kind: Fault, Epoch: true}, {Kind: Healed}}, []Record{{Kind: Fault}, {Kind: Healed}}
	by := []Record{{Kind: Life}} // itself
	for name, c := range map[string]struct {
		fault []Record
		pause [2]time.Duration // after it, and after an event
		want  int
	}{
		"nothing was lost":           {quiet, [2]time.Duration{}, 1},
		"it may have been":           {lossy, [2]time.Duration{0, 50 * time.Second}, 0},
		"while it lasts":             {lossy[:1], [2]time.Duration{time.Minute, time.Minute}, 0},
		"late":                       {lossy, [2]time.Duration{40 * time.Second, 20 * time.Second}, 0},
		"it is long past":            {lossy, [2]time.Duration{40 * time.Second, 40 * time.Second}, 1},
		"of itself":                  {by, [2]time.Duration{0, 50 * time.Second}, 0},
		"of itself, and long past":   {by, [2]time.Duration{40 * time.Second, 40 * time.Second}, 1},
		"of itself, after a fault":   {slices.Concat(lossy, by), [2]time.Duration{40 * time.Second, 40 * time.Second}, 1},
		"of itself, while one lasts": {slices.Concat(lossy[:1], by), [2]time.Duration{time.Minute, time.Minute}, 0},
		"and may be once more":       {slices.Concat(lossy, quiet, lossy), [2]time.Duration{0, 50 * time.Second}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := new(story).tell(Record{Kind: Topic, Topic: "t/a"}, Record{Kind: Reader, Reader: 1, Tenant: "t", Topics: []string{"a"}},
				Record{Kind: Open, Reader: 1}, Record{Kind: Subscribed, Reader: 1, ID: "e-0"}).tell(c.fault...)
			s.at += c.pause[0]
			s.tell(published("t/a", 1, "e-1")...).tell(got("t/a", 1, "e-1"))
			s.at += c.pause[1]
			a := s.tell(gap("a", "epoch")).check(t)
			require.Equal(t, c.want, a.Needless)
			require.Equal(t, c.want > 0, a.Failed(), a.Problems)
		})
	}
}

// A gap may come a moment before it is seen why.
func TestCheckLifeIsSeenLate(t *testing.T) {
	t.Parallel()
	for pause, want := range map[time.Duration]int{3 * time.Second: 0, 10 * time.Second: 1} {
		s := new(story).tell(Record{Kind: Topic, Topic: "t/a"}, Record{Kind: Reader, Reader: 1, Tenant: "t", Topics: []string{"a"}},
			Record{Kind: Open, Reader: 1}, Record{Kind: Subscribed, Reader: 1, ID: "e-0"}, gap("a", "epoch"))
		s.at += pause
		require.Equal(t, want, s.tell(Record{Kind: Life}).check(t).Needless, pause)
	}
}

// What was there before a reader came it is not owed, and may have twice while it
// was never subscribed.
func TestCheckBeforeSubscribed(t *testing.T) {
	t.Parallel()
	a := new(story).tell(Record{Kind: Topic, Topic: "t/a"}, Record{Kind: Reader, Reader: 1, Tenant: "t", Topics: []string{"a"}}).
		tell(three("t/a")...).
		tell(Record{Kind: Open, Reader: 1}, got("t/a", 2, "e-2"), Record{Kind: Drop, Reader: 1}, Record{Kind: Open, Reader: 1},
			got("t/a", 2, "e-2"), Record{Kind: Subscribed, Reader: 1, ID: "e-3"}).
		tell(published("t/a", 4, "e-4")...).tell(got("t/a", 4, "e-4")).check(t)
	require.False(t, a.Failed(), a.Problems)
	require.Equal(t, Times{Count: 1, P50: 3, P99: 3, Max: 3}, a.Recovery)
	require.Equal(t, []int{2}, a.Connects)
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"x", `{"kind":"x"}`, `{"kind":"event","reader":1}`, `{"kind":"event"}`, `{"kind":"publish","topic":"t/a"}`,
		`{"kind":"reader","reader":2}`, `{"at":2,"kind":"healed"}` + "\n" + `{"at":1,"kind":"healed"}`,
		`{"kind":"topic","topic":"t/a"}` + "\n" + `{"kind":"publish","topic":"t/a","n":2}`,
		`{"kind":"topic","topic":"t/a"}` + "\n" + `{"kind":"ack","topic":"t/a","n":1}`,
	} {
		_, err := Check(strings.NewReader(bad))
		require.ErrorContains(t, err, "line ", bad)
	}
}

func TestWriter(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := NewWriter(&b)
	w.Add(Record{Kind: Topic, Topic: "t/a"})
	require.Positive(t, w.Add(Record{Kind: Fault, Why: "x"}))
	require.NoError(t, w.Flush())
	a, err := Check(&b)
	require.NoError(t, err)
	require.Equal(t, 1, a.Faults)
}

func FuzzCheck(f *testing.F) {
	f.Add(begin().tell(three("t/a")...).tell(got("t/a", 2, "e-2"), gap("a", "epoch")).b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := Check(bytes.NewReader(b)); err == nil {
			require.GreaterOrEqual(t, min(a.Lost, a.Announced, a.Conflated, a.Late), 0)
		}
	})
}
