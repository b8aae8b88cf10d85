package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/pushhub/pushhub/hub/redislog"
)

// errPaused: the process was stopped, and the connection's backlog is of a time
// that nobody can tell.
var errPaused = errors.New("the process was stopped for longer than the ingest bears")

// queue is what is to be appended for one tenant in this reign. Guarded by
// Ingester.mu.
type queue struct {
	waiting []*message
	next    int64 // number of the first that waits
	busy    bool  // a goroutine appends
}

// begin starts a reign: all that was heard and is not known to be in the log is
// appended, in the order heard; the record knows what is. With mu held.
func (g *Ingester) begin(n int64) {
	g.reign = n
	g.stats.Leading.Store(true)
	clear(g.tenants)
	g.opts.Logger.Info().Int64("reign", n).Int("heard", len(g.heard)).Msg("this instance ingests the raw channels")
	for _, m := range g.withTwins(nil) {
		g.give(m)
	}
}

// withTwins gives the messages that are not done, of one tenant or (nil) of all,
// and with them those of the same bytes that are: the script has to see all of
// them to tell which is which. With mu held.
func (g *Ingester) withTwins(of []*message) []*message {
	if of == nil {
		of = g.heard
	}
	type name struct{ tenant, digest string }
	wanted := map[name]bool{}
	for _, m := range of {
		if !m.done.Load() {
			wanted[name{m.tenant, m.raw.Digest}] = true
		}
	}
	var all []*message
	for _, m := range g.heard {
		if wanted[name{m.tenant, m.raw.Digest}] {
			all = append(all, m)
		}
	}
	return all
}

// abdicate ends the reign, if there is one. What waits is looked after by the
// second look. With mu held.
func (g *Ingester) abdicate() {
	if g.reign == 0 {
		return
	}
	g.reign = 0
	g.stats.Leading.Store(false)
	clear(g.tenants)
	g.opts.Logger.Info().Msg("this instance does not ingest the raw channels any more")
}

// give queues a message to be appended. With mu held.
func (g *Ingester) give(m *message) {
	q := g.tenants[m.tenant]
	if q == nil {
		q = &queue{next: 1}
		g.tenants[m.tenant] = q
	}
	q.waiting = append(q.waiting, m)
	if !q.busy {
		q.busy = true
		reign := g.reign
		g.workers.Go(func() { g.work(m.tenant, reign, q) })
	}
}

// work is the goroutine of a tenant's queue: it lives while messages wait and
// the reign lasts.
func (g *Ingester) work(tenant string, reign int64, q *queue) {
	for pause := 20 * time.Millisecond; ; {
		g.mu.Lock()
		if g.reign != reign || g.tenants[tenant] != q {
			g.mu.Unlock()
			return
		}
		if len(q.waiting) == 0 {
			q.busy = false
			g.mu.Unlock()
			return
		}
		n := takeable(q.waiting, 16*g.opts.MaxBytes)
		first, part := q.next, q.waiting[:n:n]
		since, mine := g.since, time.Now().Before(g.until)
		g.mu.Unlock()
		if !mine { // renew finds out
			time.Sleep(pause)
			continue
		}
		a, err := g.append(tenant, reign, first, part, since)
		g.mu.Lock()
		current := g.reign == reign && g.tenants[tenant] == q
		switch {
		case err != nil:
		case a.Stale:
			if current {
				g.until = time.Time{}
			}
		case a.Behind: // Redis lost what we appended
			if current {
				q.next = a.Last + 1
			}
		default:
			for _, m := range part {
				m.done.Store(true)
			}
			if current {
				q.waiting, q.next = q.waiting[n:], first+int64(n)
			}
		}
		g.mu.Unlock()
		switch {
		case err != nil:
			g.warn("raw messages cannot be appended now", err)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
		case a.Stale:
			g.renew(context.Background(), redislog.Raise, false)
		default:
			pause = 20 * time.Millisecond
		}
	}
}

// takeable gives how many messages of the front go into one append.
func takeable(waiting []*message, maxBytes int) int {
	n, bytes := 0, 0
	for n < len(waiting) && n < batch {
		if bytes += len(waiting[n].raw.Event.Data); bytes > maxBytes && n > 0 {
			break
		}
		n++
	}
	return n
}

func (g *Ingester) append(tenant string, reign, first int64, part []*message, since int64) (redislog.Appended, error) {
	raw := make([]redislog.Raw, len(part))
	for i, m := range part {
		raw[i] = m.raw
	}
	began := time.Now()
	a, err := g.opts.Log.Append(context.Background(), tenant, g.owner, reign, first, raw, redislog.Record{Keep: keep, Apart: apart, Since: since})
	g.stats.Appended.Add(int64(a.Fresh))
	g.stats.TooLate.Add(int64(a.Old))
	if a.Fresh > 0 || err != nil {
		g.opts.OnIngest(max(a.Fresh, 1), err, time.Since(began))
	}
	return a, err
}

// secondLook finds what was heard some seconds ago and is not in the record, and
// appends it: whoever leads has not heard it, or is too slow.
func (g *Ingester) secondLook(ctx context.Context) {
	g.mu.Lock()
	since := g.since
	due := map[string][]*message{}
	if g.reign == 0 {
		for _, m := range g.heard {
			if time.Since(m.at) < lookBack {
				break
			}
			if !m.done.Load() {
				due[m.tenant] = append(due[m.tenant], m)
			}
		}
	}
	g.mu.Unlock()
	for tenant, all := range due {
		for len(all) > 0 && ctx.Err() == nil {
			n := takeable(all, 16*g.opts.MaxBytes)
			if err := g.lookAfter(ctx, tenant, all[:n], since); err != nil {
				g.warn("the record of the ingest cannot be read", err)
				return
			}
			all = all[n:]
		}
	}
}

func (g *Ingester) lookAfter(ctx context.Context, tenant string, part []*message, since int64) error {
	digests := make([]string, len(part))
	for i, m := range part {
		digests[i] = m.raw.Digest
	}
	known, err := g.opts.Log.Recorded(ctx, tenant, digests)
	if err != nil {
		return err
	}
	var lacking []*message
	for i, m := range part {
		if g.match(m, known[i], since) {
			m.done.Store(true)
		} else {
			lacking = append(lacking, m)
		}
	}
	if lacking == nil {
		return nil
	}
	g.mu.Lock()
	lacking = g.withTwins(lacking)
	g.mu.Unlock()
	a, err := g.append(tenant, 0, 1, lacking, since)
	if err != nil {
		return err
	}
	g.stats.Second.Add(int64(a.Fresh))
	for _, m := range lacking {
		m.done.Store(true)
	}
	return nil
}

// found is an occurrence in the record that was taken for one of our messages.
type found struct {
	tenant, digest, owner string
	heard                 int64
}

// match says whether the record has the message: under our name, or that of the
// nearest in time of what others heard and we have not taken for another one. It
// is append.lua's find, seen from here. Only lead's goroutine calls it.
func (g *Ingester) match(m *message, known []redislog.Occurrence, since int64) bool {
	best, bestFar := found{}, apart.Microseconds()+1
	for _, o := range known {
		f := found{m.tenant, m.raw.Digest, o.Owner, o.Heard}
		far := max(o.Heard-m.raw.Heard, m.raw.Heard-o.Heard)
		if o.Owner == g.owner {
			if far == 0 {
				return true
			}
			continue
		}
		if _, taken := g.found[f]; !taken && far < bestFar && o.Heard >= since-apart.Microseconds()/20 {
			best, bestFar = f, far
		}
	}
	if best.owner == "" {
		return false
	}
	g.found[best] = time.Now()
	return true
}
