package loadtest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func cpu(r *Result) float64 { return r.CPU }

func TestJudge(t *testing.T) {
	good := func() Result { return Result{Target: "server", CPU: 6, Rate: 100} }
	floor := Result{Target: "floor", CPU: 4, Counts: Counts{Lost: 7}, Closed: 1} // is not judged
	for _, test := range []struct {
		name   string
		spoil  func(*Result)
		limits []Limit
		want   []string
	}{
		{"good", func(*Result) {}, []Limit{{Flag: "max-cpu", Value: 6, Of: cpu}, {Flag: "max-cpu-ratio", Value: 1.5, Ratio: true, Of: cpu}}, nil},
		{"lost", func(r *Result) { r.Counts.Lost = 3 }, nil, []string{"server: 3 events lost silently"}},
		{"twice", func(r *Result) { r.Counts.Twice = 1 }, nil, []string{"server: 1 events delivered twice"}},
		{"disorder", func(r *Result) { r.Counts.Disorder = 1 }, nil, []string{"server: 1 events out of order"}},
		{"foreign", func(r *Result) { r.Counts.Foreign = 1 }, nil, []string{"server: 1 events of topics not subscribed to"}},
		{"closed", func(r *Result) { r.Closed = 2 }, nil, []string{"server: 2 clients disconnected by the server"}},
		{"closed, and others stalled", func(r *Result) { r.Closed, r.Stalled = 2, 2 }, nil, []string{"server: 2 clients disconnected by the server"}},
		{"no rate held", func(r *Result) { r.Steps = []Step{{}} }, nil, []string{"server: no rate held"}},
		{"unpublished", func(r *Result) { r.Unpublished = 2 }, nil, []string{"server: 2 publishes failed"}},
		{"announced", func(r *Result) { r.Counts.Announced, r.Counts.Gaps, r.Counts.Conflated = 5, 1, 4 }, nil, nil},
		{"too dear", func(*Result) {}, []Limit{{Flag: "max-cpu", Value: 5, Of: cpu}}, []string{"--max-cpu 5: it is 6"}},
		{"too dear for the floor", func(*Result) {}, []Limit{{Flag: "max-cpu-ratio", Value: 1.4, Ratio: true, Of: cpu}}, []string{"--max-cpu-ratio 1.4: it is 1.5"}},
		{"not measured", func(r *Result) { r.CPU = 0 }, []Limit{{Flag: "max-cpu", Value: 5, Of: cpu}, {Flag: "max-cpu-ratio", Value: 1.4, Ratio: true, Of: cpu}},
			[]string{"--max-cpu 5: it was not measured", "--max-cpu-ratio 1.4: it was not measured"}},
		{"shrunk", func(r *Result) { r.CPU = -1 }, []Limit{{Flag: "max-cpu", Value: 5, Of: cpu}}, []string{"--max-cpu 5: it was not measured"}},
		{"too few", func(*Result) {}, []Limit{{Flag: "min-rate", Value: 101, Least: true, Of: func(r *Result) float64 { return r.Rate }}}, []string{"--min-rate 101: it is 100"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			spoilt := good()
			test.spoil(&spoilt)
			r := Report{Rounds: [][]Result{{spoilt, floor}}}
			r.Judge(test.limits)
			require.Equal(t, test.want, append([]string(nil), r.Failures...))
			var out strings.Builder
			r.Table(&out)
			require.Equal(t, len(test.want), strings.Count(out.String(), "FAILED:"))
			require.Equal(t, len(r.Held), strings.Count(out.String(), "held: --max"))
		})
	}
	// A ratio to a yardstick that did not run is no success.
	r := Report{Rounds: [][]Result{{good()}}}
	r.Judge([]Limit{{Flag: "max-cpu-ratio", Value: 9, Ratio: true, Of: cpu}})
	require.Len(t, r.Failures, 1)
}

// The ratio is the median of those of the rounds, in which both had the same
// neighbours, and not that of the medians.
func TestRatioIsOfTheSameRound(t *testing.T) {
	var r Report
	for _, pair := range [][2]float64{{2, 1}, {30, 10}, {9, 3}} {
		r.Rounds = append(r.Rounds, []Result{{CPU: pair[0]}, {CPU: pair[1]}})
	}
	require.InDelta(t, 9.0, r.medianOf(0, cpu), 0)
	require.InDelta(t, 3.0, r.ratioOf(1, cpu), 0)
}

func TestScheduleCoversEachTopicInOrder(t *testing.T) {
	s := Schedule{Start: 100, Rate: 1e9, Topics: 3}
	require.Equal(t, mark{n: 1, k: 0, t: 100}, s.mark(0))
	require.Equal(t, mark{n: 1, k: 2, t: 102}, s.mark(2))
	require.Equal(t, mark{n: 2, k: 0, t: 103}, s.mark(3))
}
