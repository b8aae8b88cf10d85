package hub_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// basics is how many of the kinds are in every schedule.
const basics = 6

// kinds are the steps of the search.
var kinds = []kind{
	{20, false, func(s *schedule) { s.publish(1) }},
	{8, false, func(s *schedule) { s.publish(2 + s.rng.IntN(8)) }},
	{8, false, (*schedule).newClient},
	{8, false, (*schedule).drop},
	{12, false, (*schedule).comeBack},
	{8, false, (*schedule).sleep},

	{1, false, func(s *schedule) { s.publish(300) }},
	{6, false, (*schedule).more},
	{6, false, (*schedule).less},
	{3, false, (*schedule).swap},
	{4, false, (*schedule).beat},
	{8, false, (*schedule).slow},
	{6, false, (*schedule).loseChannel},
	{4, false, (*schedule).deafen},
	{4, false, (*schedule).swallow},
	{8, false, (*schedule).holdChannel},
	{8, false, (*schedule).spoilLooks},
	{2, false, (*schedule).restart},
	{3, false, (*schedule).sleepLong},

	{3, true, (*schedule).revoke},
	{6, true, (*schedule).trim},
	{3, true, (*schedule).newEpoch},
	{2, true, (*schedule).forget},
	{2, true, (*schedule).forge},
}

func (s *schedule) newClient() {
	if len(s.clients) >= 5 {
		return
	}
	c := &client{w: s.w, name: fmt.Sprintf("client%d", len(s.clients)), ws: s.rng.IntN(2) == 0, user: pick(s.rng, "u1", "u1", "u3")}
	for range 1 + s.rng.IntN(4) {
		s.wish(c)
	}
	s.clients = append(s.clients, c)
	s.connect(c)
}

// wish makes up a topic or pattern that the client does not have yet.
func (s *schedule) wish(c *client) *wish {
	p := pick(s.rng, patterns...)
	private := protocol.PrivateTo(p)
	if private != "" && private != c.user || slices.ContainsFunc(c.wishes, func(w *wish) bool { return w.pattern == p }) {
		return nil
	}
	w := &wish{pattern: p, last: s.rng.IntN(4)}
	c.wishes = append(c.wishes, w)
	return w
}

// some gives a client that is connected, or one that is not, or nil.
func (s *schedule) some(connected bool) *client {
	var all []*client
	for _, c := range s.clients {
		if (c.conn != nil) == connected {
			all = append(all, c)
		}
	}
	if all == nil {
		return nil
	}
	return pick(s.rng, all...)
}

func (s *schedule) drop() {
	if c := s.some(true); c != nil {
		s.disconnect(c)
	}
}

func (s *schedule) comeBack() {
	if c := s.some(false); c != nil {
		s.connect(c)
	}
}

// forge lets a client come back with a cursor that is ahead of the log.
func (s *schedule) forge() {
	c := s.some(false)
	if c == nil || len(s.w.events) == 0 {
		return
	}
	v, _ := s.w.log.Look(context.Background(), acme, hub.Query{})
	c.scalar = protocol.Cursor{Epoch: v.Epoch, Seq: v.Head + 1_000_000}
	for _, w := range c.wishes {
		w.cursor = c.scalar
	}
	s.connect(c)
}

// more subscribes one or two more on a WebSocket.
func (s *schedule) more() {
	c := s.some(true)
	if c == nil || !c.ws {
		return
	}
	var fresh []*wish
	for range 1 + s.rng.IntN(2) {
		if w := s.wish(c); w != nil {
			w.cursor = s.someCursor()
			fresh = append(fresh, w)
		}
	}
	s.subscribe(c, fresh)
}

// someCursor gives none, or that of some event.
func (s *schedule) someCursor() protocol.Cursor {
	n := len(s.w.events)
	if n == 0 || s.rng.IntN(2) == 0 {
		return protocol.Cursor{}
	}
	return s.w.events[n-1-s.rng.IntN(min(n, 40))].Cursor
}

// less unsubscribes one on a WebSocket.
func (s *schedule) less() {
	if c := s.some(true); c != nil && c.ws && len(c.wishes) > 0 {
		s.unsubscribe(c, pick(s.rng, c.wishes...))
	}
}

func (s *schedule) unsubscribe(c *client, w *wish) {
	s.w.mu.Lock()
	ref := c.leaves([]string{w.pattern}, false)
	s.w.mu.Unlock()
	c.wishes = slices.DeleteFunc(c.wishes, func(o *wish) bool { return o == w })
	c.conn.session.Unsubscribe(ref, []string{w.pattern})
	s.returned(c)
}

// swap unsubscribes and subscribes again, without waiting for the answer.
func (s *schedule) swap() {
	c := s.some(true)
	if c == nil || !c.ws || len(c.wishes) == 0 {
		return
	}
	w := pick(s.rng, c.wishes...)
	s.w.mu.Lock()
	again := &wish{w.pattern, w.cursor, w.last}
	s.w.mu.Unlock()
	s.unsubscribe(c, w)
	c.wishes = append(c.wishes, again)
	s.subscribe(c, []*wish{again})
}

