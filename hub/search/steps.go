package search

import (
	"fmt"
	"slices"
	"time"

	"github.com/pushhub/pushhub/protocol"
)

// What is published and subscribed in the search.
var (
	topics   = []string{"a", "b", "jobs.1", "jobs.2", "x.y.z", "users.u1.in", "users.u2.in"}
	patterns = []string{
		"a", "b", "jobs.1", "jobs.2", "x.y.z", "users.u1.in",
		"jobs.*", ">", "*", "x.>", "*.*", "jobs.>", "users.u1.>",
	}
)

// kind is what a step can do.
type kind struct {
	name   string
	weight int
	basic  bool // is in every schedule
	rare   int  // else it is in one of so many
	lossy  bool // can make a gap necessary
	do     func(*run)
}

// kinds are all of them.
var kinds []kind

func init() { // a step can look up a kind

	kinds = []kind{
		{"publish", 20, true, 0, false, func(x *run) { x.publish(1) }},
		{"batch", 8, true, 0, false, func(x *run) { x.publish(2 + x.rng.IntN(8)) }},
		{"client", 8, true, 0, false, (*run).newClient},
		{"drop", 8, true, 0, false, (*run).drop},
		{"back", 12, true, 0, false, (*run).comeBack},
		{"sleep", 8, true, 0, false, (*run).sleep},

		{"flood", 1, false, 16, false, func(x *run) { x.publish(300) }},
		{"more", 6, false, 2, false, (*run).more},
		{"less", 6, false, 2, false, (*run).less},
		{"swap", 3, false, 2, false, (*run).swap},
		{"beat", 4, false, 2, false, (*run).beat},
		{"slow", 8, false, 2, false, (*run).slow},
		{"again", 6, false, 2, false, (*run).again},
		{"repeat", 4, false, 2, false, (*run).repeat},
		{"break", 6, false, 2, false, (*run).breakLive},
		{"cutoff", 4, false, 2, false, (*run).cutOff},
		{"deafen", 4, false, 2, false, (*run).deafen},
		{"swallow", 4, false, 2, false, (*run).swallow},
		{"hold", 8, false, 2, false, (*run).hold},
		{"spoil", 8, false, 2, false, (*run).spoil},
		{"mislead", 3, false, 2, false, (*run).mislead},
		{"mute", 3, false, 2, false, (*run).mute},
		{"stall", 6, false, 2, false, (*run).stall},
		{"move", 3, false, 2, false, (*run).move},
		{"kill", 2, false, 2, false, (*run).kill},
		{"long", 3, false, 2, false, (*run).sleepLong},

		{"revoke", 3, false, 2, true, (*run).revoke},
		{"trim", 6, false, 2, true, (*run).trim},
		{"evict", 3, false, 2, true, (*run).evict},
		{"failover", 3, false, 2, true, (*run).failover},
		{"split", 4, false, 2, true, (*run).splitBrain},
		{"demote", 4, false, 2, true, (*run).demote},
		{"migrate", 6, false, 1, true, (*run).migrate},
		{"restart", 2, false, 2, true, (*run).restart},
		{"flush", 2, false, 2, true, (*run).flush},
		{"forge", 2, false, 2, true, (*run).forge},
	}
}

// Kinds gives the names of all kinds but some.
func Kinds(but ...string) []string {
	var all []string
	for _, k := range kinds {
		if !slices.Contains(but, k.name) {
			all = append(all, k.name)
		}
	}
	return all
}

func kindOf(name string) *kind {
	for i := range kinds {
		if kinds[i].name == name {
			return &kinds[i]
		}
	}
	return nil
}

func (x *run) newClient() {
	if len(x.clients) >= 5 {
		return
	}
	c := &client{w: x.w, name: fmt.Sprintf("client%d", len(x.clients)), ws: x.rng.IntN(2) == 0, user: pick(x.rng, "u1", "u1", "u3"), debts: map[int]debt{}, hasLate: map[int]bool{}}
	for range 1 + x.rng.IntN(4) {
		x.wish(c)
	}
	x.clients = append(x.clients, c)
	x.connect(c)
}

// wish makes up a topic or pattern that the client does not have yet.
func (x *run) wish(c *client) *wish {
	p := pick(x.rng, patterns...)
	private := protocol.PrivateTo(p)
	if private != "" && private != c.user || slices.ContainsFunc(c.wishes, func(w *wish) bool { return w.pattern == p }) {
		return nil
	}
	w := &wish{pattern: p, last: x.rng.IntN(4)}
	c.wishes = append(c.wishes, w)
	return w
}

// some gives a client that is connected, or one that is not, or nil.
func (x *run) some(connected bool) *client {
	var all []*client
	for _, c := range x.clients {
		if (c.conn != nil) == connected {
			all = append(all, c)
		}
	}
	if all == nil {
		return nil
	}
	return pick(x.rng, all...)
}

func (x *run) drop() {
	if c := x.some(true); c != nil {
		x.disconnect(c)
	}
}

