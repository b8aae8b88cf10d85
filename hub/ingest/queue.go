package ingest

import (
	"context"
	"strings"
	"time"

	"github.com/pushhub/pushhub/hub/redislog"
)

const (
	workers  = 8
	batch    = 100      // messages in one append
	mostHeld = 64 << 20 // bytes of messages that may wait
	overhead = 512      // bytes of a message besides its data
)

// queue is what waits for one tenant, in the order heard. Guarded by Ingester.mu.
type queue struct {
	tenant  string
	waiting []message
	busy    bool // it has a turn
}

// message is one that was heard.
type message struct {
	redislog.Raw
	from int64     // the first mark of the connection by which it came
	due  time.Time // when it is looked for, unless this instance has to bring it in itself
}

func (m *message) size() int { return cap(m.Event.Data) + overhead }

// Message implements redislog.Ear.
func (e ear) Message(name redislog.RawName, channel string, payload []byte) {
	g := e.g
	if strings.HasPrefix(channel, "pushhub:") {
		return // the hub's own
	}
	rule, tenant, topic := g.opts.Mapping.find(channel)
	if rule == nil {
		g.drop("a raw channel maps to no topic", channel, nil)
		return
	}
	if rule.Pattern != name.Pattern {
		return // it comes again, for the rule that counts
	}
	g.stats.Heard.Add(1)
	if payload == nil {
		g.drop("a raw message was dropped", channel, errTooLarge)
		return
	}
	event, err := rule.event(topic, payload, g.opts.MaxBytes)
	if err != nil {
		g.drop("a raw message was dropped", channel, err)
		return
	}
	if !g.take(tenant, redislog.Raw{Name: name, Event: event}) {
		g.warn("too many raw messages wait: new ones are given up", nil)
	}
}

func (g *Ingester) drop(what, channel string, err error) {
	g.stats.Dropped.Add(1)
	if g.sampled(what) {
		g.opts.Logger.Warn().Err(err).Str("channel", channel).Msg(what)
	}
}

// take has a message wait, unless too much does.
func (g *Ingester) take(tenant string, raw redislog.Raw) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unheard = 0
	m := message{raw, g.from, time.Now().Add(g.pace.lookBack)}
	if g.held+m.size() > g.most {
		g.stats.Lost.Add(1)
		return false
	}
	q := g.queues[tenant]
	if q == nil {
		q = &queue{tenant: tenant}
		g.queues[tenant] = q
	}
	q.waiting = append(q.waiting, m)
	g.held += m.size()
	if g.leading {
		g.turn(q)
	}
	return true
}

// turn has a queue seen to by a worker. With mu held.
func (g *Ingester) turn(q *queue) {
	if q.busy {
		return
	}
	q.busy = true
	g.turns = append(g.turns, q)
	g.more.Signal()
}

// see has all queues seen to in which something is due. It says whether something is to
// be brought in by this instance and has to wait for others.
func (g *Ingester) see() (pressing bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turnDue()
	for _, q := range g.queues {
		m := &q.waiting[0]
		pressing = pressing || g.owed(m) || g.leading && m.from > g.clear
	}
	return pressing
}

// turnDue has all queues seen to in which something is due. With mu held.
func (g *Ingester) turnDue() {
	for _, q := range g.queues {
		if g.due(q) > 0 {
			g.turn(q)
		}
	}
}

// due gives how many messages of a queue it is time for, and go into one append.
// With mu held.
func (g *Ingester) due(q *queue) int {
	n, bytes, now := 0, 0, time.Now()
	for ; n < len(q.waiting) && n < batch; n++ {
		m := &q.waiting[n]
		if bytes += m.size(); n > 0 && bytes > 16*g.opts.MaxBytes {
			break
		}
		if !g.timely(m, now) {
			break
		}
	}
	return n
}

// timely says whether it is time for a message: what was sent before the connection
// began by which it came has to be in the log. From there on this instance has heard all
// itself. With mu held.
func (g *Ingester) timely(m *message, now time.Time) bool {
	if m.from > g.clear {
		return false
	}
	return g.leading || g.owed(m) || !now.Before(m.due) && !g.off.has(ruleLook)
}

// owed says whether it is left to this instance to bring a message in, though it does not
// lead: who does has not heard it. With mu held.
func (g *Ingester) owed(m *message) bool {
	return g.leaving || g.stand.From == 0 || m.Name.Mark < g.stand.From
}

// oldest gives the mark of the oldest message that waits; 0: none does. With mu held.
func (g *Ingester) oldest() (mark int64) {
	for _, q := range g.queues {
		if first := q.waiting[0].Name.Mark; mark == 0 || first < mark {
			mark = first
		}
	}
	return mark
}

// serve is a worker. It ends when g.closing says so. What cannot be appended is tried again
// with the next tick.
func (g *Ingester) serve(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		for len(g.turns) == 0 {
			if g.closing {
				return
			}
			g.more.Wait()
		}
		q := g.turns[0]
		g.turns = g.turns[1:]
		g.advance(ctx, q)
	}
}

// advance brings in what is due of a queue that has a turn, and gives it another
// if more is. With mu held, but not while it waits for Redis.
func (g *Ingester) advance(ctx context.Context, q *queue) {
	n, look := g.due(q), !g.leading
	part := q.waiting[:n:n]
	g.mu.Unlock()
	err := g.bring(ctx, q.tenant, part, look)
	g.mu.Lock()
	q.busy = false
	if err != nil {
		return
	}
	for i := range part {
		g.held -= part[i].size()
	}
	clear(part)
	if q.waiting = q.waiting[n:]; len(q.waiting) == 0 {
		delete(g.queues, q.tenant)
	} else if g.due(q) > 0 {
		g.turn(q)
	}
}

// bring appends messages of a tenant. look: another instance leads; most likely it
// has appended them.
func (g *Ingester) bring(ctx context.Context, tenant string, part []message, look bool) error {
	if len(part) == 0 {
		return nil
	}
	raws := make([]redislog.Raw, len(part))
	for i := range part {
		raws[i] = part[i].Raw
	}
	if look {
		var err error
		if raws, err = g.lacking(ctx, tenant, raws); err != nil {
			g.warn("what is ingested cannot be asked for", err)
			return err
		}
	}
	if len(raws) == 0 {
		return nil
	}
	began := time.Now()
	a, err := g.opts.Log.Append(ctx, tenant, raws, keep)
	if err != nil {
		g.warn("raw messages cannot be appended now", err)
	}
	g.stats.Appended.Add(int64(a.Fresh))
	g.stats.Lost.Add(int64(a.Old))
	if look {
		g.stats.Second.Add(int64(a.Fresh))
	}
	if a.Fresh > 0 || err != nil {
		g.opts.OnIngest(max(a.Fresh, 1), err, time.Since(began))
	}
	return err
}

// lacking gives those of messages that are not dealt with.
func (g *Ingester) lacking(ctx context.Context, tenant string, raws []redislog.Raw) ([]redislog.Raw, error) {
	names := make([]redislog.RawName, len(raws))
	for i := range raws {
		names[i] = raws[i].Name
	}
	dealt, err := g.opts.Log.Dealt(ctx, tenant, names)
	if err != nil {
		return nil, err
	}
	rest := raws[:0]
	for i, is := range dealt {
		if !is {
			rest = append(rest, raws[i])
		}
	}
	return rest, nil
}
