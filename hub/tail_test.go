package hub

import (
	"flag"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/pushhub/pushhub/protocol"
)

// What is answered from memory is compared with a log whose state is all known.

var tailTopics = []string{"a", "b", "c"}

// keptLog is a log in its plainest form: what is gone goes when it is told to.
type keptLog struct {
	epoch     int
	past      []protocol.Cursor
	head      uint64
	floor     uint64
	last      map[string]uint64   // the index
	events    map[string][]uint64 // retained
	all       []*protocol.Event   // by seq, from 1 on
	damaged   map[uint64]bool
	maxEvents int
}

func newKeptLog() *keptLog {
	return &keptLog{epoch: 1, last: map[string]uint64{}, events: map[string][]uint64{}, all: []*protocol.Event{nil}, damaged: map[uint64]bool{}, maxEvents: 4}
}

func (l *keptLog) name() string { return fmt.Sprintf("e%d", l.epoch) }

func (l *keptLog) publish(topic string, damaged bool) *protocol.Event {
	l.head++
	prev, ok := l.last[topic]
	if !ok {
		prev = l.floor
	}
	e := &protocol.Event{Cursor: protocol.Cursor{Epoch: l.name(), Seq: l.head}, Prev: prev, Topic: topic, Type: "t", At: time.Now().UnixMilli(), JSON: make([]byte, 100)}
	l.last[topic] = l.head
	l.events[topic] = append(l.events[topic], l.head)
	l.all = append(l.all, e)
	if damaged {
		l.damaged[l.head] = true
	}
	return e
}

func (l *keptLog) trim(topic string, keep int) {
	ev := l.events[topic]
	l.events[topic] = ev[max(0, len(ev)-keep):]
}

func (l *keptLog) forget(topic string) {
	if last, ok := l.last[topic]; ok {
		l.floor = max(l.floor, last)
		delete(l.last, topic)
		delete(l.events, topic)
	}
}

func (l *keptLog) newEpoch() {
	l.past = append([]protocol.Cursor{{Epoch: l.name(), Seq: l.head}}, l.past...)
	l.past = l.past[:min(len(l.past), MaxPast)]
	l.epoch++
}

func (l *keptLog) look(q Query) View {
	v := View{Epoch: l.name(), Past: l.past, Head: l.head, Floor: l.floor}
	if q.Index {
		for topic, last := range l.last {
			if last > q.IndexAfter {
				v.Index = append(v.Index, TopicLast{topic, last})
			}
		}
	}
	v.Topics = make([]TopicView, len(q.Topics))
	for i, tq := range q.Topics {
		tv := &v.Topics[i]
		last, ok := l.last[tq.Topic]
		if !ok {
			continue
		}
		tv.Last = last
		var wanted []uint64
		if tq.Newest > 0 {
			ev := l.events[tq.Topic]
			wanted = ev[max(0, len(ev)-tq.Newest):]
		} else {
			to := tq.To
			if to == 0 {
				to = l.head
			}
			for _, s := range l.events[tq.Topic] {
				if s > tq.After && s <= to {
					wanted = append(wanted, s)
				}
			}
		}
		n := min(len(wanted), l.maxEvents)
		if tq.Limit > 0 && tq.Newest == 0 {
			n = min(n, tq.Limit)
		}
		for n < len(wanted) && !slices.ContainsFunc(wanted[:n], func(s uint64) bool { return !l.damaged[s] }) {
			n++ // at least one
		}
		for _, s := range wanted[:n] {
			if !l.damaged[s] {
				tv.Events = append(tv.Events, l.all[s])
			}
		}
		tv.More = n < len(wanted)
	}
	return v
}

// op is a step of a schedule: what its numbers mean depends on what is there.
type op struct{ Kind, A, B, C, D int }

var ops = rapid.Custom(func(t *rapid.T) op {
	n := rapid.IntRange(0, 15)
	return op{rapid.IntRange(0, len(opNames)-1).Draw(t, "kind"), n.Draw(t, "a"), n.Draw(t, "b"), n.Draw(t, "c"), n.Draw(t, "d")}
})

var opNames = []string{"", "publish", "publish", "publish", "publish", "publish", "trim", "forget", "sleep", "query", "query", "query", "keep", "pump", "client", "client", "advance", "advance", "whole", "whole", "heal", "epoch"}

type pending struct {
	q Query
	v View
}

