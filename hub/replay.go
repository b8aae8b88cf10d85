package hub

import (
	"errors"
	"math"
	"slices"

	"github.com/pushhub/pushhub/protocol"
)

// Bounds of one piece of a replay.
const (
	pieceEvents = 128  // of one topic, of few topics
	someEvents  = 16   // of one topic, of many
	pieceTopics = 256  // asked for in one Look
	fewTopics   = 64   // more are read by windows of seqs
	firstWindow = 1024 // seqs
)

// errEpoch: the log began a new epoch in mid-replay.
var errEpoch = errors.New("the log began a new epoch")

// A replay reads from the log what came after the cursors of some topics and
// patterns: in pieces, all topics merged in the order of their seqs, each gap
// before the next event of its topic. One goroutine uses it.
//
// A round goes from at to the head that the log had when the round began. In it
// every topic has its own place in the chain of Prevs, have: the seq of its last
// event that was given or announced as gone. That is what makes a hole visible,
// however the log is trimmed meanwhile.
type replay struct {
	// fixed after construction
	look  lookFunc
	skip  func(topic string) bool // topics that others care for; nil: none
	off   rule
	lower bool // where a topic lies in several parts the lowest cursor counts, else an exact topic's own

	parts  []*part
	epoch  string // "" before the first rebase
	at     uint64 // everything up to it was given
	to     uint64 // end of the round; void unless open
	open   bool
	proved bool // no cursor is ahead of the log
	window uint64
	topics map[string]*place
}

// part is one topic or pattern of a replay.
type part struct {
	want     Want
	from     uint64
	fresh    bool   // came without a cursor
	newest   int    // still to be turned into places: the last of a fresh part
	told     uint64 // a gap was announced when this was the head: what is gone up to it is told
	broken   bool   // a gap was announced
	replayed int
}

// place is where a replay is in one topic.
type place struct {
	part    *part
	have    uint64
	next    uint64 // there is no event of it before this one, after have; 0: unknown
	done    bool   // nothing is left of it in this round
	last    uint64 // seq of its newest event in the index, for patterns
	newest  int    // > 0: have is to be found by asking for the newest
	lenient bool   // what lies before its next event was not asked for: no gap
}

// step is one thing to send: an event, or a gap of a part.
type step struct {
	event *protocol.Event // nil: a gap
	part  *part
	gap   protocol.Gap
}

// lookFunc asks the log. The head of the answer is not before reach, which an
// earlier answer has reached.
type lookFunc func(q Query, reach uint64) (View, error)

func newReplay(wants []Want, off rule, look lookFunc) *replay {
	r := &replay{look: look, off: off, topics: map[string]*place{}}
	for _, w := range wants {
		r.parts = append(r.parts, &part{want: w, fresh: w.Since.IsZero()})
	}
	return r
}

// rebase puts the replay on an epoch of the log, whose head is at least pos, and
// gives the gaps of cursors that are not of it.
func (r *replay) rebase(epoch, prev string, base, pos uint64) []step {
	if r.epoch == epoch {
		return nil
	}
	var steps []step
	r.proved = true
	first := r.epoch == ""
	at := r.at
	r.at = math.MaxUint64
	for _, p := range r.parts {
		since := p.want.Since
		if !first {
			since = protocol.Cursor{Epoch: r.epoch, Seq: max(p.from, at)}
			p.fresh, p.newest = false, 0
		}
		p.told = 0
		switch {
		case p.fresh:
			p.from, p.newest = pos, p.want.Last
		case since.Epoch == epoch:
			p.from = since.Seq
			r.proved = r.proved && since.Seq <= pos
		default:
			p.from = 0
			if since.Epoch == prev {
				p.from = min(since.Seq, base)
			}
			if !r.off.has(ruleEpoch) {
				p.told, p.broken = pos, true
				steps = append(steps, gapOf(p, since, protocol.GapEpoch))
			}
		}
		r.at = min(r.at, p.from)
	}
	if len(r.parts) == 0 {
		r.at = pos
	}
	r.epoch, r.open, r.to = epoch, false, 0
	clear(r.topics)
	return steps
}

