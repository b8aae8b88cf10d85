package hub

import (
	"context"
	"slices"
	"time"

	"github.com/pushhub/pushhub/protocol"
)

const (
	minPause = 50 * time.Millisecond // after the log could not be asked, doubling …
	maxPause = 2 * time.Second       // … up to this
)

// arrival is some subscriptions of a session on their way to be live.
type arrival struct {
	subs   []*sub
	r      *replay              // its parts are those of subs
	owners []*sub               // subscriptions that have some of the topics already
	answer func(*replay) []byte // what the client is told in the moment; nil: they were live before
}

// arrive makes the subscriptions that the session does not have yet. Their replay
// leaves out the topics of others, which have them already. With the tenant's lock
// held.
func (s *Session) arrive(wants []Want, answer func(*replay) []byte) *arrival {
	a := &arrival{answer: answer}
	for _, sub := range s.subs {
		if sub.owner {
			a.owners = append(a.owners, sub)
		}
	}
	added := wants[:0:0]
	for _, w := range wants {
		if s.closed || s.subs.of(w.Pattern) != nil {
			continue
		}
		a.subs, added = append(a.subs, s.sub(w)), append(added, w)
	}
	a.r = s.replay(added)
	if a.owners != nil && !s.t.h.off.has(ruleOwner) {
		a.r.skip = func(topic string) bool {
			return slices.ContainsFunc(a.owners, func(sub *sub) bool { return sub.matches(topic) })
		}
	}
	return a
}

// again is arrive for what is stale, nil if nothing is: it owns what it had. With
// the tenant's lock held.
func (s *Session) again() *arrival {
	a := &arrival{}
	var wants []Want
	for _, sub := range s.subs {
		if sub.state == stale {
			sub.state = joining
			a.subs = append(a.subs, sub)
			wants = append(wants, Want{Pattern: sub.pattern, Since: *sub.since, Hide: sub.hide, User: sub.user})
		}
	}
	if wants == nil {
		return nil
	}
	s.pending++
	a.r = s.replay(wants)
	a.r.lower = true
	return a
}

func (s *Session) replay(wants []Want) *replay {
	return s.t.h.newReplay(wants, func(q Query, reach uint64) (View, error) { return s.t.look(s.work.ctx, q, reach) })
}

// atOnce is join where neither the log nor a wait is needed: where it is, atOnce is
// false, and join has to follow. With the tenant's lock held, and the tenant ok.
func (s *Session) atOnce(a *arrival) bool {
	t := s.t
	s.queue(a, a.r.rebase(t.epoch, t.past, t.pos))
	if !a.r.settled(t.reach(a.r)) || a.r.had() > t.pos {
		return false
	}
	events := t.ring.after(a.r.at)
	if len(events) > t.h.bounds.follow {
		return false
	}
	s.enter(a, events)
	return true
}

