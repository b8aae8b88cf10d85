package hub_test

import (
	"sync"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
)

// pipe is a log in memory as an instance sees it through a connection that can be
// held up and go deaf, for the tenant acme.
type pipe struct {
	*memlog.Log
	wake chan struct{} // holds one wish to run; never closed
	quit chan struct{} // closed by stop

	mu       sync.Mutex
	listener hub.Listener
	watched  bool
	deaf     bool // swallows what is published, until Reset
	held     bool
	queue    []func(hub.Listener) // calls on their way
	resets   int
}

func newPipe(log *memlog.Log) *pipe {
	p := &pipe{Log: log, wake: make(chan struct{}, 1), quit: make(chan struct{})}
	log.Listen(published{p})
	log.Watch("acme")
	return p
}

// published is told by the log what is published.
type published struct{ p *pipe }

func (published) Covered(string) {}
func (published) Lost(string)    {}

func (l published) Live(tenant string, e *protocol.Event) {
	l.p.change(func() {
		if l.p.watched && !l.p.deaf {
			l.p.queue = append(l.p.queue, func(to hub.Listener) { to.Live(tenant, e) })
		}
	})
}

// run makes the calls, one after the other, until stop.
func (p *pipe) run() {
	for {
		select {
		case <-p.quit:
			return
		case <-p.wake:
		}
		for call := p.next(); call != nil; call = p.next() {
			call(p.listener)
		}
	}
}

func (p *pipe) next() func(hub.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 || p.held {
		return nil
	}
	c := p.queue[0]
	p.queue = p.queue[1:]
	return c
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

// Listen implements hub.Log.
func (p *pipe) Listen(l hub.Listener) { p.listener = l }

// Watch implements hub.Log.
func (p *pipe) Watch(tenant string) {
	p.change(func() {
		p.watched = true
		p.queue = append(p.queue, func(to hub.Listener) { to.Covered(tenant) })
	})
}

// Unwatch implements hub.Log.
func (p *pipe) Unwatch(string) { p.change(func() { p.watched, p.queue = false, nil }) }

// Reset implements hub.Log.
func (p *pipe) Reset(tenant string) {
	p.change(func() {
		p.resets++
		p.deaf, p.queue = false, nil
		if p.watched {
			p.queue = append(p.queue,
				func(to hub.Listener) { to.Lost(tenant) },
				func(to hub.Listener) { to.Covered(tenant) })
		}
	})
}
