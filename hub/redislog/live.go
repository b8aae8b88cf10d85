package redislog

import (
	"context"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// pace holds the times of the live connections.
type pace struct {
	tick   time.Duration // how often a connection looks at its clock
	quiet  time.Duration // without a word for so long it is asked for one
	answer time.Duration // an answer that takes longer never comes
	least  time.Duration // the first pause before a connection is made again
	most   time.Duration // the longest
	steady time.Duration // a connection that lived so long was no failure
}

var defaultPace = pace{
	tick: time.Second, quiet: 5 * time.Second, answer: 5 * time.Second,
	least: 50 * time.Millisecond, most: 2 * time.Second, steady: 5 * time.Second,
}

// live brings the events of the watched tenants: it keeps one connection to each
// Redis primary that has some of them. Its goroutine places tenants on
// connections; a connection that ends gives them back.
//
// Locks: one of calls, then mu. The Listener and OnState are not called under mu,
// so that Watch, Unwatch and Reset may be called under any lock of theirs.
type live struct {
	// fixed after construction
	servers *servers
	onState func(up bool, err error)
	pace    pace
	ctx     context.Context
	cancel  context.CancelFunc
	wake    chan struct{}  // of one; wakes place; never closed
	work    sync.WaitGroup // place and the connections

	reconnects, malformed atomic.Uint64

	// One is held while the Listener is told of a tenant, so that it is told one
	// thing after the other, also while the tenant moves between connections; and
	// while an unsubscription is decided. Each serves many tenants.
	calls [64]sync.Mutex

	// guarded by mu
	mu       sync.Mutex
	listener hub.Listener
	subs     map[string]*sub     // by tenant
	conns    map[string]*conn    // by address; those that have not ended
	pauses   map[string]*backoff // by address
	waiting  []*sub              // on no connection
	down     int                 // how many subs are
	since    time.Time           // when down began to be more than 0
	why      error               // the latest reason, nil while down is 0

	// owned by place
	reported, up bool      // OnState was called, with up
	mapAfter     time.Time // when the map of the Cluster may be asked for again
}

// sub is one watched tenant; or one that was, until Redis has confirmed that.
type sub struct {
	// fixed after construction
	tenant   string
	channel  string
	calls    *sync.Mutex
	listener hub.Listener

	wanted atomic.Bool // is watched; written with mu held

	// guarded by live.mu
	conn       *conn     // nil while waiting
	noted      bool      // in conn.todo
	subscribed bool      // the newest request on conn was to subscribe
	pending    int       // requests on conn that were not answered
	covered    bool      // since it is watched, the Listener was told Covered, and not Lost
	telling    bool      // the Listener is being told Covered
	reset      bool      // conn is to be replaced
	down       bool      // its connection failed, and it is not covered since
	notBefore  time.Time // when a waiting sub may be placed
}

// backoff is when an address may be dialed again.
type backoff struct {
	fails int
	until time.Time
}

// probe is the tenant that is always watched, so that there is a connection to
// tell by whether Redis is there. No tenant has this name, and no event comes.
const probe = ""

type nobody struct{}

func (nobody) Covered(string)               {}
func (nobody) Lost(string)                  {}
func (nobody) Live(string, *protocol.Event) {}

func newLive(s *servers, onState func(bool, error), p pace) *live {
	l := &live{
		servers: s, onState: onState, pace: p,
		wake:     make(chan struct{}, 1),
		listener: nobody{},
		subs:     map[string]*sub{}, conns: map[string]*conn{}, pauses: map[string]*backoff{},
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.watch(probe)
	l.setDown(l.subs[probe], nil)
	l.work.Go(l.place)
	return l
}

func (l *live) close() {
	l.cancel()
	l.work.Wait()
}

func (l *live) listen(listener hub.Listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener = listener
}

var stripe = maphash.MakeSeed()

func (l *live) watch(tenant string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.subs[tenant]
	if s == nil {
		s = &sub{
			tenant: tenant, channel: keysOf(tenant).channel(), listener: l.listener,
			calls: &l.calls[maphash.String(stripe, tenant)%uint64(len(l.calls))],
		}
		l.subs[tenant] = s
		l.waiting = append(l.waiting, s)
		signal(l.wake)
	}
	s.wanted.Store(true)
	s.covered = s.telling // what the Listener hears from now on it takes for an answer
	if s.conn != nil {
		s.conn.note(s)
	}
}

func (l *live) unwatch(tenant string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.subs[tenant]; s != nil {
		s.wanted.Store(false)
		s.covered, s.reset = false, false
		l.setUp(s)
		if s.conn != nil {
			s.conn.note(s)
		}
	}
}

func (l *live) reset(tenant string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// A connection that is only being made is a new one already.
	if s := l.subs[tenant]; s != nil && s.wanted.Load() && s.conn != nil && !s.conn.madeAt.IsZero() {
		s.reset = true
		s.conn.note(s)
	}
}

// doubt makes each connection prove that it is alive.
func (l *live) doubt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.doubted = true
		signal(c.wake)
	}
}

func (l *live) downFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down == 0 {
		return 0
	}
	return max(time.Since(l.since), 1)
}

