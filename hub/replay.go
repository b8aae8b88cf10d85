package hub

import (
	"errors"
	"math"

	"github.com/pushhub/pushhub/protocol"
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
	look   lookFunc
	skip   func(topic string) bool // topics that others care for; nil: none
	off    rule
	bounds *bounds
	lower  bool // where a topic lies in several parts the lowest cursor counts, else an exact topic's own

	parts  []*part
	epoch  string // "" before the first rebase
	at     uint64 // everything up to it was given
	to     uint64 // end of the round, where that is known: 0 is the end of an empty log
	known  bool
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

func (h *Hub) newReplay(wants []Want, look lookFunc) *replay {
	r := &replay{look: look, off: h.off, bounds: &h.bounds, topics: map[string]*place{}}
	for _, w := range wants {
		r.parts = append(r.parts, &part{want: w, fresh: w.Since.IsZero()})
	}
	return r
}

// rebase puts the replay on an epoch of the log, which had others before as View.Past
// tells, and whose head is at least pos. It gives the gaps of cursors that are not of it.
func (r *replay) rebase(epoch string, past []protocol.Cursor, pos uint64) []step {
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
		if !first && (!p.fresh || p.replayed > 0) { // a fresh one that nothing was given to begins again
			since = protocol.Cursor{Epoch: r.epoch, Seq: max(p.from, at)}
			if p.fresh {
				since.Seq = at // its last ones may not all be given
			}
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
			p.from = min(still(past, since), pos)
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
	r.epoch, r.open, r.known, r.to = epoch, false, false, 0
	clear(r.topics)
	return steps
}

// still gives the seq up to which the log has what a cursor of an epoch before stands
// for: 0 if it does not know that epoch.
func still(past []protocol.Cursor, since protocol.Cursor) uint64 {
	seq := since.Seq
	for _, end := range past {
		if seq = min(seq, end.Seq); end.Epoch == since.Epoch {
			return seq
		}
	}
	return 0
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

// had gives the greatest seq up to which the client has all of some part: what is live
// below it would come again.
func (r *replay) had() uint64 {
	had := r.at
	for _, p := range r.parts {
		had = max(had, p.from)
	}
	return had
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
		reach := r.to
		if !r.proved {
			reach = math.MaxUint64 // only the log knows whether it got so far
		}
		var err error
		if v, err = r.askFrom(q, reach); err != nil {
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
	for _, pl := range r.topics {
		if q.Index && pl.part.fresh && !pl.lenient && max(pl.have, r.at) < v.Floor {
			pl.done = false // the log may have forgotten it: the floor says nothing to who is fresh
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
	r.open, r.known, r.to, r.window = true, q.Index, v.Head, r.bounds.window
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
		// Past its beginning also who is fresh has had all up to at.
		pl = &place{part: p, have: max(p.from, r.at), newest: p.newest, lenient: p.fresh && r.at <= p.from}
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
