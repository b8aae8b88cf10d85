package main

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// The keys of the check lie beside those of the hub, under a hash tag that is no
// tenant's.
const (
	probeKey     = "pushhub:{.check}:probe"
	probeChannel = "pushhub:{.check}:live"
	probeTime    = 10 * time.Second // after which the key goes by itself
)

// minClock is the difference of clocks that is worth a word: retention by age and
// tokens live by them.
const minClock = 2 * time.Second

// checkRedis asks a Redis whether it can carry the log.
func checkRedis(ctx context.Context, f *findings, place *redisPlace) {
	ctx, cancel := context.WithTimeout(ctx, 4*checkTime)
	defer cancel()
	client := place.client()
	defer client.Close()
	begin := time.Now()
	if err := client.Ping(ctx).Err(); err != nil {
		f.fail("%s cannot be used: %v", place, err)
		return
	}
	f.ok("%s answers in %v", place, time.Since(begin).Round(10*time.Microsecond))
	primaries, err := primariesOf(ctx, client)
	if err != nil {
		f.fail("which primaries it has is not known: %v", err)
		return
	}
	for _, primary := range primaries {
		if place.cluster != nil {
			f.ok("primary at %s:", primary.Options().Addr)
		}
		checkServer(ctx, f, primary, place.cluster != nil)
	}
	checkScripts(ctx, f, client)
	checkChannel(ctx, f, client)
	checkKeys(ctx, f, primaries)
}

// client gives a client for the check, which repeats nothing.
func (p *redisPlace) client() redis.UniversalClient {
	off := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch {
	case p.sentinel != nil:
		o := *p.sentinel
		o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = -1, 1, true
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout = checkTime, checkTime, checkTime
		return redis.NewFailoverClient(&o)
	case p.cluster != nil:
		o := *p.cluster
		o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = -1, 1, true
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout = checkTime, checkTime, checkTime
		o.MaintNotificationsConfig = off
		return redis.NewClusterClient(&o)
	}
	o := *p.one
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = -1, 1, true
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = checkTime, checkTime, checkTime
	o.MaintNotificationsConfig = off
	return redis.NewClient(&o)
}

// primariesOf gives a client for each primary, by address.
func primariesOf(ctx context.Context, client redis.UniversalClient) ([]*redis.Client, error) {
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		return []*redis.Client{client.(*redis.Client)}, nil
	}
	var mu sync.Mutex
	var all []*redis.Client
	err := cluster.ForEachMaster(ctx, func(_ context.Context, primary *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, primary)
		return nil
	})
	slices.SortFunc(all, func(a, b *redis.Client) int { return cmp.Compare(a.Options().Addr, b.Options().Addr) })
	return all, err
}

// checkServer looks at one server.
func checkServer(ctx context.Context, f *findings, client *redis.Client, inCluster bool) {
	text, err := client.Info(ctx, "server", "memory", "persistence", "replication", "cluster").Result()
	if err != nil {
		f.warn("its version and settings are not known: %v", err)
	} else {
		info := parseInfo(text)
		checkVersion(f, info)
		checkMemory(f, info)
		checkPersistence(f, info)
		if info["role"] == "slave" {
			f.fail("this is a replica: the hub needs the primary")
		}
		if info["cluster_enabled"] == "1" && !inCluster {
			f.fail("this is a node of a Redis Cluster: give the addresses of several, joined by commas")
		}
	}
	checkClock(ctx, f, client)
}

// parseInfo reads what INFO says.
func parseInfo(text string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}

func checkVersion(f *findings, info map[string]string) {
	version := info["redis_version"]
	if v := info["valkey_version"]; v != "" {
		f.ok("it is Valkey %s", v)
		return
	}
	major, err := strconv.Atoi(strings.SplitN(version, ".", 2)[0])
	switch {
	case err != nil:
		f.warn("its version is not known; 7.0 or newer is needed")
	case major < 7:
		f.fail("it is Redis %s: 7.0 or newer is needed", version)
	default:
		f.ok("it is Redis %s", version)
	}
}

// checkMemory looks at what happens when memory is full. With noeviction publishes
// are refused; with volatile-* the oldest retained events may go, which clients
// are told as gaps.
func checkMemory(f *findings, info map[string]string) {
	policy := info["maxmemory_policy"]
	switch {
	case policy != "noeviction" && !strings.HasPrefix(policy, "volatile-"):
		f.warn("maxmemory-policy is %s: when memory is full, tenants lose their place in the sequence; set noeviction", policy)
	case info["maxmemory"] == "0":
		f.ok("maxmemory is not set")
	default:
		f.ok("maxmemory is %s, with %s", info["maxmemory_human"], policy)
	}
}

