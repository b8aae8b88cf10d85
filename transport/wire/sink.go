package wire

import (
	"context"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// Event implements hub.Sink. Over the budget the connection ends as a slow
// consumer, if it is behind: a burst that only waits for its goroutine is no
// fault of the client.
func (c *Conn) Event(e *protocol.Event, id bool) (flush bool) {
	enc := c.opts.Encoding
	if !id {
		enc = enc.WithoutID()
	}
	frame := e.Frame(enc)
	c.mu.Lock()
	if c.ending {
		c.mu.Unlock()
		return false
	}
	if c.out.event(e, frame, id, c.behind(), c.opts) {
		c.touched = tick(c.e.now.Load())
	} else {
		c.end(protocol.SlowConsumer)
	}
	push := c.turn()
	c.mu.Unlock()
	if push {
		c.shard.push(c)
	}
	return c.shard == nil
}

// Encoding gives how events are framed here.
func (c *Conn) Encoding() protocol.Encoding { return c.opts.Encoding }

// Behind says whether the client has not yet taken what was written to it.
func (c *Conn) Behind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.behind()
}

// behind says whether an earlier write to the client is unfinished.
func (c *Conn) behind() bool {
	if c.shard != nil {
		return c.blocked
	}
	return c.writing && time.Since(c.e.start)-time.Duration(c.progress)*turn > burst
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
		c.out.add(hub.RetainedEntry(e, frame, id))
		c.touched = tick(c.e.now.Load())
	}
}

// Control implements hub.Sink.
func (c *Conn) Control(message []byte, id protocol.Cursor) {
	var frame []byte
	if c.opts.Encoding == protocol.WebSocket {
		frame = protocol.AppendTextFrame(make([]byte, 0, len(message)+4), message)
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
	if c.control += int32(frameCost + len(frame)); c.opts.MaxBytes > 0 && int(c.control) > c.opts.MaxBytes+batchBytes {
		c.end(protocol.SlowConsumer) // it asks and asks, and does not read the answers
		return
	}
	c.out.add(hub.ControlEntry(frame, position))
	if !position.IsZero() {
		c.touched = tick(c.e.now.Load())
	}
}

// Room implements hub.Sink.
func (c *Conn) Room(ctx context.Context) error {
	for {
		c.mu.Lock()
		if c.ending || c.out.replaying() == 0 {
			c.mu.Unlock()
			return ctx.Err()
		}
		w := c.waited()
		if w.room == nil {
			w.room = make(chan struct{})
		}
		room := w.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
