package redislog

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// A primary that was replaced does not know it at once: until Sentinel, the Cluster
// or the network tells it, it acknowledges publishes that are lost with it, while
// others have announced the new epoch already. Nobody can see that in the log. So
// each instance keeps what it was told, and asks again when it has to do with a server
// that may be another: what turns out to be lost begins an epoch once more, and so is
// announced (see life in prelude.lua).

const (
	// ackAge is for how long an acknowledgement is kept, and until a primary was asked of
	// it: longer than one that was replaced goes on.
	ackAge = 10 * time.Minute
	// recheck is how long after a connection was made what was acknowledged is asked
	// for: for all that are made then.
	recheck = time.Second
	// poll is how often each server is asked of something, for who has nothing else to say
	// to it, and so would not find out.
	poll = 10 * time.Second
	// atOnce is of how many acks a primary is asked at once: after a failover it has to be
	// asked of every tenant's.
	atOnce = 8
)

// acks has the newest acknowledgement of each tenant in each epoch.
type acks struct {
	dialed chan struct{} // of one; wakes check; never closed

	mu     sync.Mutex
	newest map[life]ack // guarded by mu
}

// life is an epoch of a tenant.
type life struct{ tenant, epoch string }

type ack struct {
	seq uint64
	at  time.Time
	// Lives of primaries, as their master_replid has it; empty: not known, or none.
	of    string // the one that the epoch belongs to
	asked string // the one that was asked of this ack
}

func newAcks() *acks {
	return &acks{dialed: make(chan struct{}, 1), newest: map[life]ack{}}
}

// note keeps that a primary has named an epoch as its own, and a seq in it.
func (a *acks) note(of life, seq uint64) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.newest[of]
	a.newest[of] = ack{max(seq, was.seq), now, was.of, ""}
}

// all gives what is kept.
func (a *acks) all() map[life]ack {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.newest)
}

// answered keeps that the primary of some life was asked of an ack; its: the epoch
// belongs to that.
func (a *acks) answered(of life, it ack, primary string, its bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, is := a.newest[of]
	if !is {
		return
	}
	if its {
		now.of = primary
	}
	if now.at.Equal(it.at) { // no other came meanwhile
		now.asked = primary
	}
	a.newest[of] = now
}

// settled: a primary has been asked of an ack, and what is too old goes.
func (a *acks) settled(of life, it ack) {
	if time.Since(it.at) <= ackAge {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.newest[of].at.Equal(it.at) {
		delete(a.newest, of)
	}
}

// check asks for what was acknowledged, a second after each new connection and every ten
// seconds, until ctx ends.
func (l *Log) check(ctx context.Context) {
	polling := time.NewTicker(poll)
	defer polling.Stop()
	if l.servers.off.has(rulePoll) {
		polling.Stop()
	}
	for {
		dialed := false
		select {
		case <-ctx.Done():
			return
		case <-polling.C:
		case <-l.servers.acks.dialed:
			if dialed = true; sleep(ctx, recheck) != nil {
				return
			}
		}
		if !l.checkAll(ctx, dialed) {
			signal(l.servers.acks.dialed) // soon again
		}
	}
}

// checkAll asks each primary of what it acknowledged, or another in its place, side by
// side. It says whether none refused.
func (l *Log) checkAll(ctx context.Context, dialed bool) bool {
	all := l.servers.acks.all()
	of := map[*redis.Client][]life{}
	for it := range all {
		node, err := l.servers.primary(ctx, keysOf(it.tenant).channel())
		if err != nil {
			return false
		}
		of[node] = append(of[node], it)
	}
	var refused atomic.Bool
	var asking sync.WaitGroup
	for _, lives := range of {
		asking.Go(func() {
			if !l.checkPrimary(ctx, lives, all, dialed) {
				refused.Store(true)
			}
		})
	}
	asking.Wait()
	return !refused.Load()
}

// checkPrimary asks a primary of one ack, which names its life, and of the others where
// it has not been asked since, and is of another life than the epoch; of all where lives
// are not told, if there is a new connection. One that refuses is asked no more. It says
// whether it did not.
func (l *Log) checkPrimary(ctx context.Context, lives []life, all map[life]ack, dialed bool) bool {
	now, err := l.touch(ctx, lives[0], all[lives[0]])
	if err != nil {
		return false
	}
	var refused atomic.Bool
	var asking sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for n, of := range lives {
		it := all[of]
		if n == 0 || (now == it.of || now == it.asked) && (now != "" || !dialed) {
			l.servers.acks.settled(of, it)
			continue
		}
		places <- struct{}{}
		if refused.Load() {
			break
		}
		asking.Go(func() {
			defer func() { <-places }()
			if _, err := l.touch(ctx, of, it); err != nil {
				refused.Store(true)
				return
			}
			l.servers.acks.settled(of, it)
		})
	}
	asking.Wait()
	return !refused.Load()
}

// touch has a new epoch begun for a tenant if what was acknowledged is lost and may not
// have been announced; a primary that has nothing new to say of it only names its life.
// It gives that life.
func (l *Log) touch(ctx context.Context, of life, it ack) (primary string, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	args := []any{newEpoch(), of.epoch, it.seq, time.Since(it.at).Milliseconds(), it.of, it.asked}
	answer, err := l.servers.eval(ctx, touchScript, keysOf(of.tenant).fixed(0), args)
	if err != nil {
		return "", err
	}
	list, ok := answer.([]any)
	if !ok || len(list) != 2 {
		return "", errAnswer
	}
	primary, ok1 := list[0].(string)
	epoch, ok2 := list[1].(string)
	if !ok1 || !ok2 {
		return "", errAnswer
	}
	l.servers.acks.answered(of, it, primary, epoch == of.epoch)
	return primary, nil
}