type memoryRun struct {
	l       *keptLog
	h       *Hub
	t       *tenant
	queue   []*protocol.Event // on their way
	late    []pending
	clients []*replayer
	names   int
	damage  bool
	epochs  bool
	holds   bool // answers are kept late at times
	story   []string
	failure string
	shared  *int
}

func (m *memoryRun) note(format string, args ...any) {
	m.story = append(m.story, fmt.Sprintf(format, args...))
}

func (m *memoryRun) fail(kind, format string, args ...any) {
	if m.failure == "" {
		m.failure = kind + ": " + fmt.Sprintf(format, args...)
		m.note("FAILURE %s", m.failure)
	}
}

func (m *memoryRun) settle() {
	for range 5 {
		if m.t.ok {
			return
		}
		var dirty []Sink
		m.t.settle(m.l.look(Query{}), &dirty)
	}
}

func (m *memoryRun) pump(n int) {
	for ; n > 0 && len(m.queue) > 0; n-- {
		e := m.queue[0]
		m.queue = m.queue[1:]
		var dirty []Sink
		if !m.t.take(e, &dirty) {
			m.note("  hold")
			m.settle()
		}
	}
}

func (m *memoryRun) look(q Query, reach uint64, keep bool) View {
	t := m.t
	if t.pos >= reach {
		if v, ok := t.fromTails(q); ok {
			m.note("  %s from memory: %s", showQuery(q), showView(v))
			*m.shared++
			m.check(q, v)
			return v
		}
	}
	q.Known = t.cursor()
	v := m.l.look(q)
	m.note("  %s from the log: %s kept %v", showQuery(q), showView(v), keep)
	if keep {
		t.keepTails(q, v)
	} else {
		m.late = append(m.late, pending{q, v})
	}
	return v
}

func showQuery(q Query) string {
	var b strings.Builder
	if q.Index {
		fmt.Fprintf(&b, "index>%d ", q.IndexAfter)
	}
	for _, tq := range q.Topics {
		if tq.Newest > 0 {
			fmt.Fprintf(&b, "%s newest %d ", tq.Topic, tq.Newest)
		} else {
			fmt.Fprintf(&b, "%s>%d limit %d ", tq.Topic, tq.After, tq.Limit)
		}
	}
	return b.String()
}

func showView(v View) string {
	var b strings.Builder
	fmt.Fprintf(&b, "head %d floor %d %v", v.Head, v.Floor, v.Index)
	for _, tv := range v.Topics {
		fmt.Fprintf(&b, " [last %d more %v:", tv.Last, tv.More)
		for _, e := range tv.Events {
			fmt.Fprintf(&b, " %d<%d", e.Prev, e.Cursor.Seq)
		}
		b.WriteString("]")
	}
	return b.String()
}

// check: v, from memory, is one that a correct log could have given.
func (m *memoryRun) check(q Query, v View) {
	t, l := m.t, m.l
	if v.Head != t.pos || v.Epoch != t.epoch {
		m.fail("view", "head %d epoch %s, not %d", v.Head, v.Epoch, t.pos)
	}
	if v.Floor > l.floor {
		m.fail("view", "the floor is %d, there is only %d", v.Floor, l.floor)
	}
	if q.Index {
		got := map[string]uint64{}
		for _, x := range v.Index {
			got[x.Topic] = x.Last
		}
		for _, topic := range tailTopics {
			last := m.lastOf(topic, t.pos)
			switch g, ok := got[topic]; {
			case ok && (g != last || last <= q.IndexAfter):
				m.fail("view", "index has %s at %d, it is at %d", topic, g, last)
			case !ok && last > q.IndexAfter && last > v.Floor:
				m.fail("view", "index is without %s, which is at %d", topic, last)
			}
		}
	}
	for i, tq := range q.Topics {
		m.checkTopic(tq, v.Topics[i], v)
	}
}

func (m *memoryRun) lastOf(topic string, upTo uint64) uint64 {
	for s := min(upTo, m.l.head); s > 0; s-- {
		if m.l.all[s].Topic == topic {
			return s
		}
	}
	return 0
}

