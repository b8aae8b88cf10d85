package redislog

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/pushhub/pushhub/hub"
)

// Options of a Log. Exactly one of Redis, Sentinel and Cluster is given; they are
// copied. What is said in them about retries, protocol and maintenance
// notifications does not count, and reads go to the primary.
type Options struct {
	Redis    *redis.Options         // one server, e.g. from redis.ParseURL
	Sentinel *redis.FailoverOptions // one server of several, which Sentinel names
	Cluster  *redis.ClusterOptions

	// Wrap is given each connection to Redis, and gives what is used instead; with
	// Sentinel and Cluster it is not. Optional.
	Wrap func(net.Conn) net.Conn

	Retention hub.Retention // required

	// OnState is told when Redis went away (err says why) and when it is back;
	// first when it is there, or not, after Open. Calls come one after the other,
	// and must not take long. Optional.
	OnState func(up bool, err error)

	off rule // rules that a test has switched off
}

// Log is a hub.Log in Redis. Its methods may be called by several goroutines at
// once.
type Log struct {
	// fixed after construction
	servers   *servers
	retention hub.Retention
	oldest    time.Duration // the greatest age of the retention
	live      *live
	close     func() error // once
}

// Open begins to connect, and returns without waiting for that: Redis may come
// later. Errors are about the options. The Log must be closed.
func Open(opts Options) (*Log, error) { return open(opts, defaultPace) }

func open(opts Options, p pace) (*Log, error) {
	if len(opts.Retention) == 0 {
		return nil, errors.New("redis: there is no retention")
	}
	s, err := newServers(opts)
	if err != nil {
		return nil, err
	}
	l := &Log{servers: s, retention: opts.Retention}
	for _, rule := range opts.Retention {
		l.oldest = max(l.oldest, rule.Age)
	}
	l.live = newLive(s, opts.OnState, p)
	l.live.work.Go(func() { l.check(l.live.ctx) })
	l.close = sync.OnceValue(func() error {
		l.live.close()
		return s.client.Close()
	})
	return l, nil
}

// Close ends the log and waits for its goroutines: after it the Listener is told
// nothing, not even Lost. It must not be called from a Listener or OnState.
func (l *Log) Close() error { return l.close() }

// Client gives the client of the log, for others that need the same Redis. It
// repeats nothing on its own unless it is a Cluster's, which does.
func (l *Log) Client() redis.UniversalClient { return l.servers.client }

// Listen implements hub.Log.
func (l *Log) Listen(listener hub.Listener) { l.live.listen(listener) }

// Watch implements hub.Log.
func (l *Log) Watch(tenant string) { l.live.watch(tenant) }

// Unwatch implements hub.Log.
func (l *Log) Unwatch(tenant string) { l.live.unwatch(tenant) }

// Reset implements hub.Log. All tenants on the same connection are Lost with it.
func (l *Log) Reset(tenant string) { l.live.reset(tenant) }

// Down says for how long Redis has been away, 0 when it is there. It is there
// when the live connection is, which is asked at least every 10 s, also when no
// tenant is watched; of a Cluster, when every primary is that a watched tenant
// needs. Until it was there for the first time it has been away since Open.
func (l *Log) Down() time.Duration { return l.live.downFor() }

// Up says whether Redis is there (see Down).
func (l *Log) Up() bool { return l.Down() == 0 }

// Stats counts what happened since Open.
type Stats struct {
	Reconnects uint64 // live connections that were lost after they had been made
	Malformed  uint64 // records that could not be read: each is a hole for the hub
}

// Stats gives the counters.
func (l *Log) Stats() Stats {
	return Stats{Reconnects: l.live.reconnects.Load(), Malformed: l.live.malformed.Load()}
}
