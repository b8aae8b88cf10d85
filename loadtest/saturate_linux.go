package loadtest

import (
	"context"
	"fmt"
	"math"
	"time"
)

// Saturate raises the rate until it no longer holds, and closes in on where that
// is: doubled from the plan's rate (halved, where that does not hold), then three
// times between the last that held and the first that did not. A rate holds when
// nothing is lost, nobody is disconnected, all but 2 % comes in time, and p99 is at
// most limit. Each try takes the plan's duration, with clients of its own. A rate
// has failed when it failed twice: one try may be spoilt by the machine.
func Saturate(limit time.Duration) Scenario {
	return func(ctx context.Context, t *Target, p Plan, say func(string, ...any)) (Result, error) {
		s := saturation{t: t, p: p, limit: limit, say: say}
		held, failed := 0.0, 0.0
		for rate := p.Rate; (held == 0 || failed == 0) && rate > p.Rate/10; {
			ok, err := s.holds(ctx, rate)
			switch {
			case err != nil:
				return Result{}, err
			case ok:
				held, rate = rate, rate*2
			default:
				failed, rate = rate, rate/2
			}
		}
		for range 3 {
			if held == 0 {
				break // nothing does
			}
			rate := math.Sqrt(held * failed)
			ok, err := s.holds(ctx, rate)
			switch {
			case err != nil:
				return Result{}, err
			case ok:
				held = rate
			default:
				failed = rate
			}
		}
		s.best.Target, s.best.Clients, s.best.Counts, s.best.Steps = t.Name, p.Clients, s.counts, s.steps
		return s.best, nil
	}
}

type saturation struct {
	t      *Target
	p      Plan
	limit  time.Duration
	say    func(string, ...any)
	best   Result
	counts Counts // of all steps: too much is no reason to lose
	steps  []Step
}

func (s *saturation) holds(ctx context.Context, rate float64) (bool, error) {
	s.p.Rate = rate
	for range 2 {
		result, err := Stream(ctx, s.t, s.p, s.say)
		if err != nil {
			return false, err
		}
		step := judgeStep(&result, s.p, s.limit)
		s.counts.add(result.Counts)
		s.steps = append(s.steps, step)
		s.say("%s: %.1f published/s, %.0f deliveries/s, p99 %.1f ms: held %v %s", s.t.Name, rate, step.Delivered, step.P99, step.Held, step.Why)
		sleepUntil(ctx, now()+int64(time.Second)) // the old clients go
		if step.Held {
			if step.Delivered > s.best.Held {
				s.best = result
				s.best.Held = step.Delivered
			}
			return true, nil
		}
	}
	return false, nil
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