func (m *memoryRun) checkTopic(tq TopicQuery, tv TopicView, v View) {
	t, l := m.t, m.l
	after, end := tq.After, t.pos
	if tq.Newest > 0 {
		after = newestFrom(tv)
		if len(tv.Events) > tq.Newest || tv.More {
			m.fail("view", "%d newest of %s, more %v", len(tv.Events), tq.Topic, tv.More)
		}
		if len(tv.Events) < tq.Newest {
			after = 0
		} else if len(tv.Events) > 0 {
			after = tv.Events[0].Cursor.Seq - 1
		}
	}
	if tq.Limit > 0 && tq.Newest == 0 && len(tv.Events) > tq.Limit {
		m.fail("view", "more than %d of %s", tq.Limit, tq.Topic)
	}
	if tv.More {
		if len(tv.Events) == 0 {
			m.fail("view", "more of %s and no event", tq.Topic)
			return
		}
		end = tv.Events[len(tv.Events)-1].Cursor.Seq
	}
	at, got := after, map[uint64]bool{}
	var tells []uint64 // up to which it shows what is gone
	for _, e := range tv.Events {
		s := e.Cursor.Seq
		if s <= at || s > t.pos || e.Topic != tq.Topic || l.all[s] != e {
			m.fail("view", "%s has %d after %d, pos %d", tq.Topic, s, at, t.pos)
			return
		}
		if e.Prev > at {
			tells = append(tells, e.Prev)
		}
		at, got[s] = s, true
	}
	if !tv.More {
		switch {
		case tv.Last > at:
			tells = append(tells, tv.Last)
		case tv.Last == 0 && len(tv.Events) == 0:
			tells = append(tells, v.Floor)
		}
		if last := m.lastOf(tq.Topic, t.pos); tv.Last != 0 && tv.Last != last {
			m.fail("view", "%s is said to end at %d, it does at %d", tq.Topic, tv.Last, last)
		} else if tv.Last == 0 && len(tv.Events) > 0 {
			m.fail("view", "%s is said to be unknown, and has events", tq.Topic)
		} else if tv.Last == 0 && v.Floor < last {
			m.fail("view", "%s is said to be unknown, and ended at %d after the floor %d", tq.Topic, last, v.Floor)
		}
	}
	retained := map[uint64]bool{}
	for _, s := range l.events[tq.Topic] {
		retained[s] = !l.damaged[s]
	}
	before := after
	for s := after + 1; s <= end; s++ {
		if l.all[s].Topic != tq.Topic {
			continue
		}
		if got[s] {
			before = s
			continue
		}
		if tq.Newest > 0 && len(tv.Events) < tq.Newest && len(got) > 0 && s < tv.Events[0].Cursor.Seq && !retained[s] {
			continue // before the newest
		}
		if tq.Newest > 0 && len(got) == 0 && !retained[s] {
			continue
		}
		if retained[s] {
			m.fail("hole", "%s %d is retained, and is not in what memory has after %d (%s)", tq.Topic, s, after, showView(v))
			return
		}
		if !slices.ContainsFunc(tells, func(u uint64) bool { return u >= s }) {
			m.fail("hole", "%s %d is gone, and nothing in what memory has after %d tells of it (%s)", tq.Topic, s, before, showView(v))
			return
		}
	}
}

// replayer is a client that catches up.
type replayer struct {
	m     *memoryRun
	name  string
	r     *replay
	wants []Want
	parts []*replayed
	got   map[uint64]bool
	last  map[string]uint64
	done  bool
	plain bool // it asks the log only
	gaps  []gapTold
	again bool // an epoch began: what it had may come again
}

type replayed struct {
	from  uint64 // all of it after this is owed
	pos   uint64 // of a fresh one: where it began
	told  uint64
	fresh bool
	began map[string]uint64 // of a fresh one: the first event given of each topic
}

type gapTold struct {
	part   int
	head   uint64
	since  string
	reason protocol.GapReason
	began  bool
}

func (m *memoryRun) client(wants []Want, plain bool, keep func() bool) *replayer {
	m.names++
	c := &replayer{m: m, name: fmt.Sprintf("client%d", m.names), wants: wants, got: map[uint64]bool{}, last: map[string]uint64{}, plain: plain}
	look := func(q Query, reach uint64) (View, error) { return m.look(q, reach, keep()), nil }
	if plain {
		c.name = "plain"
		look = func(q Query, reach uint64) (View, error) { return m.l.look(q), nil }
	}
	c.r = m.h.newReplay(wants, look)
	for _, w := range wants {
		p := &replayed{from: w.Since.Seq, began: map[string]uint64{}}
		if w.Since.IsZero() {
			p.fresh = true
		}
		c.parts = append(c.parts, p)
	}
	return c
}

