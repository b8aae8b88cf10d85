// Package memlog is the log in memory: the default of a hub that has no Redis,
// and the reference for the contract of hub.Log. It is one process's own: what
// is in it ends with the process.
//
// Each tenant has a lock, and whatever happens to the tenant happens under it:
// that is what makes a Publish all or none, a Look one moment, and the calls of
// the Listener one after the other.
//
// Locks, in the order in which they are taken: a tenant's; then those of the
// Listener, which is called under it, so that it must not call Publish or Look.
// Watch, Unwatch and Reset only leave a note under a lock of their own, below
// which nothing is called: they may be called under any lock, and from a callback.
//
// Memory: events go with their count and age, topics and dedupes with their age,
// also when nothing is published any more. What stays of an idle tenant is its
// epoch and seqs, because its clients may come back with a cursor: a few hundred
// bytes.
package memlog

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// sweepEvery is how often what has grown too old is looked for. The contract
// lets age count "to about a minute".
const sweepEvery = time.Minute

// Options of a Log. The zero value is good.
type Options struct {
	Retention hub.Retention // nil: hub.DefaultRetention
	// Now gives the time that is said of events that bring none; nil: time.Now. Nothing
	// depends on it: ages go by the monotonic clock, and do not mind when it jumps.
	Now func() time.Time
}

// Log implements hub.Log.
type Log struct {
	// Fixed after construction.
	retention hub.Retention
	now       func() time.Time
	began     time.Time
	closed    chan struct{} // closed by Close
	done      chan struct{} // closed when run has returned
	close     func()        // closes closed, once

	// Set by Listen, fixed once a tenant is watched.
	listener hub.Listener

	mu      sync.RWMutex // a leaf: nothing is locked or called under it
	tenants map[string]*tenant

	notes notes
}

// New gives a Log. It must be closed.
func New(opts Options) *Log {
	if opts.Retention == nil {
		opts.Retention, _ = hub.ParseRetention(hub.DefaultRetention) // a constant that is right
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	l := &Log{
		retention: opts.Retention,
		now:       opts.Now,
		began:     time.Now(),
		closed:    make(chan struct{}),
		done:      make(chan struct{}),
		tenants:   make(map[string]*tenant),
		notes:     newNotes(),
	}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	go l.run()
	return l
}

// Close ends the log: no callback comes after it, and what is asked then is
// answered with hub.ErrUnavailable. It waits for a callback that is under way, so
// it is not called from one, nor under a lock that the Listener takes.
func (l *Log) Close() {
	l.close()
	<-l.done
	// A Publish that came before may still be at its callbacks.
	for _, t := range l.all() {
		t.mu.Lock()
		t.watched = false
		t.mu.Unlock()
	}
}

// run tells the Listener what Watch, Unwatch and Reset asked for, and frees what
// is too old, until Close.
func (l *Log) run() {
	defer close(l.done)
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-l.closed:
			return
		case <-l.notes.wake:
			l.tell()
		case <-sweep.C:
			for _, t := range l.all() {
				t.mu.Lock()
				t.sweep(l.clock())
				t.mu.Unlock()
			}
		}
	}
}

// Publish implements hub.Log. It tells the Listener before it returns.
func (l *Log) Publish(ctx context.Context, tenant string, events []protocol.Publication) ([]protocol.Cursor, error) {
	if err := l.check(ctx); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	cursors := make([]protocol.Cursor, len(events))
	t := l.tenant(tenant)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := l.now()
	t.begin(l.clock())
	for i := range events {
		e, first := t.append(&events[i], now, l.retention)
		cursors[i] = first
		if e != nil && t.watched && !t.deaf {
			l.listener.Live(tenant, e)
		}
	}
	return cursors, nil
}

// Look implements hub.Log. The events of one answer are about 1 MiB, or one for
// each topic.
func (l *Log) Look(ctx context.Context, tenant string, q hub.Query) (hub.View, error) {
	if err := l.check(ctx); err != nil {
		return hub.View{}, fmt.Errorf("look: %w", err)
	}
	t := l.tenant(tenant)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin(l.clock())
	return t.look(q), nil
}

// clock gives the ms since the log was made.
func (l *Log) clock() int64 { return time.Since(l.began).Milliseconds() }

// check says why the log does not answer, if so.
func (l *Log) check(ctx context.Context) error {
	select {
	case <-l.closed:
		return hub.ErrUnavailable
	default:
		return ctx.Err()
	}
}

// tenant gives the tenant's state, made when needed and kept for ever.
func (l *Log) tenant(name string) *tenant {
	l.mu.RLock()
	t := l.tenants[name]
	l.mu.RUnlock()
	if t != nil {
		return t
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t = l.tenants[name]; t == nil {
		t = &tenant{}
		l.tenants[name] = t
	}
	return t
}

func (l *Log) all() []*tenant {
	l.mu.RLock()
	defer l.mu.RUnlock()
	all := make([]*tenant, 0, len(l.tenants))
	for _, t := range l.tenants {
		all = append(all, t)
	}
	return all
}
