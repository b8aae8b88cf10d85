package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// What faults do to Redis itself.

// aWhile is after what time without a Redis that can be used an instance has long said so.
const aWhile = 10 * time.Second

// useless has Redis answer nothing, or refuse all, for some seconds or for aWhile.
// Each instance says so meanwhile, and is well again afterwards.
func (w *world) useless(ctx context.Context, rng *rand.Rand, breakIt func(time.Duration) error, mend func() error) error {
	lasts := pick(rng, []time.Duration{seconds(rng, 1, 7), aWhile})
	if err := breakIt(lasts); err != nil {
		return err
	}
	_, err := w.probe(ctx, lasts-time.Second, w.hubs...)
	if lasts == aWhile && err == nil {
		for _, h := range w.hubs {
			if is := h.health(ctx); is.Status != "degraded" {
				w.wrong("%s says that it is %q after %v without a Redis that can be used", h.name, is.Status, lasts)
			}
		}
	}
	if err == nil {
		_, err = w.probe(ctx, time.Second, w.hubs...)
	}
	if err := errors.Join(err, mend()); err != nil {
		return err
	}
	return w.healthy(ctx)
}

// healthy waits until all instances say that they are.
func (w *world) healthy(ctx context.Context) error {
	return await(ctx, "all instances are healthy", func() bool {
		return !slices.ContainsFunc(w.hubs, func(h *hub) bool { return h.health(ctx).Status != "healthy" })
	})
}

// evict has Redis throw away half of what it holds, and go on doing so for a while.
func evict(ctx context.Context, w *world, rng *rand.Rand) error {
	n := w.db.nodes[0]
	memory := n.info(ctx)
	used, err := strconv.Atoi(memory["used_memory"])
	data, err2 := strconv.Atoi(memory["used_memory_dataset"])
	if err := errors.Join(err, err2, n.do(ctx, "CONFIG", "SET", "maxmemory-policy", "allkeys-random")); err != nil {
		return err
	}
	if err := n.do(ctx, "CONFIG", "SET", "maxmemory", used-data/2); err != nil {
		return err
	}
	_, err = w.probe(ctx, seconds(rng, 1, 4), w.hubs...)
	w.say("           %s keys are evicted", n.info(ctx)["evicted_keys"])
	return errors.Join(err, n.do(ctx, "CONFIG", "SET", "maxmemory", 0), n.do(ctx, "CONFIG", "SET", "maxmemory-policy", "noeviction"))
}

// load kills Redis and has it load slowly.
func load(ctx context.Context, w *world, rng *rand.Rand) error {
	n := w.db.nodes[0]
	n.kill()
	args := n.args
	n.args = append(slices.Clip(args), "--key-load-delay", "200") // µs, for each command
	err := n.start()
	n.args = args
	if err != nil {
		return err
	}
	if _, err := w.probe(ctx, seconds(rng, 1, 7), w.hubs...); err != nil {
		return err
	}
	w.say("           Redis: %v", n.client.Ping(ctx).Err())
	if err := n.do(ctx, "CONFIG", "SET", "key-load-delay", 0); err != nil {
		return err
	}
	return n.answers(ctx)
}

