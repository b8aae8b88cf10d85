package loadtest

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Reconnect streams, kills all sockets after a quarter of the interval, and has
// all clients resume after a time away; where there is an instance to kill it kills
// that, and they resume at the other. CaughtUp is from the first connect until
// the last client has what it missed, which "subscribed" says.
func Reconnect(away time.Duration) Scenario {
	return func(ctx context.Context, t *Target, p Plan, say func(string, ...any)) (Result, error) {
		return streamWith(ctx, t, p, say, func(ctx context.Context, r *run, to int64) error {
			if !sleepUntil(ctx, now()+int64(p.Duration)/4) {
				return context.Cause(ctx)
			}
			reads := int64(0)
			n := p.Clients
			if t.doomed == nil {
				n = r.swarm.Disconnect(1)
			} else {
				var err error
				if reads, err = t.reads(ctx); err != nil {
					return err
				}
				t.doomed.kill()
				for r.swarm.Snapshot(nil).Ready > 0 && sleepUntil(ctx, now()+int64(time.Millisecond)) {
				}
				r.swarm.Redirect(t.Addr)
			}
			r.say("%s: %d sockets killed", t.Name, n)
			if !sleepUntil(ctx, now()+int64(away)) {
				return context.Cause(ctx)
			}
			before, began := r.usage(), now()
			if err := r.reconnect(ctx); err != nil {
				return err
			}
			r.result.CaughtUp = float64(now()-began) / 1e9
			r.result.HandshakeCPU = us(r.usage().CPU-before.CPU) / float64(n)
			r.result.Handshakes = float64(n) / r.result.CaughtUp
			if t.doomed != nil {
				after, err := t.reads(ctx)
				r.result.LogReads = float64(after - reads)
				return err
			}
			return nil
		})
	}
}

func (r *run) reconnect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	return r.swarm.Connect(ctx)
}

// bufferSpace is more than the kernel holds for a reader that stalls, on both sides.
const bufferSpace = 1 << 20

// Slow streams to all for half of the interval; then a share of the clients stops
// reading. The latencies are those of the others: before, while the kernel's buffers
// to those who stalled fill up, for the first half of the stall, and after. Hoard is the
// most that the server's resident memory and what the kernel holds, at both ends,
// grew for each reader that stalled. In the end those read again, and whoever was
// disconnected resumes: they are owed everything too. Closed counts who had not stalled.
func Slow(share float64) Scenario {
	return func(ctx context.Context, t *Target, p Plan, say func(string, ...any)) (Result, error) {
		// What the kernel's buffers are made of is kept at hand until then. A virtual
		// machine's host brings memory that was not used for a while page by page, when
		// it is written to: that can cost twice the write that the page is for.
		spare, err := unix.Mmap(-1, 0, 1+int(share*float64(p.Clients)*bufferSpace), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
		if err != nil {
			return Result{}, os.NewSyscallError("mmap", err)
		}
		return streamWith(ctx, t, p, say, func(ctx context.Context, r *run, to int64) error {
			if !sleepUntil(ctx, now()+int64(p.Duration)/2) {
				return context.Cause(ctx)
			}
			before, err := r.held()
			if err != nil {
				return err
			}
			r.result.Before = r.swarm.Split()
			if err := unix.Munmap(spare); err != nil {
				return os.NewSyscallError("munmap", err)
			}
			r.result.Stalled = r.swarm.Stall(share)
			r.say("%s: %d readers stall", t.Name, r.result.Stalled)
			most, full := before, to-int64(p.Duration)/4
			for now()+int64(time.Second) < to && sleepUntil(ctx, now()+int64(time.Second)) {
				if full != 0 && now() >= full {
					r.result.Filling, full = r.swarm.Split(), 0
				}
				held, err := r.held()
				if err != nil {
					return err
				}
				most = max(most, held)
			}
			r.result.Hoard = float64(most-before) / float64(max(1, r.result.Stalled))
			if !sleepUntil(ctx, to) {
				return context.Cause(ctx)
			}
			r.result.Closed = r.swarm.Snapshot(nil).Closed
			r.swarm.Stall(0)
			r.say("%s: they read again, %d were disconnected", t.Name, r.swarm.Snapshot(nil).Closed)
			return r.reconnect(ctx)
		})
	}
}

// held is the memory of the server, and what the kernel holds for connections: also
// at the clients' ends, which is not the server's.
func (r *run) held() (int64, error) {
	kernel, err := TCPMemory()
	return kernel + r.usage().Resident, err
}

// Soak streams while each second a share of the clients leaves and resumes. Slope
// is the growth of the server's memory over the second half of the interval.
func Soak(churn float64) Scenario {
	return func(ctx context.Context, t *Target, p Plan, say func(string, ...any)) (Result, error) {
		result, err := streamWith(ctx, t, p, say, func(ctx context.Context, r *run, to int64) error {
			for at := now() + int64(time.Second); at < to && sleepUntil(ctx, at); at += int64(time.Second) {
				r.swarm.Disconnect(churn)
				if err := r.reconnect(ctx); err != nil {
					return err
				}
			}
			return nil
		})
		result.Slope = slope(result.Samples[len(result.Samples)/2:]) * 3600
		return result, err
	}
}

// slope is the growth of the resident memory, in bytes per second, by the line
// that fits the samples best.
func slope(samples []Sample) float64 {
	var n, x, y, xx, xy float64
	for _, s := range samples {
		n++
		x += s.At
		y += float64(s.Resident)
		xx += s.At * s.At
		xy += s.At * float64(s.Resident)
	}
	if n < 2 {
		return 0
	}
	return (n*xy - x*y) / (n*xx - x*x)
}

// streamWith is Stream with clients that can resume, and something done to them
// while the interval, which ends at to, is measured.
func streamWith(ctx context.Context, t *Target, p Plan, say func(string, ...any), during func(ctx context.Context, r *run, to int64) error) (Result, error) {
	r, err := newRun(t, p, say)
	if err != nil {
		return Result{}, err
	}
	defer r.swarm.Close()
	r.swarm.KeepCursors()
	if err := r.connect(ctx); err != nil {
		return Result{}, err
	}
	err = r.stream(ctx, func(ctx context.Context, to int64) error { return during(ctx, r, to) })
	return r.result, err
}
