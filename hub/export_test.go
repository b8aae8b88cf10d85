package hub

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// What the tests of package hub_test need from the inside. They are outside
// because memlog, on which they stand, imports hub.

// Rule is one of the rules that can be switched off.
type Rule = rule

// Rules are all of them.
var Rules = []struct {
	Name string
	Rule Rule
}{
	{"hole", ruleHole}, {"live epoch", ruleLiveEpoch}, {"verify", ruleVerify},
	{"prev", rulePrev}, {"vanished", ruleVanished}, {"floor", ruleFloor},
	{"epoch", ruleEpoch}, {"ahead", ruleAhead}, {"meet", ruleMeet},
	{"told", ruleTold}, {"frontier", ruleFrontier}, {"reach", ruleReach},
	{"catch up", ruleCatchUp}, {"owner", ruleOwner}, {"start", ruleStart}, {"ids", ruleIDs},
}

// SwitchOff switches rules off, before the first use of the hub.
func (h *Hub) SwitchOff(r Rule) { h.off |= r }

// Narrow makes all bounds so small that a few events come to each, before the first use
// of the hub.
func (h *Hub) Narrow() {
	h.bounds = bounds{
		pieceEvents: 3, someEvents: 2, pieceTopics: 2, fewTopics: 1, window: 2,
		follow: 3, scan: 8,
		ringBytes: 1000, ringAge: 2000,
		tails: 4, tailEvents: 12, index: 3, tailAge: 5 * time.Second,
	}
}

// Check says what is wrong with the state of the hub, which nobody may be
// changing the sessions of meanwhile.
func (h *Hub) Check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var sessions, subs, topics int64
	for name, t := range h.tenants {
		t.mu.Lock()
		err := t.check(&subs)
		sessions += int64(len(t.sessions))
		topics += int64(t.topics)
		t.mu.Unlock()
		if err != nil {
			return fmt.Errorf("tenant %s: %w", name, err)
		}
	}
	for _, g := range []struct {
		name        string
		want, gauge int64
	}{
		{"sessions", sessions, h.stats.Sessions.Load()},
		{"subscriptions", subs, h.stats.Subscriptions.Load()},
		{"topics", topics, h.stats.Topics.Load()},
	} {
		if g.want != g.gauge {
			return fmt.Errorf("the gauge of %s is %d, there are %d", g.name, g.gauge, g.want)
		}
	}
	return nil
}

func (t *tenant) check(subs *int64) error {
	lists := map[string][]*sub{}
	for topic, list := range t.exact {
		lists[topic] = *list
	}
	t.wild.all("", lists)
	if len(lists) != t.topics {
		return fmt.Errorf("%d topics and patterns, counted %d", len(lists), t.topics)
	}
	listed := 0
	for pattern, list := range lists {
		if len(list) == 0 {
			return fmt.Errorf("an empty list of %s", pattern)
		}
		for i, s := range list {
			open := slices.Contains(t.sessions, s.session)
			switch {
			case s.state != live, s.index != int32(i), s.pattern != pattern:
				return fmt.Errorf("list of %s, place %d: %+v", pattern, i, s)
			case !open, s.session.closed, s.session.subs.of(pattern) != s:
				return fmt.Errorf("list of %s, place %d: not of an open session", pattern, i)
			}
			listed++
		}
	}
	if !t.ok && (listed > 0 || len(t.tails) > 0) {
		return fmt.Errorf("%d subscriptions are live, %d tails kept, while the tenant holds", listed, len(t.tails))
	}
	for _, s := range t.sessions {
		if err := s.check(&listed); err != nil {
			return err
		}
		*subs += int64(len(s.subs))
	}
	if listed != 0 {
		return fmt.Errorf("%d subscriptions in the lists beyond those of the sessions", listed)
	}
	return t.checkCaches()
}

// all gives the lists of the tree by their patterns.
func (p *patterns) all(prefix string, into map[string][]*sub) {
	if len(p.subs) > 0 {
		into[strings.TrimSuffix(prefix, ".")] = p.subs
	}
	if len(p.tail) > 0 {
		into[prefix+">"] = p.tail
	}
	for token, next := range p.next {
		next.all(prefix+token+".", into)
	}
}

// check takes its live subscriptions off listed.
func (s *Session) check(listed *int) error {
	pending := 0
	for _, sub := range s.subs {
		pattern := sub.pattern
		switch sub.state {
		case live:
			*listed--
		case joining:
			pending++
		case stale:
			if s.t.ok && s.work == nil {
				return fmt.Errorf("%s is stale, and nobody brings it back", pattern)
			}
		case gone:
			return fmt.Errorf("%s is gone, and not taken away", pattern)
		}
		if sub.session != s || sub.pattern != pattern {
			return fmt.Errorf("%s: wrong subscription %+v", pattern, sub)
		}
	}
	if (pending > 0 || s.pending > 0) && s.work == nil {
		return fmt.Errorf("%d pending, %d join, busy %v", s.pending, pending, s.work != nil)
	}
	return nil
}

func (t *tenant) checkCaches() error {
	bytes := 0
	for i, e := range t.ring.events {
		bytes += len(e.JSON)
		if e.Cursor.Seq != t.ring.lo+uint64(i)+1 {
			return fmt.Errorf("ring from %d has seq %d at place %d", t.ring.lo, e.Cursor.Seq, i)
		}
	}
	if bytes != t.ring.bytes || t.ok && t.ring.lo+uint64(len(t.ring.events)) != t.pos {
		return fmt.Errorf("ring from %d of %d events, %d bytes (counted %d), pos %d",
			t.ring.lo, len(t.ring.events), t.ring.bytes, bytes, t.pos)
	}
	for topic, list := range t.tails {
		for i, tl := range list {
			after := tl.lo
			for _, e := range tl.events {
				if e.Topic != topic || e.Cursor.Seq <= after || e.Cursor.Seq > tl.hi {
					return fmt.Errorf("tail of %s from %d to %d has %s %d after %d", topic, tl.lo, tl.hi, e.Topic, e.Cursor.Seq, after)
				}
				after = e.Cursor.Seq
			}
			if i+1 < len(list) && (!tl.more || tl.hi >= list[i+1].lo) || tl.more && after != tl.hi {
				return fmt.Errorf("tail of %s from %d to %d, more %v, with events to %d, is %d of %d", topic, tl.lo, tl.hi, tl.more, after, i, len(list))
			}
		}
	}
	if x := t.index; x != nil {
		for topic, last := range x.last {
			if last <= x.lo || last > x.hi {
				return fmt.Errorf("index from %d to %d has %s at %d", x.lo, x.hi, topic, last)
			}
		}
	}
	return nil
}

// Room gives how many entries the outbox has room for, and how many keys it knows.
func (o *Outbox) Room() (entries, keys int) { return cap(o.queue), len(o.places) }

// Left gives how many entries the outbox still remembers of those that do not wait.
func (o *Outbox) Left() (n int) {
	for i, e := range o.queue[:cap(o.queue)] {
		if (i < o.head || i >= len(o.queue)) && (e.Frame != nil || e.Event != nil || e.Cursor != nil) {
			n++
		}
	}
	return n
}
