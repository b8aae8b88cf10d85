// Package wire brings bytes to sockets and back. A Conn is one client's connection:
// frames that are made once and shared wait in its outbox and are written in order,
// several with one call; who is behind is found out by the socket itself.
//
// Where there is a plain TCP socket (Linux) the Engine writes to it and reads from
// it, without blocking and without a goroutine of the connection's own. Any other
// connection (TLS, HTTP/2, other systems) is read by the goroutine that calls Run,
// and written by one that lives while there is something to write. Both have the
// same outbox, order, parser and tests.
package wire

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// Options are shared by Conns of one kind.
type Options struct {
	Encoding   protocol.Encoding
	MaxMessage int           // bytes of one message from the client of a WebSocket
	MaxEvents  int           // live events that may wait while the client is behind; 0: no bound
	MaxBytes   int           // their bytes; a little more may wait of answers and other control messages
	Stall      time.Duration // a write that makes no progress for so long ends the connection; 0: never
	// Delivered is called when a live event was written completely to so many
	// connections, and Conflated when an event superseded another. They only count:
	// they are called under a Conn's lock.
	Delivered func(e *protocol.Event, connections int)
	Conflated func()
}

// Peer is who has a Conn, and is told what happens on it.
type Peer interface {
	// Message is a whole message of a WebSocket client: all its frames, as they
	// came. The next one comes when it has returned; it may take its time. It is
	// false for text that is not UTF-8: then the connection ends.
	Message(frames []byte) (ok bool)
	// Due is called when the time has come that it, or Conn.Wake, named last. It
	// gives when that is next; 0: never. It must not block.
	Due() time.Duration
	// Bye makes the last frames of a connection that the hub closes. It is called
	// under the Conn's lock.
	Bye(code protocol.CloseCode, position protocol.Cursor) []byte
	// Ended is called once, when the connection has ended.
	Ended()
}

// Socket is what a Conn without a descriptor of its own reads and writes. Write
// may be given several frames in a row; SetWriteDeadline may do nothing.
type Socket interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
}

const (
	batchFrames = 64
	batchBytes  = 128 << 10
	pieceBytes  = 16 << 10               // one write, one record of TLS: what must get through before a stall
	frameCost   = 64                     // bytes that a waiting frame costs besides its own, about
	burst       = 250 * time.Millisecond // what waits for longer waits for the client, where the socket cannot be asked
	linger      = 5 * time.Second        // for the client to close after bye
)

// Conn is one connection. It implements hub.Sink. All its methods may be called
// by several goroutines at once.
type Conn struct {
	// What every delivery touches comes first, in three lines of the processor's
	// cache: with many connections to write to, that is what a delivery costs.

	mu      sync.Mutex
	queued  bool // guarded by mu, as are all that are not said to be fixed: the shard will come
	writing bool // somebody writes
	edge    bool // the socket could be written again, meanwhile
	full    bool // it cannot be written until the poller says so
	blocked bool // it was full, and is not drained since
	reading bool // somebody reads, or handles a message
	more    bool // there is something to read
	hup     bool // and after that the end
	ending  bool // nothing is added any more, and nothing that the client says counts
	left    bool // the client closed with a frame that says so
	gone    bool // nothing more comes from the client
	lastly  bool // close the socket when everything is written
	closed  bool
	told    bool     // the peer knows that it ended
	code    int16    // a protocol.CloseCode: why the hub closed it; 0: it did not
	fd      int32    // fixed while the connection is open
	gen     int32    // guarded by poller.mu: see there
	e       *Engine  // fixed
	opts    *Options // fixed
	shard   *shard   // fixed; writes to fd; nil: there is a socket instead
	touched tick     // when something was queued last that moves the position
	control int32    // what control frames cost that are not completely written
	part    int32    // bytes of flight[0] that are written
	dueAt   tick     // turn of the wheel that counts; 0: none

	out     box
	flight  []hub.Entry // taken from out, not completely written
	reached protocol.Cursor
	stats   Stats

	peer     Peer   // fixed
	socket   Socket // fixed
	in       *input // owned by who reads; nil unless the client is in the midst of something
	waits    *waits // nil: nobody does
	heard    tick   // when the client sent something whole last
	progress tick   // when the socket last took something before it was full; without a shard, when a write began
	lingers  tick   // when an ending connection is aborted; 0: it does not end
}

// waits is what somebody waits for.
type waits struct {
	room chan struct{} // closed when no replay waits; nil: nobody asks
	done chan struct{} // closed when the connection has ended; nil: nobody asks
}

// Stats is what a connection has carried.
type Stats struct {
	Events int   // completely written
	Bytes  int64 // written
}

// New makes a Conn on a socket that nobody else uses any more. head goes out
// before everything, also before the bye of a connection that is closed at once.
// tcp is the plain TCP connection under socket, if socket adds nothing to it, else
// nil. Run has to be called.
func (e *Engine) New(socket Socket, tcp *net.TCPConn, opts *Options, peer Peer, head []byte) *Conn {
	c := &Conn{e: e, opts: opts, peer: peer, socket: socket, touched: tick(e.now.Load()), heard: e.clock()}
	if head != nil {
		c.flight = append(c.flight, hub.Entry{Frame: head})
		c.control = int32(frameCost + len(head))
	}
	if tcp == nil || !e.polls() {
		return c
	}
	if fd, err := takeOver(tcp); err == nil { // else it is read and written as any other
		c.fd, c.socket = int32(fd), nil
		c.shard = e.shards[e.next.Add(1)%uint32(len(e.shards))]
	}
	return c
}