// advance makes one step as Session.join does.
func (c *replayer) advance() {
	m, t, r := c.m, c.m.t, c.r
	m.settle()
	was := r.epoch
	steps := r.rebase(t.epoch, t.past, t.pos)
	if r.epoch != was {
		for i, p := range c.parts {
			if r.parts[i].fresh { // it begins, or begins again
				p.pos = r.parts[i].from
			}
		}
	}
	if steps != nil {
		c.take(steps)
		return
	}
	lo := t.reach(r)
	if c.plain {
		lo = t.pos
	}
	if !r.settled(lo) {
		steps, err := r.piece()
		c.take(steps)
		if err == errEpoch {
			m.note("  %s: the epoch is another", c.name)
			t.outdated(r.epoch)
			m.settle()
		}
		return
	}
	if r.had() > t.pos {
		m.pump(1000)
		return
	}
	var events []*protocol.Event
	if r.at < t.pos {
		events = t.ring.after(r.at)
	}
	c.take(r.follow(events, math.MaxInt))
	c.end()
}

func (c *replayer) part(p *part) int { return slices.Index(c.r.parts, p) }

func (c *replayer) take(steps []step) {
	m := c.m
	for _, s := range steps {
		i := c.part(s.part)
		if s.event == nil {
			m.note("  %s: gap for %s since %s (%s)", c.name, s.gap.Topic, s.gap.Since, s.gap.Reason)
			c.again = c.again || s.gap.Reason == protocol.GapEpoch
			for j, p := range c.parts { // as Session.queue
				if protocol.Overlap(c.wants[j].Pattern, c.wants[i].Pattern) {
					p.told = m.l.head
				}
			}
			c.gaps = append(c.gaps, gapTold{i, m.l.head, s.gap.Since, s.gap.Reason, len(c.parts[i].began) > 0})
			continue
		}
		e := s.event
		seq := e.Cursor.Seq
		m.note("  %s: %s %d", c.name, e.Topic, seq)
		if (c.got[seq] || c.last[e.Topic] > seq) && !c.again {
			m.fail("hole", "%s gets %s %d after %d", c.name, e.Topic, seq, c.last[e.Topic])
		}
		if !protocol.Match(c.wants[i].Pattern, e.Topic) {
			m.fail("hole", "%s gets %s %d for %s", c.name, e.Topic, seq, c.wants[i].Pattern)
		}
		c.got[seq], c.last[e.Topic] = true, seq
		for j, p := range c.parts {
			if p.fresh && protocol.Match(c.wants[j].Pattern, e.Topic) && p.began[e.Topic] == 0 {
				p.began[e.Topic] = seq
			}
		}
		c.owed(seq)
	}
}

// own says whether the cursor of a part counts for a topic: that of the topic itself before
// those of patterns, of which the lowest.
func (c *replayer) own(i int, topic string) bool {
	if c.wants[i].Pattern == topic {
		return true
	}
	return !slices.ContainsFunc(c.wants, func(w Want) bool { return w.Pattern == topic && !w.Since.IsZero() })
}

func (c *replayer) isOwed(p *replayed, s uint64, topic string) bool {
	if p.fresh {
		return p.began[topic] != 0 && s > p.began[topic]
	}
	return s > p.from
}

// owed: nothing up to seq is missing without a gap.
func (c *replayer) owed(seq uint64) {
	for i, p := range c.parts {
		for s := uint64(1); s <= seq; s++ {
			e := c.m.l.all[s]
			if !protocol.Match(c.wants[i].Pattern, e.Topic) || !c.own(i, e.Topic) || c.got[s] || s <= p.told {
				continue
			}
			if c.isOwed(p, s, e.Topic) {
				c.m.fail("hole", "%s is at %d, and has neither %s %d nor a gap for it", c.name, seq, e.Topic, s)
				return
			}
		}
	}
}

func (c *replayer) end() {
	m := c.m
	m.note("  %s is done at %d", c.name, c.r.at)
	c.done = true
	c.owed(c.r.at)
	for i, p := range c.parts {
		for _, topic := range tailTopics {
			if !protocol.Match(c.wants[i].Pattern, topic) || !c.own(i, topic) {
				continue
			}
			for _, s := range m.l.events[topic] {
				if (p.fresh && s > p.pos || c.isOwed(p, s, topic)) && s <= c.r.at && !c.got[s] && !m.l.damaged[s] {
					m.fail("hole", "%s has not got %s %d, which is retained", c.name, topic, s)
				}
			}
		}
	}
}

