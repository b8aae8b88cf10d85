// Package redissim is a Redis for tests, in memory: it speaks RESP over
// connections that Dial gives, runs scripts by a Lua of its own, and can do on
// demand what a real one does once in a while. It uses no goroutine and no time
// but the caller's, so it works in a bubble of testing/synctest.
//
// What it knows of Redis is what the scripts of redislog, its live connection and
// go-redis need: any other command fails the test. TestAsRedis compares each with
// a real server.
//
// What it can do: lose the last writes with a failover, while the old primary
// goes on for those who are still connected to it, or not; lose all, or restart;
// forget a key; hold back, break and deafen connections, and say on the way to
// one of them that it is a replica; lose a script or its answer, delay either, or
// refuse it.
package redissim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
)

// Options of a Redis. All are optional.
type Options struct {
	// Patch gives the text that is run instead of a script.
	Patch func(script string) string
	// Observe is told of each transaction that changed or published something, at
	// once: nobody else has seen anything of it. It must not call the Redis.
	Observe func(Transaction)
	// Moves makes it a Cluster: of its nodes one has the slot of this key, and can
	// give it to the other.
	Moves string
	// Fail is told what no test should come to. Without it that panics.
	Fail func(what string)
}

// Transaction is one command or script that ran.
type Transaction struct {
	Line     int                                    // which primary ran it: 0, and one more with each failover
	Messages []Message                              // what it published
	Hash     func(key, field string) (string, bool) // reads what is there after it; void after Observe
}

// Message is one that was published.
type Message struct{ Channel, Text string }

// Redis is one address, and the servers behind it.
type Redis struct {
	opts Options

	mu      sync.Mutex
	current *server   // the primary; in a Cluster that of the slot that moves
	nodes   []*server // of a Cluster: those of its halves, then those that were demoted
	moving  bool      // the slot is on its way from current to the other
	links   []*link   // that have not ended, oldest first
	sides   map[string]*side
	gates   []*gate // what is held back, oldest first
}

// server is one process.
type server struct {
	*store
	redis         *Redis
	replica       bool
	addr          string // in a Cluster
	line          int
	runID, replID string
	scripts       map[string]*script // by the sha of their own text
	said          []Message          // of the transaction
}

// side is what befalls one client's connections.
type side struct {
	held     bool
	passing  int // so many things may yet be said to live connections while held
	refused  bool
	stalled  bool // what live connections write waits
	moved    int  // so many subscriptions are answered that the channel is elsewhere
	replicas int  // so many live connections come to a replica
	fault    Fault
	faults   int  // scripts that it is yet to hit
	reading  bool // those that only read, else those that may write
}

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

// New gives a Redis that holds nothing.
func New(opts Options) *Redis {
	r := &Redis{opts: opts, sides: map[string]*side{}}
	r.current = r.newServer(newStore(), 0)
	if opts.Moves != "" {
		r.current.addr = Nodes[0]
		r.nodes = []*server{r.current, r.newServer(newStore(), 0)}
		r.nodes[1].addr = Nodes[1]
	}
	return r
}

func (r *Redis) newServer(s *store, line int) *server {
	return &server{store: s, redis: r, line: line, runID: newID(), replID: newID(), scripts: map[string]*script{}}
}

func newID() string {
	return fmt.Sprintf("%016x%016x%08x", rand.Uint64(), rand.Uint64(), rand.Uint32())
}

func (r *Redis) fail(format string, args ...any) {
	if r.opts.Fail == nil {
		panic(fmt.Sprintf(format, args...))
	}
	r.opts.Fail(fmt.Sprintf(format, args...))
}

func (r *Redis) side(client string) *side {
	s := r.sides[client]
	if s == nil {
		s = &side{}
		r.sides[client] = s
	}
	return s
}

// hold gives what may hold back a link's words, nil for nothing.
func (r *Redis) hold(l *link) *side {
	if !l.live {
		return nil
	}
	return r.side(l.client)
}

var errRefused = errors.New("connection refused")

// Dialer gives what connects a client, whose name faults go by, to the primary.
func (r *Redis) Dialer(client string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(_ context.Context, _, addr string) (net.Conn, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.side(client).refused {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: address{}, Err: errRefused}
		}
		s := r.current
		for _, n := range r.nodes {
			if n.addr == addr {
				s = n
			}
		}
		l := &link{redis: r, client: client, server: s, wake: make(chan struct{}, 1), channels: map[string]bool{}, fresh: true}
		r.links = append(r.links, l)
		return l, nil
	}
}

// transaction runs f, and tells Observe of what it did.
func (s *server) transaction(f func() any) any {
	answer := f()
	changed := s.end()
	said := s.said
	s.said = nil
	if s.redis.opts.Observe != nil && (changed || said != nil) {
		s.redis.opts.Observe(Transaction{s.line, said, s.hash})
	}
	return answer
}

func (s *server) hash(key, field string) (string, bool) {
	v := s.get(key)
	if v == nil {
		return "", false
	}
	text, ok := v.hash[field]
	return text, ok
}

// publish gives a message to those who subscribe its channel, and says how many
// they are.
func (s *server) publish(channel, text string) int {
	n := 0
	var message []byte
	for _, l := range s.redis.links {
		if l.server != s || !l.channels[channel] {
			continue
		}
		n++
		switch {
		case l.deaf:
		case l.swallow > 0:
			l.swallow--
		default:
			if message == nil {
				message = appendAnswer(nil, []any{"smessage", channel, text})
			}
			l.say(message)
		}
	}
	s.said = append(s.said, Message{channel, text})
	return n
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

// Fate is what becomes of the old primary in a failover.
type Fate string

// The fates.
const (
	Dies    Fate = "dies"
	GoesOn  Fate = "goes on"           // for those who are connected to it, until EndSplit; it knows nothing of the other
	Demoted Fate = "becomes a replica" // for those who are connected to it; what comes after it gets by Replicate
)

// Failover makes a replica the primary that lacks the last lost transactions.
func (r *Redis) Failover(lost int, fate Fate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.current
	was := old.store
	if fate == GoesOn {
		old.store = was.clone()
	}
	was.lose(lost)
	r.replace(r.newServer(was, old.line+1))
	switch fate {
	case Dies:
		r.kill(old)
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

// EndSplit ends every other primary.
func (r *Redis) EndSplit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range slices.Clone(r.links) {
		if s := l.server; s != nil && s != r.current && !s.replica && !slices.Contains(r.nodes, s) {
			r.kill(s)
		}
	}
	r.gates = slices.DeleteFunc(r.gates, func(g *gate) bool { return g.link.server != r.current && !slices.Contains(r.nodes, g.link.server) })
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

// Do runs a command on the primary.
func (r *Redis) Do(name string, args ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current.transaction(func() any { return r.current.run(name, args, false) })
}

// Close ends all connections.
func (r *Redis) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gates = nil
	for _, l := range slices.Clone(r.links) {
		l.late = nil
		l.end(io.EOF)
	}
}
