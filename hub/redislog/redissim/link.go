package redissim

import (
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// link is one connection of a client: the client's end, and what the server has
// of it. What the client writes is run before Write returns, unless it is held
// back; what the server says waits until it may be read.
type link struct {
	redis  *Redis
	client string
	wake   chan struct{} // of one; wakes Read; never closed

	// guarded by Redis.mu
	server   *server
	live     bool     // subscribes: it named itself so
	in       []byte   // of a command that is not whole yet
	behind   [][]byte // came while an earlier command is held back
	late     *gate    // the command that is held back
	out      []byte   // may be read
	said     [][]byte // is on its way
	channels map[string]bool
	ended    error // what Read and Write give
	deadline time.Time
	fresh    bool // nothing was said yet: the handshake passes also while held
	deaf     bool // no message comes
	swallow  int  // so many messages do not come
	mute     bool // nothing comes, nor is anything taken
}

// Read implements net.Conn.
func (l *link) Read(b []byte) (int, error) {
	for {
		l.redis.mu.Lock()
		if len(l.out) > 0 {
			n := copy(b, l.out)
			l.out = l.out[n:]
			l.redis.mu.Unlock()
			return n, nil
		}
		ended, deadline := l.ended, l.deadline
		l.redis.mu.Unlock()
		if ended != nil {
			return 0, ended
		}
		if err := l.await(deadline); err != nil {
			return 0, err
		}
	}
}

func (l *link) await(deadline time.Time) error {
	if deadline.IsZero() {
		<-l.wake
		return nil
	}
	left := time.Until(deadline)
	if left <= 0 {
		return os.ErrDeadlineExceeded
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-l.wake:
	case <-timer.C:
	}
	return nil
}

func (l *link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Write implements net.Conn.
func (l *link) Write(b []byte) (int, error) {
	l.redis.mu.Lock()
	defer l.redis.mu.Unlock()
	if l.ended != nil {
		return 0, l.ended
	}
	if l.mute {
		return len(b), nil
	}
	if l.late != nil || l.live && l.redis.side(l.client).stalled {
		l.behind = append(l.behind, append([]byte(nil), b...))
		return len(b), nil
	}
	l.take(b)
	return len(b), nil
}

// take runs the commands that are whole. With mu held.
func (l *link) take(b []byte) {
	l.in = append(l.in, b...)
	for l.late == nil && l.server != nil {
		args, rest, err := parseCommand(l.in)
		if err != nil {
			l.redis.fail("%v: %q", err, l.in)
			l.end(io.EOF)
			return
		}
		if args == nil {
			return
		}
		l.in = rest
		l.command(args)
	}
}

// command runs one command and says its answer, or does what a fault makes of it.
func (l *link) command(args []string) {
	s, name := l.server, strings.ToLower(args[0])
	switch name {
	case "eval", "eval_ro", "evalsha", "evalsha_ro":
		if !l.redis.strike(l, args) {
			l.say(l.script(args))
		}
	case "hello":
		l.live = args[len(args)-1] == "pushhub-live"
		role := "master"
		if s.replica {
			role = "replica"
		}
		if side := l.redis.side(l.client); l.live && side.replicas > 0 {
			side.replicas--
			role, l.server = "replica", l.redis.newServer(newStore(), 0)
			l.server.replica = true
		}
		l.say(appendAnswer(nil, []any{"server", "redis", "version", "7.0.15", "proto", int64(2), "id", int64(1),
			"mode", "standalone", "role", role, "modules", []any{}}))
	case "cluster": // SLOTS
		l.say(appendAnswer(nil, l.redis.clusterSlots()))
	case "client":
		l.say(appendAnswer(nil, status("OK")))
	case "ping":
		if len(l.channels) > 0 {
			l.say(appendAnswer(nil, []any{"pong", ""}))
		} else {
			l.say(appendAnswer(nil, status("PONG")))
		}
	case "ssubscribe", "sunsubscribe":
		for _, channel := range args[1:] {
			if side := l.redis.side(l.client); name == "sunsubscribe" {
				l.leave(channel)
			} else if side.moved > 0 {
				side.moved--
				l.say(appendAnswer(nil, failure("MOVED 1 elsewhere:6379")))
			} else if wrong := s.elsewhere(args[1:], true); wrong != nil {
				l.say(appendAnswer(nil, wrong))
			} else {
				l.channels[channel] = true
				l.say(appendAnswer(nil, []any{name, channel, int64(len(l.channels))}))
			}
		}
	default:
		l.say(appendAnswer(nil, s.transaction(func() any { return s.run(name, args[1:], false) })))
	}
}

// leave ends a subscription and says so.
func (l *link) leave(channel string) {
	delete(l.channels, channel)
	l.say(appendAnswer(nil, []any{"sunsubscribe", channel, int64(len(l.channels))}))
}

// next takes what was written first of what waits.
func (l *link) next() {
	b := l.behind[0]
	l.behind = l.behind[1:]
	l.take(b)
}

// script runs a script and gives its answer.
func (l *link) script(args []string) []byte {
	s := l.server
	return appendAnswer(nil, s.transaction(func() any { return s.eval(strings.ToLower(args[0]), args[1:]) }))
}

// say sends an answer or a message.
func (l *link) say(b []byte) {
	if l.ended != nil || l.mute {
		return
	}
	l.said = append(l.said, b)
	l.pass()
}

// pass lets come what may come.
func (l *link) pass() {
	h := l.redis.hold(l)
	for len(l.said) > 0 && (h == nil || !h.held || h.passing > 0 || l.fresh) {
		if h != nil && h.held && !l.fresh {
			h.passing--
		}
		l.fresh = false
		l.out = append(l.out, l.said[0]...)
		l.said = l.said[1:]
		l.signal()
	}
}

// end ends the connection, for both. What the client has not got is lost.
func (l *link) end(err error) {
	if l.ended != nil {
		return
	}
	l.ended = err
	l.said = nil
	if l.late == nil { // else what was sent is still on its way
		l.server = nil
	}
	l.redis.links = slices.DeleteFunc(l.redis.links, func(o *link) bool { return o == l })
	l.signal()
}

// Close implements net.Conn.
func (l *link) Close() error {
	l.redis.mu.Lock()
	defer l.redis.mu.Unlock()
	l.end(net.ErrClosed)
	return nil
}

// SetDeadline implements net.Conn.
func (l *link) SetDeadline(t time.Time) error { return l.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (l *link) SetReadDeadline(t time.Time) error {
	l.redis.mu.Lock()
	defer l.redis.mu.Unlock()
	l.deadline = t
	l.signal()
	return nil
}

// SetWriteDeadline implements net.Conn. Write does not block.
func (l *link) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr implements net.Conn.
func (l *link) LocalAddr() net.Addr { return address{} }

// RemoteAddr implements net.Conn.
func (l *link) RemoteAddr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "memory" }
func (address) String() string  { return "redis:6379" }
