package memlog

import (
	"cmp"
	"container/list"
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

const (
	// dedupeFor is how long a publisher's own id of an event is remembered.
	dedupeFor = 10 * time.Minute
	// maxLook bounds the bytes of events in one answer.
	maxLook = 1 << 20
)

// tenant is one tenant's sequence, events and dedupes. Every field is guarded by mu.
type tenant struct {
	mu sync.Mutex

	epoch string            // "" until somebody needs the tenant
	past  []protocol.Cursor // as in hub.View; replaced, never changed
	head  uint64
	floor uint64 // the greatest last seq of the topics that left the index
	clock int64  // ms since the log was made, by the monotonic clock: ages go by it

	topics map[string]*list.Element // of *topic
	index  list.List                // of *topic, by last

	firsts map[publicID]protocol.Cursor // the event that each publisher's id stands for
	ids    []datedID                    // the keys of firsts, oldest first

	watched bool // the Listener is told of events
	deaf    bool // see Deafen: it is not told all the same
}

// topic is a topic of the index. The tenant's mu guards it.
type topic struct {
	name   string
	rule   hub.RetentionRule
	first  uint64            // seq of the event that brought it into the index
	last   uint64            // seq of its newest event
	lastAt int64             // the tenant's clock when that came
	events []*protocol.Event // the retained ones, oldest first
	came   []int64           // the tenant's clock when each of them came
}

// publicID is a publisher's own id of an event. It counts within its topic:
// backends number the events of each job anew.
type publicID struct{ topic, id string }

type datedID struct {
	publicID
	at  int64
	seq uint64
}

// begin makes the tenant ready for whatever is asked at this moment.
func (t *tenant) begin(clock int64) {
	t.clock = max(t.clock, clock)
	if t.epoch == "" {
		t.epoch = newEpoch()
	}
}

// turn begins a new epoch at the head.
func (t *tenant) turn() {
	past := append([]protocol.Cursor{{Epoch: t.epoch, Seq: t.head}}, t.past...)
	t.epoch, t.past = newEpoch(), past[:min(len(past), hub.MaxPast)]
}

// newEpoch gives 50 random bits in letters and digits.
func newEpoch() string { return strings.ToLower(rand.Text()[:10]) }

// append gives p its place and keeps it, and gives the event and its cursor. It
// cannot fail. When p was published before, there is no event, and the cursor is
// that of the first.
func (t *tenant) append(p *protocol.Publication, now time.Time, retention hub.Retention) (*protocol.Event, protocol.Cursor) {
	id := publicID{p.Topic, p.Dedupe}
	if id.id != "" {
		t.forgetIDs()
		if c, ok := t.firsts[id]; ok {
			return nil, c
		}
	}
	top, prev := t.publishTo(p.Topic, retention)
	c := protocol.Cursor{Epoch: t.epoch, Seq: t.head}
	e := &protocol.Event{
		Cursor: c,
		Prev:   prev,
		Topic:  top.name,
		Type:   p.Type,
		Key:    p.Key,
		Final:  p.Final,
		At:     now.UnixMilli(),
		JSON:   encode(c, p, now),
	}
	top.lastAt = t.clock
	top.events, top.came = append(top.events, e), append(top.came, t.clock)
	t.trim(top)
	if id.id != "" {
		if t.firsts == nil {
			t.firsts = make(map[publicID]protocol.Cursor)
		}
		t.firsts[id] = c
		t.ids = append(t.ids, datedID{id, t.clock, c.Seq})
	}
	return e, c
}

// publishTo takes the next seq for a topic, which moves to the end of the index,
// and gives the seq to which the event is chained.
func (t *tenant) publishTo(name string, retention hub.Retention) (*topic, uint64) {
	t.head++
	if el := t.topics[name]; el != nil {
		top := el.Value.(*topic)
		prev := top.last
		top.last = t.head
		t.index.MoveToBack(el)
		return top, prev
	}
	top := &topic{name: name, rule: retention.For(name), first: t.head, last: t.head}
	if t.topics == nil {
		t.topics = make(map[string]*list.Element)
	}
	t.topics[name] = t.index.PushBack(top)
	return top, t.floor
}

func encode(c protocol.Cursor, p *protocol.Publication, now time.Time) []byte {
	// Room for the names of all members, a seq and a time, so that the buffer is
	// allocated once.
	size := 128 + len(c.Epoch) + len(p.Topic) + len(p.Type) + len(p.Time) + len(p.Source) + len(p.Data)
	b := append(make([]byte, 0, size), `{"id":"`...)
	b = append(c.Append(b), '"')
	return p.AppendBody(b, now)
}

// trim lets go of the events of a topic that are too many or too old.
func (t *tenant) trim(top *topic) {
	oldest := t.clock - top.rule.Age.Milliseconds()
	n := max(0, len(top.events)-top.rule.Events)
	for n < len(top.events) && top.came[n] < oldest {
		n++
	}
	top.drop(n)
}

// drop lets go of the n oldest events.
func (top *topic) drop(n int) {
	clear(top.events[:n]) // the array outlives the slice of it
	top.events, top.came = top.events[n:], top.came[n:]
	if len(top.events) == 0 {
		top.events, top.came = nil, nil
	}
}

// forgetIDs lets go of the publishers' ids that are too old.
func (t *tenant) forgetIDs() {
	oldest := t.clock - dedupeFor.Milliseconds()
	n := 0
	for n < len(t.ids) && t.ids[n].at <= oldest {
		delete(t.firsts, t.ids[n].publicID)
		n++
	}
	clear(t.ids[:n])
	t.ids = t.ids[n:]
	if len(t.ids) == 0 {
		t.ids, t.firsts = nil, nil
	}
}

// sweep lets go of all that is too old.
func (t *tenant) sweep(clock int64) {
	t.clock = max(t.clock, clock)
	t.forgetIDs()
	for el := t.index.Front(); el != nil; {
		top, next := el.Value.(*topic), el.Next()
		t.trim(top)
		if top.lastAt < t.clock-top.rule.Age.Milliseconds() {
			t.forget(el)
		}
		el = next
	}
	if len(t.topics) == 0 {
		t.topics = nil // an emptied map keeps its size
	}
}

// forget takes a topic out of the index.
func (t *tenant) forget(el *list.Element) {
	top := t.index.Remove(el).(*topic)
	delete(t.topics, top.name)
	t.floor = max(t.floor, top.last)
}

func (t *tenant) look(q hub.Query) hub.View {
	if q.Known.Epoch == t.epoch && q.Known.Seq > t.head {
		t.turn()
	}
	v := hub.View{Epoch: t.epoch, Past: t.past, Head: t.head, Floor: t.floor}
	if q.Index {
		v.Index = t.indexAfter(q.IndexAfter)
	}
	if len(q.Topics) > 0 {
		v.Topics = make([]hub.TopicView, len(q.Topics))
	}
	room := maxLook
	for i, tq := range q.Topics {
		if el := t.topics[tq.Topic]; el != nil {
			top := el.Value.(*topic)
			t.trim(top)
			v.Topics[i] = top.look(tq, &room)
		}
	}
	return v
}

// indexAfter gives the topics whose last seq is greater than after, least first.
func (t *tenant) indexAfter(after uint64) []hub.TopicLast {
	var all []hub.TopicLast
	for el := t.index.Back(); el != nil; el = el.Prev() {
		top := el.Value.(*topic)
		if top.last <= after {
			break
		}
		all = append(all, hub.TopicLast{Topic: top.name, Last: top.last})
	}
	slices.Reverse(all)
	return all
}

// look gives what q asks for, as far as there is room, and takes it from room.
func (top *topic) look(q hub.TopicQuery, room *int) hub.TopicView {
	v := hub.TopicView{Last: top.last}
	wanted := top.wanted(q)
	n := len(wanted)
	if q.Newest <= 0 && q.Limit > 0 {
		n = min(n, q.Limit)
	}
	fits := 0
	for fits < n && (fits == 0 || *room > 0) {
		*room -= len(wanted[fits].JSON)
		fits++
	}
	v.Events = slices.Clone(wanted[:fits])
	v.More = fits < len(wanted)
	return v
}

// wanted gives the retained events that q is about, however many.
func (top *topic) wanted(q hub.TopicQuery) []*protocol.Event {
	if q.Newest > 0 {
		return top.events[max(0, len(top.events)-q.Newest):]
	}
	to := q.To
	if to == 0 || to > top.last {
		to = top.last
	}
	if q.After >= to {
		return nil
	}
	from, _ := slices.BinarySearchFunc(top.events, q.After+1, bySeq)
	end, _ := slices.BinarySearchFunc(top.events, to+1, bySeq)
	return top.events[from:end]
}

func bySeq(e *protocol.Event, seq uint64) int { return cmp.Compare(e.Cursor.Seq, seq) }
