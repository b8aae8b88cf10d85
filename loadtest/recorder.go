package loadtest

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Second is what happened in one second of a run.
type Second struct {
	At   float64 `json:"at"` // seconds since the measured interval began
	Rate float64 `json:"deliveries_per_second"`
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	Max  float64 `json:"max_ms"`
}

// longest is the longest latency that is told apart.
const longest = 10 * time.Minute

// newHistogram records 1 µs to 10 minutes in ns, to three digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1000, int64(longest), 3)
}

// A recorder keeps latencies. It belongs to the loop of its swarm.
type recorder struct {
	zero       int64 // where the series begins
	from, to   int64 // events due in this interval count for total
	total      *hdrhistogram.Histogram
	second     *hdrhistogram.Histogram // the same, since the last rotation; recording touches only this one
	handshakes *hdrhistogram.Histogram
	series     []Second
	rotated    int64
}

func newRecorder() *recorder {
	return &recorder{total: newHistogram(), second: newHistogram(), handshakes: newHistogram(), rotated: now()}
}

func (r *recorder) window(from, to int64) {
	r.zero, r.from, r.to, r.series = from, from, to, nil
	r.total.Reset()
	r.second.Reset()
	r.rotated = from
}

// record enters an event that was due and came at these times. Out of range is
// counted as the longest.
func (r *recorder) record(due, at int64) {
	if due < r.from || due >= r.to {
		return
	}
	if r.second.RecordValue(at-due) != nil {
		_ = r.second.RecordValue(int64(longest))
	}
}

func (r *recorder) handshake(took int64) { _ = r.handshakes.RecordValue(took) }

// rotate closes a second when it is over.
func (r *recorder) rotate(at int64) {
	if at-r.rotated < int64(time.Second) {
		return
	}
	if h := r.second; h.TotalCount() > 0 {
		r.series = append(r.series, Second{
			At:   float64(at-r.zero) / 1e9,
			Rate: float64(h.TotalCount()) / (float64(at-r.rotated) / 1e9),
			P50:  ms(h.ValueAtQuantile(50)),
			P99:  ms(h.ValueAtQuantile(99)),
			Max:  ms(h.Max()),
		})
	}
	r.flush()
	r.rotated = at
}

// flush brings total up to date.
func (r *recorder) flush() {
	r.total.Merge(r.second)
	r.second.Reset()
}

func ms(ns int64) float64 { return float64(ns) / 1e6 }
