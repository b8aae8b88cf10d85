// Package wire brings bytes to sockets. A Conn is the sending half of one
// client's connection: frames that are made once and shared wait in its outbox
// and are written in order, several with one call; who is behind is found out by
// the socket itself.
//
// Where there is a plain TCP socket (Linux) a Conn writes to it directly and
// without blocking, from the goroutine that flushes; only while the socket is
// full a goroutine waits for it. Any other connection (TLS, HTTP/2, other
// systems) is written by a goroutine that lives while there is something to
// write. Both have the same outbox, order and tests.
package wire

import (
	"context"
	"io"
	"math"
	"net"
	"sync"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// Options of a Conn.
type Options struct {
	Encoding  protocol.Encoding
	Head      []byte        // goes out before everything, also before the bye of a connection that is closed at once
	MaxEvents int           // live events that may wait while the client is behind; 0: no bound
	MaxBytes  int           // their bytes; a little more may wait of answers and other control messages
	Stall     time.Duration // a write that makes no progress for so long ends the connection; 0: never
	// Bye makes the last frames of a connection that the hub closes.
	Bye func(code protocol.CloseCode, position protocol.Cursor) []byte
	// Delivered is called for each live event that was written completely, and
	// Conflated when an event superseded another. They only count: they are
	// called under the Conn's lock.
	Delivered func(e *protocol.Event)
	Conflated func()
}

// Socket is what a Conn writes to. Write may be given several frames in a row;
// SetWriteDeadline may do nothing.
type Socket interface {
	io.WriteCloser
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

// Conn is the sending half of one connection. It implements hub.Sink. All its
// methods may be called by several goroutines at once.
type Conn struct {
	// fixed after construction
	opts   Options
	socket Socket
	direct direct        // writes without blocking; zero where that cannot be had
	done   chan struct{} // closed when the connection has ended
	quit   func()        // closes done, once

	mu      sync.Mutex
	out     hub.Outbox
	flight  []hub.Entry // taken from out, not completely written
	part    int         // bytes of flight[0] that are written
	busy    bool        // somebody writes
	blocked bool        // the socket was full, and is not drained since
	since   time.Time   // when somebody began to write; void unless busy
	control int         // what control frames cost that are not completely written
	ending  bool        // bye is queued: nothing is added any more
	lastly  bool        // close the socket when everything is written
	closed  bool
	code    protocol.CloseCode // why the hub closed it; 0: it did not
	reached protocol.Cursor    // position of the client after what is completely written
	room    chan struct{}      // closed when no replay waits; nil: nobody asks
	touched time.Time          // when something was queued last that moves the position
	stats   Stats
}

// Stats is what a connection has carried.
type Stats struct {
	Events int   // completely written
	Bytes  int64 // written
}

// New makes a Conn that writes to socket. tcp is the plain TCP connection under
// it, if the socket adds nothing to it, else nil.
func New(socket Socket, tcp *net.TCPConn, opts Options) *Conn {
	c := &Conn{opts: opts, socket: socket, done: make(chan struct{}), touched: time.Now()}
	c.quit = sync.OnceFunc(func() { close(c.done) })
	if opts.Head != nil {
		c.flight = append(c.flight, hub.Entry{Frame: opts.Head})
		c.control = frameCost + len(opts.Head)
	}
	if tcp != nil {
		c.direct = newDirect(tcp)
	}
	return c
}

// Event implements hub.Sink. Over the budget the connection ends as a slow
// consumer, if it is behind: a burst that only waits for its goroutine is no
// fault of the client.
func (c *Conn) Event(e *protocol.Event, id bool) {
	enc := c.opts.Encoding
	if !id {
		enc = enc.WithoutID()
	}
	frame := e.Frame(enc)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return
	}
	behind := c.behind()
	c.out.MaxEvents, c.out.MaxBytes = c.opts.MaxEvents, c.opts.MaxBytes
	if !behind {
		c.out.MaxEvents, c.out.MaxBytes = 0, 0
	}
	conflated, ok := c.out.Event(e, frame, id, behind)
	if !ok && !c.direct.ok() { // it queued more than that before it proved to be behind
		c.conflate()
		conflated, ok = c.out.Event(e, frame, id, behind)
	}
	if !ok {
		c.end(protocol.SlowConsumer)
		return
	}
	if conflated {
		c.opts.Conflated()
	}
	c.touched = time.Now()
}

// Behind says whether the client has not yet taken what was written to it.
func (c *Conn) Behind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.behind()
}

// behind says whether an earlier write to the client is unfinished.
func (c *Conn) behind() bool {
	if c.direct.ok() {
		return c.blocked
	}
	return c.busy && time.Since(c.since) > burst
}

