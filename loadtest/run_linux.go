package loadtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A run is a swarm on a server, and what is measured of both.
type run struct {
	plan   Plan
	target *Target
	swarm  *Swarm
	topics []string
	say    func(format string, args ...any) // progress
	result Result

	mu      sync.Mutex
	samples []Sample // guarded by mu
}

// newRun makes the clients and their tokens, unconnected.
func newRun(t *Target, p Plan, say func(string, ...any)) (*run, error) {
	if say == nil {
		say = func(string, ...any) {}
	}
	r := &run{plan: p, target: t, say: say, result: Result{Target: t.Name, Clients: p.Clients, Errors: map[string]int{}}}
	// Other topics in each run: nothing of an earlier one is retained in them.
	id := rand.Text()[:8]
	for k := range p.Topics {
		name := fmt.Sprintf("%s.%s-%d", p.Prefix, id, k)
		if t.Peer.Topics != "" {
			name = fill(t.Peer.Topics, "{run}", id, "{number}", fmt.Sprint(k))
		}
		r.topics = append(r.topics, name)
	}
	tokens, err := t.tokens(p.Clients)
	if err != nil {
		return nil, err
	}
	if p.SSE > 0 && t.Peer.SSE == nil || p.SSE < 1 && t.Peer.WebSocket == nil {
		return nil, fmt.Errorf("the description of %s lacks a transport: see --sse", t.Name)
	}
	addr := t.Addr
	if t.doomed != nil {
		addr = t.doomed.addr
	}
	r.swarm, err = NewSwarm(SwarmConfig{Addr: addr, Peer: t.Peer, Clients: p.Clients, SSE: p.SSE, Topics: r.topics, PerClient: p.PerClient,
		Tokens: tokens, Keyed: p.Keyed, Inflight: p.Inflight})
	return r, err
}

// connectTime bounds the connecting of all clients.
const connectTime = 2 * time.Minute

// connect connects all clients and measures that.
func (r *run) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	before, began := r.usage(), now()
	if err := r.swarm.Connect(ctx); err != nil {
		return err
	}
	took := time.Duration(now() - began)
	r.result.Handshakes = float64(r.plan.Clients) / took.Seconds()
	r.result.HandshakeCPU = us(r.usage().CPU-before.CPU) / float64(r.plan.Clients)
	r.swarm.do(func() { r.result.HandshakeTime = quantiles(r.swarm.latency.handshakes) })
	r.say("%s: %d clients connected in %.1f s", r.target.Name, r.plan.Clients, took.Seconds())
	return nil
}

// usage is the server's, zero where it is not known.
func (r *run) usage() Usage {
	if r.target.Process == nil {
		return Usage{}
	}
	u, err := r.target.Process.Usage()
	if err != nil {
		r.say("%s: %v", r.target.Name, err)
	}
	return u
}

// Metrics of the server: what it allocated, and which events it superseded.
const (
	mallocs   = "go_memstats_mallocs_total"
	conflated = "pushhub_conflated_total"
)

// settleTime bounds the wait for what is on its way when publishing has ended.
const settleTime = 15 * time.Second

