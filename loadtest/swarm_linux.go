package loadtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// SwarmConfig is what a swarm consists of.
type SwarmConfig struct {
	Addr    string   // IPv4 address and port of the server
	Peer    *Peer    // how it is spoken to
	Clients int      // how many
	SSE     float64  // share of them that use SSE; the others use WebSocket
	Topics  []string // by number
	// PerClient is how many of them each client subscribes to, 1 unless given: client
	// i has number i mod len(Topics) and those after it.
	PerClient int
	Tokens    []string // of each client; nil for none
	Keyed     bool     // events carry a conflation key
	Inflight  int      // handshakes at a time; 64 unless given
	Buffer    int      // SO_RCVBUF of each client in bytes; 0 leaves the system's
}

type state uint8

const (
	idle       state = iota // not connected, and no wish to be
	waiting                 // in line to connect
	connecting              // the socket is being connected
	upgrading               // the request is sent
	opened                  // the answer has come, "subscribed" has not
	ready                   // subscribed
	closed                  // the server ended it
	failed                  // it was refused
)

// A client is one connection and what survives it.
type client struct {
	partial []byte // the start of a message whose rest has not come
	whole   []byte // the fragments of a message so far
	cursor  []byte // of the newest event, to resume from
	began   int64  // when the last connect began
	fd      int32  // -1 without a socket
	life    int32  // counts sockets, so that a late wake-up is recognized
	index   int32
	body    chunks
	state   state
	sse     bool
	chunked bool
	stalled bool // does not read
	missed  bool // stalled, and was woken
	tardy   bool // has stalled: when it reads says nothing of the server
}

// A Swarm is many clients of one server on one thread.
type Swarm struct {
	// Fixed after construction.
	config SwarmConfig
	find   []byte
	echo   []byte
	epoll  int
	wake   int // an eventfd
	done   chan struct{}

	// Owned by the loop.
	clients  []client
	subs     []subscription
	ledger   *ledger
	buffer   []byte
	events   []unix.EpollEvent
	queue    []int32 // clients in line to connect
	inflight int
	states   [failed + 1]int
	errors   map[string]int // why handshakes failed and connections ended
	latency  *recorder
	resume   bool // keep cursors
	ticked   int64
	stop     bool

	mu      sync.Mutex // guards calls
	calls   []func()
	changed chan struct{} // capacity 1; told when a handshake ends; never closed
}

// NewSwarm makes the clients, unconnected. Close ends it.
func NewSwarm(config SwarmConfig) (*Swarm, error) {
	s, err := newSwarm(config)
	if err == nil {
		go s.loop()
	}
	return s, err
}

func newSwarm(config SwarmConfig) (*Swarm, error) {
	if config.Inflight == 0 {
		config.Inflight = 64
	}
	config.PerClient = max(1, config.PerClient)
	if err := RaiseFiles(config.Clients); err != nil {
		return nil, err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epoll)
		return nil, err
	}
	s := &Swarm{
		config: config, find: config.Peer.find(), echo: []byte(config.Peer.Echo),
		epoll: epoll, wake: wake, done: make(chan struct{}),
		clients: make([]client, config.Clients),
		ledger:  newLedger(config.Keyed),
		buffer:  make([]byte, 256<<10+maxMessage),
		events:  make([]unix.EpollEvent, 1024),
		errors:  map[string]int{},
		latency: newRecorder(),
		changed: make(chan struct{}, 1),
	}
	for i := range s.clients {
		c := &s.clients[i]
		c.fd, c.index = -1, int32(i)
		// The transports are spread evenly over the clients, whatever their topics.
		c.sse = int(float64(i+1)*config.SSE+1e-9) > int(float64(i)*config.SSE+1e-9)
		for j := range config.PerClient {
			s.subs = append(s.subs, subscription{topic: uint32((i + j) % len(config.Topics))})
		}
	}
	s.states[idle] = config.Clients
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}); err != nil {
		_, _ = unix.Close(epoll), unix.Close(wake)
		return nil, err
	}
	return s, nil
}

