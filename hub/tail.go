package hub

import (
	"cmp"
	"slices"
	"time"

	"github.com/pushhub/pushhub/protocol"
)

// tail is what reads of a topic brought, kept so that the next reader of the topic
// need not ask the log: all events of the topic that were retained, with lo < seq ≤
// hi. A topic may have several, since readers come from different places; where they
// meet they are one. As long as the tenant's ring reaches back to the end of the last,
// that is brought up to pos from there. Guarded by the tenant's lock.
type tail struct {
	lo, hi uint64
	more   bool // it ends before the topic does
	floor  uint64
	last   uint64 // as TopicView.Last; seq of its last event if there is more
	events []*protocol.Event
	at     time.Time // when it was read
}

// index is what one read of the index brought: all topics whose last seq was greater
// than lo when the log's head was hi. It is brought up to pos as a tail is. Topics that
// the log has forgotten since are still in it: who asks for them finds out. Guarded by
// the tenant's lock.
type index struct {
	lo, hi uint64
	floor  uint64
	last   map[string]uint64
	at     time.Time
}

// fromTails answers q from memory, up to pos, if it can.
func (t *tenant) fromTails(q Query) (View, bool) {
	v := View{Epoch: t.epoch, Past: t.past, Head: t.pos}
	if q.Index {
		return v, len(q.Topics) == 0 && t.fromIndex(q.IndexAfter, &v)
	}
	if len(q.Topics) == 0 || len(t.tails) == 0 {
		return View{}, false
	}
	v.Topics = make([]TopicView, len(q.Topics))
	for i, tq := range q.Topics {
		tl := t.tail(tq)
		if tl == nil {
			return View{}, false
		}
		if tl.last == 0 {
			if v.Floor != 0 && v.Floor != tl.floor {
				return View{}, false
			}
			v.Floor = tl.floor
		}
		out := &v.Topics[i]
		out.Last = tl.last
		if tq.Newest > 0 {
			out.Events = tl.events[max(0, len(tl.events)-tq.Newest):]
			continue
		}
		n := len(tl.events)
		for n > 0 && tl.events[n-1].Cursor.Seq > tq.After {
			n--
		}
		out.Events, out.More = tl.events[n:], tl.more
		if tq.Limit > 0 && len(out.Events) > tq.Limit {
			out.Events, out.More = out.Events[:tq.Limit], true
		}
	}
	return v, true
}

// fromIndex answers which topics have events after a seq, if it can.
func (t *tenant) fromIndex(after uint64, v *View) bool {
	x := t.index
	if x == nil || after < x.lo || x.hi > t.pos {
		return false
	}
	if x.hi < t.ring.lo || time.Since(x.at) > t.h.bounds.tailAge || len(x.last) > t.h.bounds.index {
		t.index = nil
		return false
	}
	for _, e := range t.ring.after(x.hi) {
		x.last[e.Topic] = e.Cursor.Seq
	}
	x.hi, v.Floor = t.pos, x.floor
	for topic, last := range x.last {
		if last > after {
			v.Index = append(v.Index, TopicLast{Topic: topic, Last: last})
		}
	}
	return true
}

// tail gives the tail that answers tq, or nil.
func (t *tenant) tail(tq TopicQuery) *tail {
	n := 0
	list := slices.DeleteFunc(t.tails[tq.Topic], func(tl *tail) bool {
		n += len(tl.events)
		return t.stale(tl)
	})
	if len(list) > 0 && !t.follow(list[len(list)-1], tq.Topic) {
		list = list[:len(list)-1]
	}
	if len(list) == 0 || n > t.h.bounds.tailEvents {
		delete(t.tails, tq.Topic)
		return nil
	}
	t.tails[tq.Topic] = list
	for _, tl := range list {
		if tl.answers(tq, t.pos) {
			return tl
		}
	}
	return nil
}

// stale says whether a tail is of no use any more.
func (t *tenant) stale(tl *tail) bool {
	return tl.hi < t.ring.lo && !tl.more || time.Since(tl.at) > t.h.bounds.tailAge
}

