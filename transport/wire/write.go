package wire

import (
	"net"
	"slices"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// Flush implements hub.Sink.
func (c *Conn) Flush() {
	c.mu.Lock()
	if c.busy || c.closed || c.out.Len() == 0 && len(c.flight) == 0 {
		c.mu.Unlock()
		return
	}
	c.busy = true
	if !c.direct.ok() {
		c.since = time.Now()
	}
	c.mu.Unlock()
	if !c.direct.ok() || !c.write(c.direct.try) {
		go c.write(c.wait)
	}
}

// write writes until nothing waits; it is false when the socket is full. Only
// one goroutine is in it at a time: the one that set busy.
func (c *Conn) write(put func(frames [][]byte) (int, error)) bool {
	var space [batchFrames][]byte
	for {
		c.mu.Lock()
		if len(c.flight) == 0 && !c.closed {
			if c.flight == nil {
				c.flight = make([]hub.Entry, 0, 4)
			}
			if n := c.out.Len(); n > cap(c.flight) && cap(c.flight) < batchFrames {
				c.flight = make([]hub.Entry, 0, min(n, batchFrames))
			}
			c.flight, c.part = c.out.Take(c.flight[:0], batchBytes), 0
			if c.out.Replaying() == 0 {
				c.roomy()
			}
		}
		if len(c.flight) == 0 {
			c.busy, c.blocked = false, false
			if cap(c.flight) > 4 {
				c.flight = nil
			}
			last := c.lastly && !c.closed
			c.mu.Unlock()
			if last {
				c.shut()
			}
			return true
		}
		frames := space[:0]
		for i, e := range c.flight {
			if i == 0 {
				e.Frame = e.Frame[c.part:]
			}
			frames = append(frames, e.Frame)
		}
		c.mu.Unlock()
		n, err := put(frames)
		c.written(n)
		if err == errFull {
			return false
		}
		if err != nil {
			c.stalled(err)
			c.mu.Lock()
			c.busy, c.flight = false, nil
			c.mu.Unlock()
			c.Abort()
			return true
		}
	}
}

// stalled notes why a write failed that took too long.
func (c *Conn) stalled(err error) {
	if te, ok := err.(net.Error); ok && te.Timeout() {
		c.mu.Lock()
		if c.code == 0 {
			c.code = protocol.SlowConsumer
		}
		c.mu.Unlock()
	}
}

// written accounts for n more bytes of flight.
func (c *Conn) written(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Bytes += int64(n)
	n += c.part
	c.part = 0
	for i, e := range c.flight {
		if n < len(e.Frame) {
			c.part = n
			c.blocked = true
			c.flight = c.flight[i:]
			return
		}
		n -= len(e.Frame)
		if !e.Cursor.IsZero() {
			c.reached = e.Cursor
		}
		if e.Event == nil {
			c.control -= frameCost + len(e.Frame)
		} else {
			c.stats.Events++
			if e.Live() {
				c.opts.Delivered(e.Event)
			}
		}
	}
	c.flight = c.flight[:0]
}

// wait writes frames, waiting while the socket is full.
func (c *Conn) wait(frames [][]byte) (int, error) {
	if c.opts.Stall > 0 {
		_ = c.socket.SetWriteDeadline(time.Now().Add(c.opts.Stall)) // a closed socket says so when written
		defer func() { _ = c.socket.SetWriteDeadline(time.Time{}) }()
	}
	if c.direct.ok() {
		return c.direct.wait(frames)
	}
	piece := slices.Clip(frames[0]) // shared: appending must copy it
	for i := 1; i < len(frames) && len(piece) < pieceBytes; i++ {
		piece = append(piece, frames[i]...)
	}
	return c.socket.Write(piece[:min(len(piece), pieceBytes)])
}

// shut ends the sending side after bye: the client closes, or the timer does. A
// client that closed first waits for the end only.
func (c *Conn) shut() {
	if half, ok := c.socket.(interface{ CloseWrite() error }); ok && c.Code() != 0 && half.CloseWrite() == nil {
		return
	}
	c.Abort()
}
