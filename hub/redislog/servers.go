package redislog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Time-outs of commands where the options name none. A publish has to be
// answered within 5 s, also when Redis is gone: each command gets answerTime in
// all, whatever the options name.
const (
	dialTime   = 2 * time.Second
	replyTime  = 3 * time.Second
	answerTime = 4500 * time.Millisecond
)

// servers is where the log lives: one Redis, one behind Sentinel, or a Cluster.
//
// Its clients repeat nothing: a command whose reply was lost may have run, and
// an event would be in the log twice. For the same reason a Cluster's client
// only says which primary has a key; commands go to that one's own client.
type servers struct {
	// fixed after construction
	client  redis.UniversalClient
	single  *redis.Client        // nil for a Cluster
	cluster *redis.ClusterClient // else nil
	acks    *acks
	off     rule
}

func newServers(o Options) (*servers, error) {
	given := 0
	for _, is := range []bool{o.Redis != nil, o.Sentinel != nil, o.Cluster != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, errors.New("redis: exactly one of a server, a Sentinel and a Cluster must be given")
	}
	s := &servers{acks: newAcks(), off: o.off}
	retries := -1
	if s.off.has(ruleOnce) {
		retries = 3
	}
	switch {
	case o.Redis != nil:
		opt := *o.Redis
		if opt.Addr == "" || opt.StreamingCredentialsProvider != nil {
			return nil, errors.New("redis: an address is needed, and streaming credentials are not supported")
		}
		opt.MaxRetries, opt.DialerRetries, opt.Protocol, opt.ContextTimeoutEnabled = retries, 1, 2, true
		opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout = timeouts(opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout)
		opt.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
		if o.Wrap != nil && opt.Dialer == nil {
			dial := redis.NewDialer(&opt)
			opt.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dial(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return o.Wrap(conn), nil
			}
		}
		s.single = redis.NewClient(&opt)
	case o.Sentinel != nil:
		opt := *o.Sentinel
		if opt.MasterName == "" || len(opt.SentinelAddrs) == 0 || opt.StreamingCredentialsProvider != nil {
			return nil, errors.New("redis: a Sentinel needs addresses and the master's name, and streaming credentials are not supported")
		}
		opt.MaxRetries, opt.DialerRetries, opt.Protocol, opt.ContextTimeoutEnabled = retries, 1, 2, true
		opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout = timeouts(opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout)
		opt.ReplicaOnly = false
		s.single = redis.NewFailoverClient(&opt)
	default:
		opt := *o.Cluster
		if len(opt.Addrs) == 0 || opt.StreamingCredentialsProvider != nil {
			return nil, errors.New("redis: a Cluster needs addresses, and streaming credentials are not supported")
		}
		opt.MaxRetries, opt.DialerRetries, opt.Protocol, opt.ContextTimeoutEnabled = retries, 1, 2, true
		opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout = timeouts(opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout)
		opt.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
		opt.NewClient = func(opt *redis.Options) *redis.Client {
			c := redis.NewClient(opt)
			c.AddHook(dialHook{s.acks})
			return c
		}
		s.cluster = redis.NewClusterClient(&opt)
		s.client = s.cluster
		return s, nil
	}
	s.single.AddHook(dialHook{s.acks})
	s.client = s.single
	return s, nil
}

// timeouts fills in those that the options leave open.
func timeouts(dial, read, write time.Duration) (time.Duration, time.Duration, time.Duration) {
	return cmp.Or(dial, dialTime), cmp.Or(read, replyTime), cmp.Or(write, replyTime)
}

// primary gives the client of the server that has a key.
func (s *servers) primary(ctx context.Context, key string) (*redis.Client, error) {
	if s.cluster == nil {
		return s.single, nil
	}
	node, err := s.cluster.MasterForKey(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("%w: which primary has %s: %w", errNotSent, key, err)
	}
	return node, nil
}

// mapIsOld says that a key was not where the map of the Cluster has it.
func (s *servers) mapIsOld() {
	if s.cluster != nil {
		s.cluster.ReloadState(context.Background()) // returns at once
	}
}

// errNotSent marks an error before anything was sent.
var errNotSent = errors.New("nothing was sent")

// dialHook tells acks of each new connection, and marks the errors of connecting:
// with TLS or Sentinel nothing else tells them from those of a command that is
// under way.
type dialHook struct{ acks *acks }

func (h dialHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if err != nil {
			// Two causes, so that go-redis does not unwrap the mark away.
			return nil, fmt.Errorf("%w: %w", errNotSent, err)
		}
		signal(h.acks.dialed)
		return conn, nil
	}
}

func (dialHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (dialHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