// missing says whether the client lacks anything that its part i was owed when a gap came.
func (c *replayer) missing(g gapTold) bool {
	i, p := g.part, c.parts[g.part]
	for s := uint64(1); s <= min(g.head, c.r.at); s++ {
		e := c.m.l.all[s]
		if protocol.Match(c.wants[i].Pattern, e.Topic) && !c.got[s] && c.isOwed(p, s, e.Topic) {
			return true
		}
	}
	return false
}

func (m *memoryRun) wants(o op) []Want {
	sets := [][]string{{"a"}, {"b"}, {"a", "b"}, {"b", "a"}, {"*"}, {"a", "b", "c"}, {"*", "a"}, {"c", "*"}}
	var all []Want
	for i, p := range sets[o.A%len(sets)] {
		w := Want{Pattern: p}
		if n := []int{o.B, o.C, o.D}[i]; n < 12 {
			w.Since = protocol.Cursor{Epoch: m.t.epoch, Seq: m.seq(n)}
		} else {
			w.Last = []int{0, 1, 3, 6}[n-12]
		}
		all = append(all, w)
	}
	return all
}

// seq gives a seq up to pos: n of 0 is the first, 11 pos.
func (m *memoryRun) seq(n int) uint64 {
	pos := m.t.pos
	if n%2 == 0 {
		return min(pos, uint64(n/2))
	}
	return pos - min(pos, uint64(11-n)/2*uint64(1+(11-n)/6))
}

func (m *memoryRun) do(o op) {
	topic := tailTopics[o.A%len(tailTopics)]
	name := opNames[o.Kind]
	switch name {
	case "publish":
		for range 1 + o.B/6 {
			e := m.l.publish(topic, m.damage && o.C == 0)
			m.note("publish %s %d<%d%s", topic, e.Prev, e.Cursor.Seq, map[bool]string{true: " damaged"}[m.l.damaged[e.Cursor.Seq]])
			m.queue = append(m.queue, e)
		}
		if o.D < 13 {
			m.pump(1000)
		}
	case "pump":
		m.note("pump %d", o.A/2)
		m.pump(o.A / 2)
	case "trim":
		m.note("trim %s to %d", topic, o.B/4)
		m.l.trim(topic, o.B/4)
	case "forget":
		m.note("forget %s", topic)
		m.l.forget(topic)
	case "sleep":
		d := []time.Duration{100 * time.Millisecond, time.Second, 2500 * time.Millisecond, 6 * time.Second}[o.A/4]
		m.note("sleep %v", d)
		time.Sleep(d)
		if o.B < 8 {
			m.t.ring.age(&m.h.bounds)
		}
	case "query":
		q := Query{}
		if o.D == 0 {
			q.Index, q.IndexAfter = true, m.seq(o.B%12)
		} else {
			for i := range 1 + o.D/10 {
				tq := TopicQuery{Topic: tailTopics[(o.A+i)%3]}
				if n := (o.B + i*o.D) % 16; n < 12 {
					tq.After, tq.Limit = m.seq(n), 1+o.C/3
				} else {
					tq.Newest = 1 + o.C/4
				}
				q.Topics = append(q.Topics, tq)
			}
		}
		m.note("query")
		m.look(q, 0, !m.holds || o.D%4 != 1)
	case "keep":
		if len(m.late) > 0 {
			i := o.A % len(m.late)
			p := m.late[i]
			m.late = slices.Delete(m.late, i, i+1)
			m.note("keep late: %s: %s", showQuery(p.q), showView(p.v))
			m.t.keepTails(p.q, p.v)
		}
	case "client":
		if len(m.clients) < 3 {
			w := m.wants(o)
			n := o.D
			c := m.client(w, false, func() bool { n++; return !m.holds || n%5 != 0 })
			m.note("%s begins: %v", c.name, w)
			m.clients = append(m.clients, c)
		}
	case "advance":
		if len(m.clients) > 0 {
			i := o.A % len(m.clients)
			c := m.clients[i]
			m.note("%s goes on", c.name)
			for n := 0; n <= o.B/3 && !c.done; n++ {
				c.advance()
			}
			if c.done {
				m.clients = slices.Delete(m.clients, i, i+1)
			}
		}
	case "whole":
		m.pump(1000)
		m.settle()
		w := m.wants(o)
		c := m.client(w, false, func() bool { return true })
		plain := m.client(w, true, nil)
		m.note("%s, at once: %v", c.name, w)
		n := 0
		for ; !plain.done && n < 200; n++ {
			plain.advance()
		}
		for n = 0; !c.done && n < 200; n++ {
			c.advance()
		}
		if !c.done {
			m.fail("hole", "%s has no end", c.name)
			return
		}
		for _, g := range c.gaps {
			if slices.ContainsFunc(plain.gaps, func(p gapTold) bool { return p.part == g.part }) {
				continue
			}
			if !c.missing(g) {
				m.fail("gap", "%s gets a gap for %s, where nothing is missing and the log itself shows none", c.name, w[g.part].Pattern)
			} else if w[g.part].Since.IsZero() && !g.began && !m.damage {
				m.fail("fresh", "%s gets a gap for %s, which is fresh, where the log itself shows none", c.name, w[g.part].Pattern)
			}
		}
		for s := range plain.got {
			if !c.got[s] {
				m.fail("hole", "%s has not got %d, which the log itself gives", c.name, s)
			}
		}
	case "heal":
		if o.A < 4 {
			m.note("heal")
			m.t.hold()
			m.settle()
		}
	case "epoch":
		if m.epochs && o.A < 4 {
			m.note("new epoch")
			m.l.newEpoch()
		}
	}
	if err := m.t.checkCaches(); err != nil {
		m.fail("view", "%v", err)
	}
}

