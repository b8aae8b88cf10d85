package hub

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pushhub/pushhub/protocol"
)

// tenant is the state of one tenant on this instance.
type tenant struct {
	// fixed after construction
	h    *Hub
	name string
	kick chan struct{} // holds one wish to recover; never closed
	ctx  context.Context
	shut context.CancelFunc

	// reading holds a value while the log is read for sessions: one reads, the
	// others wait and share what it brought. Never closed.
	reading chan struct{}

	mu      sync.Mutex
	covered bool              // the channel is heard
	ok      bool              // covered, and everything up to pos was handed to all that is live
	gen     uint64            // counts up whenever ok may have been false: a read that spans it is void
	deaf    int               // verifies that found events which did not come, since the last that came
	epoch   string            // of the log, as last looked up; "" before the first look
	past    []protocol.Cursor // as in View
	pos     uint64
	ring    ring
	tails   map[string][]*tail // by topic, disjoint, in order
	index   *index             // nil: none is kept
	kept    ring               // the newest that came while not ok; what it had to drop shows as a hole

	sessions []*Session         // each at its place
	exact    map[string]*[]*sub // live subscriptions of topics
	wild     patterns           // live subscriptions of patterns
	topics   int                // distinct ones in exact and wild

	wake    chan struct{} // closed and replaced when ok or pos changed and somebody waits
	waiting int

	dirty []Sink // scratch of live: owned by the one who calls it
}

func newTenant(h *Hub, name string) *tenant {
	t := &tenant{
		h: h, name: name,
		kick: make(chan struct{}, 1), reading: make(chan struct{}, 1), wake: make(chan struct{}),
		tails: map[string][]*tail{},
		exact: map[string]*[]*sub{},
	}
	t.ctx, t.shut = context.WithCancel(h.ctx)
	return t
}

func (t *tenant) empty() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.sessions) == 0
}

// cursor gives the position up to which everything live is complete; zero before
// the first look.
func (t *tenant) cursor() protocol.Cursor { return protocol.Cursor{Epoch: t.epoch, Seq: t.pos} }

// cover: the channel is heard from now on.
func (t *tenant) cover() {
	t.mu.Lock()
	t.covered = true
	t.hold()
	t.mu.Unlock()
	t.recoverSoon()
}

// lose: the channel is not heard any more.
func (t *tenant) lose() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.covered = false
	t.kept = ring{}
	t.hold()
}

// hold makes everything that is live as if its clients had to come back with
// the cursor pos. With mu held.
func (t *tenant) hold() {
	t.gen++
	if !t.ok {
		return
	}
	t.ok = false
	at := t.cursor()
	for _, s := range t.sessions {
		s.stale(&at)
	}
	t.h.stats.Topics.Add(-int64(t.topics))
	t.topics, t.wild = 0, patterns{}
	clear(t.exact)
	clear(t.tails)
	t.index = nil
	t.notify()
}

func (t *tenant) recoverSoon() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// notify wakes who waits for ok or pos. With mu held.
func (t *tenant) notify() {
	if t.waiting > 0 {
		close(t.wake)
		t.wake = make(chan struct{})
		t.waiting = 0
	}
}

// await waits, with mu held, until ready; it gives mu up meanwhile and holds it
// again when it returns. It is false when ctx ended or, with a positive limit,
// after that time.
func (t *tenant) await(ctx context.Context, limit time.Duration, ready func() bool) bool {
	var late <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	for !ready() {
		wake := t.wake
		t.waiting++
		t.mu.Unlock()
		expired := false
		select {
		case <-wake:
		case <-ctx.Done():
			expired = true
		case <-late:
			expired = true
		}
		t.mu.Lock()
		if expired {
			return ready() && ctx.Err() == nil
		}
	}
	return true
}

// live takes one event of the channel.
func (t *tenant) live(e *protocol.Event) {
	t.mu.Lock()
	fine := t.take(e, &t.dirty)
	t.mu.Unlock()
	t.dirty = flush(t.dirty)
	if !fine {
		t.recoverSoon()
	}
}

// flush flushes the sinks and gives the emptied slice.
func flush(dirty []Sink) []Sink {
	for i, s := range dirty {
		s.Flush()
		dirty[i] = nil
	}
	return dirty[:0]
}

