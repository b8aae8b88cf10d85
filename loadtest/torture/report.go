package torture

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pushhub/pushhub/loadtest/history"
)

// Print writes an account for people.
func Print(out io.Writer, a *history.Account) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%28s   %s\n", name, fmt.Sprintf(format, args...))
	}
	row("time", "%.0f s, %d faults", a.Seconds, a.Faults)
	row("readers", "%d, %d connections ended", a.Readers, a.Drops)
	row("published", "%d", a.Published)
	row("acknowledged", "%d", a.Acknowledged)
	if a.Unknown > 0 {
		row("of unknown outcome", "%d", a.Unknown)
	}
	if a.Unheard > 0 {
		row("raw, heard by nobody", "%d", a.Unheard)
	}
	row("delivered", "%d", a.Delivered)
	if a.Again > 0 {
		row("again, behind a gap", "%d", a.Again)
	}
	row("conflated", "%d", a.Conflated)
	row("gaps announced", "%d, which stand for %d events", a.Gaps, a.Announced)
	if a.Late > 0 {
		row("announced late", "%d, acknowledged by a primary that had been replaced", a.Late)
	}
	row("lost silently", "%d", a.Lost)
	row("twice", "%d", a.Twice)
	row("out of order", "%d", a.Disorder)
	if a.Needless > 0 {
		row("gaps for no reason", "%d", a.Needless)
	}
	if a.Strange+a.GaveUp+a.Wrong > 0 {
		row("otherwise wrong", "%d", a.Strange+a.GaveUp+a.Wrong)
	}
	times := func(name string, t history.Times) {
		row(name, "p50 %.0f  p99 %.0f  max %.0f", t.P50, t.P99, t.Max)
	}
	times("connected again, ms", a.Recovery)
	times("publish to ack, ms", a.Outage)
	times("publish to reader, ms", a.Delay)
	later := a.Connects[min(len(a.Connects), crowd):]
	row("connects per second", "%s  at most %d", curve(later), slices.Max(append(later, 0)))
	for _, d := range a.Drains {
		least, most, mean := d.Spread()
		row(d.Instance+" drained", "%s  its readers connected elsewhere, in a second %d to %d, %.0f on average", curve(d.Connects), least, most, mean)
	}
	for _, p := range a.Problems {
		fmt.Fprintln(out, p)
	}
}

// crowd is in how many seconds all connect when a run begins: the curve is of the others.
const crowd = 3

// curve draws numbers, the last hundred of them, each as high as it is to the
// greatest.
func curve(numbers []int) string {
	levels := []rune(" ▁▂▃▄▅▆▇█")
	numbers = numbers[max(0, len(numbers)-100):]
	most := slices.Max(append(numbers, 1))
	var b strings.Builder
	for _, n := range numbers {
		b.WriteRune(levels[(n*(len(levels)-1)+most-1)/most])
	}
	return b.String()
}
