package search

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// client is one remote program over all its connections. What it carries from
// one to the next is cursors only. judge_test.go says what it may be sent.
//
// Everything in it is guarded by the world's mu.
type client struct {
	w    *world
	name string
	ws   bool // subscribes and unsubscribes later, with a cursor per topic; else it is an EventSource
	user string

	conn   *conn // nil while it is away
	scalar protocol.Cursor
	wishes []*wish
	refs   int

	subs      []*subscription
	topics    map[string]*progress
	announced map[string]int // of a topic: the number of events when the last gap for it was queued
	excused   map[int]bool   // superseded by a later event
	asked     map[string]*request
	order     map[string]*order // of each topic, on this connection, late events too
	loose     bool              // ids may go back: a gap said that the epoch is another
	passed    []int             // events that only a gap stood for, on this connection
	odd       bool              // its cursor is of no event, or something was revoked, on this connection
	alarms    []*alarm

	debts   map[int]debt // late events that were acknowledged, over all connections
	hasLate map[int]bool // those that it got
}

// debt is an event that is lost with an old primary, and of which no gap told yet.
type debt struct {
	by    *instance // who was told that it is in the log
	since time.Time
}

// within is the time in which an instance that lives, and is connected to no old
// primary, has done something about it.
const within = 40 * time.Second

// wants says whether the client subscribes a topic from an event on: it is connected,
// and was before; or away, and has a cursor of before.
func (c *client) wants(topic string, n int) bool {
	if c.conn != nil {
		p := c.topics[topic]
		return p != nil && !p.open && p.first <= n
	}
	before := false
	for _, w := range c.wishes {
		if !c.matches(w.pattern, topic) {
			continue
		}
		cursor := c.scalar
		if c.ws {
			cursor = w.cursor
		}
		has, known := c.w.upTo(cursor)
		switch {
		case known && has <= n && !cursor.IsZero():
			before = true
		case w.pattern == topic: // its own cursor counts
			return false
		}
	}
	return before
}

// forgive lets go of what is owed of topics.
func (c *client) forgive(of func(topic string) bool) {
	maps.DeleteFunc(c.debts, func(n int, _ debt) bool { return of(c.w.events[n].Topic) })
}

// wish is a topic or pattern that the client wants, however often it reconnects.
type wish struct {
	pattern string
	cursor  protocol.Cursor // complete up to it; zero: fresh
	last    int
}

// subscription is a wish on one connection.
type subscription struct {
	*wish
	since   protocol.Cursor
	created int // the client's calls on the connection when it was asked for
	left    int // the same for its end; 0: none
	leftRef string
	in      bool // subscribed was read
	gapped  bool // a gap was read for it
	below   bool // another had some of it already: see hole
}

// request is one call of Subscribe.
type request struct {
	subs  []*subscription
	below []hole
}

// hole is a stretch of events that a subscription asked for, while another had
// the topic already, from a later event on.
type hole struct {
	topic string
	from  int
	to    *progress // up to where that one's began
}

// progress is how far the client is in a topic.
type progress struct {
	open  bool // fresh, and not yet subscribed: what comes may have holes …
	owed  int  // … but from here on; -1: nowhere
	first int  // number of the event from which on nothing is missing; void while open
	done  int  // all before it is accounted for
	loose bool // an epoch's gap was read: the topic may start again
}

// alarm is a gap with what the client missed when it read it: if it gets all of
// that nevertheless, the gap was needless.
type alarm struct {
	missing map[int]bool
	epoch   bool
}

// conn is one connection: the Sink of a session, and the socket behind it.
type conn struct {
	c        *client
	instance *instance
	session  *hub.Session
	ended    bool
	slow     bool // reads only when it is told to
	box      hub.Outbox
	notes    []note // of the control messages in box
	room     chan struct{}
	calls    int            // of the session's methods that change subscriptions
	returned int            // the same, but for one that is under way
	waiting  map[string]int // topic and key → the event that waits to be superseded
}

// note goes with a message in the outbox.
type note struct {
	message         []byte
	events          int // published when it was queued
	calls, returned int // of the conn, when it was queued
}

func (c *conn) queued(m []byte) []byte {
	c.notes = append(c.notes, note{m, len(c.c.w.events), c.calls, c.returned})
	return fmt.Append(nil, len(c.notes)-1)
}

// frame gives an event a note too.
func (c *conn) frame() []byte { return c.queued(nil) }

