package hub

import (
	"math"
	"slices"

	"github.com/pushhub/pushhub/protocol"
)

// findNewest turns "the newest n" of topics into places before them.
func (r *replay) findNewest() error {
	var asked []TopicQuery
	for topic, pl := range r.topics {
		if pl.newest == 1 && pl.last > 0 {
			pl.have, pl.newest = min(pl.have, pl.last-1), 0
			r.at = min(r.at, pl.have)
		} else if pl.newest > 0 {
			asked = append(asked, TopicQuery{Topic: topic, Newest: pl.newest})
		}
	}
	for chunk := range slices.Chunk(asked, r.bounds.pieceTopics) {
		v, err := r.ask(Query{Topics: chunk})
		if err != nil {
			return err
		}
		for i, tq := range chunk {
			pl := r.topics[tq.Topic]
			pl.newest = 0
			if tv := v.Topics[i]; len(tv.Events) > 0 {
				pl.have = min(pl.have, newestFrom(tv))
				r.at = min(r.at, pl.have)
			}
		}
	}
	return nil
}

// fetch reads the next piece of an open round.
//
// A topic is always asked for what comes after its place, however far that is:
// so what is gone shows, and is announced, before an event of another topic gives
// an id after it. What lies beyond the frontier, up to which every topic's events
// are at hand, is read again later; but that a topic has nothing before it stays
// true, whatever is trimmed.
func (r *replay) fetch() ([]step, error) {
	active, next := r.active()
	end, limit := r.to, r.bounds.pieceEvents
	if !r.known {
		end = math.MaxUint64
	}
	if len(active) > r.bounds.fewTopics {
		end, limit = min(end, max(r.at, next)+r.window), r.bounds.someEvents
		active = slices.DeleteFunc(active, func(topic string) bool { return r.topics[topic].next > end })
	}
	frontier := end
	var steps []step
	var events []*protocol.Event
	var whole []*place // all that is left of them is in events
	for chunk := range slices.Chunk(active, r.bounds.pieceTopics) {
		q := Query{Topics: make([]TopicQuery, len(chunk))}
		for i, topic := range chunk {
			q.Topics[i] = TopicQuery{Topic: topic, After: max(r.topics[topic].have, r.at), Limit: limit}
		}
		v, err := r.ask(q)
		if err != nil {
			return steps, err
		}
		if !r.known { // exact topics only: this Look says where the round ends
			r.to, r.known = v.Head, true
			frontier = min(frontier, v.Head)
		}
		for i, topic := range chunk {
			tv, pl := v.Topics[i], r.topics[topic]
			if tv.More && len(tv.Events) == 0 {
				var err error
				if tv, err = r.beyond(q.Topics[i]); err != nil {
					return steps, err
				}
			}
			steps = r.gone(steps, pl, tv, v)
			if tv.More && len(tv.Events) > 0 && !r.off.has(ruleFrontier) {
				frontier = min(frontier, tv.Events[len(tv.Events)-1].Cursor.Seq)
			} else {
				whole = append(whole, pl)
			}
			events = append(events, tv.Events...)
		}
	}
	if !r.known { // every topic is skipped
		v, err := r.ask(Query{})
		if err != nil {
			return nil, err
		}
		r.to, r.known, frontier = v.Head, true, v.Head
	}
	for _, pl := range whole {
		pl.done = true
	}
	slices.SortFunc(events, func(a, b *protocol.Event) int {
		return int(int64(a.Cursor.Seq) - int64(b.Cursor.Seq))
	})
	n := 0
	for n < len(events) && events[n].Cursor.Seq <= frontier {
		steps = r.give(steps, events[n])
		n++
	}
	for _, e := range slices.Backward(events[n:]) {
		pl := r.topics[e.Topic]
		pl.next, pl.done = e.Cursor.Seq, false
	}
	if n < r.bounds.pieceEvents && r.window < r.to {
		r.window *= 2
	}
	r.at = max(r.at, frontier)
	r.open = r.at < r.to
	return steps, nil
}

// beyond looks for the first event behind some that cannot be read, of which there are as
// many as tq asks for. It gives up where a log does not answer with so many.
func (r *replay) beyond(tq TopicQuery) (tv TopicView, err error) {
	for range 10 {
		tq.Limit *= 2
		v, err := r.ask(Query{Topics: []TopicQuery{tq}})
		if err != nil {
			return tv, err
		}
		if tv = v.Topics[0]; !tv.More || len(tv.Events) > 0 {
			break
		}
	}
	return tv, nil
}

// active gives the topics of which something is left, and the seq before which
// none of them has an event.
func (r *replay) active() (topics []string, next uint64) {
	next = math.MaxUint64
	for topic, pl := range r.topics {
		if !pl.done {
			topics = append(topics, topic)
			next = min(next, pl.next)
		}
	}
	return topics, next
}

// gone announces what a topic's view shows to be lost after our place: between
// it and the first event, between two events, or all that there was.
func (r *replay) gone(steps []step, pl *place, tv TopicView, v View) []step {
	after := max(pl.have, r.at)
	have, lost, lenient := after, uint64(0), pl.lenient
	for _, e := range tv.Events {
		if e.Prev > have && !lenient {
			lost = e.Prev
		}
		have, lenient = e.Cursor.Seq, false
	}
	off := rulePrev
	if len(tv.Events) > 0 && !tv.More && tv.Last > have { // the newest, and no later one tells of it
		lost, off = tv.Last, ruleVanished
	}
	if len(tv.Events) == 0 && !lenient {
		if lost, off = tv.Last, ruleVanished; tv.Last == 0 {
			lost, off = v.Floor, ruleFloor
		}
	}
	if lost <= after || r.off.has(off) {
		return steps
	}
	return r.expired(steps, pl.part, after, lost, v.Head)
}

// give adds the next event of a topic.
func (r *replay) give(steps []step, e *protocol.Event) []step {
	pl := r.topics[e.Topic]
	if pl != nil {
		if e.Cursor.Seq <= pl.have {
			return steps
		}
		pl.have, pl.next, pl.lenient = e.Cursor.Seq, 0, false
		pl.part.replayed++
		return append(steps, step{event: e, part: pl.part})
	}
	p := r.partOf(e.Topic)
	if p == nil || e.Cursor.Seq <= p.from || r.skip != nil && r.skip(e.Topic) {
		return steps
	}
	p.replayed++
	return append(steps, step{event: e, part: p})
}

func (r *replay) ask(q Query) (View, error) { return r.askFrom(q, r.to) }

func (r *replay) askFrom(q Query, reach uint64) (View, error) {
	v, err := r.look(q, reach)
	if err == nil && v.Epoch != r.epoch {
		err = errEpoch
	}
	return v, err
}