// Connect connects every client that is not, resuming where it has a cursor, and
// waits until each is subscribed or has failed.
func (s *Swarm) Connect(ctx context.Context) error {
	s.do(func() {
		for i := range s.clients {
			if c := &s.clients[i]; c.state == idle || c.state == closed {
				s.enter(c, waiting)
				s.queue = append(s.queue, int32(i))
			}
		}
		s.connectNext()
	})
	for {
		var left, bad int
		var why string
		s.do(func() {
			left = s.states[waiting] + s.inflight
			bad = s.states[failed]
			why = s.worst()
		})
		if left == 0 {
			if bad > 0 {
				return fmt.Errorf("%d of %d clients were refused: %s", bad, len(s.clients), why)
			}
			return nil
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return fmt.Errorf("%d clients are not connected: %w", left, context.Cause(ctx))
		}
	}
}

// worst is the most frequent of the errors.
func (s *Swarm) worst() (why string) {
	n := 0
	for e, count := range s.errors {
		if count > n {
			n, why = count, e
		}
	}
	return why
}

// Disconnect closes the sockets of a share of the subscribed clients, chosen at
// random; all for 1. They stay without until the next Connect. It gives how many.
func (s *Swarm) Disconnect(share float64) (n int) {
	s.do(func() {
		for i := range s.clients {
			if c := &s.clients[i]; c.state == ready && rand.Float64() < share {
				s.hangUp(c, idle)
				n++
			}
		}
	})
	return n
}

// Redirect has clients connect to another server from now on.
func (s *Swarm) Redirect(addr string) { s.do(func() { s.config.Addr = addr }) }

// KeepCursors makes clients remember where to resume. Call it before events flow.
func (s *Swarm) KeepCursors() { s.do(func() { s.resume = true }) }

// Stall makes a share of the clients stop reading, evenly spread; 0 lets all read.
// It gives how many stall.
func (s *Swarm) Stall(share float64) (n int) {
	s.do(func() {
		for i := range s.clients {
			c := &s.clients[i]
			c.stalled = int(float64(i+1)*share+1e-9) > int(float64(i)*share+1e-9)
			if c.stalled {
				c.tardy = true
				n++
			} else if c.missed {
				c.missed = false
				s.drain(c, true)
			}
		}
	})
	return n
}

// Snapshot is what clients have seen so far.
type Snapshot struct {
	At     int64 // ns
	Ready  int
	Closed int // by the server
	Tardy  int // of those: who had stalled
	Counts Counts
	Behind int // ready clients that do not have the newest event of each topic
}

// Snapshot compares with the newest n published of each topic; nil: none.
func (s *Swarm) Snapshot(published []uint64) (snap Snapshot) {
	s.do(func() {
		snap = Snapshot{At: now(), Ready: s.states[ready], Closed: s.states[closed], Counts: s.ledger.counts}
		for i := range s.clients {
			c := &s.clients[i]
			if c.tardy && c.state == closed {
				snap.Tardy++
			}
			if published == nil || c.state != ready || c.stalled {
				continue
			}
			for _, sub := range s.subsOf(c) {
				if sub.last < published[sub.topic] {
					snap.Behind++
					break
				}
			}
		}
	})
	return snap
}

// Measure sets the interval in which events must have been due to count for the
// latencies, ns of the clock; it forgets those recorded before.
func (s *Swarm) Measure(from, to int64) { s.do(func() { s.latency.window(from, to) }) }

// Split gives the latencies measured so far, and measures from here on those of
// events due from now on, without the clients that stall.
func (s *Swarm) Split() (before Latency) {
	s.do(func() {
		r := s.latency
		r.flush()
		before = quantiles(r.total)
		r.total.Reset()
		r.from = now()
	})
	return before
}

// Uncertain notes that an event may or may not have been published.
func (s *Swarm) Uncertain(topic uint32, n uint64) { s.ledger.uncertain(topic, n) }

