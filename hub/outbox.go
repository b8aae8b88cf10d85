package hub

import "github.com/pushhub/pushhub/protocol"

// An Outbox is what waits to be written to one client. An event with a
// conflation key can be superseded in it by a later one of the same topic and
// key; other events, and everything that is no event, are kept. It is not safe
// for concurrent use: the connection that has it guards it.
type Outbox struct {
	// MaxEvents and MaxBytes bound the live events that wait; 0 is no bound.
	MaxEvents, MaxBytes int

	queue    []Entry
	head     int // entries before it are taken
	bytes    int // of all that waits
	events   int // live events that wait, and their bytes: the budget
	counted  int
	retained int
	holes    int                // superseded entries in queue
	places   map[conflation]int // of superseded-to-be entries in queue; nil while none
}

// Entry is one frame in an outbox. A zero Entry was superseded.
type Entry struct {
	Frame  []byte
	Event  *protocol.Event  // nil: a control message
	Cursor *protocol.Cursor // position that the client has once this is written; nil: unchanged
	kind   entryKind
}

type entryKind uint8

const (
	control entryKind = iota
	liveEvent
	retainedEvent
)

type conflation struct{ topic, key string }

// Event adds a live event. With behind, an earlier event of its topic and key
// that waits and is not final is superseded; conflated says so. ok is false when
// the event is over the budget: nothing was added, and the client is too slow.
func (o *Outbox) Event(e *protocol.Event, frame []byte, id, behind bool) (conflated, ok bool) {
	place := conflation{e.Topic, e.Key}
	var superseded int
	if behind && e.Key != "" {
		if at, found := o.places[place]; found && at >= o.head {
			conflated, superseded = true, len(o.queue[at].Frame)
		}
	}
	events, bytes := o.events+1, o.counted+len(frame)
	if conflated {
		events, bytes = events-1, bytes-superseded
	}
	if o.MaxEvents > 0 && events > o.MaxEvents || o.MaxBytes > 0 && bytes > o.MaxBytes && events > 1 {
		return false, false
	}
	if conflated {
		o.queue[o.places[place]] = Entry{}
		o.holes++
		o.bytes -= superseded
	}
	o.close()
	o.events, o.counted = events, bytes
	if e.Key != "" {
		if e.Final {
			delete(o.places, place) // nothing supersedes it
		} else {
			if o.places == nil {
				o.places = map[conflation]int{}
			}
			o.places[place] = len(o.queue)
		}
	}
	o.add(LiveEntry(e, frame, id))
	return conflated, true
}

// Add adds an entry that counts against no budget and supersedes nothing; it can be
// superseded if it is a live event.
func (o *Outbox) Add(e Entry) {
	switch e.kind {
	case liveEvent:
		most, bytes := o.MaxEvents, o.MaxBytes
		o.MaxEvents, o.MaxBytes = 0, 0
		o.Event(e.Event, e.Frame, e.Cursor != nil, false)
		o.MaxEvents, o.MaxBytes = most, bytes
		return
	case retainedEvent:
		o.retained++
	}
	o.close()
	o.add(e)
}

// LiveEntry is a live event, RetainedEntry one of a replay, ControlEntry a frame
// that is no event.
func LiveEntry(e *protocol.Event, frame []byte, id bool) Entry {
	return Entry{Frame: frame, Event: e, Cursor: position(e, id), kind: liveEvent}
}

// RetainedEntry: see LiveEntry.
func RetainedEntry(e *protocol.Event, frame []byte, id bool) Entry {
	return Entry{Frame: frame, Event: e, Cursor: position(e, id), kind: retainedEvent}
}

// ControlEntry: see LiveEntry.
func ControlEntry(frame []byte, position protocol.Cursor) Entry {
	if position.IsZero() {
		return Entry{Frame: frame}
	}
	return Entry{Frame: frame, Cursor: &position}
}

func position(e *protocol.Event, id bool) *protocol.Cursor {
	if !id || e.Cursor.IsZero() {
		return nil
	}
	return &e.Cursor
}

func (o *Outbox) add(e Entry) {
	o.queue = append(o.queue, e)
	o.bytes += len(e.Frame)
}

// close lets go of what was taken or superseded, when that is more than what is left.
func (o *Outbox) close() {
	if gone := o.head + o.holes; gone < 64 || gone < o.Len() {
		return
	}
	clear(o.places) // also those of what was taken
	kept := o.queue[:0]
	for _, e := range o.queue[o.head:] {
		if e.Frame == nil {
			continue
		}
		if e.kind == liveEvent && e.Event.Key != "" {
			if place := (conflation{e.Event.Topic, e.Event.Key}); e.Event.Final {
				delete(o.places, place)
			} else {
				o.places[place] = len(kept)
			}
		}
		kept = append(kept, e)
	}
	clear(o.queue[len(kept):])
	o.queue, o.head, o.holes = kept, 0, 0
}

// Take moves entries from the front to out: as many as fit into maxBytes and the
// capacity of out, and at least one if there is any.
func (o *Outbox) Take(out []Entry, maxBytes int) []Entry {
	bytes := 0
	for o.head < len(o.queue) && len(out) < cap(out) {
		e := o.queue[o.head]
		if e.Frame == nil {
			o.holes--
		} else {
			if bytes += len(e.Frame); bytes > maxBytes && len(out) > 0 {
				break
			}
			out = append(out, e)
			o.bytes -= len(e.Frame)
			switch e.kind {
			case liveEvent:
				o.events--
				o.counted -= len(e.Frame)
			case retainedEvent:
				o.retained--
			}
		}
		o.queue[o.head] = Entry{}
		o.head++
	}
	if o.head == len(o.queue) {
		o.queue, o.head = o.queue[:0], 0
		if cap(o.queue) > 64 {
			o.queue = nil
		}
		o.places = nil
	}
	return out
}

// Drop empties the outbox. It keeps the bounds, and the room for some entries.
func (o *Outbox) Drop() {
	room := o.queue[:0]
	if cap(room) > 64 {
		room = nil
	}
	clear(o.queue)
	*o = Outbox{MaxEvents: o.MaxEvents, MaxBytes: o.MaxBytes, queue: room}
}

// Len gives the frames that wait, Bytes their bytes, Replaying how many of them
// are of a replay.
func (o *Outbox) Len() int { return len(o.queue) - o.head - o.holes }

// Bytes: see Len.
func (o *Outbox) Bytes() int { return o.bytes }

// Replaying: see Len.
func (o *Outbox) Replaying() int { return o.retained }

// Live says whether the entry is a live event, Retained whether it is of a replay.
func (e *Entry) Live() bool { return e.kind == liveEvent }

// Retained: see Live.
func (e *Entry) Retained() bool { return e.kind == retainedEvent }