// join replays to the client what came after the cursors of subscriptions, and
// makes them live at the tenant's pos. It returns early when the session ends.
func (s *Session) join(a *arrival) {
	for pause := minPause; s.work.ctx.Err() == nil; {
		steps, next := s.advance(a)
		s.send(a, steps)
		switch next {
		case goOn:
			continue
		case catchUpFirst:
			s.catchUp()
			continue
		case done:
			s.sink.Flush()
			return
		}
		steps, err := a.r.piece()
		s.send(a, steps)
		switch {
		case err == nil:
			pause = minPause
			continue
		case err == errEpoch:
			s.t.outdated(a.r.epoch)
			continue
		}
		select {
		case <-s.work.ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// uncovered announces what a replay left to owners that do not have it: because
// they began later, or were revoked meanwhile. With the tenant's lock held.
func (s *Session) uncovered(a *arrival) {
	for _, p := range a.r.parts {
		if p.fresh || s.subs.of(p.want.Pattern) == nil || !slices.ContainsFunc(a.owners, func(o *sub) bool {
			return (o.state == gone || o.start > p.from) && protocol.Overlap(o.pattern, p.want.Pattern)
		}) {
			continue
		}
		since := p.want.Since
		if since.IsZero() { // a fresh one that had begun in an epoch before
			since = protocol.Cursor{Epoch: a.r.epoch, Seq: p.from}
		}
		p.broken = true
		s.gap(protocol.Gap{Topic: p.want.Pattern, Since: since.String(), Reason: protocol.GapExpired})
	}
}

// next is what a join has to do next.
type next uint8

const (
	read         next = iota // the next piece, from the log
	goOn                     // advance again
	catchUpFirst             // what was live before is stale, and comes first
	done
)

// advance does under the tenant's lock what can be done there: it waits until
// the tenant is ok, puts the replay on its epoch, follows its ring, and goes live
// when nothing is left. It gives steps to send before what is next.
func (s *Session) advance(a *arrival) ([]step, next) {
	t, r := s.t, a.r
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.await(s.work.ctx, 0, func() bool { return t.ok }) || s.closed {
		return nil, done
	}
	for _, sub := range s.subs {
		if sub.state == stale && !t.h.off.has(ruleCatchUp) {
			return nil, catchUpFirst
		}
	}
	if steps := r.rebase(t.epoch, t.past, t.pos); steps != nil {
		return steps, goOn
	}
	if !r.settled(t.reach(r)) {
		return nil, read
	}
	if had := r.had(); had > t.pos && !t.h.off.has(ruleMeet) {
		t.met(s.work.ctx, t.gen, View{Epoch: t.epoch, Head: had})
		return nil, goOn
	}
	var events []*protocol.Event
	if r.at < t.pos {
		events = t.ring.after(r.at)
	}
	if most := t.h.bounds.follow; len(events) > most {
		t.mu.Unlock() // the events stay as they are
		steps := r.follow(events, most)
		t.mu.Lock()
		return steps, goOn
	}
	s.enter(a, events)
	return nil, done
}

// enter makes an arrival live, after events, which are all that it misses, and
// queues its answer. With the tenant's lock held.
func (s *Session) enter(a *arrival, events []*protocol.Event) {
	t := s.t
	s.queue(a, a.r.follow(events, len(events)))
	if !t.h.off.has(ruleStart) {
		s.uncovered(a)
	}
	for i, sub := range a.subs {
		if sub.state == joining {
			if p := a.r.parts[i]; p.fresh {
				sub.start = t.pos
			} else if !sub.owner || p.from < sub.start {
				sub.start = p.from
			}
			t.list(sub)
		}
	}
	s.pending--
	if a.answer != nil {
		s.ids = true
		s.sink.Control(a.answer(a.r), s.complete())
	}
}

// reach gives how far back r may follow the ring: to look through very many
// events for a few topics is dearer than a read of those that is shared.
func (t *tenant) reach(r *replay) uint64 {
	for _, p := range r.parts {
		if protocol.IsPattern(p.want.Pattern) {
			return t.ring.lo
		}
	}
	if scan := t.h.bounds.scan; t.pos > t.ring.lo+scan {
		return t.pos - scan
	}
	return t.ring.lo
}

// outdated: the log is not in this epoch any more, and a replay saw it before
// the channel said so.
func (t *tenant) outdated(epoch string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ok && t.epoch == epoch {
		t.hold()
		t.recoverSoon()
	}
}

// send queues steps outside the tenant's lock, at the client's pace.
func (s *Session) send(a *arrival, steps []step) {
	if len(steps) == 0 {
		return
	}
	s.t.mu.Lock()
	s.queue(a, steps)
	s.t.mu.Unlock()
	s.sink.Flush()
	_ = s.sink.Room(s.work.ctx) // an error is the end of s.work.ctx, which join sees
}

// queue queues steps, but for what was unsubscribed meanwhile. With the tenant's
// lock held.
func (s *Session) queue(a *arrival, steps []step) {
	if s.closed {
		return
	}
	n := 0
	for _, st := range steps {
		if st.event != nil {
			if s.subs.of(st.part.want.Pattern) != nil || s.wantsStill(a.r, st.event.Topic) {
				s.sink.Retained(st.event, s.pending == 1 && (a.answer == nil || !s.ids && !st.part.fresh))
				n++
			}
			continue
		}
		if s.subs.of(st.part.want.Pattern) != nil {
			s.gap(st.gap)
			continue
		}
		for _, p := range a.r.parts { // those that shared what the lost one was to read
			if s.subs.of(p.want.Pattern) != nil && protocol.Overlap(p.want.Pattern, st.part.want.Pattern) {
				st.gap.Topic = p.want.Pattern
				p.broken = true
				s.gap(st.gap)
			}
		}
	}
	s.t.h.stats.Replayed.Add(int64(n))
}

// wantsStill says whether a subscription of the replay that is left wants topic.
func (s *Session) wantsStill(r *replay, topic string) bool {
	return slices.ContainsFunc(r.parts, func(p *part) bool {
		return s.subs.of(p.want.Pattern) != nil && p.wants(topic)
	})
}

// subscribed makes the answer to a subscribe, but for what was revoked meanwhile. With
// the tenant's lock held.
func (s *Session) subscribed(ref string, wants []Want, r *replay) []byte {
	m := protocol.Subscribed{Ref: ref, Topics: make([]protocol.SubscribedTopic, 0, len(wants)), Cursor: s.t.cursor()}
	for _, w := range wants {
		if s.subs.of(w.Pattern) == nil {
			continue
		}
		topic := protocol.SubscribedTopic{Topic: w.Pattern}
		for _, p := range r.parts {
			if p.want.Pattern == w.Pattern {
				topic.Resumed = !p.want.Since.IsZero() && !p.broken
				topic.Replayed = p.replayed
			}
		}
		m.Topics = append(m.Topics, topic)
	}
	return m.Encode()
}

// look asks the log for a session, or answers from what others read, if that
// reaches far enough.
func (t *tenant) look(ctx context.Context, q Query, reach uint64) (View, error) {
	if v, ok := t.shared(q, reach); ok {
		return v, nil
	}
	select {
	case t.reading <- struct{}{}:
	case <-ctx.Done():
		return View{}, ctx.Err()
	}
	defer func() { <-t.reading }()
	if v, ok := t.shared(q, reach); ok { // read while we waited
		return v, nil
	}
	t.mu.Lock()
	q.Known = t.cursor()
	t.mu.Unlock()
	t.h.stats.Reads.Add(1)
	v, err := t.h.log.Look(ctx, t.name, q)
	if err == nil {
		t.mu.Lock()
		if t.ok {
			t.keepTails(q, v)
		}
		t.mu.Unlock()
	}
	return v, err
}

func (t *tenant) shared(q Query, reach uint64) (View, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ok || t.pos < reach && !t.h.off.has(ruleReach) {
		return View{}, false
	}
	v, ok := t.fromTails(q)
	if ok {
		t.h.stats.SharedReads.Add(1)
	}
	return v, ok
}
