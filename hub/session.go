package hub

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/pushhub/pushhub/protocol"
)

// A Sink takes what goes to one client, in order, and never blocks but in Room.
// Its methods are called by several goroutines, one at a time for what concerns
// one topic; what is queued under one call after another is written in that
// order. After the connection has ended they do nothing.
type Sink interface {
	// Event queues a live event. It counts against the client's budget, and may
	// be superseded while the client is behind. With id false its cursor is no
	// position from which the client could resume everything that it subscribed.
	// flush says whether Flush has to be called for it: else it goes out by itself.
	Event(e *protocol.Event, id bool) (flush bool)
	// Retained queues an event of a replay, which does not count.
	Retained(e *protocol.Event, id bool)
	// Control queues a message that is no event. A client may resume from id; a
	// zero id says nothing.
	Control(message []byte, id protocol.Cursor)
	// Heartbeat queues a heartbeat if nothing was written for a while. A zero
	// cursor cannot advance.
	Heartbeat(cursor protocol.Cursor)
	// Flush begins to write what is queued.
	Flush()
	// Room waits until what Retained queued is written, or ctx ends.
	Room(ctx context.Context) error
}

// ErrTooMany is returned for more subscriptions than a session may have.
var ErrTooMany = errors.New("too many subscriptions")

// Want is one topic or pattern to subscribe.
type Want struct {
	Pattern string
	Since   protocol.Cursor // resume after it; zero: a fresh subscription
	Last    int             // of a fresh one: retained events per topic to send first
	// Hide leaves out the private topics of all users but User.
	Hide bool
	User string
}

// DefaultLast gives how many retained events a fresh subscription gets first
// where the client did not say: 1 within jobs.>, else none.
func DefaultLast(pattern string) int {
	if strings.HasPrefix(pattern, protocol.JobsPrefix) {
		return 1
	}
	return 0
}

// Session is one client in one tenant: its subscriptions and its place. Its
// methods may be called by several goroutines at once. What it is asked to do
// with its subscriptions is done in the order in which it was asked, one after
// the other; the answers come through the Sink.
type Session struct {
	// What a live event touches comes first.

	sink    Sink            // fixed after construction
	seen    *protocol.Event // guarded by t.mu, as all that follows is: the newest live event queued, so that none goes twice
	pending int32           // Subscribes and catch-ups that are not done
	place   int32           // in the tenant's sessions
	ids     bool            // a position of the whole session was sent, as with subscribed
	closed  bool
	first   sub // most sessions have one subscription all their life: this one

	subs subs
	one  [1]*sub // room for subs
	work *work   // nil: there is nothing to do
	t    *tenant // fixed after construction
}

// subs are those of one session, in no order.
type subs []*sub

// of gives the one of a pattern, nil if there is none.
func (all subs) of(pattern string) *sub {
	for _, s := range all {
		if s.pattern == pattern {
			return s
		}
	}
	return nil
}

// sub makes a subscription. With the tenant's lock held.
func (s *Session) sub(w Want) *sub {
	made := &s.first
	if made.session != nil {
		made = new(sub)
	}
	*made = sub{session: s, pattern: w.Pattern, hide: w.Hide, user: w.User}
	if s.subs == nil {
		s.subs = s.one[:0]
	}
	s.subs = append(s.subs, made)
	s.t.h.stats.Subscriptions.Add(1)
	return made
}

// sub is one topic or pattern of a session.
type sub struct {
	session *Session // fixed after construction
	index   int32    // guarded by the tenant's lock, as what follows but user and hide; in the tenant's list, while live
	state   subState
	hide    bool   // see hides
	owner   bool   // was live once: later subscriptions leave its topics to it …
	start   uint64 // … as far as it has them: from here on
	pattern string // the same bytes always
	user    string
	since   *protocol.Cursor // while stale: complete up to it
}

type subState uint8

const (
	joining subState = iota // a replay is under way or will be
	live                    // complete up to the tenant's pos
	stale                   // was live up to since: rejoins after the tenant's recovery
	gone                    // unsubscribed
)