// rollback takes the last writes out of the append-only file.
func rollback(ctx context.Context, w *world, rng *rand.Rand) error {
	n := w.db.nodes[0]
	if err := n.do(ctx, "CONFIG", "SET", "appendfsync", "always"); err != nil {
		return err
	}
	n.kill()
	files, err := filepath.Glob(filepath.Join(n.dir, "appendonlydir", "*.incr.aof"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no append-only file in %s: %w", n.dir, err)
	}
	last := files[len(files)-1]
	info, err := os.Stat(last)
	if err != nil {
		return err
	}
	// In the middle of a command, as a crash leaves it: Redis loads what is whole.
	if err := os.Truncate(last, max(0, info.Size()-int64(1000+rng.IntN(200_000)))); err != nil {
		return err
	}
	return n.up(ctx)
}

// failover breaks the primary, waits for another, and mends the old one.
func (w *world) failover(ctx context.Context, breakIt, mend func(*node) error) error {
	// A machine that is busy may make Sentinel fail over by itself.
	err := await(ctx, "there is one primary", func() bool { return w.db.inStep(ctx, 1) })
	if err != nil {
		return err
	}
	old := w.db.primaries(ctx)[0]
	if err := breakIt(old); err != nil {
		return err
	}
	err = await(ctx, "another is the primary", func() bool {
		for _, n := range w.db.primaries(ctx) {
			if n != old {
				return true
			}
		}
		return false
	})
	if err != nil {
		return err
	}
	if err := mend(old); err != nil {
		return err
	}
	return await(ctx, "the others follow the new primary", func() bool { return w.db.inStep(ctx, 1) })
}

// replaced is the same in a Cluster, of the primary that has a key.
func (w *world) replaced(ctx context.Context, key string, breakIt, mend func(*node) error) error {
	primaries := w.db.primaries(ctx)
	_, old, _, err := w.db.holder(ctx, key)
	if err != nil {
		return err
	}
	err = breakIt(old)
	if err == nil {
		err = await(ctx, "a replica takes over", func() bool { return len(w.db.primaries(ctx)) >= len(primaries) })
	}
	if err := errors.Join(err, mend(old)); err != nil {
		return err
	}
	return w.together(ctx)
}

// killAhead kills a primary that has acknowledged what its replicas do not have.
func (w *world) killAhead(ctx context.Context, rng *rand.Rand, old *node) error {
	for _, n := range w.db.replicasOf(ctx, old) {
		n.signal(syscall.SIGSTOP)
		defer n.signal(syscall.SIGCONT)
	}
	defer old.kill()
	// What has come into their sockets they read when they go on: nothing more must.
	if err := old.do(ctx, "CLIENT", "KILL", "TYPE", "replica"); err != nil {
		return err
	}
	offset := func() int {
		n, _ := strconv.Atoi(old.info(ctx)["master_repl_offset"])
		return n
	}
	from, until := offset(), time.Now().Add(time.Duration(rng.IntN(700))*time.Millisecond)
	ahead := 0
	err := await(ctx, "the primary is ahead", func() bool {
		ahead = offset() - from
		return ahead > 0 && time.Now().After(until)
	})
	w.say("           %s is %d bytes ahead of its replicas", old.name, ahead)
	return err
}

// together waits until a Cluster is whole again.
func (w *world) together(ctx context.Context) error {
	return await(ctx, "the Cluster is whole", func() bool {
		return w.db.whole(ctx) && w.db.inStep(ctx, 3)
	})
}

// tenantKeys gives a key of each tenant, and what else is kept.
func tenantKeys(more ...string) []string {
	for _, t := range tenants {
		more = append(more, "pushhub:{"+t+"}:m")
	}
	return more
}

// moveSlot moves the slot of a tenant as redis-cli does: keys first, in portions,
// while events are published.
func moveSlot(ctx context.Context, w *world, rng *rand.Rand) error {
	slot, from, to, err := w.db.holder(ctx, pick(rng, tenantKeys()))
	if err != nil {
		return err
	}
	source, _ := from.client.Do(ctx, "CLUSTER", "MYID").Text()
	target, _ := to.client.Do(ctx, "CLUSTER", "MYID").Text()
	if err := to.do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", source); err != nil {
		return err
	}
	if err := from.do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", target); err != nil {
		return err
	}
	// While it lasts nothing is published to the tenant; that of each dedupe is a key.
	all, err := from.client.ClusterCountKeysInSlot(ctx, slot).Result()
	if err != nil {
		return err
	}
	portion := max(5, int(all)/200)
	for {
		keys, err := from.client.ClusterGetKeysInSlot(ctx, slot, portion).Result()
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			break
		}
		args := []any{"MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS"}
		for _, k := range keys {
			args = append(args, k)
		}
		if err := from.do(ctx, args...); err != nil {
			return err
		}
		if err := pause(ctx, time.Duration(rng.IntN(100))*time.Millisecond); err != nil {
			return err
		}
	}
	for _, n := range append([]*node{to, from}, w.db.primaries(ctx)...) {
		if err := n.do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", target); err != nil {
			return err
		}
	}
	return w.together(ctx)
}
