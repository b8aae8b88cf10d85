package wire

import (
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Engine moves the bytes of many connections with few goroutines. Where a Conn is
// a plain TCP socket of Linux, shards write what waits, one poller hears when a
// socket can be read or written again, and one wheel has the time of all of them:
// an idle connection has no goroutine, no timer and no buffer.
type Engine struct {
	// fixed after construction
	start time.Time
	wheel *wheel
	work  sync.WaitGroup

	mu      sync.Mutex
	closed  bool               // guarded by mu
	sockets map[*Conn]struct{} // guarded by mu; those that run on a goroutine of their own

	now atomic.Int32 // tick of the last turn of the wheel

	once   sync.Once     // starts the poller and the shards, for the first Conn that needs them
	poller *poller       // nil: every Conn has goroutines of its own
	shards []*shard      // fixed by once
	next   atomic.Uint32 // shard of the next Conn
}

// NewEngine makes an Engine. Close ends it.
func NewEngine() *Engine {
	e := &Engine{start: time.Now(), sockets: map[*Conn]struct{}{}}
	e.wheel = newWheel(e)
	e.work.Go(e.wheel.run)
	return e
}

// polls says whether the Engine can read and write sockets itself.
func (e *Engine) polls() bool {
	e.once.Do(func() {
		if e.poller = newPoller(); e.poller == nil {
			return
		}
		e.work.Go(e.poller.run)
		for range runtime.GOMAXPROCS(0) {
			s := &shard{wake: make(chan struct{}, 1), scratch: scratch{send: writeSocket}}
			e.shards = append(e.shards, s)
			e.work.Go(s.run)
		}
	})
	return e.poller != nil
}

// enter says whether c, which has a goroutine of its own, may run; leave that it
// has ended.
func (e *Engine) enter(c *Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.sockets[c] = struct{}{}
	}
	return !e.closed
}

func (e *Engine) leave(c *Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.sockets, c)
}

// Close aborts what is left, and ends the Engine's goroutines. A Conn that is made
// after it ends as soon as it runs.
func (e *Engine) Close() {
	e.once.Do(func() {})
	e.mu.Lock()
	e.closed = true
	left := slices.Collect(maps.Keys(e.sockets))
	e.mu.Unlock()
	if e.poller != nil {
		left = append(left, e.poller.close()...)
	}
	for _, c := range left {
		c.Abort()
	}
	close(e.wheel.quit)
	for _, s := range e.shards {
		s.push(nil)
	}
	e.work.Wait()
}

// tick is a time: turns of the wheel since the Engine's start. A connection has
// several, and there are many connections.
type tick int32

// ticks gives how many turns it takes until d is over.
func ticks(d time.Duration) tick { return tick((d + turn - 1) / turn) }

// clock gives the tick that began last.
func (e *Engine) clock() tick { return tick(time.Since(e.start) / turn) }

// after gives the first tick that begins when d is over.
func (e *Engine) after(d time.Duration) tick { return ticks(time.Since(e.start) + d) }

// A shard writes what waits in its Conns, as soon as it comes to them: what came
// meanwhile goes out with one call.
type shard struct {
	wake chan struct{} // of one: there is something; never closed

	mu    sync.Mutex
	dirty []*Conn // a nil ends the shard

	scratch scratch // owned by run
}

// yield is after how many writes others get their turn on the processor.
const yield = 64

func (s *shard) push(c *Conn) {
	s.mu.Lock()
	s.dirty = append(s.dirty, c)
	first := len(s.dirty) == 1
	s.mu.Unlock()
	if first {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (s *shard) run() {
	var batch []*Conn
	for range s.wake {
		s.mu.Lock()
		batch, s.dirty = s.dirty, batch[:0]
		s.mu.Unlock()
		for i, c := range batch {
			if c == nil {
				return
			}
			c.put(&s.scratch)
			batch[i] = nil
			if i%yield == yield-1 {
				s.scratch.tally.report()
				runtime.Gosched()
			}
		}
		s.scratch.tally.report()
		if cap(batch) > 1<<16 {
			batch = nil
		}
	}
}

// The wheel has the connections whose time comes in a slot of turn each.
type wheel struct {
	e    *Engine
	quit chan struct{} // closed by Engine.Close

	mu    sync.Mutex
	turns tick // since the start
	slots [512][]appointment
}

// turn is how exact the wheel is.
const turn = 100 * time.Millisecond

// appointment is a Conn that is due at a turn. It is void when the Conn has
// another by then.
type appointment struct {
	c  *Conn
	at tick
}

func newWheel(e *Engine) *wheel { return &wheel{e: e, quit: make(chan struct{})} }

func (w *wheel) add(c *Conn, at tick) {
	w.mu.Lock()
	defer w.mu.Unlock()
	slot := min(max(at, w.turns+1), w.turns+tick(len(w.slots))-1) % tick(len(w.slots))
	w.slots[slot] = append(w.slots[slot], appointment{c, at})
}

func (w *wheel) run() {
	ticker := time.NewTicker(turn)
	defer ticker.Stop()
	for {
		select {
		case <-w.quit:
			return
		case <-ticker.C:
		}
		now := w.e.clock()
		w.e.now.Store(int32(now))
		for w.turns < now { // more than one if the process was stopped
			w.mu.Lock()
			w.turns++
			slot := &w.slots[w.turns%tick(len(w.slots))]
			due := *slot
			*slot = nil
			w.mu.Unlock()
			for _, a := range due {
				if a.at > w.turns {
					w.add(a.c, a.at)
				} else {
					a.c.due(a.at, now)
				}
			}
		}
	}
}
