package search

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/redislog/redissim"
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
	c := &client{w: x.w, name: fmt.Sprintf("client%d", len(x.clients)), ws: x.rng.IntN(2) == 0, user: pick(x.rng, "u1", "u1", "u3")}
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

// breakLive ends the live connection of an instance, or all that it has.
func (x *run) breakLive() {
	x.redis.Break(pick(x.rng, x.instances...).name, x.rng.IntN(3) == 0)
}

// cutOff takes the network from an instance, or gives it back.
func (x *run) cutOff() {
	i := pick(x.rng, x.instances...)
	i.down = !i.down
	x.w.step("    %s cut off: %v", i, i.down)
	x.redis.Refuse(i.name, i.down)
	if i.down {
		x.redis.Break(i.name, true)
	}
}

func (x *run) deafen() { x.redis.Deafen(pick(x.rng, x.instances...).name, -1) }

func (x *run) swallow() { x.redis.Deafen(pick(x.rng, x.instances...).name, 1+x.rng.IntN(3)) }

// hold holds back what an instance hears, lets some of it come, or all.
func (x *run) hold() {
	i := pick(x.rng, x.instances...)
	switch {
	case !i.held:
		i.held = true
		x.redis.Hold(i.name, true)
	case x.rng.IntN(3) == 0:
		i.held = false
		x.redis.Hold(i.name, false)
	default:
		x.redis.Pass(i.name, 1+x.rng.IntN(4))
	}
	x.w.step("    %s held: %v", i, i.held)
}

// spoil lets something befall the next scripts of an instance, or lets go on what
// is held back.
func (x *run) spoil() {
	if held := x.redis.Held(); held > 0 && x.rng.IntN(3) > 0 {
		which, all := x.rng.IntN(8), x.rng.IntN(2) == 0
		x.w.step("    of %d scripts held back one goes on; all: %v", held, all)
		for x.redis.Held() > 0 {
			if x.redis.Release(which); !all {
				break
			}
		}
		return
	}
	i, reading, n := pick(x.rng, x.instances...), x.rng.IntN(4) > 0, 1+x.rng.IntN(3)
	f := pick(x.rng, redissim.LateRequest, redissim.LateAnswer, redissim.LateAnswer, redissim.LoseRequest,
		redissim.LoseAnswer, redissim.Loading, redissim.ReadOnly, redissim.OOM, redissim.TryAgain)
	x.w.step("    the next %d scripts of %s that read, %v: %s", n, i, reading, f)
	x.redis.Spoil(i.name, f, reading, n)
}

// mislead leads live connections of an instance to a replica.
func (x *run) mislead() {
	i := pick(x.rng, x.instances...)
	x.redis.Mislead(i.name, 1+x.rng.IntN(2))
	if x.rng.IntN(2) == 0 {
		x.redis.Break(i.name, false)
	}
}

func (x *run) mute() { x.redis.Mute(pick(x.rng, x.instances...).name) }

// stall lets what an instance asks of its live connection wait, lets some of it
// go on, or all.
func (x *run) stall() {
	i := pick(x.rng, x.instances...)
	switch {
	case !i.stalled:
		i.stalled = true
		x.redis.Stall(i.name, true)
	case x.rng.IntN(3) == 0:
		i.stalled = false
		x.redis.Stall(i.name, false)
	default:
		x.redis.Take(i.name)
	}
	x.w.step("    %s stalled: %v", i, i.stalled)
}

// move lets the slot leave its server, and be nowhere for a while.
func (x *run) move() {
	i := pick(x.rng, x.instances...)
	x.redis.Elsewhere(i.name, x.rng.IntN(3))
	x.redis.Move(i.name)
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

// kill ends an instance; another takes its place.
func (x *run) kill() {
	n := x.rng.IntN(len(x.instances))
	old := x.instances[n]
	x.w.step("    %s dies", old)
	for _, c := range x.clients {
		if c.conn != nil && c.conn.instance == old {
			x.disconnect(c)
		}
	}
	x.redis.Break(old.name, true)
	x.stop(old)
	x.instances[n] = x.start()
}

// trim takes events of a topic away, but for the newest few.
func (x *run) trim() {
	topic, keep := pick(x.rng, topics...), x.rng.IntN(3)
	x.w.step("    %s is trimmed to %d", topic, keep)
	x.w.mu.Lock()
	all := x.w.byTopic[topic]
	from := ""
	if keep > 0 && len(all) >= keep {
		from = fmt.Sprintf("%d-0", x.w.events[all[len(all)-keep]].Cursor.Seq)
	}
	x.w.mu.Unlock()
	key := "pushhub:{" + acme + "}:s:" + topic
	if from == "" {
		x.redis.Do("del", key)
	} else {
		x.redis.Do("xtrim", key, "MINID", from)
	}
}

// evict takes a whole key away.
func (x *run) evict() {
	key := pick(x.rng, "m", "i", "a", "s:"+pick(x.rng, topics...))
	x.w.step("    %s is evicted", key)
	x.redis.Do("del", "pushhub:{"+acme+"}:"+key)
}

// failover makes a replica the primary that lacks some.
func (x *run) failover() {
	lost := x.rng.IntN(6)
	x.w.step("    %d scripts are lost", lost)
	x.w.lost()
	x.redis.EndSplit()
	x.w.promoted()
	x.redis.Failover(lost, redissim.Dies)
}

// splitBrain does too, while the old primary goes on for those who are connected
// to it; or ends that.
func (x *run) splitBrain() {
	if x.split = !x.split; !x.split {
		x.w.step("    the split ends")
		x.redis.EndSplit()
		return
	}
	lost := x.rng.IntN(4)
	x.w.step("    a split, and %d scripts are lost", lost)
	x.w.lost()
	x.redis.EndSplit()
	x.w.promoted()
	x.redis.Failover(lost, redissim.GoesOn)
}

// demote is a failover after which the old primary is a replica, and keeps its
// connections; or lets it catch up.
func (x *run) demote() {
	if x.rng.IntN(2) == 0 {
		x.redis.Replicate()
		return
	}
	lost := x.rng.IntN(2)
	x.w.step("    %d scripts are lost", lost)
	x.w.lost()
	x.redis.EndSplit()
	x.w.promoted()
	x.redis.Failover(lost, redissim.Demoted)
}

// migrate goes on with the move of the tenant's slot to another node. It does not
// begin before somebody has seen the node that the slot is on: one that failed
// over, lost the epoch that it had begun, and gave the slot back, all of it unseen,
// leaves no trace of what was in that epoch.
func (x *run) migrate() {
	if !x.Cluster {
		return
	}
	if !x.redis.Moving() {
		if _, err := pick(x.rng, x.instances...).log.Look(context.Background(), acme, hub.Query{}); err != nil {
			return
		}
	}
	if x.redis.Moving() && x.rng.IntN(2) == 0 {
		x.redis.FinishMigration()
		x.sums.Migrations++
	} else {
		x.redis.Migrate(x.rng.IntN(4))
	}
	x.w.step("    the slot is on its way: %v", x.redis.Moving())
}

func (x *run) restart() {
	lost := x.rng.IntN(4) - 1
	x.w.step("    %d scripts are lost; -1: all", lost)
	x.w.lost()
	x.redis.Restart(lost)
}

func (x *run) flush() {
	x.w.lost()
	x.redis.Do("flushall")
}