// conflate supersedes among what waits. With mu held.
func (c *Conn) conflate() {
	all := c.out.Take(make([]hub.Entry, 0, c.out.Len()), math.MaxInt)
	c.out.MaxEvents, c.out.MaxBytes = 0, 0
	for _, e := range all {
		switch id := !e.Cursor.IsZero(); {
		case e.Live():
			if conflated, _ := c.out.Event(e.Event, e.Frame, id, true); conflated {
				c.opts.Conflated()
			}
		case e.Event != nil:
			c.out.Retained(e.Event, e.Frame, id)
		default:
			c.out.Control(e.Frame, e.Cursor)
		}
	}
	c.out.MaxEvents, c.out.MaxBytes = c.opts.MaxEvents, c.opts.MaxBytes
}

// Retained implements hub.Sink.
func (c *Conn) Retained(e *protocol.Event, id bool) {
	enc := c.opts.Encoding
	if !id {
		enc = enc.WithoutID()
	}
	frame := e.Frame(enc)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ending {
		c.out.Retained(e, frame, id)
		c.touched = time.Now()
	}
}

// Control implements hub.Sink.
func (c *Conn) Control(message []byte, id protocol.Cursor) {
	var frame []byte
	if c.opts.Encoding == protocol.WebSocket {
		frame = protocol.AppendTextFrame(nil, message)
	} else {
		frame = protocol.AppendSSE(nil, id.String(), protocol.ControlName, message)
	}
	c.raw(frame, id)
}

// Heartbeat implements hub.Sink. Over SSE one without a position is a comment.
func (c *Conn) Heartbeat(cursor protocol.Cursor) {
	if cursor.IsZero() && c.opts.Encoding != protocol.WebSocket {
		c.Raw(protocol.AppendComment(nil))
		return
	}
	c.Control(protocol.Heartbeat{Cursor: cursor}.Encode(), cursor)
}

// Raw queues a ready frame. It is not copied.
func (c *Conn) Raw(frame []byte) { c.raw(frame, protocol.Cursor{}) }

func (c *Conn) raw(frame []byte, position protocol.Cursor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return
	}
	if c.control += frameCost + len(frame); c.opts.MaxBytes > 0 && c.control > c.opts.MaxBytes+batchBytes {
		c.end(protocol.SlowConsumer) // it asks and asks, and does not read the answers
		return
	}
	c.out.Control(frame, position)
	if !position.IsZero() {
		c.touched = time.Now()
	}
}

// Idle gives for how long nothing was queued that moves the client's position:
// pings, pongs and answers do not.
func (c *Conn) Idle() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.touched)
}

// Waiting gives the bytes that wait to be written.
func (c *Conn) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Bytes()
}

// Stats gives what was written so far.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Room implements hub.Sink.
func (c *Conn) Room(ctx context.Context) error {
	for {
		c.mu.Lock()
		if c.ending || c.out.Replaying() == 0 {
			c.mu.Unlock()
			return ctx.Err()
		}
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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
	c.ending, c.code, c.lastly = true, code, true
	c.out.Drop()
	position := c.reached
	for i := range c.flight { // it is written before bye
		if !c.flight[i].Cursor.IsZero() {
			position = c.flight[i].Cursor
		}
	}
	for _, frame := range append(last, c.opts.Bye(code, position)) {
		c.out.Control(frame, protocol.Cursor{})
	}
	c.roomy()
	time.AfterFunc(linger, c.Abort)
}

// Finish ends the connection from the client's side: nothing is added, what waits
// is written, and the socket is closed when that is done, at the latest after
// some seconds. It returns then. If the hub is closing already, it is Abort.
func (c *Conn) Finish() {
	c.mu.Lock()
	waits := c.busy || c.out.Len() > 0 || len(c.flight) > 0
	if c.ending || !waits {
		c.mu.Unlock()
		c.Abort()
		return
	}
	c.ending, c.lastly = true, true
	c.roomy()
	c.mu.Unlock()
	timer := time.AfterFunc(linger, c.Abort)
	defer timer.Stop()
	c.Flush()
	<-c.done
}

// Abort closes the socket at once.
func (c *Conn) Abort() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed, c.ending = true, true
	c.out.Drop()
	c.roomy()
	c.mu.Unlock()
	_ = c.socket.Close() // its errors say nothing that a reader of the socket does not see
	c.quit()
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Code gives why the hub closed the connection; 0 while it did not.
func (c *Conn) Code() protocol.CloseCode {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.code
}

func (c *Conn) roomy() {
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}