// stream publishes by the plan and measures the interval in it. during, if any,
// runs from the start of the interval, which ends at to, and is waited for.
func (r *run) stream(ctx context.Context, during func(ctx context.Context, to int64) error) error {
	p := r.plan
	publishers, err := r.target.publishers(p.Publishers, p.Raw, p.Keyed, r.topics, p.Size)
	if err != nil {
		return err
	}
	defer closeAll(publishers)
	schedule := Schedule{Start: now() + int64(200*time.Millisecond), Rate: p.Rate, Topics: p.Topics, Size: p.Size, Linger: p.Linger}
	// The interval begins and ends between two events: a burst is in it or not.
	interval := 1e9 / p.Rate
	between := func(at float64) int64 { return schedule.Start + int64((math.Ceil(at/interval)-0.5)*interval) }
	from := between(float64(p.Warmup))
	to := between(float64(p.Warmup + p.Duration))
	r.swarm.Measure(from, to)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	publishing, endPublishing := context.WithCancel(ctx)
	defer endPublishing()
	before, counts := r.target.metric(conflated)
	var published []uint64
	var pace Pace
	var group sync.WaitGroup
	batch := p.Batch
	if form := r.target.Peer.Publish; form != nil && form.Batch[0] == "" && !p.Raw {
		batch = 1 // it knows none
	}
	group.Go(func() { published, pace = schedule.Run(publishing, publishers, batch, r.swarm.Uncertain) })

	if !sleepUntil(ctx, from) {
		group.Wait()
		return context.Cause(ctx)
	}
	if r.target.Process != nil {
		r.target.Process.Begin()
	}
	first, own, used, machine := r.swarm.Snapshot(nil), ownCPU(), r.usage(), machineCPU()
	allocs, _ := r.target.metric(mallocs)
	watching, endWatching := context.WithCancel(ctx)
	group.Go(func() { r.watch(watching, from, first) })
	var failed error
	if during != nil {
		group.Go(func() { failed = during(ctx, to) })
	}
	alive := sleepUntil(ctx, to)
	last, ownEnd, usedEnd, machineEnd := r.swarm.Snapshot(nil), ownCPU(), r.usage(), machineCPU()
	allocsEnd, _ := r.target.metric(mallocs)
	endWatching()
	endPublishing()
	group.Wait()
	if !alive {
		return context.Cause(ctx)
	}
	if failed != nil {
		return failed
	}
	r.settle(ctx, published)

	res := &r.result
	if after, ok := r.target.metric(conflated); ok && counts && r.target.doomed == nil {
		res.Counts.superseded(uint64(after - before))
	}
	res.Seconds = float64(last.At-first.At) / 1e9
	res.Deliveries = last.Counts.Delivered - first.Counts.Delivered
	n := max(1, float64(res.Deliveries))
	res.Rate = float64(res.Deliveries) / res.Seconds
	res.CPU = us(usedEnd.CPU-used.CPU) / n
	res.UserCPU = res.CPU * usedEnd.User
	res.Allocs = (allocsEnd - allocs) / n
	res.Busy = (usedEnd.CPU - used.CPU).Seconds() / res.Seconds
	res.OwnCPU = us(ownEnd-own) / n
	res.Others = max(0, (machineEnd-machine-(ownEnd-own)-(usedEnd.CPU-used.CPU)).Seconds()/res.Seconds)
	res.Late = quantiles(pace.Late)
	res.Samples = r.samples
	for _, s := range r.samples {
		res.Resident = max(res.Resident, s.Resident)
	}
	for e, k := range pace.Errors {
		res.Errors[e] += k
		res.Unpublished += k
	}
	return nil
}

// settle waits until everybody has everything, or a while, and takes stock. Who had
// stalled reads only now that it was disconnected, and comes back.
func (r *run) settle(ctx context.Context, published []uint64) {
	deadline := now() + int64(settleTime)
	for now() < deadline {
		snap := r.swarm.Snapshot(published)
		if snap.Tardy > 0 {
			r.result.Closed += snap.Closed - snap.Tardy // the others come back, too
			if err := r.reconnect(ctx); err != nil {
				r.say("%s: %v", r.target.Name, err)
			}
		} else if snap.Behind == 0 {
			break
		}
		if !sleepUntil(ctx, now()+int64(20*time.Millisecond)) {
			break
		}
	}
	// A moment more: what comes twice comes after.
	sleepUntil(ctx, now()+int64(100*time.Millisecond))
	out := r.end(published)
	r.result.Latency, r.result.Series, r.result.CDF = quantiles(out.Latency), out.Series, cdf(out.Latency)
}

// end has the last word of the swarm in the result: what was lost, and who.
func (r *run) end(published []uint64) Outcome {
	out := r.swarm.Settle(published)
	r.result.Counts = out.Counts
	r.result.Closed += out.Closed
	for e, n := range out.Errors {
		r.result.Errors[e] += n
	}
	return out
}

// watch samples the server each second and tells how the run goes.
func (r *run) watch(ctx context.Context, from int64, before Snapshot) {
	used := r.usage()
	at := now()
	for sleepUntil(ctx, at+int64(time.Second)) {
		snap, u := r.swarm.Snapshot(nil), r.usage()
		seconds := float64(now()-at) / 1e9
		at = now()
		s := Sample{At: float64(at-from) / 1e9, Cores: (u.CPU - used.CPU).Seconds() / seconds, Resident: u.Resident}
		r.mu.Lock()
		r.samples = append(r.samples, s)
		r.mu.Unlock()
		c := snap.Counts
		r.say("%s: %3.0f s  %9.0f deliveries/s  %4.0f %% of a core  %6.1f MiB  %d connected, %d faults", r.target.Name, s.At,
			float64(c.Delivered-before.Counts.Delivered)/seconds, 100*s.Cores, float64(s.Resident)/(1<<20), snap.Ready, c.Faults())
		before, used = snap, u
	}
}

// ownCPU is what this process has used.
func ownCPU() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func us(d time.Duration) float64 { return float64(d) / 1e3 }
