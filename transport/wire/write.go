package wire

import (
	"net"
	"slices"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// scratch is what one writer works in.
type scratch struct {
	entries [batchFrames]hub.Entry
	frames  [batchFrames][]byte
	vector  vector
	tally   tally
	send    func(fd int, frames [][]byte, v *vector) (int, error) // writeSocket, of a shard
}

// tally counts deliveries until they are reported together: of an event that goes
// to many, all that are written in a row.
type tally struct {
	opts  *Options
	event *protocol.Event
	n     int
}

func (t *tally) add(opts *Options, e *protocol.Event) {
	if t.event != e || t.opts != opts {
		t.report()
		t.opts, t.event = opts, e
	}
	t.n++
}

// report: the counts are exact after it.
func (t *tally) report() {
	if t.n > 0 {
		t.opts.Delivered(t.event, t.n)
		t.opts, t.event, t.n = nil, nil, 0
	}
}

// Flush implements hub.Sink.
func (c *Conn) Flush() {
	c.mu.Lock()
	if c.shard != nil {
		push := c.turn()
		c.mu.Unlock()
		if push {
			c.shard.push(c)
		}
		return
	}
	if c.writing || c.closed || c.out.len() == 0 && len(c.flight) == 0 {
		c.mu.Unlock()
		return
	}
	c.writing, c.progress = true, c.e.after(0)
	c.mu.Unlock()
	go c.write()
}

// turn says whether the shard has to be told that something waits. With mu held.
func (c *Conn) turn() bool {
	if c.shard == nil || c.queued || c.writing || c.full || c.closed || c.out.len() == 0 && len(c.flight) == 0 {
		return false
	}
	c.queued = true
	return true
}

// writable is called by the poller: the socket was full and takes more, perhaps.
func (c *Conn) writable() {
	c.mu.Lock()
	c.edge = true
	again := c.full && !c.closed
	c.full, c.queued = false, c.queued || again
	c.mu.Unlock()
	if again {
		c.shard.push(c)
	}
}

// put writes what waits to the socket, as far as it takes it. It is called by the
// shard only.
func (c *Conn) put(s *scratch) {
	c.mu.Lock()
	c.queued = false
	if !c.full && !c.closed {
		c.writing = true
		c.pour(s)
		c.writing = false
		c.release()
		c.tell()
	}
	c.mu.Unlock()
}

// rounds is how many writes one connection gets before others have their turn.
const rounds = 4

// pour is put with mu held, but not while it writes.
func (c *Conn) pour(s *scratch) {
	for range rounds {
		if !c.gather(s) {
			c.blocked = false
			if c.lastly && !c.closed {
				c.lastly = false
				if c.forsaken() || closeWrite(int(c.fd)) != nil { // who was closed by the hub closes now, or its time is over
					c.abort()
				}
			}
			return
		}
		c.edge = false
		frames := s.frames[:len(c.flight)]
		c.mu.Unlock()
		n, err := s.send(int(c.fd), frames, &s.vector)
		c.mu.Lock()
		c.written(n, &s.tally)
		switch {
		case err != nil:
			c.flight = nil
			c.abort()
			return
		case len(c.flight) == 0:
			continue
		case c.closed:
			c.flight = nil
			return
		}
		c.flight, c.blocked = slices.Clone(c.flight), true // as above
		if !c.edge {
			c.full, c.progress = true, c.e.after(0)
			if c.opts.Stall > 0 {
				c.wake(c.progress + ticks(c.opts.Stall))
			}
			return
		}
	}
	if !c.closed {
		c.queued = true
		c.shard.push(c)
	}
}

// gather takes what goes into one write, if there is anything, from the outbox to
// flight, behind what is there already, and its bytes to s.frames. With mu held.
func (c *Conn) gather(s *scratch) bool {
	room := batchBytes
	for i := range c.flight {
		room -= len(c.flight[i].Frame)
	}
	c.flight = c.out.take(s.entries[:copy(s.entries[:], c.flight)], room)
	if len(c.flight) == 0 {
		c.flight = nil
		return false
	}
	if c.waits != nil && c.out.replaying() == 0 {
		c.roomy()
	}
	for i := range c.flight {
		s.frames[i] = c.flight[i].Frame
	}
	s.frames[0] = s.frames[0][c.part:]
	return true
}

// written accounts for n more bytes of flight. With mu held.
func (c *Conn) written(n int, t *tally) {
	c.stats.Bytes += int64(n)
	n += int(c.part)
	c.part = 0
	for i := range c.flight {
		e := &c.flight[i]
		if n < len(e.Frame) {
			c.part = int32(n)
			c.flight = c.flight[i:]
			return
		}
		n -= len(e.Frame)
		if e.Cursor != nil {
			c.reached = *e.Cursor
		}
		if e.Event == nil {
			c.control -= int32(frameCost + len(e.Frame))
		} else {
			c.stats.Events++
			if e.Live() {
				t.add(c.opts, e.Event)
			}
		}
	}
	c.flight = nil // the scratch is for others now
}

// write writes to a socket until nothing waits. It is the only one: who started it
// has set writing.
func (c *Conn) write() {
	s := new(scratch)
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.gather(s) {
		frames := s.frames[:len(c.flight)]
		c.mu.Unlock()
		n, err := c.send(frames)
		c.mu.Lock()
		c.written(n, &s.tally)
		s.tally.report()
		c.blocked = len(c.flight) > 0
		if err != nil {
			if te, ok := err.(net.Error); ok && te.Timeout() {
				c.stalled()
			}
			c.writing, c.flight = false, nil
			c.abort()
			c.tell()
			return
		}
	}
	c.writing, c.blocked = false, false
	c.tell()
	if c.lastly && !c.closed {
		c.lastly = false
		go c.shut(c.forsaken())
	}
}

// forsaken says whether the client, to which all is written, is not waited for: it has
// closed first, is gone, or does not answer. With mu held.
func (c *Conn) forsaken() bool {
	return c.code == 0 || c.gone || c.code == int16(protocol.NoPong)
}

// shut ends the sending side when all is written, or both, as put does it for a
// descriptor; here it may take its time.
func (c *Conn) shut(both bool) {
	if half, ok := c.socket.(interface{ CloseWrite() error }); !ok || both || half.CloseWrite() != nil {
		c.Abort()
	}
}

// send writes the front of frames, waiting while the socket is full.
func (c *Conn) send(frames [][]byte) (int, error) {
	if c.opts.Stall > 0 {
		_ = c.socket.SetWriteDeadline(time.Now().Add(c.opts.Stall)) // a closed socket says so when written
		defer func() { _ = c.socket.SetWriteDeadline(time.Time{}) }()
	}
	piece := slices.Clip(frames[0]) // shared: appending must copy it
	for i := 1; i < len(frames) && len(piece) < pieceBytes; i++ {
		piece = append(piece, frames[i]...)
	}
	return c.socket.Write(piece[:min(len(piece), pieceBytes)])
}