func (s *sub) hides(topic string) bool {
	if !s.hide {
		return false
	}
	user := protocol.PrivateTo(topic)
	return user != "" && user != s.user
}

func (s *sub) matches(topic string) bool {
	return protocol.Match(s.pattern, topic) && !s.hides(topic)
}

// queue gives a live event to the session, unless it has it: then it is false.
func (s *sub) queue(e *protocol.Event, dirty *[]Sink) bool {
	session := s.session
	if session.seen == e || s.hides(e.Topic) {
		return false
	}
	session.seen = e
	if session.sink.Event(e, session.pending == 0 || session.t.h.off.has(ruleIDs)) {
		*dirty = append(*dirty, session.sink)
	}
	return true
}

// Subscribe adds topics and patterns. The session's Sink gets the gaps, the
// retained events and, when they are all sent, subscribed with the ref. Where that
// needs neither the log nor a wait it has happened when Subscribe returns. max
// bounds the subscriptions of the session; ErrTooMany changes nothing.
func (s *Session) Subscribe(ref string, wants []Want, max int) error {
	queued, err := s.subscribe(ref, wants, max)
	if queued {
		s.sink.Flush()
	}
	return err
}

// subscribe is Subscribe but for the Flush; queued says that something is there for
// it: the answer, or gaps.
func (s *Session) subscribe(ref string, wants []Want, max int) (queued bool, err error) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	switch {
	case s.over():
		return false, nil
	case s.tooMany(wants, max):
		return false, ErrTooMany
	}
	s.pending++
	answer := func(r *replay) []byte { return s.subscribed(ref, wants, r) }
	if s.work == nil && s.t.ok {
		a := s.arrive(wants, answer)
		if !s.atOnce(a) {
			s.do(func() { s.join(a) })
		}
		return true, nil
	}
	r := &request{slices.Clone(wants)}
	todo := s.todo()
	todo.asked = append(todo.asked, r)
	for _, w := range wants {
		todo.names[w.Pattern] = true
	}
	s.do(func() {
		s.t.mu.Lock()
		s.work.asked = slices.DeleteFunc(s.work.asked, func(o *request) bool { return o == r })
		a := s.arrive(r.wants, answer)
		s.t.mu.Unlock()
		s.join(a)
	})
	return false, nil
}

// tooMany says whether the session would have more than max subscriptions. With the
// tenant's lock held.
func (s *Session) tooMany(wants []Want, max int) bool {
	names := len(s.subs)
	known := func(pattern string) bool { return s.subs.of(pattern) != nil }
	if s.work != nil {
		names = len(s.work.names)
		known = func(pattern string) bool { return s.work.names[pattern] }
	}
	for i, w := range wants {
		if !known(w.Pattern) && !slices.ContainsFunc(wants[:i], func(o Want) bool { return o.Pattern == w.Pattern }) {
			names++
		}
	}
	return names > max
}

// request is a Subscribe that waits for its turn. Revoke takes from its wants.
type request struct{ wants []Want }

// Unsubscribe takes topics and patterns away, as they were subscribed; others
// are passed over. The Sink gets unsubscribed with the ref.
func (s *Session) Unsubscribe(ref string, patterns []string) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if s.over() {
		return
	}
	todo := s.todo()
	for _, p := range patterns {
		delete(todo.names, p)
	}
	s.do(func() {
		s.t.mu.Lock()
		s.drop(patterns)
		s.sink.Control(protocol.Unsubscribed{Ref: ref, Topics: patterns}.Encode(), protocol.Cursor{})
		s.t.mu.Unlock()
		s.sink.Flush()
	})
}

// Revoke takes away at once what allowed refuses, and says so to the client.
func (s *Session) Revoke(allowed func(pattern string) bool) {
	s.t.mu.Lock()
	refused := map[string]bool{}
	for _, sub := range s.subs {
		refused[sub.pattern] = !allowed(sub.pattern)
	}
	var asked []*request
	var names map[string]bool
	if s.work != nil {
		asked, names = s.work.asked, s.work.names
	}
	for _, r := range asked {
		r.wants = slices.DeleteFunc(r.wants, func(w Want) bool {
			refused[w.Pattern] = !allowed(w.Pattern)
			return refused[w.Pattern]
		})
	}
	var lost []string
	for p, no := range refused {
		if no {
			delete(names, p)
			lost = append(lost, p)
		}
	}
	if lost != nil {
		slices.Sort(lost)
		s.drop(lost)
		s.sink.Control(protocol.Unsubscribed{Topics: lost}.Encode(), protocol.Cursor{})
	}
	s.t.mu.Unlock()
	s.sink.Flush()
}

