package redissim

import (
	"fmt"
	"io"
	"slices"
)

// Fate is what becomes of the old primary in a failover.
type Fate string

// The fates.
const (
	Dies    Fate = "dies"
	GoesOn  Fate = "goes on"                        // for those who are connected to it, until EndSplit; it knows nothing of the other
	Demoted Fate = "becomes a replica"              // for those who are connected to it; what comes after it gets by Replicate
	Forgets Fate = "is started again, with nothing" // for those who go astray, until EndSplit; it knows nothing of the other
)

// Failover makes a replica the primary that lacks the last lost transactions.
func (r *Redis) Failover(lost int, fate Fate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.current
	was := old.store
	if fate == GoesOn {
		old.store, old.moving = was.clone(), r.moving
	}
	was.lose(lost)
	r.replace(r.newServer(was, old.line+1))
	switch fate {
	case Dies:
		r.kill(old)
	case Forgets:
		r.kill(old)
		r.forgetful = r.newServer(newStore(), old.line)
		r.forgetful.addr = old.addr
	case Demoted:
		old.store = was.clone()
		old.replica, old.replID = true, r.current.replID
		if r.nodes != nil {
			r.current.addr = fmt.Sprintf("redis%d:7000", len(r.nodes))
			r.nodes = append(r.nodes, old)
		}
	}
}

// Replicate gives the demoted servers what the primary has by now.
func (r *Redis) Replicate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		if s := l.server; s.replica {
			s.store = r.current.store.clone()
		}
	}
}

// replace puts a server in the place of the primary.
func (r *Redis) replace(s *server) {
	s.addr = r.current.addr
	for i := range r.nodes {
		if r.nodes[i] == r.current {
			r.nodes[i] = s
		}
	}
	r.current = s
}

// Astray has a client come to the primary that forgot all, while there is one, when it
// connects to the one in whose place it was.
func (r *Redis) Astray(client string, is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.side(client).astray = is
}

// EndSplit ends every other primary.
func (r *Redis) EndSplit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetful = nil
	for _, l := range slices.Clone(r.links) {
		if r.old(l.server) {
			r.kill(l.server)
		}
	}
	r.gates = slices.DeleteFunc(r.gates, func(g *gate) bool { return g.link.server != r.current && !slices.Contains(r.nodes, g.link.server) })
}

// old says whether a server takes itself for the primary and is not.
func (r *Redis) old(s *server) bool {
	return s != nil && s != r.current && !s.replica && !slices.Contains(r.nodes, s)
}

// OnOld says whether a client has a connection to an old primary that goes on.
func (r *Redis) OnOld(client string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.links, func(l *link) bool { return l.client == client && r.old(l.server) })
}

// kill ends the connections of a server, with all that is held back of them.
func (r *Redis) kill(s *server) {
	r.gates = slices.DeleteFunc(r.gates, func(g *gate) bool { return g.link.server == s })
	for _, l := range slices.Clone(r.links) {
		if l.server == s {
			l.late = nil
			l.end(io.EOF)
		}
	}
}

// Restart ends the primary and starts it again without the last lost
// transactions, or with nothing if lost < 0.
func (r *Redis) Restart(lost int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.current
	r.kill(old)
	if lost < 0 {
		old.store = newStore()
	} else {
		old.lose(lost)
	}
	r.replace(r.newServer(old.store, old.line))
}