// answers says whether all that tq asks for is in the tail, or a part from its
// beginning. What ends after pos is still on its way to us.
func (tl *tail) answers(tq TopicQuery, pos uint64) bool {
	switch {
	case tq.To != 0 || tl.hi > pos:
		return false
	case tq.Newest > 0:
		return !tl.more && (len(tl.events) >= tq.Newest || tl.lo == 0)
	}
	return tq.After >= tl.lo && tq.After <= pos && (!tl.more || tq.After < tl.hi)
}

// follow brings the last tail of a topic up to pos, if the ring reaches back to it. It
// is false for one that is void.
func (t *tenant) follow(tl *tail, topic string) bool {
	if tl.hi < t.ring.lo || tl.hi > t.pos {
		return true
	}
	for _, e := range t.ring.after(tl.hi) {
		if e.Topic == topic {
			if e.Prev > tl.last { // the log forgot the topic meanwhile, and began anew
				return false
			}
			tl.events = append(tl.events, e)
			tl.last = e.Cursor.Seq
		}
	}
	tl.hi, tl.more = t.pos, false
	return true
}

// keepTails remembers what of v can serve others.
func (t *tenant) keepTails(q Query, v View) {
	if v.Epoch != t.epoch || v.Head < t.ring.lo {
		return
	}
	if q.Index && len(v.Index) <= t.h.bounds.index && (t.index == nil || q.IndexAfter < t.index.lo || t.index.hi < t.ring.lo) {
		t.index = &index{lo: q.IndexAfter, hi: v.Head, floor: v.Floor, last: map[string]uint64{}, at: time.Now()}
		for _, tl := range v.Index {
			t.index.last[tl.Topic] = tl.Last
		}
	}
	if len(t.tails)+len(q.Topics) > t.h.bounds.tails {
		clear(t.tails)
	}
	for i, tq := range q.Topics {
		tv := v.Topics[i]
		if tv.More && (tq.Newest > 0 || len(tv.Events) == 0) || tq.To != 0 && tq.To < v.Head || tq.After > v.Head {
			continue
		}
		tl := &tail{lo: tq.After, hi: v.Head, floor: v.Floor, last: tv.Last, events: slices.Clone(tv.Events), at: time.Now()}
		if tv.More {
			tl.end()
		}
		if tq.Newest > 0 {
			tl.lo = newestFrom(tv)
		}
		list := []*tail{}
		for _, old := range t.tails[tq.Topic] {
			switch {
			case t.stale(old):
			case old.hi >= tl.lo && tl.hi >= old.lo:
				tl = tl.join(old)
			default:
				list = append(list, old)
			}
		}
		list = append(list, tl)
		slices.SortFunc(list, func(a, b *tail) int { return cmp.Compare(a.lo, b.lo) })
		last := list[len(list)-1]
		t.tails[tq.Topic] = slices.DeleteFunc(list, func(tl *tail) bool { return tl != last && !tl.more && !tl.end() })
	}
}

// end has a tail end with its last event: there is more after it. It is false if it has
// none.
func (tl *tail) end() bool {
	if len(tl.events) == 0 {
		return false
	}
	tl.last = tl.events[len(tl.events)-1].Cursor.Seq
	tl.hi, tl.more = tl.last, true
	return true
}

// join gives what two tails of a topic have together that meet.
func (tl *tail) join(b *tail) *tail {
	a := tl
	if b.lo < a.lo {
		a, b = b, a
	}
	both := *a
	if b.hi > a.hi {
		n := slices.IndexFunc(b.events, func(e *protocol.Event) bool { return e.Cursor.Seq > a.hi })
		if n < 0 {
			n = len(b.events)
		}
		chained := b.last
		if n < len(b.events) {
			chained = b.events[n].Prev
		}
		if chained != a.last { // what came between is gone: the log forgot the topic, or lets go of it
			return b
		}
		both = *b
		both.lo, both.events = a.lo, slices.Concat(a.events, b.events[n:])
	}
	if both.at = a.at; b.at.Before(a.at) {
		both.at = b.at
	}
	return &both
}

// newestFrom gives the seq after which the events that Newest brought are all
// that the log retains of the topic, as far as is known: fewer than were asked for may be
// all, or one could not be read.
func newestFrom(tv TopicView) uint64 {
	if len(tv.Events) == 0 {
		return tv.Last
	}
	return tv.Events[0].Prev
}
