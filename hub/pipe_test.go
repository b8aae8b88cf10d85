package hub_test

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// pipe is the log as one instance sees it: through a connection that can delay,
// break and go deaf, with Looks that can fail or linger on their way.
type pipe struct {
	w    *world
	wake chan struct{} // holds one wish to run; never closed
	quit chan struct{} // closed by stop
	cut  int           // > 0: at most so many events of a topic in one answer

	mu       sync.Mutex
	listener hub.Listener
	watched  bool
	up       bool
	deaf     bool // swallows what is published, until Reset
	swallow  int  // so many messages are yet to be swallowed
	held     bool
	passing  int // messages that may pass while held
	queue    []call
	resets   int
	fault    lookFault
	faults   int // Looks that the fault is yet to hit
	waiting  []*gate
}

// call is one call of the Listener on its way.
type call struct {
	what  string
	event *protocol.Event
}

// gate holds back a Look.
type gate struct{ open chan struct{} }

type lookFault uint8

const (
	lookFails  lookFault = iota
	lookLate             // the question is on its way for long
	answerLate           // the answer is
)

func newPipe(w *world, cut int) *pipe {
	return &pipe{w: w, wake: make(chan struct{}, 1), quit: make(chan struct{}), up: true, cut: cut}
}

// run makes the calls, one after the other, until stop.
func (p *pipe) run() {
	for {
		select {
		case <-p.quit:
			return
		case <-p.wake:
		}
		for {
			c, ok := p.next()
			if !ok {
				break
			}
			switch c.what {
			case "covered":
				p.listener.Covered(acme)
			case "lost":
				p.listener.Lost(acme)
			default:
				p.listener.Live(acme, c.event)
			}
		}
	}
}

func (p *pipe) next() (call, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 || p.held && p.passing == 0 {
		return call{}, false
	}
	if p.held {
		p.passing--
	}
	c := p.queue[0]
	p.queue = p.queue[1:]
	return c, true
}

func (p *pipe) stop() { close(p.quit) }

// change changes the pipe, and lets it run.
func (p *pipe) change(f func()) {
	p.mu.Lock()
	f()
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// message: an event was published.
func (p *pipe) message(e *protocol.Event) {
	p.change(func() {
		switch {
		case !p.watched || !p.up || p.deaf:
		case p.swallow > 0:
			p.swallow--
		default:
			p.queue = append(p.queue, call{"live", e})
		}
	})
}

// lose breaks the connection: what is on its way is gone.
func (p *pipe) lose() {
	p.change(func() {
		p.up, p.queue = false, nil
		if p.watched {
			p.queue = append(p.queue, call{what: "lost"})
		}
	})
}

// restore makes a connection; on it some old events come again.
func (p *pipe) restore(again []*protocol.Event) {
	p.change(func() {
		if p.up {
			return
		}
		p.up, p.deaf = true, false
		p.cover(again)
	})
}

func (p *pipe) cover(again []*protocol.Event) {
	if !p.watched || !p.up {
		return
	}
	p.queue = append(p.queue, call{what: "covered"})
	for _, e := range again {
		p.queue = append(p.queue, call{"live", e})
	}
}

// release lets the oldest Look that waits go on, or with all every one.
func (p *pipe) release(which int, all bool) {
	p.change(func() {
		for len(p.waiting) > 0 {
			i := which % len(p.waiting)
			close(p.waiting[i].open)
			p.waiting = slices.Delete(p.waiting, i, i+1)
			if !all {
				return
			}
		}
	})
}

// Publish implements hub.Log.
func (p *pipe) Publish(ctx context.Context, tenant string, events []protocol.Publication) ([]protocol.Cursor, error) {
	return p.w.log.Publish(ctx, tenant, events)
}

// Look implements hub.Log.
func (p *pipe) Look(ctx context.Context, tenant string, q hub.Query) (hub.View, error) {
	p.mu.Lock()
	var g *gate
	fault := p.fault
	hit := p.faults > 0
	if hit {
		p.faults--
		if fault != lookFails {
			g = &gate{make(chan struct{})}
			p.waiting = append(p.waiting, g)
		}
	}
	p.mu.Unlock()
	if hit && fault == lookFails {
		return hub.View{}, fmt.Errorf("look: %w", hub.ErrUnavailable)
	}
	if hit && fault == lookLate && !g.wait(ctx) {
		return hub.View{}, ctx.Err()
	}
	v, err := p.w.log.Look(ctx, tenant, q)
	if hit && fault == answerLate && !g.wait(ctx) {
		return hub.View{}, ctx.Err()
	}
	for i := range v.Topics {
		if tv := &v.Topics[i]; p.cut > 0 && q.Topics[i].Newest == 0 && len(tv.Events) > p.cut {
			tv.Events, tv.More = tv.Events[:p.cut], true
		}
	}
	return v, err
}

func (g *gate) wait(ctx context.Context) bool {
	select {
	case <-g.open:
		return true
	case <-ctx.Done():
		return false
	}
}

// Listen implements hub.Log.
func (p *pipe) Listen(l hub.Listener) { p.listener = l }

// Watch implements hub.Log.
func (p *pipe) Watch(string) { p.change(func() { p.watched = true; p.cover(nil) }) }

// Unwatch implements hub.Log.
func (p *pipe) Unwatch(string) { p.change(func() { p.watched, p.queue = false, nil }) }

// Reset implements hub.Log.
func (p *pipe) Reset(string) {
	p.change(func() {
		p.resets++
		p.deaf, p.swallow, p.queue = false, 0, nil
		if p.watched {
			p.queue = append(p.queue, call{what: "lost"})
			p.cover(nil)
		}
	})
}