// setDown notes that a sub has no connection, and why. With mu held, or before
// anybody else has l.
func (l *live) setDown(s *sub, why error) {
	if !s.down {
		if l.down == 0 {
			l.since = time.Now()
		}
		s.down = true
		l.down++
	}
	l.why = why
}

// setUp notes that a sub has what it needs. With mu held.
func (l *live) setUp(s *sub) {
	if !s.down {
		return
	}
	s.down = false
	if l.down--; l.down == 0 {
		l.why = nil
		signal(l.wake)
	}
}

// signal wakes whoever reads from a channel of one.
func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// place is the goroutine of l: it puts waiting subs on connections, makes those,
// and tells OnState, until close.
func (l *live) place() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
		timer.Reset(l.assign())
	}
}

// assign places what is waiting, as far as it may be by now, and gives the time
// until it has to be called again.
func (l *live) assign() time.Duration {
	l.mu.Lock()
	waiting := l.waiting
	l.waiting = nil
	up, why := l.down == 0, l.why
	l.mu.Unlock()
	// Before anything can come up again, so that no break goes unreported.
	l.report(up, why)

	if wait := time.Until(l.mapAfter); wait > 0 && len(waiting) > 0 {
		l.putBack(waiting, nil)
		return wait
	}
	next := time.Hour
	for i, s := range waiting {
		at, err := l.servers.endpoint(l.ctx, s.channel)
		if err != nil {
			// The map of the Cluster is missing: for all.
			wait := l.pace.most/2 + rand.N(l.pace.most/2)
			l.mapAfter = time.Now().Add(wait)
			l.putBack(waiting[i:], err)
			return min(next, wait)
		}
		l.mu.Lock()
		if wait := l.assignTo(at, s); wait > 0 {
			l.waiting = append(l.waiting, s)
			next = min(next, wait)
		}
		l.mu.Unlock()
	}
	return next
}

// putBack lets subs wait on. An error is why they have to.
func (l *live) putBack(waiting []*sub, why error) {
	l.mu.Lock()
	for _, s := range waiting {
		if why != nil && s.wanted.Load() {
			l.setDown(s, why)
		}
	}
	l.waiting = append(l.waiting, waiting...)
	up, why := l.down == 0, l.why
	l.mu.Unlock()
	l.report(up, why)
}

// assignTo places a sub on the connection to an address, or says for how long it
// has to wait. With mu held.
func (l *live) assignTo(at endpoint, s *sub) time.Duration {
	if !s.wanted.Load() {
		delete(l.subs, s.tenant)
		return 0
	}
	c, until := l.conns[at.Addr], s.notBefore
	if p := l.pauses[at.Addr]; c == nil && p != nil && p.until.After(until) {
		until = p.until
	}
	if wait := time.Until(until); wait > 0 {
		return wait
	}
	if c == nil {
		c = newConn(l, at)
		l.conns[at.Addr] = c
		l.work.Go(c.run)
	}
	s.conn = c
	c.subs[s] = struct{}{}
	c.note(s)
	return 0
}

func (l *live) report(up bool, why error) {
	if l.onState == nil || l.reported && l.up == up || !up && why == nil {
		return
	}
	l.reported, l.up = true, up
	l.onState(up, why)
}

// ended takes back what a connection had. It is called by the connection's
// goroutine, when nothing can come from it any more.
func (l *live) ended(c *conn, why error) {
	if l.ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	delete(l.conns, c.at.Addr)
	l.pauseAfter(c)
	subs := make([]*sub, 0, len(c.subs))
	for s := range c.subs {
		subs = append(subs, s)
	}
	l.mu.Unlock()
	for _, s := range subs {
		l.release(c, s, why, time.Time{})
	}
}

// pauseAfter says when the address of a connection that ended may be tried again.
// With mu held.
func (l *live) pauseAfter(c *conn) {
	p := l.pauses[c.at.Addr]
	if p == nil {
		p = &backoff{}
		l.pauses[c.at.Addr] = p
	}
	p.fails++
	if !c.madeAt.IsZero() {
		l.reconnects.Add(1)
		if time.Since(c.madeAt) >= l.pace.steady {
			p.fails = 0
		}
	}
	longest := l.pace.least // also after the first break: it spreads the instances
	for i := 1; i < p.fails && longest < l.pace.most; i++ {
		longest *= 2
	}
	longest = min(longest, l.pace.most)
	p.until = time.Now().Add(longest/2 + rand.N(longest/2))
}

// release takes a sub off a connection that does not bring its events any more,
// and lets it wait, or forgets it. It tells Lost before anybody else can tell
// Covered.
func (l *live) release(c *conn, s *sub, why error, notBefore time.Time) {
	s.calls.Lock()
	defer s.calls.Unlock()
	l.mu.Lock()
	delete(c.subs, s)
	lost := s.covered
	s.conn, s.noted, s.subscribed, s.pending, s.covered, s.reset = nil, false, false, 0, false, false
	s.notBefore = notBefore
	if s.wanted.Load() {
		l.setDown(s, why)
		l.waiting = append(l.waiting, s)
		signal(l.wake)
	} else {
		delete(l.subs, s.tenant)
	}
	if l.servers.off.has(ruleEnd) {
		s.covered = lost
		lost = false
	}
	l.mu.Unlock()
	if lost {
		s.listener.Lost(s.tenant)
	}
}
