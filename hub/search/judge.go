package search

import (
	"maps"
	"math"
	"slices"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// The promises of section 6 of the contract, checked with each message that a
// client reads. All with the world's mu held.

// event is read by the client.
func (c *client) event(e hub.Entry, m note) {
	n := c.w.numbers[e.Event.Cursor]
	topic := e.Event.Topic
	c.w.delivered++
	c.passed = slices.DeleteFunc(c.passed, func(p int) bool { return p == n }) // it came after all
	c.w.note("    %s gets %s live %v id %v", c.name, c.w.name(n), e.Live(), e.Cursor != nil)
	if !slices.ContainsFunc(c.subs, func(s *subscription) bool { return s.created <= m.calls && c.matches(s.pattern, topic) }) {
		c.w.failf("%s did not want %s", c.name, c.w.name(n))
		return
	}
	if c.order[topic] == nil {
		c.order[topic] = new(order)
	}
	if last := c.order[topic].last; !c.order[topic].after(e.Event.Cursor) {
		c.w.failf("%s gets %s (%s) after %s, and no gap said that the epoch is another", c.name, c.w.name(n), e.Event.Cursor, last)
		return
	}
	if _, late := c.w.late[n]; late {
		c.hasLate[n] = true
		delete(c.debts, n)
		if e.Cursor != nil {
			c.claim(*e.Cursor, m)
		}
		return
	}
	p := c.topics[topic]
	if p == nil { // the topic's first event ever
		p = &progress{}
		c.topics[topic] = p
	}
	if n < p.done && !p.loose {
		c.w.failf("%s: %s comes again, or too late: it had all before #%d", c.name, c.w.name(n), p.done)
		return
	}
	if lost := c.lost(topic, p.from(), n); lost != nil {
		c.w.failf("%s gets %s, and has neither got nor a gap for %s", c.name, c.w.name(n), c.w.name(lost[0]))
		return
	}
	c.pass(topic, p.from(), n)
	p.first = min(p.first, n)
	p.done, p.loose = n+1, false
	for _, a := range c.alarms {
		delete(a.missing, n)
	}
	for _, s := range c.subs {
		if s.pattern == topic && s.created <= m.calls && s.left == 0 {
			s.cursor = e.Event.Cursor
		}
	}
	if e.Cursor != nil {
		c.claim(*e.Cursor, m)
	}
}

// order is what came of a topic since the last gap for another epoch: in each epoch
// only onwards, and never back to one.
type order struct {
	last protocol.Cursor
	past []string // epochs before
}

// after says whether an event at a cursor may come next, and has it be the last.
func (o *order) after(at protocol.Cursor) bool {
	if at.Epoch == o.last.Epoch {
		fine := at.Seq > o.last.Seq
		o.last.Seq = max(o.last.Seq, at.Seq)
		return fine
	}
	o.past, o.last = append(o.past, o.last.Epoch), at
	return !slices.Contains(o.past, at.Epoch)
}

// lost gives the events that the client neither got nor was told of.
func (c *client) lost(topic string, from, to int) []int {
	return c.w.missing(topic, from, to, func(n int) bool { return n < c.announced[topic] || c.excused[n] })
}

// pass notes the events that the client is past, and has only a gap for.
func (c *client) pass(topic string, from, to int) {
	if to > from {
		c.passed = append(c.passed, c.w.missing(topic, from, to, func(n int) bool { return c.excused[n] })...)
	}
}

// claim: the hub said with a message that the client can resume everything from
// cursor.
func (c *client) claim(cursor protocol.Cursor, m note) {
	n, ok := c.w.upTo(cursor)
	if !ok {
		c.w.failf("%s: the id %s is nowhere in the log", c.name, cursor)
		return
	}
	if was, _ := c.w.upTo(c.scalar); n < was && !c.loose && len(c.subs) > 0 {
		c.w.failf("%s: the id goes back from %s to %s", c.name, c.scalar, cursor)
	}
	for topic, p := range c.topics {
		if !slices.ContainsFunc(c.subs, func(s *subscription) bool {
			return s.created <= m.returned && (s.left == 0 || s.left > m.calls) && c.matches(s.pattern, topic)
		}) {
			continue
		}
		if !p.open { // else nothing is owed of it yet
			c.complete(topic, p, n, "the id "+cursor.String())
		}
	}
	c.scalar = cursor
	for _, s := range c.subs {
		if s.created <= m.returned && s.left == 0 {
			s.cursor = cursor
		}
	}
}

// complete: somebody said that a topic is complete up to n.
func (c *client) complete(topic string, p *progress, n int, who string) {
	if lost := c.lost(topic, p.from(), n); lost != nil {
		c.w.failf("%s: %s runs ahead of %s", c.name, who, c.w.name(lost[0]))
	}
	c.pass(topic, p.from(), n)
	p.open, p.first = false, min(p.first, n)
	p.done = max(p.done, n)
}

// from gives the number of the event from which on none may be missing.
func (p *progress) from() int {
	switch {
	case !p.open:
		return p.done
	case p.owed < 0:
		return math.MaxInt
	}
	return max(p.done, p.owed)
}

// gap is read.
func (c *client) gap(pattern string, reason protocol.GapReason, m note) {
	if c.w.gaps++; reason == protocol.GapEpoch {
		c.w.epochGaps++
	}
	i := slices.IndexFunc(c.subs, func(s *subscription) bool { return s.pattern == pattern && s.created <= m.calls })
	if i >= 0 { // not a later one of that pattern, whose turn has not come
		if s := c.subs[i]; s.since.IsZero() && !s.in && !s.gapped && reason == protocol.GapExpired && !c.odd && !c.began(pattern) {
			c.w.failf("%s: a gap for %s, which is fresh", c.name, pattern)
		}
		c.subs[i].gapped = true
		if c.w.lossless && !c.subs[i].below {
			c.w.failf("%s: a gap for %s, and nothing is lost", c.name, pattern)
		}
	} else {
		c.w.failf("%s: a gap for %s, which it did not ask for", c.name, pattern)
	}
	a := &alarm{missing: map[int]bool{}, epoch: reason == protocol.GapEpoch}
	for topic := range c.w.byTopic {
		if !c.matches(pattern, topic) {
			continue
		}
		if p := c.topics[topic]; p != nil {
			for _, n := range c.lost(topic, p.from(), m.events) {
				a.missing[n] = true
			}
			p.loose = p.loose || reason == protocol.GapEpoch
		}
		c.announced[topic] = max(c.announced[topic], m.events)
		if reason == protocol.GapEpoch {
			delete(c.order, topic)
		}
	}
	maps.DeleteFunc(c.debts, func(n int, _ debt) bool { return n < m.events && c.matches(pattern, c.w.events[n].Topic) })
	c.loose = c.loose || reason == protocol.GapEpoch
	c.alarms = append(c.alarms, a)
}

// began says whether the client was given an event of a topic of the pattern.
func (c *client) began(pattern string) bool {
	for topic, p := range c.topics {
		if c.matches(pattern, topic) && p.first != math.MaxInt {
			return true
		}
	}
	return false
}

// subscribed is read.
func (c *client) subscribed(ref string, cursor protocol.Cursor, topics []protocol.SubscribedTopic) {
	r := c.asked[ref]
	n, ok := c.w.upTo(cursor)
	if r == nil || !ok {
		c.w.failf("%s: subscribed %s at %s, which is nothing of ours", c.name, ref, cursor)
		return
	}
	for _, t := range topics {
		if !slices.ContainsFunc(c.subs, func(s *subscription) bool { return s.pattern == t.Topic }) {
			c.w.failf("%s: the answer to %s names %s, which was revoked", c.name, ref, t.Topic)
		}
	}
	for _, s := range r.subs {
		if !slices.Contains(c.subs, s) {
			continue // revoked meanwhile
		}
		i := slices.IndexFunc(topics, func(t protocol.SubscribedTopic) bool { return t.Topic == s.pattern })
		if i < 0 {
			c.w.failf("%s: %s was asked for and is not in the answer", c.name, s.pattern)
			return
		}
		if s.gapped && topics[i].Resumed || s.since.IsZero() && topics[i].Resumed {
			c.w.failf("%s: %s is said to be resumed, and is not", c.name, s.pattern)
		}
		if _, known := c.w.upTo(s.since); !known && !s.since.IsZero() && !s.gapped {
			c.w.failf("%s: no gap for %s with a forged cursor", c.name, s.pattern)
		}
		s.in = true
		if s.left != 0 {
			continue
		}
		if was, _ := c.w.upTo(s.cursor); s.cursor.IsZero() || n > was || c.loose {
			s.cursor = cursor
		}
	}
	for topic, p := range c.topics { // of the connection, not only of this request
		if slices.ContainsFunc(c.subs, func(s *subscription) bool {
			return (s.in || slices.Contains(r.subs, s)) && s.left == 0 && c.matches(s.pattern, topic)
		}) {
			c.complete(topic, p, n, "subscribed at "+cursor.String())
		}
	}
	for _, h := range r.below {
		if !slices.ContainsFunc(r.subs, func(s *subscription) bool {
			return s.left == 0 && !s.since.IsZero() && slices.Contains(c.subs, s) && c.matches(s.pattern, h.topic)
		}) {
			continue
		}
		if lost := c.lost(h.topic, h.from, h.to.first); lost != nil {
			c.w.failf("%s asked for %s from #%d on, which another subscription had from #%d on, and has neither got nor a gap for %s",
				c.name, h.topic, h.from, h.to.first, c.w.name(lost[0]))
		}
	}
}

// unsubscribed is read; without a ref it is a Revoke's.
func (c *client) unsubscribed(ref string, patterns []string, m note) {
	var removed, kept []*subscription
	for _, s := range c.subs {
		over := slices.Contains(patterns, s.pattern) && s.created <= m.calls && (ref == "" || s.leftRef == ref)
		if over {
			removed = append(removed, s)
		} else {
			kept = append(kept, s)
		}
	}
	c.subs = kept
	for topic := range c.topics {
		if slices.ContainsFunc(removed, func(s *subscription) bool { return c.matches(s.pattern, topic) }) {
			c.left(topic, removed, ref == "")
		}
	}
}

// left: subscriptions are gone that had a topic. Who asked for it after they
// began to leave starts now. So may, when they were revoked, who asked before and
// still has no answer: a Revoke does not wait for its turn.
func (c *client) left(topic string, removed []*subscription, revoked bool) {
	began := 0
	for _, s := range removed {
		if c.matches(s.pattern, topic) {
			began = max(began, s.left)
		}
	}
	var heirs []*subscription
	for _, s := range c.subs {
		if !c.matches(s.pattern, topic) {
			continue
		}
		if s.in || s.created < began && !revoked {
			return // it had the topic all the time
		}
		if len(heirs) == 0 || s.created == heirs[0].created {
			heirs = append(heirs, s)
		}
	}
	c.forgive(func(of string) bool { return of == topic })
	delete(c.order, topic)
	if heirs == nil {
		delete(c.topics, topic)
		return
	}
	was := c.topics[topic]
	p, _ := c.start(heirs, topic)
	if revoked && !p.open { // it may have begun, or not
		p.done, p.loose = max(p.done, was.done), true
	}
	*was = *p // a hole may point to it
}

// verdict is asked at the end, when everything has settled. retained says what is
// still in the log: a gap does not stand for that.
func (c *client) verdict(retained map[protocol.Cursor]bool) {
	if c.conn == nil {
		return
	}
	for _, s := range c.subs {
		if !s.in || s.left != 0 {
			c.w.failf("%s: %s never got an answer (in %v, left %d)", c.name, s.pattern, s.in, s.left)
			return
		}
	}
	for topic, p := range c.topics {
		if !slices.ContainsFunc(c.subs, func(s *subscription) bool { return c.matches(s.pattern, topic) }) {
			continue
		}
		if lost := c.lost(topic, p.done, len(c.w.events)); lost != nil {
			c.w.failf("%s never got %s, nor a gap", c.name, c.w.name(lost[0]))
		}
	}
	for n, d := range c.debts {
		if c.topics[c.w.events[n].Topic] != nil {
			c.w.failf("%s never got %s, which an old primary acknowledged to %s, nor a gap", c.name, c.w.name(n), d.by)
		}
	}
	for _, n := range c.passed {
		if retained[c.w.events[n].Cursor] && !c.ws && !c.odd && !(c.w.undone && c.w.trims) {
			c.w.failf("%s got a gap for %s, which was in the log all the time", c.name, c.w.name(n))
		}
	}
	for _, a := range c.alarms {
		if len(a.missing) == 0 {
			if c.w.needless++; a.epoch {
				c.w.needlessEpoch++
			}
		}
	}
}
