package loadtest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A Report is what a command measured, and under which conditions.
type Report struct {
	Scenario   string     `json:"scenario"`
	Conditions Conditions `json:"conditions"`
	Plan       Plan       `json:"plan"`
	// Rounds has a result for each target, the server first, in the order in which
	// they ran.
	Rounds [][]Result `json:"rounds"`
	// Failures are the broken promises and thresholds, in words; empty is success. Held
	// are the thresholds that are not among them.
	Failures []string `json:"failures"`
	Held     []string `json:"held"`
}

// Conditions are those that a figure means nothing without.
type Conditions struct {
	Time    time.Time `json:"time"`
	Command []string  `json:"command"`
	Kernel  string    `json:"kernel"`
	// Congestion is the kernel's congestion control: it costs CPU per send.
	Congestion string `json:"tcp_congestion_control"`
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Pinned     string `json:"pinned"` // which cores were whose
	Go         string `json:"go"`
	Commit     string `json:"commit"`
	Load       string `json:"load"` // of the machine, before
}

// ReadConditions asks the system.
func ReadConditions(command []string) Conditions {
	c := Conditions{Time: time.Now().UTC().Truncate(time.Second), Command: command, Cores: runtime.NumCPU(), Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		c.Kernel = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control"); err == nil {
		c.Congestion = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		c.Load = strings.Join(strings.Fields(string(b))[:3], " ")
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(b), "model name"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			c.CPU = strings.TrimLeft(line, "\t :")
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				c.Commit = s.Value + c.Commit
			case s.Key == "vcs.modified" && s.Value == "true":
				c.Commit += " with changes"
			}
		}
	}
	if c.Commit == "" { // built without it; run in the repository, perhaps
		if out, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
			c.Commit = strings.TrimSpace(string(out))
		}
	}
	return c
}

// A Limit is a threshold for a figure of the server: the median over the rounds,
// or the median of its ratios to the yardstick. A figure that is NaN, or not above 0,
// was not measured; then no threshold holds.
type Limit struct {
	Flag  string
	Value float64 // 0: none
	Ratio bool
	Least bool // a lower bound
	Of    func(*Result) float64
}

// Judge fills in Failures and Held.
func (r *Report) Judge(limits []Limit) {
	r.Failures, r.Held = []string{}, []string{}
	for _, round := range r.Rounds {
		for i := range round {
			if i == 0 {
				r.Failures = append(r.Failures, round[i].faults()...)
			}
		}
	}
	for _, l := range limits {
		if l.Value == 0 {
			continue
		}
		got := r.medianOf(0, l.Of)
		if l.Ratio {
			got = r.ratioOf(1, l.Of)
		}
		words := fmt.Sprintf("--%s %g: it is %.4g", l.Flag, l.Value, got)
		switch {
		case math.IsNaN(got) || got <= 0:
			r.Failures = append(r.Failures, fmt.Sprintf("--%s %g: it was not measured", l.Flag, l.Value))
		case !l.Least && got > l.Value, l.Least && got < l.Value:
			r.Failures = append(r.Failures, words)
		default:
			r.Held = append(r.Held, words)
		}
	}
}

// medianOf is the median of a figure of the i-th target over the rounds.
func (r *Report) medianOf(i int, of func(*Result) float64) float64 {
	var values []float64
	for _, round := range r.Rounds {
		if i < len(round) {
			values = append(values, of(&round[i]))
		}
	}
	return median(values)
}

// ratioOf is the median, over the rounds, of the server's figure to that of the
// i-th target in the same round; NaN where there is none.
func (r *Report) ratioOf(i int, of func(*Result) float64) float64 {
	var values []float64
	for _, round := range r.Rounds {
		if i < len(round) && of(&round[i]) > 0 {
			values = append(values, of(&round[0])/of(&round[i]))
		}
	}
	return median(values)
}

// A row of the table. Those that are 0 everywhere are left out.
type row struct {
	name  string
	of    func(*Result) float64
	ratio bool // to the yardstick is of interest
}

