package redislog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Why a connection ends that Redis has not ended.
var (
	errReset       = errors.New("live connection: it is to be replaced")
	errNoAnswer    = errors.New("live connection: no answer in time")
	errUnrequested = errors.New("live connection: an answer that was not asked for")
	errRefused     = errors.New("live connection: refused")
)

// conn is one live connection, from its dialing to its end: it is never mended.
// Whoever needs it after that gets a new one, which is how nothing that may have
// been missed meanwhile goes unnoticed.
//
// It speaks RESP itself because go-redis' PubSub mends itself: it dials and
// subscribes anew within Receive, Ping and SSubscribe, so that the break can at
// best be guessed from confirmations. What is needed of RESP is little (reader),
// and hands a record over without a copy: see BenchmarkLive.
//
// Redis answers in the order in which it was asked. So the n-th answer belongs to
// the n-th request, and one that does not fit it shows that something was
// mistaken: then the connection ends.
type conn struct {
	// fixed after construction
	live   *live
	at     endpoint
	ctx    context.Context
	cancel context.CancelCauseFunc
	wake   chan struct{} // of one; wakes the writer; never closed

	heard atomic.Bool // something was read since the last tick

	// guarded by live.mu
	subs    map[*sub]struct{}
	todo    []*sub    // were watched, unwatched or reset
	asked   []request // sent, or about to be, and not answered; oldest first
	doubted bool      // it has to prove that it is alive
	madeAt  time.Time // zero before the handshake is done

	// owned by the reader
	channels map[string]*sub // that Redis has confirmed
}

type request struct {
	kind requestKind
	sub  *sub // nil of a ping
	at   time.Time
}

type requestKind string

const (
	subscribe   requestKind = "ssubscribe"
	unsubscribe requestKind = "sunsubscribe"
	ping        requestKind = "pong"
)

func newConn(l *live, at endpoint) *conn {
	c := &conn{
		live: l, at: at, wake: make(chan struct{}, 1),
		subs: map[*sub]struct{}{}, channels: map[string]*sub{},
	}
	c.ctx, c.cancel = context.WithCancelCause(l.ctx)
	return c
}

// note lets the writer see to a sub that was placed here, watched, unwatched or
// reset. With live.mu held.
func (c *conn) note(s *sub) {
	if !s.noted {
		s.noted = true
		c.todo = append(c.todo, s)
		signal(c.wake)
	}
}

// run is the goroutine of the connection: it dials, then reads to the end.
func (c *conn) run() {
	err := c.serve()
	c.cancel(err)
	c.live.ended(c, context.Cause(c.ctx))
}

func (c *conn) serve() error {
	ctx, cancel := context.WithTimeout(c.ctx, c.at.DialTimeout)
	defer cancel()
	nc, err := c.at.Dialer(ctx, c.at.Network, c.at.Addr)
	if err != nil {
		return err
	}
	var work sync.WaitGroup
	defer work.Wait()
	// Closing is a goroutine's because it can block, with TLS, and is what frees
	// the reader and the writer.
	work.Go(func() {
		<-c.ctx.Done()
		nc.Close()
	})
	r := newReader(nc)
	if err := handshake(c.ctx, c.at, nc, r, "pushhub-live", c.live.pace.answer); err != nil {
		c.cancel(err)
		return err
	}
	c.live.mu.Lock()
	c.madeAt = time.Now()
	c.live.mu.Unlock()
	work.Go(func() { c.write(nc) })
	for {
		if err := c.read(r); err != nil {
			c.cancel(err)
			return err
		}
	}
}

// write is the goroutine that sends requests, and sees that they are answered.
func (c *conn) write(nc net.Conn) {
	pace := c.live.pace
	tick := time.NewTicker(pace.tick)
	defer tick.Stop()
	var quiet time.Duration
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		case <-tick.C:
			quiet += pace.tick
			if c.heard.Swap(false) {
				quiet = 0
			}
		}
		b, err := c.requests(quiet >= pace.quiet)
		if err == nil && len(b) > 0 {
			if err = nc.SetWriteDeadline(time.Now().Add(pace.answer)); err == nil {
				_, err = nc.Write(b)
			}
		}
		if err != nil {
			c.cancel(err)
			return
		}
	}
}