func gapOf(p *part, since protocol.Cursor, reason protocol.GapReason) step {
	return step{part: p, gap: protocol.Gap{Topic: p.want.Pattern, Since: since.String(), Reason: reason}}
}

// expired announces that events of p after since are gone, the last of them
// lost, when the head of the log is head.
func (r *replay) expired(steps []step, p *part, since, lost, head uint64) []step {
	if lost <= p.told || p.told > 0 && r.off.has(ruleTold) {
		return steps
	}
	p.told, p.broken = head, true
	return append(steps, gapOf(p, protocol.Cursor{Epoch: r.epoch, Seq: since}, protocol.GapExpired))
}

// settled says whether nothing is left to do but to follow the tenant's ring,
// which reaches back to lo.
func (r *replay) settled(lo uint64) bool {
	if r.open || !r.proved || r.at < lo {
		return false
	}
	for _, p := range r.parts {
		if p.newest > 0 {
			return false
		}
	}
	return true
}

// piece reads on from at. It gives what is to be sent next, also with an error,
// after which it can be called again.
func (r *replay) piece() ([]step, error) {
	if !r.open {
		if steps, err := r.begin(); err != nil || len(steps) > 0 {
			return steps, err
		}
	}
	return r.fetch()
}

// begin opens a round: which topics are there, and from where on.
func (r *replay) begin() ([]step, error) {
	q := Query{IndexAfter: math.MaxUint64}
	for _, p := range r.parts {
		if protocol.IsPattern(p.want.Pattern) {
			q.Index = true
			if p.newest > 0 {
				q.IndexAfter = 0
			}
			q.IndexAfter = min(q.IndexAfter, max(p.from, r.at))
		}
	}
	var steps []step
	var v View
	if q.Index || !r.proved {
		var err error
		if v, err = r.ask(q); err != nil {
			return nil, err
		}
		if steps = r.prove(v.Head); steps != nil {
			return steps, nil // the index was asked for too little
		}
	}
	for _, p := range r.parts {
		if !protocol.IsPattern(p.want.Pattern) {
			r.enter(p.want.Pattern, p).done = false
		} else if from := max(p.from, r.at); !p.fresh && from < v.Floor && !r.off.has(ruleFloor) {
			steps = r.expired(steps, p, from, v.Floor, v.Head)
		}
	}
	for _, tl := range v.Index {
		for _, p := range r.parts {
			if protocol.IsPattern(p.want.Pattern) && p.wants(tl.Topic) {
				pl := r.enter(tl.Topic, p)
				pl.last, pl.done = tl.Last, tl.Last <= max(pl.have, r.at) && pl.newest == 0
			}
		}
	}
	if err := r.findNewest(); err != nil {
		return steps, err
	}
	for _, p := range r.parts {
		p.newest = 0
	}
	r.open, r.to, r.window = true, 0, firstWindow
	if q.Index {
		r.to = v.Head
	}
	return steps, nil
}

func (p *part) wants(topic string) bool {
	if !protocol.Match(p.want.Pattern, topic) {
		return false
	}
	if !p.want.Hide {
		return true
	}
	user := protocol.PrivateTo(topic)
	return user == "" || user == p.want.User
}

// prove looks for cursors ahead of the log.
func (r *replay) prove(head uint64) []step {
	var steps []step
	r.proved = true
	for _, p := range r.parts {
		if p.from > head && !p.fresh {
			if !r.off.has(ruleAhead) {
				steps = append(steps, gapOf(p, protocol.Cursor{Epoch: r.epoch, Seq: p.from}, protocol.GapEpoch))
				p.told, p.broken = head, true
			}
			p.from = 0
			r.at = 0
		}
	}
	return steps
}

