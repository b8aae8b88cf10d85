package ingest

import "time"

// NewQuick makes an Ingester that does all that it waits for ten times as soon.
func NewQuick(opts Options) *Ingester {
	g := New(opts)
	p := &g.pace
	for _, d := range []*time.Duration{&p.tick, &p.mark, &p.lease, &p.lookBack, &p.stale} {
		*d /= 10
	}
	return g
}

// Waiting says how many messages were heard and are not known to be in the log.
func (g *Ingester) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, q := range g.queues {
		n += len(q.waiting)
	}
	return n
}

// Bound sets how many bytes may wait.
func (g *Ingester) Bound(bytes int) { g.most = bytes }

// HeldBytes says how many bytes wait.
func (g *Ingester) HeldBytes() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}
