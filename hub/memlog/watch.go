package memlog

import (
	"sync"

	"github.com/pushhub/pushhub/hub"
)

// notes is what Watch, Unwatch and Reset have asked for and run has not done yet.
// They may be called under a lock that a callback waits for, while a Publish
// holds the tenant's: so they can only leave a note.
//
// A note says how the tenant is to be, not what is to be done. Were each call
// done in its turn, the Covered of an earlier Watch could be taken for that of a
// later one, with an Unwatch between them still to come. As it is, a tenant that
// is watched again before the note was read has never been unwatched.
type notes struct {
	wake chan struct{} // of one; tells run that there are notes; never closed

	mu     sync.Mutex // a leaf: nothing is locked or called under it
	wishes map[string]*wish
	queue  []string // tenants with a note, in the order in which they got one
}

// wish is how a tenant is to be. It is kept while the tenant is watched.
type wish struct {
	watched bool
	reset   bool // Lost is wanted first
	queued  bool
}

func newNotes() notes {
	return notes{wake: make(chan struct{}, 1), wishes: make(map[string]*wish)}
}

// Listen implements hub.Log.
func (l *Log) Listen(listener hub.Listener) { l.listener = listener }

// Watch implements hub.Log.
func (l *Log) Watch(tenant string) {
	l.notes.leave(tenant, func(w *wish) { w.watched = true })
}

// Unwatch implements hub.Log.
func (l *Log) Unwatch(tenant string) {
	l.notes.leave(tenant, func(w *wish) { w.watched, w.reset = false, false })
}

// Reset implements hub.Log. For a tenant that is not watched it does nothing.
func (l *Log) Reset(tenant string) {
	l.notes.leave(tenant, func(w *wish) { w.reset = w.watched })
}

func (n *notes) leave(tenant string, change func(*wish)) {
	n.mu.Lock()
	w := n.wishes[tenant]
	if w == nil {
		w = &wish{}
		n.wishes[tenant] = w
	}
	change(w)
	if !w.queued {
		w.queued = true
		n.queue = append(n.queue, tenant)
	}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// next takes the oldest note.
func (n *notes) next() (tenant string, w wish, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.queue) == 0 {
		n.queue = nil
		return "", wish{}, false
	}
	tenant, n.queue = n.queue[0], n.queue[1:]
	note := n.wishes[tenant]
	w = *note
	note.reset, note.queued = false, false
	if !w.watched {
		delete(n.wishes, tenant)
	}
	return tenant, w, true
}

// tell does what the notes ask for, until there are none or Close.
func (l *Log) tell() {
	for {
		select {
		case <-l.closed:
			return
		default:
		}
		tenant, w, ok := l.notes.next()
		if !ok {
			return
		}
		l.settle(tenant, w)
	}
}

// settle makes the tenant be as w says, and tells the Listener.
func (l *Log) settle(tenant string, w wish) {
	t := l.tenant(tenant)
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.reset && t.watched {
		l.listener.Lost(tenant)
	}
	t.watched, t.deaf = w.watched, false
	if w.watched {
		l.listener.Covered(tenant)
	}
}
