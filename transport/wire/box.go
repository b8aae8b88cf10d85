package wire

import (
	"math"
	"sync"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// box is what waits for one connection. Mostly that is nothing, or one frame for a
// moment: so the first has its place here, and only when more wait there is an
// outbox, which has all of them then.
type box struct {
	first hub.Entry
	rest  *hub.Outbox
}

var outboxes = sync.Pool{New: func() any { return new(hub.Outbox) }}

// all gives the outbox, with what is in first.
func (b *box) all() *hub.Outbox {
	if b.rest == nil {
		b.rest = outboxes.Get().(*hub.Outbox)
		if b.first.Frame != nil {
			b.rest.Add(b.first)
			b.first = hub.Entry{}
		}
	}
	return b.rest
}

// add adds what counts against no budget.
func (b *box) add(e hub.Entry) {
	if b.rest == nil && b.first.Frame == nil {
		b.first = e
		return
	}
	b.all().Add(e)
}

// event adds a live event as Outbox.Event does. One that would be over the budget
// of a client that is behind is tried again after conflated, which counts what
// superseded another, has gone through all that waits: it may have been queued
// before the client was found to be behind.
func (b *box) event(e *protocol.Event, frame []byte, id, behind bool, opts *Options) (ok bool) {
	if b.rest == nil && b.first.Frame == nil {
		b.first = hub.LiveEntry(e, frame, id)
		return true
	}
	o := b.all()
	if o.MaxEvents, o.MaxBytes = 0, 0; behind {
		o.MaxEvents, o.MaxBytes = opts.MaxEvents, opts.MaxBytes
	}
	conflated, ok := o.Event(e, frame, id, behind)
	if !ok {
		o.MaxEvents, o.MaxBytes = 0, 0
		waiting := o.Take(make([]hub.Entry, 0, o.Len()), math.MaxInt)
		for i := range waiting {
			if w := &waiting[i]; !w.Live() {
				o.Add(*w)
			} else if conflated, _ := o.Event(w.Event, w.Frame, w.Cursor != nil, true); conflated {
				opts.Conflated()
			}
		}
		o.MaxEvents, o.MaxBytes = opts.MaxEvents, opts.MaxBytes
		conflated, ok = o.Event(e, frame, id, behind)
	}
	if conflated {
		opts.Conflated()
	}
	return ok
}

// take moves from the front to out, as Outbox.Take does.
func (b *box) take(out []hub.Entry, maxBytes int) []hub.Entry {
	if b.rest == nil {
		if b.first.Frame != nil && (len(out) == 0 || len(out) < cap(out) && len(b.first.Frame) <= maxBytes) {
			out = append(out, b.first)
			b.first = hub.Entry{}
		}
		return out
	}
	out = b.rest.Take(out, maxBytes)
	if b.rest.Len() == 0 {
		b.drop()
	}
	return out
}

// drop empties it.
func (b *box) drop() {
	b.first = hub.Entry{}
	if b.rest != nil {
		b.rest.Drop()
		outboxes.Put(b.rest)
		b.rest = nil
	}
}

// len gives how many frames wait, bytes their bytes, replaying how many of them are
// of a replay.
func (b *box) len() int {
	switch {
	case b.rest != nil:
		return b.rest.Len()
	case b.first.Frame != nil:
		return 1
	}
	return 0
}

func (b *box) bytes() int {
	if b.rest != nil {
		return b.rest.Bytes()
	}
	return len(b.first.Frame)
}

func (b *box) replaying() int {
	switch {
	case b.rest != nil:
		return b.rest.Replaying()
	case b.first.Retained():
		return 1
	}
	return 0
}