func checkPersistence(f *findings, info map[string]string) {
	if info["aof_enabled"] == "1" {
		f.ok("writes are persisted (AOF)")
	} else {
		f.warn("AOF is off: a restart of Redis loses the events since its last snapshot")
	}
	for name, what := range map[string]string{"aof_last_write_status": "write of the AOF", "rdb_last_bgsave_status": "snapshot"} {
		if status := info[name]; status != "ok" && status != "" {
			f.fail("the last %s went wrong: %s", what, status)
		}
	}
}

// checkScripts does what a publish does: it asks INFO in a script, and writes.
func checkScripts(ctx context.Context, f *findings, client redis.UniversalClient) {
	err := client.Eval(ctx, `return redis.call('INFO', 'replication')`, nil).Err()
	if err != nil {
		f.warn("scripts may not ask INFO (allow +info): that events were lost in a failover is seen only by an instance that knew them")
	} else {
		f.ok("scripts may ask INFO: a failover is seen at the first publish after it")
	}
	err = client.Eval(ctx, `
		redis.call('XADD', KEYS[1], '*', 'a', 'b')
		redis.call('PEXPIRE', KEYS[1], ARGV[1])
		return redis.call('SPUBLISH', ARGV[2], 'probe')`,
		[]string{probeKey}, probeTime.Milliseconds(), probeChannel).Err()
	if err != nil {
		f.fail("scripts may not write and publish: %v", err)
		return
	}
	f.ok("scripts may write and publish")
}

// checkChannel does what an instance does that listens.
func checkChannel(ctx context.Context, f *findings, client redis.UniversalClient) {
	sub := client.SSubscribe(ctx, probeChannel)
	defer sub.Close()
	if _, err := sub.ReceiveTimeout(ctx, checkTime); err != nil {
		f.fail("the live channel cannot be subscribed (SSUBSCRIBE): %v", err)
		return
	}
	sent := strconv.FormatInt(time.Now().UnixNano(), 36)
	if err := client.SPublish(ctx, probeChannel, sent).Err(); err != nil {
		f.fail("SPUBLISH is refused: %v", err)
		return
	}
	for {
		m, err := sub.ReceiveTimeout(ctx, checkTime)
		if err != nil {
			f.fail("the live channel is deaf: %v", err)
			return
		}
		if m, ok := m.(*redis.Message); ok && m.Payload == sent {
			f.ok("the live channel is heard")
			return
		}
	}
}

// scanned bounds the keys of a server that are looked at to count tenants.
const scanned = 100_000

// checkKeys reads what hubs have left there.
func checkKeys(ctx context.Context, f *findings, primaries []*redis.Client) {
	tenants, all, sample := 0, true, ""
	var of *redis.Client // has the sample
	for _, client := range primaries {
		var cursor uint64
		for looked := 0; looked < scanned; looked += 1000 {
			keys, next, err := client.Scan(ctx, cursor, "pushhub:{*}:m", 1000).Result()
			if err != nil {
				f.warn("keys cannot be listed: %v", err)
				return
			}
			if len(keys) > 0 {
				tenants, sample, of = tenants+len(keys), keys[0], client
			}
			if cursor = next; cursor == 0 {
				break
			}
		}
		all = all && cursor == 0
	}
	count := strconv.Itoa(tenants)
	if !all {
		count = "at least " + count
	}
	if sample == "" {
		f.ok("no tenant has a log there yet")
		return
	}
	if err := of.HGetAll(ctx, sample).Err(); err != nil {
		f.fail("the log of a tenant cannot be read: %v", err)
		return
	}
	f.ok("tenants with a log there: %s", count)
}

func checkClock(ctx context.Context, f *findings, client *redis.Client) {
	begin := time.Now()
	theirs, err := client.Time(ctx).Result()
	if err != nil {
		f.fail("TIME is refused: %v", err)
		return
	}
	took := time.Since(begin)
	off := theirs.Sub(begin.Add(took / 2))
	if off.Abs() > minClock+took {
		f.warn("its clock is %v off from this machine's", off.Round(time.Millisecond))
		return
	}
	f.ok("its clock agrees with this machine's to %v", (minClock + took).Round(time.Second))
}