func (x *run) comeBack() {
	if c := x.some(false); c != nil {
		x.connect(c)
	}
}

// forge lets a client come back with a cursor that is ahead of the log.
func (x *run) forge() {
	c := x.some(false)
	if c == nil || len(x.w.events) == 0 {
		return
	}
	head := x.w.headNow()
	c.scalar = protocol.Cursor{Epoch: head.Epoch, Seq: head.Seq + 1_000_000}
	for _, w := range c.wishes {
		w.cursor = c.scalar
	}
	x.connect(c)
}

// more subscribes one or two more on a WebSocket.
func (x *run) more() {
	c := x.some(true)
	if c == nil || !c.ws {
		return
	}
	var fresh []*wish
	for range 1 + x.rng.IntN(2) {
		if w := x.wish(c); w != nil {
			w.cursor = x.someCursor()
			fresh = append(fresh, w)
		}
	}
	x.subscribe(c, fresh)
}

// someCursor gives none, or that of some event.
func (x *run) someCursor() protocol.Cursor {
	n := len(x.w.events)
	if n == 0 || x.rng.IntN(2) == 0 {
		return protocol.Cursor{}
	}
	return x.w.events[n-1-x.rng.IntN(min(n, 40))].Cursor
}

// less unsubscribes one on a WebSocket.
func (x *run) less() {
	if c := x.some(true); c != nil && c.ws && len(c.wishes) > 0 {
		x.unsubscribe(c, pick(x.rng, c.wishes...))
	}
}

func (x *run) unsubscribe(c *client, w *wish) {
	x.w.mu.Lock()
	ref := c.leaves([]string{w.pattern}, false)
	x.w.mu.Unlock()
	c.wishes = slices.DeleteFunc(c.wishes, func(o *wish) bool { return o == w })
	c.conn.session.Unsubscribe(ref, []string{w.pattern})
	x.returned(c)
}

// swap unsubscribes and subscribes again, without waiting for the answer.
func (x *run) swap() {
	c := x.some(true)
	if c == nil || !c.ws || len(c.wishes) == 0 {
		return
	}
	w := pick(x.rng, c.wishes...)
	x.w.mu.Lock()
	again := &wish{w.pattern, w.cursor, w.last}
	x.w.mu.Unlock()
	x.unsubscribe(c, w)
	c.wishes = append(c.wishes, again)
	x.subscribe(c, []*wish{again})
}

func (x *run) revoke() {
	c := x.some(true)
	if c == nil || len(c.wishes) == 0 {
		return
	}
	w := pick(x.rng, c.wishes...)
	x.w.mu.Lock()
	c.leaves([]string{w.pattern}, true)
	x.w.mu.Unlock()
	c.wishes = slices.DeleteFunc(c.wishes, func(o *wish) bool { return o == w })
	c.conn.session.Revoke(func(p string) bool { return p != w.pattern })
	x.returned(c)
	if x.rng.IntN(3) == 0 { // a new token
		x.w.mu.Lock()
		again := &wish{w.pattern, w.cursor, w.last}
		x.w.mu.Unlock()
		if c.ws {
			c.wishes = append(c.wishes, again)
			x.subscribe(c, []*wish{again})
		}
	}
}

func (x *run) beat() {
	for _, c := range x.clients {
		if c.conn != nil && x.rng.IntN(2) == 0 {
			x.w.step("%s has its heartbeat", c.name)
			c.conn.session.Heartbeat()
		}
	}
}

func (x *run) slow() {
	c := x.some(true)
	if c == nil {
		return
	}
	if !c.conn.slow || x.rng.IntN(4) == 0 {
		x.patience(c, !c.conn.slow)
		return
	}
	x.w.mu.Lock()
	c.conn.read(1 + x.rng.IntN(4))
	x.w.mu.Unlock()
}

func (x *run) sleep() {
	d := pick(x.rng, 20*time.Millisecond, 300*time.Millisecond, 1500*time.Millisecond, 6*time.Second)
	x.w.step("%v pass", d)
	time.Sleep(d)
}

func (x *run) sleepLong() {
	x.w.step("half a minute or more passes")
	time.Sleep(pick(x.rng, 25*time.Second, 75*time.Second))
}

// repeat publishes once more what was acknowledged.
func (x *run) repeat() {
	x.w.mu.Lock()
	batch, to := x.sure, x.sureTo
	for _, p := range batch {
		x.w.books[p.Type].unknown = true // an error says nothing: it is there
	}
	x.w.mu.Unlock()
	if batch != nil && time.Now().Before(to) {
		x.send(batch, to.Add(-9*time.Minute))
	}
}

// again publishes once more what may be there or not.
func (x *run) again() {
	x.w.mu.Lock()
	batch, to := x.unsure, x.unsureTo
	x.unsure = nil
	if batch == nil || time.Now().After(to) {
		x.w.mu.Unlock()
		return
	}
	for _, p := range batch {
		x.w.books[p.Type].refused = false
	}
	x.w.mu.Unlock()
	x.send(batch, to.Add(-9*time.Minute))
}
