package loadtest

import (
	"fmt"
	"math"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Result is one run on one server.
type Result struct {
	Target  string  `json:"target"`
	Clients int     `json:"clients"`
	Seconds float64 `json:"seconds"` // measured
	// Deliveries are those received in the measured interval.
	Deliveries  uint64  `json:"deliveries"`
	Rate        float64 `json:"deliveries_per_second"`
	Latency     Latency `json:"latency"`
	Counts      Counts  `json:"counts"` // of the whole run
	Closed      int     `json:"closed"` // clients disconnected by the server and not back
	Unpublished int     `json:"failed_publishes"`
	// Errors are those of clients and publishers.
	Errors map[string]int `json:"errors,omitempty"`

	// Of the server; 0 where its pid is not known.
	CPU        float64 `json:"cpu_us_per_delivery"`
	UserCPU    float64 `json:"user_cpu_us_per_delivery"`
	Busy       float64 `json:"busy_cores"`
	Resident   int64   `json:"resident_bytes"` // most, while measured
	PerClient  float64 `json:"resident_bytes_per_connection"`
	Goroutines float64 `json:"goroutines"`
	Allocs     float64 `json:"allocations_per_delivery"` // what publishing allocates in the same time included

	// Of the handshakes: connect, authenticate, subscribe.
	Handshakes    float64 `json:"handshakes_per_second"`
	HandshakeCPU  float64 `json:"cpu_us_per_handshake"`
	HandshakeTime Latency `json:"handshake_latency"`

	LogReads float64 `json:"log_reads,omitempty"`              // reconnect after an instance died: reads of the log in Redis
	CaughtUp float64 `json:"caught_up_seconds,omitempty"`      // reconnect: until all had what they missed
	Stalled  int     `json:"stalled,omitempty"`                // slow: readers that stalled
	Hoard    float64 `json:"bytes_per_stalled,omitempty"`      // slow: memory they cost, kernel's queue included
	Before   Latency `json:"latency_before_stall,omitzero"`    // slow: of the others, while none stalled
	Filling  Latency `json:"latency_buffers_fill,omitzero"`    // slow: of the others, while the buffers of the stalled filled
	Steps    []Step  `json:"steps,omitempty"`                  // saturate
	Held     float64 `json:"held_per_second,omitempty"`        // saturate: most deliveries per second that held
	Slope    float64 `json:"resident_slope_per_hour,omitzero"` // soak: growth of the resident memory, bytes

	// Of the load tester.
	OwnCPU float64 `json:"loadtest_cpu_us_per_delivery"`
	Late   Latency `json:"publisher_late"` // between due and sent

	// Others is how many cores everything else on the machine kept busy: a server's
	// Redis, the kernel's own work, and strangers, who spoil the figures.
	Others float64 `json:"others_busy_cores"`

	Series  []Second `json:"series,omitempty"`
	Samples []Sample `json:"samples,omitempty"`
	CDF     []Point  `json:"cdf,omitempty"`
}

// Latency is quantiles in ms.
type Latency struct {
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p999_ms"`
	P9999 float64 `json:"p9999_ms"`
	Max   float64 `json:"max_ms"`
	Count int64   `json:"count"`
}

func quantiles(h *hdrhistogram.Histogram) Latency {
	at := func(q float64) float64 { return ms(h.ValueAtQuantile(q)) }
	return Latency{at(50), at(90), at(99), at(99.9), at(99.99), ms(h.Max()), h.TotalCount()}
}

// A Point says which share of events took at most so long.
type Point struct {
	Ms    float64 `json:"ms"`
	Share float64 `json:"share"`
}

func cdf(h *hdrhistogram.Histogram) (points []Point) {
	if h.TotalCount() == 0 {
		return nil
	}
	for _, b := range h.CumulativeDistributionWithTicks(10) {
		points = append(points, Point{ms(b.ValueAt), b.Quantile / 100})
	}
	return points
}

// A Sample is what the server used in about a second.
type Sample struct {
	At       float64 `json:"at"` // seconds since the measured interval began
	Cores    float64 `json:"busy_cores"`
	Resident int64   `json:"resident_bytes"`
}

// A Step is one rate that was tried.
type Step struct {
	Published float64 `json:"published_per_second"`
	Delivered float64 `json:"deliveries_per_second"`
	P99       float64 `json:"p99_ms"`
	CPU       float64 `json:"cpu_us_per_delivery"`
	Held      bool    `json:"held"`
	Why       string  `json:"why,omitempty"` // it did not hold
}

// faults are what no run may show, in words.
func (r *Result) faults() (list []string) {
	c := r.Counts
	for _, f := range []struct {
		n    uint64
		what string
	}{{c.Lost, "lost silently"}, {c.Twice, "delivered twice"}, {c.Disorder, "out of order"}, {c.Foreign, "of topics not subscribed to"}} {
		if f.n > 0 {
			list = append(list, fmt.Sprintf("%s: %d events %s", r.Target, f.n, f.what))
		}
	}
	if r.Closed > 0 {
		list = append(list, fmt.Sprintf("%s: %d clients disconnected by the server", r.Target, r.Closed))
	}
	if r.Unpublished > 0 {
		list = append(list, fmt.Sprintf("%s: %d publishes failed", r.Target, r.Unpublished))
	}
	if len(r.Steps) > 0 && r.Held == 0 {
		list = append(list, fmt.Sprintf("%s: no rate held", r.Target))
	}
	return list
}

// median of the values; NaN for none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
