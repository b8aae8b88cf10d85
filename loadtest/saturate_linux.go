package loadtest

import (
	"context"
	"fmt"
	"math"
	"time"
)

// Saturate raises the rate until it no longer holds, and closes in on where that
// is: doubled from the plan's rate, then halved three times between the last that
// held and the first that did not. A rate holds when nothing is lost, nobody is
// disconnected, the publishers are not held up for more than 2 % of the events,
// and p99 is at most limit. Each rate is tried for the plan's duration with
// clients of its own.
func Saturate(limit time.Duration) Scenario {
	return func(ctx context.Context, t *Target, p Plan, say func(string, ...any)) (Result, error) {
		var best Result
		var steps []Step
		try := func(rate float64) (bool, error) {
			p.Rate = rate
			result, err := Stream(ctx, t, p, say)
			if err != nil {
				return false, err
			}
			step := judgeStep(&result, p, limit)
			steps = append(steps, step)
			say("%s: %.1f published/s, %.0f deliveries/s, p99 %.1f ms: held %v %s", t.Name, rate, step.Delivered, step.P99, step.Held, step.Why)
			if step.Held && step.Delivered > best.Held {
				best = result
				best.Held = step.Delivered
			}
			sleepUntil(ctx, now()+int64(time.Second)) // the old clients go
			return step.Held, nil
		}
		held, failed := 0.0, 0.0
		for rate := p.Rate; failed == 0; rate *= 2 {
			ok, err := try(rate)
			switch {
			case err != nil:
				return Result{}, err
			case ok:
				held = rate
			default:
				failed = rate
			}
		}
		for range 3 {
			if held == 0 {
				break // not even the first
			}
			rate := math.Sqrt(held * failed)
			ok, err := try(rate)
			switch {
			case err != nil:
				return Result{}, err
			case ok:
				held = rate
			default:
				failed = rate
			}
		}
		if held == 0 {
			best = Result{Target: t.Name, Clients: p.Clients}
		}
		best.Steps = steps
		return best, nil
	}
}

func judgeStep(r *Result, p Plan, limit time.Duration) Step {
	s := Step{Published: p.Rate, Delivered: r.Rate, P99: r.Latency.P99, CPU: r.CPU}
	expected := p.Rate * float64(p.Clients) * float64(p.PerClient) / float64(p.Topics)
	switch {
	case r.Counts.Faults() > 0:
		s.Why = fmt.Sprintf("%d lost, twice or out of order", r.Counts.Faults())
	case r.Closed > 0:
		s.Why = fmt.Sprintf("%d clients disconnected", r.Closed)
	case r.Counts.Announced > 0:
		s.Why = fmt.Sprintf("%d missing under a gap", r.Counts.Announced)
	case r.Unpublished > 0:
		s.Why = fmt.Sprintf("%d publishes failed", r.Unpublished)
	case r.Rate < 0.98*expected:
		s.Why = fmt.Sprintf("%.0f of %.0f deliveries/s", r.Rate, expected)
	case r.Latency.P99 > ms(int64(limit)):
		s.Why = fmt.Sprintf("p99 over %s", limit)
	default:
		s.Held = true
	}
	return s
}
