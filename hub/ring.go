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

// Bounds of a ring. A client that reconnects at once finds what it missed here
// and costs the log nothing.
const (
	ringBytes = 8 << 20
	ringAgeMS = 60_000
)

func (r *ring) reset(pos uint64) { *r = ring{lo: pos} }

func (r *ring) push(e *protocol.Event) {
	r.events = append(r.events, e)
	r.bytes += len(e.JSON)
	r.pushed = time.Now()
	if r.bytes > ringBytes || e.At-r.events[0].At > ringAgeMS {
		r.trim(e.At)
	}
}

// age trims by the time that has passed since the newest came, which no clock's jump
// changes.
func (r *ring) age() {
	if n := len(r.events); n > 0 {
		r.trim(r.events[n-1].At + time.Since(r.pushed).Milliseconds())
	}
}

// trim drops what is older than a minute at now (ms), and what is over the bound.
func (r *ring) trim(now int64) {
	n := 0
	for n < len(r.events) && (r.bytes > ringBytes || now-r.events[n].At > ringAgeMS) {
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