// Settle enters in the ledger what has not come by now, and gives the outcome.
// published is as in Snapshot.
//
// It is the last word of a swarm: only Close may follow.
func (s *Swarm) Settle(published []uint64) (out Outcome) {
	s.do(func() {
		for i := range s.clients {
			c := &s.clients[i]
			subs := s.subsOf(c)
			for j := range subs {
				s.ledger.settle(&subs[j], published[subs[j].topic], c.state == ready && !c.stalled)
			}
		}
		s.latency.flush()
		out = Outcome{Counts: s.ledger.counts, Closed: s.states[closed] + s.states[failed], Errors: map[string]int{},
			Latency: s.latency.total, Handshakes: s.latency.handshakes, Series: s.latency.series}
		maps.Copy(out.Errors, s.errors)
	})
	return out
}

// Outcome is what a swarm has to say at the end.
type Outcome struct {
	Counts              Counts
	Closed              int                     // clients that the server disconnected, or refused when they came back
	Errors              map[string]int          // why, and how many
	Latency, Handshakes *hdrhistogram.Histogram // ns
	Series              []Second
}

// Close ends the swarm and its connections. Nothing else may be called after it.
func (s *Swarm) Close() {
	s.do(func() { s.stop = true })
	<-s.done
}

// do runs f on the loop and waits for it.
func (s *Swarm) do(f func()) {
	ran := make(chan struct{})
	s.mu.Lock()
	s.calls = append(s.calls, func() { f(); close(ran) })
	s.mu.Unlock()
	if _, err := unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil && !errors.Is(err, unix.EAGAIN) {
		panic(err) // the eventfd is ours and open
	}
	<-ran
}

// loop is the one thread of the swarm.
func (s *Swarm) loop() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.done)
	busy := false
	for !s.stop {
		// What is ready is taken without telling the scheduler; it is told only when
		// there is nothing to do.
		n := poll(s.epoll, s.events, 0)
		if n == 0 && busy {
			nap()
			n = poll(s.epoll, s.events, 0)
		}
		if busy = n > 0; !busy {
			n, _ = unix.EpollWait(s.epoll, s.events, 100) // EINTR: next time
		}
		for i := range max(n, 0) {
			e := &s.events[i]
			if e.Fd < 0 {
				s.answerCalls()
				continue
			}
			if c := &s.clients[e.Fd]; c.life == e.Pad {
				s.serve(c, e.Events)
			}
		}
		if at := now(); at-s.ticked >= int64(100*time.Millisecond) {
			s.ticked = at
			s.tick(at)
		}
	}
	for i := range s.clients {
		if c := &s.clients[i]; c.fd >= 0 {
			_ = unix.Close(int(c.fd))
		}
	}
	_, _ = unix.Close(s.epoll), unix.Close(s.wake)
}

func (s *Swarm) answerCalls() {
	var b [8]byte
	_, _ = unix.Read(s.wake, b[:])
	s.mu.Lock()
	calls := s.calls
	s.calls = nil
	s.mu.Unlock()
	for _, f := range calls {
		f()
	}
}

// handshakeTime bounds a handshake, "subscribed" included.
const handshakeTime = 30 * time.Second

func (s *Swarm) tick(at int64) {
	s.latency.rotate(at)
	if s.inflight == 0 {
		return
	}
	for i := range s.clients {
		c := &s.clients[i]
		if (c.state == connecting || c.state == upgrading || c.state == opened) && at-c.began > int64(handshakeTime) {
			s.fail(c, "no answer to the handshake within 30 s")
		}
	}
}

// enter changes the state of a client.
func (s *Swarm) enter(c *client, to state) {
	s.states[c.state]--
	s.states[to]++
	c.state = to
}

// end is the end of a connection by the server, or because of it.
func (s *Swarm) end(c *client, why string) {
	if c.state != ready {
		s.fail(c, why)
		return
	}
	s.errors[why]++
	s.hangUp(c, closed)
}

// hangUp closes the socket of a client and forgets what belonged to it.
func (s *Swarm) hangUp(c *client, to state) {
	if c.state == connecting || c.state == upgrading || c.state == opened {
		s.inflight--
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
	_ = unix.Close(int(c.fd))
	c.fd = -1
	c.life++
	c.partial, c.whole, c.body, c.chunked, c.missed = nil, nil, chunks{}, false, false
	s.enter(c, to)
}
