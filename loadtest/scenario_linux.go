package loadtest

import (
	"context"
	"time"
)

// A Scenario runs a plan on a server. An error means that it could not be run;
// what a server does wrong is in the result.
type Scenario func(ctx context.Context, t *Target, p Plan, say func(string, ...any)) (Result, error)

// Stream is the scenario broadcast, with one topic, and jobs, with many: the
// clients listen while events are published by a schedule.
func Stream(ctx context.Context, t *Target, p Plan, say func(string, ...any)) (Result, error) {
	r, err := newRun(t, p, say)
	if err != nil {
		return Result{}, err
	}
	defer r.swarm.Close()
	if err := r.connect(ctx); err != nil {
		return Result{}, err
	}
	err = r.stream(ctx, nil)
	return r.result, err
}

// Idle connects and waits: what does a subscribed client cost that gets nothing?
// The resident memory is compared before the first connection and at the end of
// the duration; nothing is done to make the server give memory back.
func Idle(ctx context.Context, t *Target, p Plan, say func(string, ...any)) (Result, error) {
	r, err := newRun(t, p, say)
	if err != nil {
		return Result{}, err
	}
	defer r.swarm.Close()
	before, err := r.resident()
	if err != nil {
		return Result{}, err
	}
	if err := r.connect(ctx); err != nil {
		return Result{}, err
	}
	from := now()
	used := r.usage()
	watching, end := context.WithTimeout(ctx, p.Duration)
	defer end()
	r.watch(watching, from, r.swarm.Snapshot(nil))
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	res := &r.result
	if res.Resident, err = r.resident(); err != nil {
		return Result{}, err
	}
	res.PerClient = float64(res.Resident-before) / float64(p.Clients)
	res.Goroutines, _ = t.metric("go_goroutines")
	res.Seconds = float64(now()-from) / 1e9
	res.Busy = (r.usage().CPU - used.CPU).Seconds() / res.Seconds
	res.Samples = r.samples
	r.end(make([]uint64, p.Topics))
	return *res, nil
}

func (r *run) resident() (int64, error) {
	if r.target.Process == nil {
		return 0, nil
	}
	return r.target.Process.Rollup()
}

// Storm connects as fast as the plan's handshakes at a time allow.
func Storm(ctx context.Context, t *Target, p Plan, say func(string, ...any)) (Result, error) {
	r, err := newRun(t, p, say)
	if err != nil {
		return Result{}, err
	}
	defer r.swarm.Close()
	if err := r.connect(ctx); err != nil {
		return Result{}, err
	}
	sleepUntil(ctx, now()+int64(200*time.Millisecond)) // who is dropped again was not connected
	r.end(make([]uint64, p.Topics))
	return r.result, nil
}
