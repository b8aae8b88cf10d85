package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"
)

// A fault is something that goes wrong, for a while. do returns when it is over and
// what it took away is back; what must hold meanwhile and can be seen at once it
// judges itself (world.wrong), the rest is in the history.
type fault struct {
	name  string
	only  string // the kind of Redis that can have it; empty: any
	two   bool   // for a while two servers take themselves for the primary
	epoch bool   // Redis may be another than before: readers may be told of gaps
	parts bool   // Redis loses keys one by one
	help  string
	do    func(context.Context, *world, *rand.Rand) error
}

// Faults gives the names of those that a kind of Redis can have.
func Faults(redis string) (list []string) {
	for _, f := range faults {
		if f.only == "" || f.only == redis {
			list = append(list, f.name)
		}
	}
	return list
}

// Help describes them, a line each.
func Help() string {
	var b strings.Builder
	for _, f := range faults {
		fmt.Fprintf(&b, "%-18s %-11s %s\n", f.name, f.only, f.help)
	}
	return b.String()
}

var faults = []fault{
	{name: "kill", help: "SIGKILL of an instance, which is started again", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		return w.restart(ctx, pick(rng, w.hubs), rng)
	}},
	{name: "kill-ingester", help: "the same of the instance that ingests: another takes over within 7 s", do: killIngester},
	{name: "zombie", help: "SIGSTOP of the instance that ingests, for longer than its lease", do: zombie},
	{name: "roll", help: "SIGTERM of each instance in turn: it drains, ends with 0 in time, and is started again", do: roll},
	{name: "cut-pubsub", help: "CLIENT KILL TYPE pubsub, three times: no client is disconnected", do: cutPubSub},
	{name: "clock", help: "the wall clock of an instance jumps, and back: no client is disconnected", do: jump},
	{name: "net-reset", help: "the connections of an instance's clients are reset", do: func(_ context.Context, w *world, rng *rand.Rand) error {
		pick(rng, w.hubs).front.reset()
		return nil
	}},
	{name: "net-vanish", help: "the WebSockets of an instance are gone, and nobody tells it", do: vanish},
	{name: "net-delay", help: "latency between clients and an instance", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		return w.weather(ctx, links{pick(rng, w.hubs).front}, seconds(rng, 2, 5), func(x *weather) { x.delay = time.Duration(20+rng.IntN(300)) * time.Millisecond })
	}},
	{name: "net-hold", help: "nothing passes between clients and an instance", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		return w.weather(ctx, links{pick(rng, w.hubs).front}, seconds(rng, 1, 8), func(x *weather) { x.hold = bothWays })
	}},
	{name: "net-one-way", help: "the same of one direction", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		lost := pick(rng, []way{toServer, toClient})
		return w.weather(ctx, links{pick(rng, w.hubs).front}, seconds(rng, 1, 12), func(x *weather) { x.hold = lost })
	}},

	{name: "redis-cut", help: "an instance's connections to Redis, or to one server of it, are reset", do: func(_ context.Context, w *world, rng *rand.Rand) error {
		pick(rng, w.hubs).back.some(rng).reset()
		return nil
	}},
	{name: "redis-delay", help: "latency between an instance and Redis, or one server of it", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		return w.weather(ctx, pick(rng, w.hubs).back.some(rng), seconds(rng, 2, 5), func(x *weather) { x.delay = time.Duration(5+rng.IntN(100)) * time.Millisecond })
	}},
	{name: "redis-unreachable", help: "an instance cannot connect to Redis, or to one server of it: it answers a publish within 5 s", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		return w.cutOff(ctx, rng, 7, func(off links, is bool) {
			off.set(func(x *weather) { x.refuse = is })
			if is {
				off.reset()
			}
		})
	}},
	{name: "redis-hold", help: "nothing passes between an instance and Redis, or one server of it: the same", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		return w.cutOff(ctx, rng, 10, func(off links, is bool) { off.set(func(x *weather) { x.hold = only(is, bothWays) }) })
	}},
	{name: "redis-one-way", help: "the same of one direction", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		lost := pick(rng, []way{toServer, toClient})
		return w.cutOff(ctx, rng, 10, func(off links, is bool) { off.set(func(x *weather) { x.hold = only(is, lost) }) })
	}},
	{name: "deaf", help: "what Redis publishes does not reach an instance, on connections that live", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		return w.undisturbed(ctx, func() error { return w.deafen(ctx, pick(rng, w.hubs), seconds(rng, 2, 15)) })
	}},
	{name: "deaf-tenant", help: "the same of one tenant", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		return w.undisturbed(ctx, func() error {
			return w.weather(ctx, pick(rng, w.hubs).back, seconds(rng, 2, 9), func(x *weather) { x.deaf = pick(rng, tenants) })
		})
	}},
	{name: "redis-kill", only: Standalone, epoch: true, help: "SIGKILL of Redis, which is started again from its append-only file", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		n := w.db.nodes[0]
		n.kill()
		if _, err := w.probe(ctx, seconds(rng, 0, 7), w.hubs...); err != nil {
			return err
		}
		return n.up(ctx)
	}},
	{name: "redis-restart", only: Standalone, epoch: true, help: "SIGTERM of Redis, which loses nothing and is started again", do: func(ctx context.Context, w *world, _ *rand.Rand) error {
		n := w.db.nodes[0]
		n.signal(syscall.SIGTERM)
		if _, err := n.wait(patience); err != nil {
			return err
		}
		return n.up(ctx)
	}},
	{name: "redis-rollback", only: Standalone, epoch: true, help: "Redis comes back without its last writes", do: rollback},
	{name: "redis-stop", only: Standalone, help: "SIGSTOP of Redis", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		n := w.db.nodes[0]
		return w.useless(ctx, rng, func(time.Duration) error { n.signal(syscall.SIGSTOP); return nil },
			func() error { n.signal(syscall.SIGCONT); return nil })
	}},
	{name: "redis-pause", only: Standalone, help: "CLIENT PAUSE", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		return w.useless(ctx, rng, func(d time.Duration) error { return w.db.nodes[0].do(ctx, "CLIENT", "PAUSE", d.Milliseconds(), "ALL") },
			func() error { return nil })
	}},
	{name: "redis-flush", only: Standalone, epoch: true, help: "FLUSHALL", do: func(ctx context.Context, w *world, _ *rand.Rand) error {
		return w.db.nodes[0].do(ctx, "FLUSHALL")
	}},
	{name: "redis-full", only: Standalone, help: "maxmemory is reached: OOM", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		n := w.db.nodes[0]
		return w.useless(ctx, rng, func(time.Duration) error { return n.do(ctx, "CONFIG", "SET", "maxmemory", "1") },
			func() error { return n.do(ctx, "CONFIG", "SET", "maxmemory", "0") })
	}},
	{name: "redis-evict", only: Standalone, epoch: true, parts: true, help: "Redis throws half of its keys away, any: allkeys-random", do: evict},
	{name: "redis-loading", only: Standalone, epoch: true, help: "SIGKILL of Redis, which takes its time to load: LOADING", do: load},
	{name: "redis-readonly", only: Standalone, epoch: true, help: "Redis becomes a replica of nobody, and a primary again", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		n := w.db.nodes[0]
		return w.useless(ctx, rng, func(time.Duration) error { return n.do(ctx, "REPLICAOF", "127.0.0.1", "1") },
			func() error { return n.do(ctx, "REPLICAOF", "NO", "ONE") })
	}},

	{name: "failover", only: Sentinel, two: true, help: "a failover that Sentinel is asked for", do: func(ctx context.Context, w *world, _ *rand.Rand) error {
		return w.failover(ctx, func(old *node) error {
			return await(ctx, "Sentinel agrees to a failover", func() bool { return w.db.guard[0].do(ctx, "SENTINEL", "FAILOVER", master) == nil })
		}, func(*node) error { return nil })
	}},
	{name: "primary-kill", only: Sentinel, two: true, help: "SIGKILL of the primary", do: func(ctx context.Context, w *world, _ *rand.Rand) error {
		return w.failover(ctx, func(old *node) error { old.kill(); return nil }, func(old *node) error { return old.up(ctx) })
	}},
	{name: "primary-behind", only: Sentinel, two: true, help: "the same when the replicas are behind", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		return w.failover(ctx, func(old *node) error { return w.killAhead(ctx, rng, old) }, func(old *node) error { return old.up(ctx) })
	}},
	{name: "primary-stop", only: Sentinel, two: true, help: "SIGSTOP of the primary; it comes back and takes itself for one", do: func(ctx context.Context, w *world, _ *rand.Rand) error {
		return w.failover(ctx, func(old *node) error { old.signal(syscall.SIGSTOP); return nil },
			func(old *node) error { old.signal(syscall.SIGCONT); return nil })
	}},

	{name: "cluster-failover", only: Cluster, two: true, help: "a replica is asked to take over", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		for _, n := range w.db.nodes {
			if n.info(ctx)["role"] == "slave" && rng.IntN(2) == 0 {
				if err := n.do(ctx, "CLUSTER", "FAILOVER"); err != nil {
					return err
				}
				break
			}
		}
		return w.together(ctx)
	}},
	{name: "cluster-kill", only: Cluster, two: true, help: "SIGKILL of a primary", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		return w.replaced(ctx, pick(rng, tenantKeys("pushhub:ingest")), func(old *node) error { old.kill(); return nil }, func(old *node) error { return old.up(ctx) })
	}},
	{name: "cluster-behind", only: Cluster, two: true, help: "the same when its replica is behind", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		return w.replaced(ctx, pick(rng, tenantKeys()), func(old *node) error { return w.killAhead(ctx, rng, old) }, func(old *node) error { return old.up(ctx) })
	}},
	{name: "cluster-stop", only: Cluster, two: true, help: "SIGSTOP of a primary; it comes back and takes itself for one", do: func(ctx context.Context, w *world, rng *rand.Rand) error {
		return w.replaced(ctx, pick(rng, tenantKeys("pushhub:ingest")), func(old *node) error { old.signal(syscall.SIGSTOP); return nil },
			func(old *node) error { old.signal(syscall.SIGCONT); return nil })
	}},
	{name: "slot-move", only: Cluster, epoch: true, help: "the slot of a tenant moves to another primary", do: moveSlot},
}