// drop ends subscriptions. With the tenant's lock held.
func (s *Session) drop(patterns []string) {
	for _, p := range patterns {
		sub := s.subs.of(p)
		if sub == nil {
			continue
		}
		s.subs = slices.DeleteFunc(s.subs, same(sub))
		if sub.state == live {
			s.t.unlist(sub)
		}
		sub.state = gone
		s.t.h.stats.Subscriptions.Add(-1)
	}
}

func same(a *sub) func(*sub) bool { return func(b *sub) bool { return a == b } }

func (s *Session) gap(g protocol.Gap) {
	if g.Reason == protocol.GapEpoch {
		s.t.h.stats.GapsEpoch.Add(1)
	} else {
		s.t.h.stats.GapsExpired.Add(1)
	}
	s.sink.Control(g.Encode(), protocol.Cursor{})
}

// Heartbeat queues a heartbeat, with the position up to which everything that
// the session subscribed was queued, if there is one now. It does not flush.
func (s *Session) Heartbeat() {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	c := s.complete()
	s.ids = s.ids || !c.IsZero() // a first subscribe may go back behind it
	s.sink.Heartbeat(c)
}

// complete gives the position up to which all subscriptions are complete; zero
// while one of them is not live. With the tenant's lock held.
func (s *Session) complete() protocol.Cursor {
	if !s.t.ok || s.pending > 0 {
		return protocol.Cursor{}
	}
	for _, sub := range s.subs {
		if sub.state != live {
			return protocol.Cursor{}
		}
	}
	return s.t.cursor()
}

// Disproves says whether c is known to be of another epoch than the tenant's log
// is in now. While that is not known it says no.
func (s *Session) Disproves(c protocol.Cursor) bool {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.t.ok && c.Epoch != s.t.epoch
}

// Close ends the session. Nothing is queued to its Sink after Close returned,
// but for what a replay that is just under way still queues.
func (s *Session) Close() {
	t := s.t
	t.mu.Lock()
	if s.closed {
		t.mu.Unlock()
		return
	}
	s.closed = true
	if s.work != nil {
		s.work.cancel()
	}
	for _, sub := range s.subs {
		if sub.state == live {
			t.unlist(sub)
		}
		sub.state = gone
	}
	t.h.stats.Subscriptions.Add(-int64(len(s.subs)))
	s.subs = nil
	last := len(t.sessions) - 1
	t.sessions[s.place], t.sessions[last].place = t.sessions[last], s.place
	t.sessions[last] = nil
	t.sessions = t.sessions[:last]
	t.mu.Unlock()
	t.h.stats.Sessions.Add(-1)
	t.h.left(t)
}

// stale marks what is live as complete to c and no further. With the tenant's
// lock held, by hold, which clears the tenant's lists.
func (s *Session) stale(c *protocol.Cursor) {
	for _, sub := range s.subs {
		if sub.state == live {
			sub.state, sub.since = stale, c
		}
	}
}

// rejoin brings what is stale back. With the tenant's lock held, by settle.
func (s *Session) rejoin() {
	missed := false
	for _, sub := range s.subs {
		missed = missed || sub.state == stale && *sub.since != s.t.cursor()
	}
	if missed {
		s.do(s.catchUp)
		return
	}
	for _, sub := range s.subs {
		if sub.state == stale {
			s.t.list(sub)
		}
	}
}

// catchUp replays to what is stale what it missed.
func (s *Session) catchUp() {
	s.t.mu.Lock()
	a := s.again()
	s.t.mu.Unlock()
	if a != nil {
		s.join(a)
	}
}
