package hub

import (
	"context"
	"slices"
	"time"

	"github.com/pushhub/pushhub/protocol"
)

const (
	maxFollow = 256  // events queued under the tenant's lock when a session goes live
	maxScan   = 2048 // events of the ring looked through for exact topics

	minPause = 50 * time.Millisecond // after the log could not be asked, doubling …
	maxPause = 2 * time.Second       // … up to this
)

// join replays to the client what came after the cursors of subs, and makes them
// live at the tenant's pos. In the same moment it queues what answer gives, if
// there is one. It returns early when the session ends.
func (s *Session) join(subs []*sub, answer func(*replay) []byte) {
	t := s.t
	r, owners := s.replay(subs, answer == nil)
	for pause := minPause; s.work.ctx.Err() == nil; {
		steps, next := s.advance(r, subs, owners, answer)
		s.send(r, steps, answer == nil)
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
		steps, err := r.piece()
		s.send(r, steps, answer == nil)
		switch {
		case err == nil:
			pause = minPause
			continue
		case err == errEpoch:
			t.outdated(r.epoch)
			continue
		}
		select {
		case <-s.work.ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// replay makes the replay for subs of the session. It leaves out the topics of
// owners, subscriptions which have them already; what rejoins does not: it owns
// what it had.
func (s *Session) replay(subs []*sub, again bool) (r *replay, owners []*sub) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	wants := make([]Want, len(subs))
	for i, sub := range subs {
		wants[i] = sub.want
	}
	r = newReplay(wants, s.t.h.off, func(q Query, reach uint64) (View, error) { return s.t.look(s.work.ctx, q, reach) })
	r.lower = again
	if again {
		return r, nil
	}
	for _, sub := range s.subs {
		if sub.owner {
			owners = append(owners, sub)
		}
	}
	if owners != nil && !s.t.h.off.has(ruleOwner) {
		r.skip = func(topic string) bool {
			return slices.ContainsFunc(owners, func(sub *sub) bool { return sub.matches(topic) })
		}
	}
	return r, owners
}

// uncovered announces what a replay left to owners that do not have it: because
// they began later, or were revoked meanwhile. With the tenant's lock held.
func (s *Session) uncovered(r *replay, owners []*sub) {
	for _, p := range r.parts {
		if p.fresh || s.subs.of(p.want.Pattern) == nil || !slices.ContainsFunc(owners, func(o *sub) bool {
			return (o.state == gone || o.start > p.from) && protocol.Overlap(o.want.Pattern, p.want.Pattern)
		}) {
			continue
		}
		p.broken = true
		s.gap(protocol.Gap{Topic: p.want.Pattern, Since: p.want.Since.String(), Reason: protocol.GapExpired})
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
// the tenant is ok, puts r on its epoch, follows its ring, and goes live when
// nothing is left. It gives steps to send before what is next.
func (s *Session) advance(r *replay, subs, owners []*sub, answer func(*replay) []byte) ([]step, next) {
	t := s.t
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
	if steps := r.rebase(t.epoch, t.prev, t.base, t.pos); steps != nil {
		return steps, goOn
	}
	if !r.settled(t.reach(r)) {
		return nil, read
	}
	if r.at > t.pos && !t.h.off.has(ruleMeet) {
		t.met(s.work.ctx, t.gen, View{Epoch: t.epoch, Head: r.at})
		return nil, goOn
	}
	if r.at < t.pos {
		events := t.ring.after(r.at)
		if len(events) > maxFollow {
			t.mu.Unlock() // the events stay as they are
			steps := r.follow(events, maxFollow)
			t.mu.Lock()
			return steps, goOn
		}
		s.queue(r, r.follow(events, len(events)), answer == nil)
	}
	if !t.h.off.has(ruleStart) {
		s.uncovered(r, owners)
	}
	for i, sub := range subs {
		if sub.state == joining {
			if p := r.parts[i]; p.fresh {
				sub.start = t.pos
			} else if !sub.owner || p.from < sub.start {
				sub.start = p.from
			}
			t.list(sub)
		}
	}
	s.pending--
	if answer != nil {
		s.ids = true
		s.sink.Control(answer(r), s.complete())
	}
	return nil, done
}

// reach gives how far back r may follow the ring: to look through very many
// events for a few topics is dearer than a read of those that is shared.
func (t *tenant) reach(r *replay) uint64 {
	for _, p := range r.parts {
		if protocol.IsPattern(p.want.Pattern) {
			return t.ring.lo
		}
	}
	if t.pos > t.ring.lo+maxScan {
		return t.pos - maxScan
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
func (s *Session) send(r *replay, steps []step, again bool) {
	if len(steps) == 0 {
		return
	}
	s.t.mu.Lock()
	s.queue(r, steps, again)
	s.t.mu.Unlock()
	s.sink.Flush()
	_ = s.sink.Room(s.work.ctx) // an error is the end of s.work.ctx, which join sees
}

// queue queues steps, but for what was unsubscribed meanwhile. With the tenant's
// lock held.
func (s *Session) queue(r *replay, steps []step, again bool) {
	if s.closed {
		return
	}
	n := 0
	for _, st := range steps {
		if st.event != nil {
			if s.subs.of(st.part.want.Pattern) != nil || s.wantsStill(r, st.event.Topic) {
				s.sink.Retained(st.event, s.pending == 1 && (again || !s.ids && !st.part.fresh))
				n++
			}
			continue
		}
		if s.subs.of(st.part.want.Pattern) != nil {
			s.gap(st.gap)
			continue
		}
		for _, p := range r.parts { // those that shared what the lost one was to read
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

// subscribed makes the answer to a subscribe.
func (s *Session) subscribed(ref string, wants []Want, r *replay) []byte {
	m := protocol.Subscribed{Ref: ref, Topics: make([]protocol.SubscribedTopic, len(wants)), Cursor: s.t.cursor()}
	for i, w := range wants {
		m.Topics[i] = protocol.SubscribedTopic{Topic: w.Pattern}
		for _, p := range r.parts {
			if p.want.Pattern == w.Pattern {
				m.Topics[i].Resumed = !p.want.Since.IsZero() && !p.broken
				m.Topics[i].Replayed = p.replayed
			}
		}
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