// Event implements hub.Sink.
func (c *conn) Event(e *protocol.Event, id bool) (flush bool) {
	defer c.lock()()
	if c.ended {
		return false
	}
	key := e.Topic + " " + e.Key
	conflated, _ := c.box.Event(e, c.frame(), id, c.slow)
	if conflated {
		n, ok := c.waiting[key]
		if !ok || e.Key == "" {
			c.c.w.failf("%s: %s superseded what was not there", c.c.name, e.Cursor)
		}
		c.c.excused[n] = true
		c.c.w.superseded++
	}
	delete(c.waiting, key)
	if e.Key != "" && !e.Final {
		c.waiting[key] = c.c.w.numbers[e.Cursor]
	}
	c.drain()
	return true
}

// Retained implements hub.Sink.
func (c *conn) Retained(e *protocol.Event, id bool) {
	defer c.lock()()
	if !c.ended {
		c.box.Add(hub.RetainedEntry(e, c.frame(), id))
		c.drain()
	}
}

// Control implements hub.Sink.
func (c *conn) Control(message []byte, id protocol.Cursor) {
	defer c.lock()()
	if !c.ended {
		c.box.Add(hub.ControlEntry(c.queued(message), id))
		c.drain()
	}
}

// Heartbeat implements hub.Sink.
func (c *conn) Heartbeat(cursor protocol.Cursor) {
	defer c.lock()()
	if !c.ended && !cursor.IsZero() {
		c.box.Add(hub.ControlEntry(c.queued(protocol.Heartbeat{Cursor: cursor}.Encode()), cursor))
		c.drain()
	}
}

// Flush implements hub.Sink.
func (c *conn) Flush() {}