type nobody struct{ Log }

func (nobody) Listen(Listener) {}

func runTails(t *testing.T, cfg [6]int, all []op, shared *int) (m *memoryRun) {
	synctest.Test(t, func(t *testing.T) {
		h := New(nobody{}, Options{})
		defer h.Close()
		h.bounds = bounds{
			pieceEvents: 3, someEvents: 2, pieceTopics: 2, fewTopics: []int{1, 9}[cfg[0]%2], window: 2,
			follow: 3, scan: []uint64{0, 2, 1000}[cfg[1]%3],
			ringBytes: 100 * []int{1, 3, 6, 1000}[cfg[2]%4], ringAge: 2000,
			tails: []int{4, 100}[cfg[3]%2], tailEvents: []int{12, 100}[cfg[3]/2%2], index: []int{2, 100}[cfg[3]/4%2], tailAge: 5 * time.Second,
		}
		m = &memoryRun{l: newKeptLog(), h: h, t: newTenant(h, "acme"), shared: shared}
		m.damage = cfg[4]%4 == 1
		m.epochs = cfg[4]/4 == 1
		m.holds = cfg[5]%2 == 1
		m.l.maxEvents = []int{4, 1, 100}[cfg[5]/2%3]
		m.note("damage %v epochs %v late %v bounds %+v", m.damage, m.epochs, m.holds, h.bounds)
		m.settle()
		for _, o := range all {
			if m.failure == "" {
				m.do(o)
			}
		}
		m.pump(1000)
		for _, c := range m.clients {
			for n := 0; !c.done && n < 200 && m.failure == ""; n++ {
				c.advance()
			}
			if !c.done {
				m.fail("hole", "%s has no end", c.name)
			}
		}
		m.t.shut()
	})
	return m
}

// What is answered from memory is what a log could have said, and who catches up with it
// has no hole.
func TestTails(t *testing.T) {
	for name, value := range map[string]string{"rapid.checks": "1000", "rapid.seed": "1"} {
		old := flag.Lookup(name).Value.String()
		require.NoError(t, flag.Set(name, value))
		t.Cleanup(func() { require.NoError(t, flag.Set(name, old)) })
	}
	shared := 0
	var failed *memoryRun
	defer func() {
		if failed != nil {
			t.Logf("%s", strings.Join(failed.story, "\n"))
		} else {
			t.Logf("%d answers from memory", shared)
		}
	}()
	rapid.Check(t, func(rt *rapid.T) {
		var cfg [6]int
		for i := range cfg {
			cfg[i] = rapid.IntRange(0, 11).Draw(rt, "cfg")
		}
		all := rapid.SliceOfN(ops, 60, 60).Draw(rt, "ops")
		tries := 1
		if failed != nil { // the order of maps decides, too
			tries = 10
		}
		for range tries {
			if m := runTails(t, cfg, all, &shared); m.failure != "" {
				failed = m
				rt.Fatalf("what memory gave is wrong")
			}
		}
	})
}