var rows = []row{
	{"deliveries per second", func(r *Result) float64 { return r.Rate }, false},
	{"held, deliveries per second", func(r *Result) float64 { return r.Held }, true},
	{"server CPU per delivery, µs", func(r *Result) float64 { return r.CPU }, true},
	{"  of it in user space, µs", func(r *Result) float64 { return r.UserCPU }, false},
	{"  allocations in it", func(r *Result) float64 { return r.Allocs }, false},
	{"server, busy cores", func(r *Result) float64 { return r.Busy }, false},
	{"latency p50, ms", func(r *Result) float64 { return r.Latency.P50 }, true},
	{"latency p90, ms", func(r *Result) float64 { return r.Latency.P90 }, false},
	{"latency p99, ms", func(r *Result) float64 { return r.Latency.P99 }, true},
	{"latency p99.9, ms", func(r *Result) float64 { return r.Latency.P999 }, false},
	{"latency p99.99, ms", func(r *Result) float64 { return r.Latency.P9999 }, false},
	{"latency max, ms", func(r *Result) float64 { return r.Latency.Max }, false},
	{"p99 before the stall, ms", func(r *Result) float64 { return r.Before.P99 }, false},
	{"p99 while buffers fill, ms", func(r *Result) float64 { return r.Filling.P99 }, false},
	{"stalled readers", func(r *Result) float64 { return float64(r.Stalled) }, false},
	{"bytes per stalled reader", func(r *Result) float64 { return r.Hoard }, false},
	{"caught up after, s", func(r *Result) float64 { return r.CaughtUp }, false},
	{"reads of the log in Redis", func(r *Result) float64 { return r.LogReads }, false},
	{"handshakes per second", func(r *Result) float64 { return r.Handshakes }, true},
	{"server CPU per handshake, µs", func(r *Result) float64 { return r.HandshakeCPU }, true},
	{"handshake p99, ms", func(r *Result) float64 { return r.HandshakeTime.P99 }, false},
	{"resident, MiB", func(r *Result) float64 { return float64(r.Resident) / (1 << 20) }, false},
	{"resident per connection, bytes", func(r *Result) float64 { return r.PerClient }, false},
	{"resident growth, bytes per hour", func(r *Result) float64 { return r.Slope }, false},
	{"goroutines", func(r *Result) float64 { return r.Goroutines }, false},
	{"lost", func(r *Result) float64 { return float64(r.Counts.Lost) }, false},
	{"twice", func(r *Result) float64 { return float64(r.Counts.Twice) }, false},
	{"out of order", func(r *Result) float64 { return float64(r.Counts.Disorder) }, false},
	{"foreign", func(r *Result) float64 { return float64(r.Counts.Foreign) }, false},
	{"gaps announced", func(r *Result) float64 { return float64(r.Counts.Gaps) }, false},
	{"missing under a gap", func(r *Result) float64 { return float64(r.Counts.Announced) }, false},
	{"conflated", func(r *Result) float64 { return float64(r.Counts.Conflated) }, false},
	{"disconnected clients", func(r *Result) float64 { return float64(r.Closed) }, false},
	{"  not delivered to them", func(r *Result) float64 { return float64(r.Counts.Cut) }, false},
	{"loadtest CPU per delivery, µs", func(r *Result) float64 { return r.OwnCPU }, false},
	{"publisher late p99, ms", func(r *Result) float64 { return r.Late.P99 }, false},
	{"others on the machine, busy cores", func(r *Result) float64 { return r.Others }, false},
}

// Table writes the medians over the rounds and the ratios to the yardsticks.
func (r *Report) Table(out io.Writer) {
	if len(r.Rounds) == 0 {
		return
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	targets := r.Rounds[0]
	fmt.Fprintf(w, "%s, median of %d\t", r.Scenario, len(r.Rounds))
	for i := range targets {
		fmt.Fprintf(w, "%s\t", targets[i].Target)
	}
	for i := 1; i < len(targets); i++ {
		fmt.Fprintf(w, "× %s\t", targets[i].Target)
	}
	fmt.Fprintln(w)
	for _, row := range rows {
		line, any := row.name+"\t", false
		for i := range targets {
			v := r.medianOf(i, row.of)
			any = any || v != 0
			line += figure(v) + "\t"
		}
		for i := 1; i < len(targets); i++ {
			if row.ratio {
				line += fmt.Sprintf("%.2f", r.ratioOf(i, row.of))
			}
			line += "\t"
		}
		if any {
			fmt.Fprintln(w, strings.ReplaceAll(line, "NaN", "-"))
		}
	}
	_ = w.Flush()
	for _, round := range r.Rounds {
		for i := range round {
			for _, e := range slices.Sorted(maps.Keys(round[i].Errors)) {
				fmt.Fprintf(out, "%s: %d × %s\n", round[i].Target, round[i].Errors[e], e)
			}
			for _, s := range round[i].Steps {
				fmt.Fprintf(out, "%s: %.0f published/s: %.0f deliveries/s, p99 %.1f ms, %.2f µs: ", round[i].Target, s.Published, s.Delivered, s.P99, s.CPU)
				if s.Held {
					fmt.Fprintln(out, "held")
				} else {
					fmt.Fprintln(out, s.Why)
				}
			}
		}
	}
	for _, h := range r.Held {
		fmt.Fprintln(out, "held:", h)
	}
	for _, f := range r.Failures {
		fmt.Fprintln(out, "FAILED:", f)
	}
}

func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// WriteJSON writes the whole report.
func (r *Report) WriteJSON(file string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
