package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Where the log is kept.
const (
	Standalone = "standalone" // one server, with an append-only file
	Sentinel   = "sentinel"   // a primary, two replicas, three Sentinels
	Cluster    = "cluster"    // three primaries with a replica each
)

// A database is the Redis of a run. Its methods are for one goroutine at a time.
type database struct {
	kind  string
	nodes []*node       // servers; of a Cluster the primaries first, then their replicas
	guard []*node       // Sentinels
	raw   *redis.Client // for PUBLISH; not of a Cluster
	at    atomic.Int32  // of a Cluster: the node that is published to
}

// node is one redis-server.
type node struct {
	process
	port   int
	dir    string
	client *redis.Client
}

// master is the name that Sentinel knows the primary by.
const master = "main"

func startDatabase(ctx context.Context, kind, dir string, free *ports, log io.Writer) (d *database, err error) {
	d = &database{kind: kind}
	defer func() {
		if err != nil {
			d.stop()
		}
	}()
	switch kind {
	case Standalone:
		err = d.startOne(ctx, dir, free, log)
	case Sentinel:
		err = d.startSentinel(ctx, dir, free, log)
	case Cluster:
		err = d.startCluster(ctx, dir, free, log)
	default:
		err = fmt.Errorf("no such kind of Redis: %q", kind)
	}
	return d, err
}

func (d *database) startOne(ctx context.Context, dir string, free *ports, log io.Writer) error {
	n, err := startNode(ctx, dir, free, log, "--appendonly", "yes", "--appendfsync", "everysec")
	if err != nil {
		return err
	}
	d.nodes = append(d.nodes, n)
	d.raw = redis.NewClient(&redis.Options{Addr: n.addr(), MaxRetries: -1, DialTimeout: time.Second, MaintNotificationsConfig: quietly()})
	return nil
}

func (d *database) startSentinel(ctx context.Context, dir string, free *ports, log io.Writer) error {
	primary, err := startNode(ctx, dir, free, log)
	if err != nil {
		return err
	}
	d.nodes = append(d.nodes, primary)
	for range 2 {
		n, err := startNode(ctx, dir, free, log, "--replicaof", "127.0.0.1 "+strconv.Itoa(primary.port), "--repl-diskless-sync-delay", "0")
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, n)
	}
	var addrs []string
	for range 3 {
		port, err := free.take()
		if err != nil {
			return err
		}
		conf := filepath.Join(dir, fmt.Sprintf("sentinel-%d.conf", port))
		text := fmt.Sprintf("sentinel monitor %[1]s 127.0.0.1 %[2]d 2\nsentinel down-after-milliseconds %[1]s 2000\nsentinel failover-timeout %[1]s 6000\n", master, primary.port)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return err
		}
		n := &node{port: port, dir: dir}
		n.process = process{name: "sentinel " + strconv.Itoa(port), path: "redis-server", log: log,
			args: []string{conf, "--sentinel", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir}}
		n.client = n.newClient()
		if err := n.up(ctx); err != nil {
			return err
		}
		d.guard = append(d.guard, n)
		addrs = append(addrs, n.addr())
	}
	d.raw = redis.NewFailoverClient(&redis.FailoverOptions{MasterName: master, SentinelAddrs: addrs, MaxRetries: -1, DialTimeout: time.Second})
	return await(ctx, "Sentinels know the replicas and each other", func() bool {
		for _, s := range d.guard {
			info := s.client.Do(ctx, "SENTINEL", "MASTER", master).String()
			if !strings.Contains(info, "num-slaves 2") || !strings.Contains(info, "num-other-sentinels 2") {
				return false
			}
		}
		return d.inStep(ctx, 1)
	})
}

// inStep says whether there are so many primaries, and every other server is
// connected to one.
func (d *database) inStep(ctx context.Context, primaries int) bool {
	found := 0
	for _, n := range d.nodes {
		switch info := n.info(ctx); {
		case info["role"] == "master":
			found++
		case info["master_link_status"] != "up":
			return false
		}
	}
	return found == primaries
}

func (d *database) startCluster(ctx context.Context, dir string, free *ports, log io.Writer) error {
	var buses []int
	for range 6 {
		bus, err := free.take()
		if err != nil {
			return err
		}
		buses = append(buses, bus)
		n, err := startNode(ctx, dir, free, log, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus), "--cluster-node-timeout", "2000", "--appendonly", "no",
			"--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, n)
	}
	ids := make([]string, len(d.nodes))
	for i, n := range d.nodes {
		ids[i], _ = n.client.Do(ctx, "CLUSTER", "MYID").Text()
		if err := n.do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1); err != nil {
			return err
		}
		if i > 0 {
			if err := d.nodes[0].do(ctx, "CLUSTER", "MEET", "127.0.0.1", n.port, buses[i]); err != nil {
				return err
			}
		}
	}
	for i := range 3 {
		if err := d.nodes[i].do(ctx, "CLUSTER", "ADDSLOTSRANGE", i*16384/3, (i+1)*16384/3-1); err != nil {
			return err
		}
	}
	for i := range 3 {
		err := await(ctx, "a replica is taken", func() bool { return d.nodes[3+i].do(ctx, "CLUSTER", "REPLICATE", ids[i]) == nil })
		if err != nil {
			return err
		}
	}
	return await(ctx, "the Cluster is there", func() bool { return d.whole(ctx) && d.inStep(ctx, 3) })
}

