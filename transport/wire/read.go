package wire

import (
	"bytes"
	"errors"
	"io"

	"github.com/pushhub/pushhub/protocol"
)

// Run reads what the client sends, beginning with early, which has been read from
// the socket already. Where the engine reads it returns at once, else when the
// connection has ended.
func (c *Conn) Run(early []byte) {
	if c.shard == nil {
		if !c.e.enter(c) {
			c.Abort()
			return
		}
		defer c.e.leave(c)
		c.consume(early, true)
		buf := make([]byte, 4<<10)
		for {
			n, err := c.socket.Read(buf)
			c.consume(buf[:n], true)
			if err != nil {
				c.mu.Lock()
				c.heardAll(err == io.EOF)
				c.mu.Unlock()
				<-c.Done()
				return
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.reading = true // so that the descriptor stays
	c.mu.Unlock()
	err := c.e.poller.add(c)
	done := c.consume(early, false)
	c.mu.Lock()
	if err != nil {
		c.abort()
	}
	if done {
		c.rest(nil) // what the poller told meanwhile
	}
}

// readable is called by the poller: there is something to read. hup: after that
// comes the end.
func (c *Conn) readable(buf []byte, hup bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.more, c.hup = true, c.hup || hup
	if !c.reading {
		c.reading = true
		c.rest(buf)
	}
}

// rest reads while there is more, and leaves off then. With mu held, and reading
// set by the caller. buf is the poller's, who has others to see to: after some reads
// a goroutine goes on. nil is for a goroutine.
func (c *Conn) rest(buf []byte) {
	polled := buf != nil
	if !polled && c.more {
		buf = make([]byte, 4<<10)
	}
	for reads := 0; c.more && !c.closed; reads++ {
		if polled && reads == rounds {
			go c.goOn()
			return
		}
		c.more = false
		c.mu.Unlock()
		n, again, err := readSocket(int(c.fd), buf)
		c.mu.Lock()
		if n == 0 {
			if !again || err != nil {
				c.heardAll(err == nil)
				break
			}
			continue
		}
		// The poller speaks up when more comes, but for the end that it told already.
		// This is settled before a message is handed on, to a goroutine that reads too.
		c.more = c.more || n == len(buf) || c.hup
		c.mu.Unlock()
		going := c.consume(buf[:n], !polled)
		c.mu.Lock()
		if !going {
			return
		}
	}
	c.reading = false
	c.release()
}

// heardAll: nothing more comes from the client. If it ended in order, a close that is
// under way is brought to its end. With mu held.
func (c *Conn) heardAll(inOrder bool) {
	if c.gone = true; !inOrder || !c.lastly {
		c.abort()
	}
}

// goOn is the goroutine that reads where the poller has left off.
func (c *Conn) goOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rest(nil)
}

// consume takes what the client sent. It is false when a message is handled by a
// goroutine of its own, which then goes on reading; with wait it is handled here.
func (c *Conn) consume(p []byte, wait bool) bool {
	in := c.in
	if in == nil {
		in = new(input)
	}
	for c.listens() {
		s, rest, err := in.next(p, c.opts.MaxMessage)
		if err == errWhole {
			break
		}
		c.hears()
		if err != nil {
			c.violated(err)
			break
		}
		p = rest
		switch s.op {
		case opPing:
			c.Raw(appendPong(nil, s.data))
			c.Flush()
		case opPong:
		case opClose:
			if status, err := parseClose(s.data); err != nil {
				c.violated(err)
			} else {
				c.finish(appendClose(nil, status))
			}
		default:
			if !wait {
				in.rest = bytes.Clone(p)
				c.in = in
				go c.handle(bytes.Clone(s.data))
				return false
			}
			c.hand(s.data)
		}
	}
	if c.in = in; in.empty() {
		c.in = nil
	}
	return true
}

// listens says whether what the client says counts: that of an event stream never
// does.
func (c *Conn) listens() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.ending && c.opts.Encoding == protocol.WebSocket
}

// hears notes that the client is alive. Bytes of what never gets whole do not say so:
// such a client answers no ping.
func (c *Conn) hears() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = c.e.clock()
}

// hand gives a message to the peer. Meanwhile nobody listens to the client.
func (c *Conn) hand(frames []byte) {
	if !c.peer.Message(frames) {
		c.violated(statusPayload)
	}
	c.hears()
}

// handle is the goroutine of a message, and of what comes after it.
func (c *Conn) handle(frames []byte) {
	c.hand(frames)
	c.consume(nil, true)
	c.goOn()
}

// violated closes a connection whose client broke the protocol.
func (c *Conn) violated(err error) {
	var code violation
	errors.As(err, &code)
	c.Close(protocol.CloseCode(code))
}
