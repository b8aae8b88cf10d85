package hub

import (
	"time"

	"github.com/pushhub/pushhub/protocol"
)

// tail is what one read of a topic brought, kept so that the next reader of the
// topic need not ask the log: all retained events of the topic with
// lo < seq ≤ hi. As long as the tenant's ring reaches back to hi, a tail is
// brought up to pos from there. Guarded by the tenant's lock.
type tail struct {
	lo, hi uint64
	floor  uint64
	last   uint64 // as TopicView.Last
	events []*protocol.Event
	at     time.Time // when it was read
}

// Bounds of what tails may hold in a tenant. Over it they are all dropped: they
// are a cache for storms.
const (
	maxTails      = 1024
	maxTailEvents = 1200
	tailAge       = time.Minute
)

// fromTails answers q from memory, up to pos, if it can.
func (t *tenant) fromTails(q Query) (View, bool) {
	if q.Index || len(q.Topics) == 0 || len(t.tails) == 0 {
		return View{}, false
	}
	v := View{Epoch: t.epoch, PrevEpoch: t.prev, Base: t.base, Head: t.pos}
	v.Topics = make([]TopicView, len(q.Topics))
	for i, tq := range q.Topics {
		tl := t.tail(tq.Topic)
		if tl == nil || tq.To != 0 {
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
			if len(tl.events) < tq.Newest && tl.lo > 0 {
				return View{}, false
			}
			out.Events = tl.events[max(0, len(tl.events)-tq.Newest):]
			continue
		}
		if tq.After < tl.lo || tq.After > t.pos {
			return View{}, false
		}
		n := len(tl.events)
		for n > 0 && tl.events[n-1].Cursor.Seq > tq.After {
			n--
		}
		out.Events = tl.events[n:]
		if len(out.Events) > tq.Limit {
			out.Events, out.More = out.Events[:tq.Limit], true
		}
	}
	return v, true
}

// tail gives the topic's tail, brought up to pos, or nil.
func (t *tenant) tail(topic string) *tail {
	tl := t.tails[topic]
	if tl == nil {
		return nil
	}
	if tl.hi > t.pos {
		return nil // its end is still on its way to us
	}
	if tl.hi < t.ring.lo || time.Since(tl.at) > tailAge || len(tl.events) > maxTailEvents {
		delete(t.tails, topic)
		return nil
	}
	for _, e := range t.ring.after(tl.hi) {
		if e.Topic == topic {
			if e.Prev > tl.last { // the log forgot the topic meanwhile, and began anew
				delete(t.tails, topic)
				return nil
			}
			tl.events = append(tl.events, e)
			tl.last = e.Cursor.Seq
		}
	}
	tl.hi = t.pos
	return tl
}

// keepTails remembers the whole answers among v.
func (t *tenant) keepTails(q Query, v View) {
	if v.Epoch != t.epoch || v.Head < t.ring.lo {
		return
	}
	if len(t.tails)+len(q.Topics) > maxTails {
		clear(t.tails)
	}
	for i, tq := range q.Topics {
		tv := v.Topics[i]
		if tv.More || tq.To != 0 && tq.To < v.Head || tq.After > v.Head {
			continue
		}
		tl := &tail{lo: tq.After, hi: v.Head, floor: v.Floor, last: tv.Last, at: time.Now()}
		if tq.Newest > 0 {
			tl.lo = newestFrom(tq, tv)
		}
		tl.events = append(tl.events, tv.Events...)
		if old := t.tails[tq.Topic]; old == nil || old.lo > tl.lo || old.hi < t.ring.lo {
			t.tails[tq.Topic] = tl
		}
	}
}

// newestFrom gives the seq after which the events that Newest brought are all
// that the log retains of the topic.
func newestFrom(tq TopicQuery, tv TopicView) uint64 {
	if len(tv.Events) < tq.Newest && !tv.More {
		return 0
	}
	return tv.Events[0].Prev
}