// take hands an event to everything live, adding whom to flush to dirty, or
// keeps it while the tenant holds. It is false when the tenant has to recover.
// With mu held.
func (t *tenant) take(e *protocol.Event, dirty *[]Sink) bool {
	if !t.ok {
		t.kept.push(e, &t.h.bounds)
		return true
	}
	switch {
	case e.Cursor.Epoch != t.epoch && !t.h.off.has(ruleLiveEpoch),
		e.Cursor.Seq > t.pos+1 && !t.h.off.has(ruleHole):
		t.hold()
		t.kept.push(e, &t.h.bounds)
		return false
	case e.Cursor.Seq <= t.pos:
		return true
	}
	t.pos, t.deaf = e.Cursor.Seq, 0
	t.ring.push(e, &t.h.bounds)
	t.deliver(e, dirty)
	t.notify()
	return true
}

// deliver queues e for every session that is live on it, once each.
func (t *tenant) deliver(e *protocol.Event, dirty *[]Sink) {
	n := int64(0)
	queue := func(subs []*sub) {
		for _, s := range subs {
			if s.queue(e, dirty) {
				n++
			}
		}
	}
	if subs := t.exact[e.Topic]; subs != nil {
		queue(*subs)
	}
	t.wild.match(e.Topic, queue)
	t.h.stats.Deliveries.Add(n)
}

// keep is the goroutine of the tenant: it recovers and verifies, until shut.
func (t *tenant) keep() {
	timer := time.NewTimer(t.verifyIn())
	defer timer.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-t.kick:
			t.recover()
		case <-timer.C:
			t.verify()
			timer.Reset(t.verifyIn())
		}
	}
}

// verifyIn spreads the verifies of tenants.
func (t *tenant) verifyIn() time.Duration {
	v := t.h.opts.Verify
	return v*3/4 + rand.N(v/4)
}

// recover looks where the log is and goes on from there.
func (t *tenant) recover() {
	for pause := minPause; ; {
		t.mu.Lock()
		if t.ok || !t.covered {
			t.mu.Unlock()
			return
		}
		gen, known := t.gen, t.cursor()
		t.mu.Unlock()
		v, err := t.h.log.Look(t.ctx, t.name, Query{Known: known})
		if err != nil {
			t.h.opts.Logger.Warn().Err(err).Str("tenant", t.name).Msg("cannot look up the head of the log")
			select {
			case <-t.ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, maxPause)
			continue
		}
		var dirty []Sink
		t.mu.Lock()
		if t.gen == gen && t.covered {
			t.settle(v, &dirty)
		}
		t.mu.Unlock()
		flush(dirty)
	}
}

// settle takes the head of v for pos, and lets everybody rejoin who was live.
// With mu held.
func (t *tenant) settle(v View, dirty *[]Sink) {
	if t.epoch != "" {
		t.h.stats.Heals.Add(1)
		if v.Epoch == t.epoch && v.Head > t.pos {
			t.h.stats.Healed.Add(int64(v.Head - t.pos))
		}
	}
	t.epoch, t.past, t.pos = v.Epoch, v.Past, v.Head
	t.ring.reset(v.Head)
	t.ok = true
	for _, s := range t.sessions {
		s.rejoin()
	}
	kept, again := t.kept.events, false
	t.kept = ring{}
	for _, e := range kept {
		if e.Cursor.Epoch == t.epoch {
			t.take(e, dirty)
		} else {
			again = true // late from the old epoch, or early from a new one
		}
	}
	if again {
		t.hold() // look once more
	}
	t.notify()
}

// verify finds a channel that is alive but deaf: what the log has must come.
func (t *tenant) verify() {
	t.mu.Lock()
	t.ring.age(&t.h.bounds)
	ok, gen, known := t.ok, t.gen, t.cursor()
	t.mu.Unlock()
	if !ok || t.h.off.has(ruleVerify) {
		return // to recover is under way, or waits for the channel
	}
	v, err := t.h.log.Look(t.ctx, t.name, Query{Known: known})
	if err != nil {
		return // the channel will break too, or the next verify succeeds
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.met(t.ctx, gen, v)
}

// deafAfter is how long an event may take from the log through the channel.
const deafAfter = time.Second

// met says whether the channel brings us to where the log was in v; it waits
// for what is on its way. If that does not come the tenant recovers; the second
// time in a row its channel is replaced. gen is that of before the look. With mu
// held.
func (t *tenant) met(ctx context.Context, gen uint64, v View) bool {
	if t.gen != gen {
		return false
	}
	if v.Epoch == t.epoch {
		t.await(ctx, deafAfter, func() bool { return t.pos >= v.Head || t.gen != gen })
		if t.pos >= v.Head && t.gen == gen {
			return true
		}
	}
	if ctx.Err() == nil && t.gen == gen {
		t.deaf++
		t.hold()
		if t.deaf > 1 {
			t.h.log.Reset(t.name)
		}
		t.recoverSoon()
	}
	return false
}
