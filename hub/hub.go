package hub

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/pushhub/pushhub/protocol"
)

// Options of a Hub. The zero value of each has the default that it names.
type Options struct {
	Logger zerolog.Logger // the zero Logger writes nothing
	// Verify is how often a tenant checks that its channel is not deaf. Default 20 s.
	Verify time.Duration
	// Linger is how long a tenant is watched on after its last client left.
	// Default 10 s.
	Linger time.Duration
}

// Hub holds the sessions of one instance and hands them the events of its Log.
// Its methods may be called by several goroutines at once.
type Hub struct {
	// fixed after construction
	log    Log
	opts   Options
	stats  Stats
	off    rule // rules that a test has switched off
	bounds bounds

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // keepers and the operations of sessions: see start

	ending sync.Mutex // a leaf
	ended  bool       // guarded by ending: nothing starts any more

	mu      sync.RWMutex
	tenants map[string]*tenant // guarded by mu
}

// Stats counts what happened since the start. Every field may be read at any time.
type Stats struct {
	Sessions      atomic.Int64
	Subscriptions atomic.Int64
	Topics        atomic.Int64 // distinct topics and patterns, per tenant
	Deliveries    atomic.Int64 // live events handed to sessions
	Replayed      atomic.Int64 // retained events handed to sessions
	GapsExpired   atomic.Int64
	GapsEpoch     atomic.Int64
	Heals         atomic.Int64 // tenants that held and came back
	Healed        atomic.Int64 // events between where they held and where they came back
	Reads         atomic.Int64 // Looks for sessions that the log answered
	SharedReads   atomic.Int64 // Looks for sessions that were answered from memory
}

// New makes a Hub on a log and becomes the log's Listener.
func New(log Log, opts Options) *Hub {
	if opts.Verify <= 0 {
		opts.Verify = 20 * time.Second
	}
	if opts.Linger <= 0 {
		opts.Linger = 10 * time.Second
	}
	h := &Hub{log: log, opts: opts, bounds: usual, tenants: map[string]*tenant{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	log.Listen(h)
	return h
}

// Close ends all sessions' operations and waits for every goroutine of the Hub.
// The log stays open.
func (h *Hub) Close() {
	h.cancel()
	h.mu.Lock()
	for _, t := range h.tenants {
		t.shut()
	}
	clear(h.tenants)
	h.mu.Unlock()
	h.ending.Lock()
	h.ended = true
	h.ending.Unlock()
	h.work.Wait()
}

// start runs f in a goroutine that Close waits for; after Close it does nothing.
func (h *Hub) start(f func()) {
	h.ending.Lock()
	defer h.ending.Unlock()
	if !h.ended {
		h.work.Go(f)
	}
}

// Stats gives the Hub's counters.
func (h *Hub) Stats() *Stats { return &h.stats }

// Publish appends events to the log of a tenant, all or none, and gives their
// cursors in order. Errors are the Log's.
func (h *Hub) Publish(ctx context.Context, tenant string, events []protocol.Publication) ([]protocol.Cursor, error) {
	return h.log.Publish(ctx, tenant, events)
}

// Open begins a session of a client in a tenant. The sink is used until Close.
func (h *Hub) Open(tenant string, sink Sink) *Session {
	s := &Session{sink: sink}
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.tenants[tenant]
	if t == nil {
		t = newTenant(h, tenant)
		h.tenants[tenant] = t
		h.start(t.keep)
		h.log.Watch(tenant)
	}
	s.t = t
	t.mu.Lock()
	s.place = int32(len(t.sessions))
	t.sessions = append(t.sessions, s)
	t.mu.Unlock()
	h.stats.Sessions.Add(1)
	return s
}

// left is called when a session of t has ended: if none comes within the linger
// time the tenant is forgotten.
func (h *Hub) left(t *tenant) {
	if !t.empty() {
		return
	}
	time.AfterFunc(h.opts.Linger, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.tenants[t.name] == t && t.empty() {
			delete(h.tenants, t.name)
			h.log.Unwatch(t.name)
			t.shut()
		}
	})
}

func (h *Hub) tenant(name string) *tenant {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.tenants[name]
}

// Covered implements Listener.
func (h *Hub) Covered(tenant string) {
	if t := h.tenant(tenant); t != nil {
		t.cover()
	}
}

// Lost implements Listener.
func (h *Hub) Lost(tenant string) {
	if t := h.tenant(tenant); t != nil {
		t.lose()
	}
}

// Live implements Listener.
func (h *Hub) Live(tenant string, e *protocol.Event) {
	if t := h.tenant(tenant); t != nil {
		t.live(e)
	}
}
