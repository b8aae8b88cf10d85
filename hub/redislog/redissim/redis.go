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
// goes on for those who are still connected to it, or is started again with nothing,
// or not; lose all, or restart;
// forget a key; hold back, break and deafen connections, and say on the way to
// one of them that it is a replica; lose a script or its answer, delay either, or
// refuse it.
package redissim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
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

	mu        sync.Mutex
	current   *server   // the primary; in a Cluster that of the slot that moves
	forgetful *server   // was in the place of current, and takes itself for the primary; nil: none
	nodes     []*server // of a Cluster: those of its halves, then those that were demoted
	moving    bool      // the slot is on its way from current to the other
	links     []*link   // that have not ended, oldest first
	sides     map[string]*side
	gates     []*gate // what is held back, oldest first
}

// server is one process.
type server struct {
	*store
	redis         *Redis
	replica       bool
	addr          string // in a Cluster
	moving        bool   // the slot was on its way when the server was replaced: it does not know that it was
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
	astray   bool // it connects to the primary that forgot all
	fault    Fault
	faults   int  // scripts that it is yet to hit
	reading  bool // those that only read, else those that may write
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
		if s == r.current && r.forgetful != nil && r.side(client).astray {
			s = r.forgetful
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

// Life gives the id of the primary's life, its master_replid.
func (r *Redis) Life() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current.replID
}

// Hash gives a field of a hash of the primary, "" for none.
func (r *Redis) Hash(key, field string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	text, _ := r.current.hash(key, field)
	return text
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
