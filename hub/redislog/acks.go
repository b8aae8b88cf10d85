package redislog

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/pushhub/pushhub/protocol"
)

// A primary that was replaced does not know it at once: until Sentinel, the Cluster
// or the network tells it, it acknowledges publishes that are lost with it, while
// others have announced the new epoch already. Nobody can see that in the log. So
// each instance keeps what it was told, and asks again when it has a connection to a
// server that may be another: what turns out to be lost begins an epoch once more,
// and so is announced (see life in prelude.lua).

const (
	// ackAge is for how long an acknowledgement is kept: longer than a primary that
	// was replaced goes on.
	ackAge = 10 * time.Minute
	// recheck is how long after a connection was made what was acknowledged is asked
	// for: for all that are made then.
	recheck = time.Second
	// poll is how often a server is asked of something, whatever else it is asked.
	poll = 10 * time.Second
)

// acks has the newest acknowledgement of each tenant in each epoch.
type acks struct {
	dialed chan struct{} // of one; wakes check; never closed

	mu     sync.Mutex
	newest map[life]ack // guarded by mu
	prune  int          // so many are too many; guarded by mu
}

// life is an epoch of a tenant.
type life struct{ tenant, epoch string }

type ack struct {
	seq uint64
	at  time.Time
}

func newAcks() *acks {
	return &acks{dialed: make(chan struct{}, 1), newest: map[life]ack{}}
}

// note keeps what a publish or an append was answered. What a dedupe brought may be of long ago:
// the newest is the one with the greatest seq, which no epoch begins again.
func (a *acks) note(tenant string, cursors []protocol.Cursor) {
	newest := cursors[0]
	for _, c := range cursors[1:] {
		if c.Seq > newest.Seq {
			newest = c
		}
	}
	of, now := life{tenant, newest.Epoch}, time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.newest[of] = ack{max(newest.Seq, a.newest[of].seq), now}
	if len(a.newest) > a.prune {
		a.forget()
		a.prune = 2*len(a.newest) + 100
	}
}

// forget lets go of what is too old. With mu held.
func (a *acks) forget() {
	for of, it := range a.newest {
		if time.Since(it.at) > ackAge {
			delete(a.newest, of)
		}
	}
}

// recent gives what is not too old.
func (a *acks) recent() map[life]ack {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget()
	return maps.Clone(a.newest)
}

// check asks for what was acknowledged, after each new connection, until ctx ends. An
// instance that has nothing else to say to a server finds out by asking each one of
// something, from time to time: so it connects anew where it has to.
func (l *Log) check(ctx context.Context) {
	polling := time.NewTicker(poll)
	defer polling.Stop()
	if l.servers.off.has(rulePoll) {
		polling.Stop()
	}
	for {
		all := false
		select {
		case <-ctx.Done():
			return
		case <-polling.C:
		case <-l.servers.acks.dialed:
			all = true
			if sleep(ctx, recheck) != nil {
				return
			}
		}
		asked := map[*redis.Client]bool{}
		for of, it := range l.servers.acks.recent() {
			if node, err := l.servers.primary(ctx, keysOf(of.tenant).channel()); err == nil {
				if asked[node] && !all {
					continue
				}
				asked[node] = true
			}
			if l.touch(ctx, of, it) != nil {
				signal(l.servers.acks.dialed) // soon again
				break
			}
		}
	}
}

// touch has a new epoch begun for a tenant if what was acknowledged is lost and
// may not have been announced.
func (l *Log) touch(ctx context.Context, of life, it ack) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	args := []any{newEpoch(), of.epoch, it.seq, time.Since(it.at).Milliseconds()}
	_, err := l.servers.eval(ctx, touchScript, keysOf(of.tenant).fixed(0), args)
	return err
}