// whole says whether every node of a Cluster knows where every slot is.
func (d *database) whole(ctx context.Context) bool {
	for _, n := range d.nodes {
		info, err := n.client.ClusterInfo(ctx).Result()
		if err != nil || !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:6") {
			return false
		}
	}
	return true
}

// settings says to an instance where the log is.
func (d *database) settings(through links) []string {
	if d.kind == Sentinel {
		return []string{"REDIS_URL=redis://" + through[len(d.nodes):].addrs(), "REDIS_SENTINEL_MASTER=" + master}
	}
	return []string{"REDIS_URL=redis://" + through.addrs()}
}

// publish publishes raw, and says how many heard it. In a Cluster all is published
// to one node until that fails: over several, order would be nobody's.
func (d *database) publish(ctx context.Context, channel string, payload []byte) (int64, error) {
	client := d.raw
	at := d.at.Load()
	if d.kind == Cluster {
		client = d.nodes[int(at)%len(d.nodes)].client
	}
	heard, err := client.Publish(ctx, channel, payload).Result()
	if err != nil {
		d.at.CompareAndSwap(at, at+1)
	}
	return heard, err
}

// primaries gives the servers that are primaries by their own word.
func (d *database) primaries(ctx context.Context) []*node {
	return slices.DeleteFunc(slices.Clone(d.nodes), func(n *node) bool { return n.info(ctx)["role"] != "master" })
}

// holder gives the slot of a key, the primary that has it, and another, of a Cluster.
func (d *database) holder(ctx context.Context, key string) (slot int, has, other *node, err error) {
	n, err := d.nodes[0].client.ClusterKeySlot(ctx, key).Result()
	if err != nil {
		return 0, nil, nil, err
	}
	slot = int(n)
	for _, n := range d.primaries(ctx) {
		if keys, err := n.client.ClusterCountKeysInSlot(ctx, slot).Result(); err == nil && keys > 0 {
			has = n
		} else {
			other = n
		}
	}
	if has == nil || other == nil {
		return 0, nil, nil, fmt.Errorf("slot %d is nowhere", slot)
	}
	return slot, has, other, nil
}

// lives gives the lives of the primaries. Several goroutines may call it.
func (d *database) lives(ctx context.Context) map[string]bool {
	all := map[string]bool{}
	for _, n := range d.primaries(ctx) {
		all[n.info(ctx)["master_replid"]] = true
	}
	delete(all, "") // one that does not answer
	return all
}

// reads gives how often the log was read so far, of all servers that answer.
func (d *database) reads(ctx context.Context) (sum int64) {
	for _, n := range d.nodes {
		for _, name := range []string{"evalsha_ro", "eval_ro"} {
			stats := n.client.Info(ctx, "commandstats").Val()
			_, calls, _ := strings.Cut(stats, "cmdstat_"+name+":calls=")
			calls, _, _ = strings.Cut(calls, ",")
			n, _ := strconv.ParseInt(calls, 10, 64)
			sum += n
		}
	}
	return sum
}

// replicasOf gives the servers that follow a primary.
func (d *database) replicasOf(ctx context.Context, primary *node) []*node {
	return slices.DeleteFunc(slices.Clone(d.nodes), func(n *node) bool {
		return n.info(ctx)["master_port"] != strconv.Itoa(primary.port)
	})
}

func (d *database) stop() {
	if d.raw != nil {
		_ = d.raw.Close()
	}
	for _, n := range slices.Concat(d.guard, d.nodes) {
		n.kill()
		_ = n.client.Close()
	}
}

func startNode(ctx context.Context, dir string, free *ports, log io.Writer, args ...string) (*node, error) {
	port, err := free.take()
	if err != nil {
		return nil, err
	}
	n := &node{port: port, dir: filepath.Join(dir, "redis-"+strconv.Itoa(port))}
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		return nil, err
	}
	n.process = process{name: "redis " + strconv.Itoa(port), path: "redis-server", log: log,
		args: append([]string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", n.dir, "--save", ""}, args...)}
	n.client = n.newClient()
	return n, n.up(ctx)
}

func (n *node) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port)) }

func (n *node) newClient() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: n.addr(), Protocol: 2, MaxRetries: -1, DialTimeout: time.Second, ReadTimeout: 10 * time.Second, MaintNotificationsConfig: quietly()})
}

// silent takes what go-redis would write to standard error: its servers are gone on
// purpose here.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func init() { redis.SetLogger(silent{}) }

func quietly() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// up starts the server and waits until it takes commands.
func (n *node) up(ctx context.Context) error {
	if err := n.start(); err != nil {
		return err
	}
	return n.answers(ctx)
}

// answers waits until the server takes commands.
func (n *node) answers(ctx context.Context) error {
	return await(ctx, n.name+" answers", func() bool {
		err := n.client.Ping(ctx).Err()
		return err == nil || strings.HasPrefix(err.Error(), "MASTERDOWN")
	})
}

func (n *node) do(ctx context.Context, args ...any) error {
	if err := n.client.Do(ctx, args...).Err(); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("%s: %v: %w", n.name, args, err)
	}
	return nil
}

// info gives what INFO says; nothing where the server does not answer.
func (n *node) info(ctx context.Context) map[string]string {
	all := map[string]string{}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for line := range strings.Lines(n.client.Info(ctx, "replication", "persistence", "server", "memory", "stats").Val()) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			all[name] = value
		}
	}
	return all
}

// patience bounds what is waited for.
const patience = 60 * time.Second

// await asks until the answer is yes.
func await(ctx context.Context, what string, yes func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited too long: %s", what))
	defer cancel()
	for !yes() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