// enter gives the place in a topic, a new one as p says. Of several parts an
// exact topic's own cursor counts, else the lowest.
func (r *replay) enter(topic string, p *part) *place {
	pl := r.topics[topic]
	if pl == nil {
		pl = &place{part: p, have: max(p.from, r.at), newest: p.newest, lenient: p.fresh}
		if p.fresh && p.newest == 0 {
			pl.have = p.from
		}
		if r.skip == nil || !r.skip(topic) {
			r.topics[topic] = pl
		}
		return pl
	}
	switch was := pl.part; {
	case was == p || !r.lower && was.want.Pattern == topic && !was.fresh:
	case !p.fresh && (was.fresh || p.from < was.from):
		pl.part, pl.have, pl.newest, pl.lenient = p, max(p.from, r.at), 0, false
	case p.fresh && was.fresh && p.newest > pl.newest:
		pl.part, pl.newest = p, p.newest
	}
	return pl
}

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
	for chunk := range slices.Chunk(asked, pieceTopics) {
		v, err := r.ask(Query{Topics: chunk})
		if err != nil {
			return err
		}
		for i, tq := range chunk {
			pl := r.topics[tq.Topic]
			pl.newest = 0
			if tv := v.Topics[i]; len(tv.Events) > 0 {
				pl.have = min(pl.have, newestFrom(tq, tv))
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
	end, limit := r.to, pieceEvents
	if r.to == 0 {
		end = math.MaxUint64
	}
	if len(active) > fewTopics {
		end, limit = min(end, max(r.at, next)+r.window), someEvents
		active = slices.DeleteFunc(active, func(topic string) bool { return r.topics[topic].next > end })
	}
	frontier := end
	var steps []step
	var events []*protocol.Event
	var whole []*place // all that is left of them is in events
	for chunk := range slices.Chunk(active, pieceTopics) {
		q := Query{Topics: make([]TopicQuery, len(chunk))}
		for i, topic := range chunk {
			q.Topics[i] = TopicQuery{Topic: topic, After: max(r.topics[topic].have, r.at), Limit: limit}
		}
		v, err := r.ask(q)
		if err != nil {
			return steps, err
		}
		if r.to == 0 { // exact topics only: this Look says where the round ends
			r.to = v.Head
			frontier = min(frontier, v.Head)
		}
		for i, topic := range chunk {
			tv, pl := v.Topics[i], r.topics[topic]
			steps = r.gone(steps, pl, tv, v)
			if tv.More && !r.off.has(ruleFrontier) {
				frontier = min(frontier, tv.Events[len(tv.Events)-1].Cursor.Seq)
			} else {
				whole = append(whole, pl)
			}
			events = append(events, tv.Events...)
		}
	}
	if r.to == 0 {
		v, err := r.ask(Query{})
		if err != nil {
			return nil, err
		}
		r.to, frontier = v.Head, v.Head
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
	if n < pieceEvents {
		r.window *= 2
	}
	r.at = max(r.at, frontier)
	r.open = r.at < r.to
	return steps, nil
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

// partOf gives the part whose cursor counts for a topic: see enter.
func (r *replay) partOf(topic string) *part {
	var best *part
	for _, p := range r.parts {
		switch {
		case !p.wants(topic):
		case !r.lower && p.want.Pattern == topic && !p.fresh:
			return p
		case best == nil || p.from < best.from:
			best = p
		}
	}
	return best
}

// follow gives what is left after at among events, which are the tenant's
// without a hole from at on; at most max steps, and moves at.
func (r *replay) follow(events []*protocol.Event, max int) []step {
	var steps []step
	for _, e := range events {
		if len(steps) >= max {
			return steps
		}
		steps = r.give(steps, e)
		r.at = e.Cursor.Seq
	}
	return steps
}

func (r *replay) ask(q Query) (View, error) {
	v, err := r.look(q, r.to)
	if err == nil && v.Epoch != r.epoch {
		err = errEpoch
	}
	return v, err
}
