package hub

import (
	"time"

	"github.com/pushhub/pushhub/protocol"
)

// ring holds the newest events of a tenant without a hole: all of lo < seq ≤ the
// tenant's pos. Guarded by the tenant's lock.
type ring struct {
	lo     uint64
	events []*protocol.Event
	bytes  int
	pushed time.Time // when the newest came
}

func (r *ring) reset(pos uint64) { *r = ring{lo: pos} }

func (r *ring) push(e *protocol.Event, b *bounds) {
	r.events = append(r.events, e)
	r.bytes += len(e.JSON)
	r.pushed = time.Now()
	if r.bytes > b.ringBytes || e.At-r.events[0].At > b.ringAge {
		r.trim(e.At, b)
	}
}

// age trims by the time that has passed since the newest came, which no clock's jump
// changes.
func (r *ring) age(b *bounds) {
	if n := len(r.events); n > 0 {
		r.trim(r.events[n-1].At+time.Since(r.pushed).Milliseconds(), b)
	}
}

// trim drops what is too old at now (ms), and what is over the bound.
func (r *ring) trim(now int64, b *bounds) {
	n := 0
	for n < len(r.events) && (r.bytes > b.ringBytes || now-r.events[n].At > b.ringAge) {
		r.bytes -= len(r.events[n].JSON)
		r.lo = r.events[n].Cursor.Seq
		n++
	}
	r.events = r.events[n:]
	if len(r.events) == 0 {
		r.events = nil
	}
}

// after gives the events with a seq greater than seq. The ring must hold them
// all: lo ≤ seq. What it gave stays as it is: it may be read without the lock.
func (r *ring) after(seq uint64) []*protocol.Event {
	return r.events[min(int(seq-r.lo), len(r.events)):]
}
