package redissim

import (
	"io"
	"maps"
	"slices"
	"strings"
)

// Fault is what can befall a script.
type Fault string

// The faults. Those that begin with a capital word are what Redis answers.
const (
	LateRequest Fault = "request late" // until Release
	LateAnswer  Fault = "answer late"  // until Release
	LoseRequest Fault = "request lost" // the connection breaks
	LoseAnswer  Fault = "answer lost"  // the connection breaks
	Loading     Fault = "LOADING Redis is loading the dataset in memory"
	ReadOnly    Fault = "READONLY You can't write against a read only replica."
	TryAgain    Fault = "TRYAGAIN Multiple keys request during rehashing of slot"
	OOM         Fault = "OOM command not allowed when used memory > 'maxmemory'."
)

// gate holds back a script, or its answer.
type gate struct {
	link   *link
	args   []string // nil: it ran
	answer []byte
}

// strike lets the client's fault befall a script, and says whether it did.
func (r *Redis) strike(l *link, args []string) bool {
	s := r.side(l.client)
	if s.faults == 0 || s.reading != strings.HasSuffix(strings.ToLower(args[0]), "_ro") {
		return false
	}
	s.faults--
	switch s.fault {
	case LateRequest:
		l.late = &gate{link: l, args: args}
		r.gates = append(r.gates, l.late)
	case LateAnswer:
		l.late = &gate{link: l, answer: l.script(args)}
		r.gates = append(r.gates, l.late)
	case LoseRequest:
		l.end(io.EOF)
	case LoseAnswer:
		l.script(args)
		l.end(io.EOF)
	default:
		l.say(appendAnswer(nil, failure(s.fault)))
	}
	return true
}

// Spoil lets a fault befall the next n scripts of a client: of those that only
// read, or of the others.
func (r *Redis) Spoil(client string, f Fault, reading bool, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.side(client)
	s.fault, s.reading, s.faults = f, reading, n
}

// Held says how many scripts or answers are held back.
func (r *Redis) Held() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.gates)
}

// Release lets one of what is held back go on, also if its client has hung up.
func (r *Redis) Release(which int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.gates) == 0 {
		return
	}
	which %= len(r.gates)
	g := r.gates[which]
	r.gates = slices.Delete(r.gates, which, which+1)
	l := g.link
	l.late = nil
	if g.args != nil {
		g.answer = l.script(g.args)
	}
	if l.ended != nil {
		l.server = nil
		return
	}
	l.say(g.answer)
	behind := l.behind
	l.behind = nil
	l.take(slices.Concat(behind...))
}

// Hold holds back what is said to the live connections of a client, or does not
// any more. What is said to them stays in order.
func (r *Redis) Hold(client string, held bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.side(client)
	s.held, s.passing = held, 0
	r.pass(client)
}

// Pass lets n of what Hold holds back come.
func (r *Redis) Pass(client string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.side(client).passing = n
	r.pass(client)
	r.side(client).passing = 0
}

func (r *Redis) pass(client string) {
	for _, l := range r.lives(client) {
		l.pass()
	}
}

// lives gives the live connections of a client.
func (r *Redis) lives(client string) []*link {
	var all []*link
	for _, l := range r.links {
		if l.live && l.client == client {
			all = append(all, l)
		}
	}
	return all
}

// Deafen lets nothing of the next n messages come to the live connections of a
// client; with n < 0 of all, as long as they last. Answers come.
func (r *Redis) Deafen(client string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lives(client) {
		l.deaf, l.swallow = n < 0, max(n, 0)
	}
}

// Mute lets nothing more come to the live connections of a client, nor from them,
// as long as they last.
func (r *Redis) Mute(client string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lives(client) {
		l.mute = true
	}
}

// Stall lets what the live connections of a client write wait, or lets all of it
// go on.
func (r *Redis) Stall(client string, stalled bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.side(client).stalled = stalled
	if !stalled {
		for _, l := range r.lives(client) {
			for len(l.behind) > 0 {
				l.next()
			}
		}
	}
}

// Take lets the oldest write of each live connection of a client go on.
func (r *Redis) Take(client string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lives(client) {
		if len(l.behind) > 0 {
			l.next()
		}
	}
}

// Move ends what the live connections of a client have subscribed, as a server
// does when the slot leaves it.
func (r *Redis) Move(client string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lives(client) {
		for _, channel := range slices.Sorted(maps.Keys(l.channels)) {
			l.leave(channel)
		}
	}
}

// Elsewhere answers the next n subscriptions of a client that the slot is on
// another server.
func (r *Redis) Elsewhere(client string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.side(client).moved = n
}

// Break ends the live connections of a client, or all that it has.
func (r *Redis) Break(client string, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range slices.Clone(r.links) {
		if l.client == client && (l.live || all) {
			l.end(io.EOF)
		}
	}
}

// Refuse refuses the client new connections, or does not any more.
func (r *Redis) Refuse(client string, refused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.side(client).refused = refused
}

// Mislead leads the next n live connections of a client to a replica that has
// lost its primary.
func (r *Redis) Mislead(client string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.side(client).replicas = n
}