func (s *schedule) revoke() {
	c := s.some(true)
	if c == nil || len(c.wishes) == 0 {
		return
	}
	w := pick(s.rng, c.wishes...)
	s.w.mu.Lock()
	c.leaves([]string{w.pattern}, true)
	s.w.mu.Unlock()
	c.wishes = slices.DeleteFunc(c.wishes, func(o *wish) bool { return o == w })
	c.conn.session.Revoke(func(p string) bool { return p != w.pattern })
	s.returned(c)
	if s.rng.IntN(3) == 0 { // a new token
		s.w.mu.Lock()
		again := &wish{w.pattern, w.cursor, w.last}
		s.w.mu.Unlock()
		if c.ws {
			c.wishes = append(c.wishes, again)
			s.subscribe(c, []*wish{again})
		}
	}
}

func (s *schedule) beat() {
	for _, c := range s.clients {
		if c.conn != nil && s.rng.IntN(2) == 0 {
			s.w.step("%s has its heartbeat", c.name)
			c.conn.session.Heartbeat()
		}
	}
}

func (s *schedule) slow() {
	c := s.some(true)
	if c == nil {
		return
	}
	if !c.conn.slow || s.rng.IntN(4) == 0 {
		s.patience(c, !c.conn.slow)
		return
	}
	s.w.mu.Lock()
	c.conn.read(1 + s.rng.IntN(4))
	s.w.mu.Unlock()
}

func (s *schedule) sleep() {
	d := pick(s.rng, 20*time.Millisecond, 300*time.Millisecond, 1500*time.Millisecond, 6*time.Second)
	s.w.step("%v pass", d)
	time.Sleep(d)
}

func (s *schedule) sleepLong() {
	s.w.step("half a minute or more passes")
	time.Sleep(pick(s.rng, 25*time.Second, 75*time.Second))
}

func (s *schedule) loseChannel() {
	i := pick(s.rng, s.instances...)
	if i.pipe.up {
		s.w.step("%s loses its channel", i)
		i.pipe.lose()
		return
	}
	var again []*protocol.Event
	for n := len(s.w.events); n > 0 && len(again) < 3 && s.rng.IntN(2) == 0; n-- {
		again = append([]*protocol.Event{s.w.events[n-1]}, again...)
	}
	s.w.step("%s has its channel again, %d old events", i, len(again))
	i.pipe.restore(again)
}

func (s *schedule) deafen() {
	i := pick(s.rng, s.instances...)
	s.w.step("%s goes deaf", i)
	i.pipe.change(func() { i.pipe.deaf = true })
}

func (s *schedule) swallow() {
	i := pick(s.rng, s.instances...)
	s.w.step("%s swallows a few", i)
	i.pipe.change(func() { i.pipe.swallow = 1 + s.rng.IntN(3) })
}

func (s *schedule) holdChannel() {
	p := pick(s.rng, s.instances...).pipe
	p.change(func() {
		switch {
		case !p.held:
			p.held, p.passing = true, 0
		case s.rng.IntN(3) == 0:
			p.held = false
		default:
			p.passing = min(p.passing+1+s.rng.IntN(3), len(p.queue))
		}
		s.w.step("a channel is held: %v, passing %d of %d", p.held, p.passing, len(p.queue))
	})
}

func (s *schedule) spoilLooks() {
	i := pick(s.rng, s.instances...)
	if len(i.pipe.waiting) > 0 && s.rng.IntN(3) > 0 {
		all := s.rng.IntN(2) == 0
		s.w.step("%s has Looks released, all: %v", i, all)
		i.pipe.release(s.rng.IntN(8), all)
		return
	}
	fault, n := pick(s.rng, lookFails, lookLate, answerLate, answerLate), 1+s.rng.IntN(3)
	s.w.step("%s has the next %d Looks spoilt: %d", i, n, fault)
	i.pipe.change(func() { i.pipe.fault, i.pipe.faults = fault, n })
}

// restart kills an instance; another takes its place.
func (s *schedule) restart() {
	n := s.rng.IntN(len(s.instances))
	old := s.instances[n]
	s.w.step("%s dies and is started again", old)
	for _, c := range s.clients {
		if c.conn != nil && c.conn.instance == old {
			s.disconnect(c)
		}
	}
	old.hub.Close()
	old.pipe.stop()
	s.instances[n] = s.start(old.name + "'")
	s.connected()
}

func (s *schedule) trim() {
	topic, keep := pick(s.rng, topics...), s.rng.IntN(3)
	s.w.step("%s is trimmed to %d", topic, keep)
	s.w.log.Trim(acme, topic, keep)
}

func (s *schedule) newEpoch() {
	lost := s.rng.IntN(6)
	s.w.step("a new epoch, %d events are lost", lost)
	s.w.log.NewEpoch(acme, lost)
	s.look()
}

func (s *schedule) forget() {
	s.w.step("everything is lost")
	s.w.log.Forget(acme)
	s.look()
}
