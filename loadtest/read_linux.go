package loadtest

import (
	"bytes"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// From a wake-up to the ledger: what a client is sent.

// serve reads what has come for a client.
func (s *Swarm) serve(c *client, events uint32) {
	if c.state == connecting {
		s.connected(c)
		if events&(unix.EPOLLIN|unix.EPOLLRDHUP) == 0 {
			return
		}
	}
	if c.stalled {
		c.missed = true
		return
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.drain(c, events&^(unix.EPOLLIN|unix.EPOLLOUT) != 0)
	}
}

// drain reads a socket until it is empty. A read that does not fill the buffer
// emptied it, so mostly this is one system call; but not of its end, if that has
// come too.
func (s *Swarm) drain(c *client, ended bool) {
	for c.fd >= 0 {
		have := len(c.partial)
		if have > maxMessage {
			s.end(c, errTooBig.Error())
			return
		}
		copy(s.buffer, c.partial)
		n, errno := receive(int(c.fd), s.buffer[have:])
		switch {
		case errno == unix.EAGAIN:
			return
		case errno == unix.EINTR:
			continue
		case errno != 0:
			s.end(c, errno.Error())
			return
		case n == 0:
			s.end(c, "the server closed the connection")
			return
		}
		c.partial = c.partial[:0]
		if !s.consume(c, have, n) {
			return
		}
		if !ended && have+n < len(s.buffer) {
			return
		}
	}
}

// consume takes what the buffer holds: have bytes from before, n new ones. It
// says whether the connection lives on.
func (s *Swarm) consume(c *client, have, n int) bool {
	b := s.buffer[:have+n]
	if c.state == upgrading {
		size, why := s.answer(c, b)
		if why != "" {
			s.fail(c, why)
			return false
		}
		if size == 0 {
			c.partial = append(c.partial[:0], b...)
			return true
		}
		b, have = b[size:], 0
		if len(b) == 0 {
			return true
		}
	}
	at := now()
	if !c.sse {
		return s.frames(c, b, at)
	}
	if c.chunked {
		body, err := c.body.decode(b[have:])
		if err != nil {
			s.end(c, err.Error())
			return false
		}
		b = b[:have+len(body)]
	}
	for len(b) > 0 {
		ev, size := nextBlock(b)
		if size == 0 {
			break
		}
		b = b[size:]
		if s.resume && len(ev.id) > 0 {
			c.cursor = append(c.cursor[:0], ev.id...)
		}
		if len(ev.data) > 0 {
			s.message(c, ev.data, at)
		}
	}
	c.keep(b)
	if c.chunked && c.body.stage == chunkEnded {
		s.end(c, "the server ended the stream")
		return false
	}
	return true
}

// keep remembers the start of a message until its rest comes. Most reads end
// with a message, and most clients hold no memory for this.
func (c *client) keep(b []byte) {
	if len(b) == 0 {
		if cap(c.partial) > 4<<10 {
			c.partial = nil
		}
		return
	}
	c.partial = append(c.partial[:0], b...)
}

func (s *Swarm) frames(c *client, b []byte, at int64) bool {
	for len(b) > 0 {
		f, size, err := nextFrame(b)
		if err != nil {
			s.end(c, err.Error())
			return false
		}
		if size == 0 {
			break
		}
		b = b[size:]
		switch f.op {
		case opText, opBinary:
			if f.fin {
				s.message(c, f.payload, at)
			} else {
				c.whole = append(c.whole[:0], f.payload...)
			}
		case opContinuation:
			if len(c.whole)+len(f.payload) > maxMessage {
				s.end(c, errTooBig.Error())
				return false
			}
			c.whole = append(c.whole, f.payload...)
			if f.fin {
				s.message(c, c.whole, at)
				c.whole = nil
			}
		case opPing:
			s.send(c, opPong, f.payload)
		case opClose:
			s.end(c, closeReason(f.payload))
			return false
		}
		if c.fd < 0 {
			return false
		}
	}
	c.keep(b)
	return true
}

func closeReason(p []byte) string {
	if len(p) < 2 {
		return "closed"
	}
	return "closed " + strconv.Itoa(int(p[0])<<8|int(p[1])) + " " + string(p[2:])
}

// message takes one message of the server.
func (s *Swarm) message(c *client, msg []byte, at int64) {
	if s.config.Peer.Lines {
		for line := range bytes.Lines(msg) {
			s.one(c, bytes.TrimSuffix(line, []byte{'\n'}), at)
		}
		return
	}
	s.one(c, msg, at)
}

func (s *Swarm) one(c *client, msg []byte, at int64) {
	m, _, ok := scanMark(msg, s.find)
	if !ok {
		s.control(c, msg)
		return
	}
	sub := s.subOf(c, m.k)
	if sub == nil {
		s.ledger.counts.Foreign++
		return
	}
	s.ledger.event(sub, m.n)
	if !c.tardy {
		s.latency.record(m.t, at)
	}
	if s.resume && !c.sse {
		c.cursor = append(c.cursor[:0], member(msg, `"id":"`)...)
	}
}

func (s *Swarm) subsOf(c *client) []subscription {
	n := s.config.PerClient
	return s.subs[int(c.index)*n:][:n]
}

func (s *Swarm) subOf(c *client, topic uint32) *subscription {
	subs := s.subsOf(c)
	for i := range subs {
		if subs[i].topic == topic {
			return &subs[i]
		}
	}
	return nil
}

// control takes a message that is no event.
func (s *Swarm) control(c *client, msg []byte) {
	if len(s.echo) > 0 && bytes.Equal(msg, s.echo) {
		if !c.sse { // an event stream takes no answers
			s.send(c, opText, msg)
		}
		return
	}
	if bytes.HasPrefix(msg, []byte(`{"op":"gap"`)) {
		s.gap(c, string(member(msg, `"topic":"`)))
	}
	if s.resume && !c.sse {
		if cursor := member(msg, `"cursor":"`); len(cursor) > 0 {
			c.cursor = append(c.cursor[:0], cursor...)
		}
	}
	if want := s.endpoint(c).Ready; c.state == opened && want != "" && bytes.Contains(msg, []byte(want)) {
		s.subscribed(c)
	}
}

// gap enters a gap for the topic that it names, for all where that is a pattern.
func (s *Swarm) gap(c *client, topic string) {
	s.ledger.counts.Gaps++
	subs := s.subsOf(c)
	for i := range subs {
		if s.config.Topics[subs[i].topic] == topic {
			s.ledger.gap(&subs[i])
			return
		}
	}
	for i := range subs {
		s.ledger.gap(&subs[i])
	}
}

// send writes a small frame. A socket that cannot take it ends: the client is
// then far behind.
func (s *Swarm) send(c *client, op byte, payload []byte) {
	b := appendFrame(make([]byte, 0, 140), op, payload, true)
	if n, err := unix.Write(int(c.fd), b); err != nil || n < len(b) {
		s.end(c, fmt.Sprintf("an answer could not be sent: %v", err))
	}
}