// Idle gives for how long nothing was queued that moves the client's position, to
// about 100 ms: pings, pongs and answers do not.
func (c *Conn) Idle() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(tick(c.e.now.Load())-c.touched) * turn
}

// Silent gives for how long the client has said nothing that is whole, a control frame or
// a message, or up to 100 ms more.
func (c *Conn) Silent() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.e.start) - time.Duration(c.heard)*turn
}

// Waiting gives the bytes that wait to be written.
func (c *Conn) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.bytes()
}

// Stats gives what was written so far.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Close ends the connection from the hub's side: what waits is dropped, a frame
// that is partly written is completed, the last frames that are given and bye
// follow, and the socket is closed when they are written, at the latest after
// some seconds. The first code counts.
func (c *Conn) Close(code protocol.CloseCode, last ...[]byte) {
	c.mu.Lock()
	c.end(code, last...)
	c.mu.Unlock()
	c.Flush()
}

// end: with mu held.
func (c *Conn) end(code protocol.CloseCode, last ...[]byte) {
	if c.ending {
		return
	}
	c.ending, c.code, c.lastly = true, int16(code), true
	c.out.drop()
	position := c.reached
	for i := range c.flight { // it is written before bye
		if at := c.flight[i].Cursor; at != nil {
			position = *at
		}
	}
	for _, frame := range append(last, c.peer.Bye(code, position)) {
		c.out.add(hub.ControlEntry(frame, protocol.Cursor{}))
	}
	c.roomy()
	c.expect()
}

// expect has the connection end at last, whatever the client does. With mu held.
func (c *Conn) expect() {
	c.lingers = c.e.after(linger)
	c.wake(c.lingers)
}

// finish ends the connection from the client's side: nothing is added, what waits
// is written, then frame, and the socket is closed when that is done. If the hub
// is closing already, all that is left to wait for has come.
func (c *Conn) finish(frame []byte) {
	c.mu.Lock()
	if c.ending {
		c.mu.Unlock()
		c.Abort()
		return
	}
	c.left, c.ending, c.lastly = true, true, true
	c.out.add(hub.ControlEntry(frame, protocol.Cursor{}))
	c.roomy()
	c.expect()
	c.mu.Unlock()
	c.Flush()
}

// Abort closes the socket at once.
func (c *Conn) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abort()
}

// abort: with mu held.
func (c *Conn) abort() {
	if c.closed {
		return
	}
	c.closed, c.ending = true, true
	c.out.drop()
	if !c.writing {
		c.flight = nil
	}
	c.roomy()
	c.release()
	if c.waits != nil && c.waits.done != nil {
		close(c.waits.done)
	}
	if c.socket == nil {
		c.tell()
		return
	}
	go func() {
		_ = c.socket.Close() // its errors say nothing that a reader of the socket does not see
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tell()
	}()
}

// tell has the peer know of the end, when the last write is accounted for. With mu
// held.
func (c *Conn) tell() {
	if c.closed && !c.writing && !c.told {
		c.told = true
		go c.peer.Ended()
	}
}

// release closes the descriptor of a connection that has ended, when nobody uses it
// any more; until then, which may be as long as a message is handled, its socket is
// shut. With mu held.
func (c *Conn) release() {
	switch {
	case c.shard == nil || c.fd < 0 || !c.closed:
	case c.writing || c.reading:
		shutSocket(int(c.fd))
	default:
		c.e.poller.forget(c)
		closeSocket(int(c.fd))
		c.fd = -1
	}
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waited()
	if w.done == nil {
		w.done = make(chan struct{})
		if c.closed {
			close(w.done)
		}
	}
	return w.done
}

// Left says whether the client ended the connection with a close frame.
func (c *Conn) Left() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left
}

// Code gives why the hub closed the connection; 0 while it did not.
func (c *Conn) Code() protocol.CloseCode {
	c.mu.Lock()
	defer c.mu.Unlock()
	return protocol.CloseCode(c.code)
}

func (c *Conn) roomy() {
	if c.waits != nil && c.waits.room != nil {
		close(c.waits.room)
		c.waits.room = nil
	}
}

// waited gives the waits, for somebody who does. With mu held.
func (c *Conn) waited() *waits {
	if c.waits == nil {
		c.waits = new(waits)
	}
	return c.waits
}

// Wake has Due called after a time, if that is before it would be.
func (c *Conn) Wake(after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake(c.e.after(after))
}

// wake: with mu held.
func (c *Conn) wake(at tick) {
	if c.dueAt == 0 || at < c.dueAt {
		c.dueAt = at
		c.e.wheel.add(c, at)
	}
}

// due is called by the wheel.
func (c *Conn) due(at, now tick) {
	c.mu.Lock()
	if c.closed || at != c.dueAt {
		c.mu.Unlock()
		return
	}
	c.dueAt = 0
	switch {
	case c.lingers > 0 && now >= c.lingers:
		c.abort()
	case c.full && c.opts.Stall > 0 && now >= c.progress+ticks(c.opts.Stall):
		c.stalled()
		c.abort()
	default:
		if c.full && c.opts.Stall > 0 {
			c.wake(c.progress + ticks(c.opts.Stall))
		}
		if c.lingers > 0 {
			c.wake(c.lingers)
		}
	}
	c.mu.Unlock()
	if next := c.peer.Due(); next > 0 {
		c.Wake(next)
	}
}

// stalled notes that a write took too long. With mu held.
func (c *Conn) stalled() {
	if c.code == 0 {
		c.code = int16(protocol.SlowConsumer)
	}
}