// Room implements hub.Sink.
func (c *conn) Room(ctx context.Context) error {
	for {
		unlock := c.lock()
		room, full := c.room, c.box.Replaying() > 0 && !c.ended
		unlock()
		if !full {
			return ctx.Err()
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *conn) lock() func() {
	c.c.w.mu.Lock()
	return c.c.w.mu.Unlock
}

func (c *conn) drain() {
	if !c.slow {
		c.read(c.box.Len())
	}
}

// read takes n frames from the socket.
func (c *conn) read(n int) {
	full := c.box.Replaying() > 0
	for range min(n, c.box.Len()) {
		for _, e := range c.box.Take(make([]hub.Entry, 0, 1), 1) {
			var i int
			_, _ = fmt.Sscan(string(e.Frame), &i)
			if e.Event != nil {
				if key := e.Event.Topic + " " + e.Event.Key; c.waiting[key] == c.c.w.numbers[e.Event.Cursor] {
					delete(c.waiting, key)
				}
				c.c.event(e, c.notes[i])
			} else {
				c.c.control(e, c.notes[i])
			}
		}
	}
	if full && c.box.Replaying() == 0 {
		close(c.room)
		c.room = make(chan struct{})
	}
}

// away ends the connection; what was not read is lost. The driver closes the
// session then.
func (c *client) away() *hub.Session {
	s := c.conn.session
	c.conn.ended = true
	c.conn.box.Drop()
	c.conn = nil
	return s
}

// back makes the books of a new connection.
func (c *client) back(i *instance, slow bool) *conn {
	c.conn = &conn{c: c, instance: i, slow: slow, room: make(chan struct{}), waiting: map[string]int{}}
	_, known := c.w.upTo(c.scalar)
	c.subs, c.loose, c.passed, c.odd = nil, false, nil, !known
	if c.ws {
		c.scalar = protocol.Cursor{} // it has a cursor for each wish
	}
	c.topics, c.announced = map[string]*progress{}, map[string]int{}
	c.excused, c.asked, c.order = map[int]bool{}, map[string]*request{}, map[string]*order{}
	c.forgive(func(topic string) bool { // that it does not want any more
		return !slices.ContainsFunc(c.wishes, func(w *wish) bool { return c.matches(w.pattern, topic) })
	})
	return c.conn
}

// asks makes the books of a Subscribe, and gives its ref and wants.
func (c *client) asks(wishes []*wish) (string, []hub.Want) {
	c.conn.calls++
	c.refs++
	ref := fmt.Sprint(c.refs)
	r := &request{}
	c.asked[ref] = r
	var wants []hub.Want
	var said []string
	for _, w := range wishes {
		since := w.cursor
		if !c.ws {
			since = c.scalar
		}
		r.subs = append(r.subs, &subscription{wish: w, since: since, created: c.conn.calls, below: c.overlaps(w.pattern)})
		wants = append(wants, hub.Want{Pattern: w.pattern, Since: since, Last: w.last, Hide: protocol.IsPattern(w.pattern), User: c.user})
		said = append(said, fmt.Sprintf("%s since %q last %d", w.pattern, since, w.last))
	}
	c.w.note("%s subscribes, ref %s: %s", c.name, ref, strings.Join(said, ", "))
	for topic := range c.w.byTopic {
		c.enter(r, topic)
	}
	c.subs = append(c.subs, r.subs...)
	return ref, wants
}

// overlaps says whether the client has already subscribed what a pattern matches.
func (c *client) overlaps(pattern string) bool {
	return slices.ContainsFunc(c.subs, func(s *subscription) bool { return protocol.Overlap(s.pattern, pattern) })
}

// enter gives a topic that a request asks for its progress.
func (c *client) enter(r *request, topic string) {
	p, found := c.start(r.subs, topic)
	if !found {
		return
	}
	tracked, leaving := false, false
	for _, s := range c.subs {
		if c.matches(s.pattern, topic) {
			tracked = tracked || s.left == 0
			leaving = leaving || s.left != 0
		}
	}
	switch {
	case tracked:
		if !p.open {
			r.below = append(r.below, hole{topic, p.first, c.topics[topic]})
		}
	case leaving: // when that is gone: see left
	default:
		if c.topics[topic] = p; p.open { // it wants what is new only
			c.forgive(func(of string) bool { return of == topic })
		}
	}
}

// start gives where a topic starts of which subs are asked at once: an exact
// topic's own cursor, else the lowest.
func (c *client) start(subs []*subscription, topic string) (p *progress, found bool) {
	fresh, exact := true, false
	number := -1
	for _, s := range subs {
		if !c.matches(s.pattern, topic) {
			continue
		}
		found = true
		if s.since.IsZero() {
			exact = exact || s.pattern == topic
			continue
		}
		n, known := c.w.upTo(s.since)
		if !known {
			n = 0 // a forged cursor: everything is owed
		}
		if s.pattern == topic {
			return &progress{first: n, done: n}, true
		}
		if fresh || n < number {
			number, fresh = n, false
		}
	}
	if fresh || exact { // an exact topic's own last may show more than is owed
		return &progress{open: true, owed: number, first: math.MaxInt}, found
	}
	return &progress{first: number, done: number}, found
}

// matches says whether the client may read a topic by a pattern.
func (c *client) matches(pattern, topic string) bool {
	if !protocol.Match(pattern, topic) {
		return false
	}
	private := protocol.PrivateTo(topic)
	return private == "" || private == c.user || !protocol.IsPattern(pattern)
}

// leaves makes the books of an Unsubscribe, or of a Revoke, which has no ref.
func (c *client) leaves(patterns []string, revoked bool) string {
	c.conn.calls++
	c.refs++
	ref := fmt.Sprint(c.refs)
	if c.odd = c.odd || revoked; revoked {
		ref = ""
	}
	for _, s := range c.subs {
		for _, p := range patterns {
			if s.pattern == p && s.left == 0 {
				s.left, s.leftRef = c.conn.calls, ref
			}
		}
	}
	c.w.note("%s gives up %v, ref %q", c.name, patterns, ref)
	return ref
}

func (c *client) control(e hub.Entry, n note) {
	var m struct {
		Op, Ref, Topic string
		Cursor         string
		Reason         protocol.GapReason
		Topics         json.RawMessage
	}
	if err := json.Unmarshal(n.message, &m); err != nil {
		c.w.failf("%s: %q: %v", c.name, n.message, err)
		return
	}
	c.w.note("    %s gets %s  id %v", c.name, n.message, e.Cursor)
	switch m.Op {
	case "gap":
		c.gap(m.Topic, m.Reason, n)
	case "subscribed":
		cursor, _ := protocol.ParseCursor(m.Cursor)
		var topics []protocol.SubscribedTopic
		_ = json.Unmarshal(m.Topics, &topics)
		c.subscribed(m.Ref, cursor, topics)
	case "unsubscribed":
		var topics []string
		_ = json.Unmarshal(m.Topics, &topics)
		c.unsubscribed(m.Ref, topics, n)
	}
	if e.Cursor != nil {
		c.claim(*e.Cursor, n)
	}
}