// requests gives what is to be sent now.
func (c *conn) requests(quiet bool) ([]byte, error) {
	l := c.live
	l.mu.Lock()
	todo := c.todo
	c.todo = nil
	l.mu.Unlock()
	var b []byte
	for _, s := range todo {
		b = c.request(b, s)
		if l.servers.off.has(ruleConfirmed) {
			s.calls.Lock()
			l.mu.Lock()
			c.tell(s)
			s.calls.Unlock()
		}
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if len(c.asked) > 0 && time.Since(c.asked[0].at) > l.pace.answer && !l.servers.off.has(ruleAnswer) {
		return nil, errNoAnswer
	}
	if (quiet || c.doubted) && len(c.asked) == 0 {
		c.asked = append(c.asked, request{ping, nil, time.Now()})
		b = appendCommand(b, "PING")
	}
	c.doubted = false
	return b, nil
}

// request appends what brings a sub to where it is wanted. One that is wanted
// again before the unsubscription was sent never left, but must be told Covered:
// so it subscribes again, which Redis confirms. The lock of its calls keeps an
// unsubscription, or the end, back while the Listener is told Covered: that is
// true, then, also for one who began to watch at this moment.
func (c *conn) request(b []byte, s *sub) []byte {
	s.calls.Lock()
	defer s.calls.Unlock()
	c.live.mu.Lock()
	defer c.live.mu.Unlock()
	if s.conn != c {
		return b
	}
	s.noted = false
	wanted := s.wanted.Load()
	switch {
	case s.reset:
		c.cancel(errReset)
		return b
	case wanted:
		b = appendCommand(b, "SSUBSCRIBE", s.channel)
		c.asked = append(c.asked, request{subscribe, s, time.Now()})
	case s.subscribed:
		b = appendCommand(b, "SUNSUBSCRIBE", s.channel)
		c.asked = append(c.asked, request{unsubscribe, s, time.Now()})
	default:
		c.forget(s)
		return b
	}
	s.subscribed = wanted
	s.pending++
	return b
}

// forget drops a sub that nobody wants, when no answer for it is to come. With
// live.mu held.
func (c *conn) forget(s *sub) {
	if s.wanted.Load() || s.subscribed || s.pending > 0 || s.noted {
		return
	}
	s.conn = nil
	delete(c.subs, s)
	delete(c.live.subs, s.tenant)
}

// read reads one thing that Redis says, and does what follows from it.
func (c *conn) read(r *reader) error {
	kind, rest, err := r.line()
	if err != nil {
		return err
	}
	if !c.heard.Load() {
		c.heard.Store(true)
	}
	switch kind {
	case '*':
		name, err := r.short()
		if err != nil {
			return err
		}
		switch string(name) {
		case "smessage":
			return c.message(r)
		case string(subscribe):
			return c.confirmed(r, subscribe)
		case string(unsubscribe):
			return c.confirmed(r, unsubscribe)
		case string(ping):
			if _, err := r.short(); err != nil {
				return err
			}
			return c.ponged()
		}
		return fmt.Errorf("%w: %.40q", errUnrequested, name)
	case '+':
		return c.ponged()
	case '-':
		return c.refused(string(rest))
	}
	return errNotRESP
}

// message hands an event over. One that cannot be read is left out: the hub sees
// that its seq is missing.
func (c *conn) message(r *reader) error {
	channel, err := r.short()
	if err != nil {
		return err
	}
	s := c.channels[string(channel)]
	record, err := r.bulk()
	if err != nil {
		return err
	}
	if s == nil {
		return fmt.Errorf("%w: a message", errUnrequested)
	}
	e, err := decode(record)
	if err != nil {
		c.live.malformed.Add(1)
		return nil
	}
	s.calls.Lock()
	if s.wanted.Load() {
		s.listener.Live(s.tenant, e)
	}
	s.calls.Unlock()
	return nil
}

// next gives the request that an answer belongs to.
func (c *conn) next() (request, bool) {
	c.live.mu.Lock()
	defer c.live.mu.Unlock()
	if len(c.asked) == 0 {
		return request{}, false
	}
	return c.asked[0], true
}

func (c *conn) ponged() error {
	q, ok := c.next()
	if !ok || q.kind != ping {
		return fmt.Errorf("%w: a pong", errUnrequested)
	}
	c.live.mu.Lock()
	c.asked = c.asked[1:]
	c.live.mu.Unlock()
	return nil
}

// confirmed takes the confirmation that a channel is, or is not, subscribed.
func (c *conn) confirmed(r *reader, kind requestKind) error {
	name, err := r.short()
	if err != nil {
		return err
	}
	q, ok := c.next()
	fits := ok && q.kind == kind && q.sub.channel == string(name)
	s := c.channels[string(name)] // name is void after the next line
	if _, _, err := r.line(); err != nil {
		return err
	}
	switch {
	case fits && kind == subscribe:
		c.channels[q.sub.channel] = q.sub
		c.answered(q.sub)
	case fits:
		delete(c.channels, q.sub.channel)
		c.answered(q.sub)
	case kind == unsubscribe && s != nil && c.live.servers.off.has(ruleLeft):
	case kind == unsubscribe && s != nil && c.idle(s):
		// Of itself Redis says so when the slot has left this primary.
		c.moved(s, fmt.Errorf("%w: %s", errUnrequested, kind))
	default:
		return fmt.Errorf("%w: %s", errUnrequested, kind)
	}
	return nil
}

func (c *conn) idle(s *sub) bool {
	c.live.mu.Lock()
	defer c.live.mu.Unlock()
	return s.pending == 0
}

// answered takes the oldest request off, and tells Covered when the newest of
// its sub is now confirmed.
func (c *conn) answered(s *sub) {
	s.calls.Lock()
	defer s.calls.Unlock()
	c.live.mu.Lock()
	c.asked = c.asked[1:]
	s.pending--
	c.tell(s)
}

// tell tells Covered if it is time to. With the lock of the sub's calls, and with
// live.mu held, which it gives up.
func (c *conn) tell(s *sub) {
	covered := s.pending == 0 && s.subscribed && s.wanted.Load()
	if off := c.live.servers.off; off.has(ruleEnd | ruleConfirmed | ruleNth) {
		covered = s.subscribed && s.wanted.Load() && !s.covered && (s.pending == 0 || off.has(ruleConfirmed|ruleNth))
	}
	if covered {
		s.covered, s.telling = true, true
		c.live.setUp(s)
	}
	c.forget(s)
	c.live.mu.Unlock()
	if covered {
		s.listener.Covered(s.tenant)
		c.live.mu.Lock()
		s.telling = false
		c.live.mu.Unlock()
	}
}

// moved lets a sub look for its channel elsewhere.
func (c *conn) moved(s *sub, why error) {
	delete(c.channels, s.channel)
	c.live.servers.mapIsOld()
	c.live.release(c, s, why, time.Now().Add(movePause))
}

// refused takes an error. In a Cluster it may say that a channel is elsewhere
// now; any other means that this connection is of no use.
func (c *conn) refused(text string) error {
	q, ok := c.next()
	elsewhere := strings.HasPrefix(text, "MOVED ") || strings.HasPrefix(text, "CLUSTERDOWN ")
	if !ok || q.kind == ping || !elsewhere {
		return fmt.Errorf("%w: %s", errRefused, text)
	}
	s := q.sub
	c.live.mu.Lock()
	if s.pending > 1 {
		// A later request decides.
		s.pending--
		c.asked = c.asked[1:]
		c.live.mu.Unlock()
		delete(c.channels, s.channel)
		return nil
	}
	c.asked = c.asked[1:]
	c.live.mu.Unlock()
	c.moved(s, fmt.Errorf("%w: %s", errRefused, text))
	return nil
}
