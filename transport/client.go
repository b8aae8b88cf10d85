package transport

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/wire"
)

// expiringAhead is how long before its end a token is said to expire.
const expiringAhead = time.Minute

// client is the server's side of one connection: a session of the hub, and the
// wire.Peer of the connection.
type client struct {
	// fixed before the connection is known to others
	s        *Server
	conn     *wire.Conn
	session  *hub.Session  // nil: refused after the upgrade
	id       uuid.UUID     // connection_id
	path     string        // of the request
	given    *requestInfo  // what else the request said of itself; nil: nothing. See about
	began    time.Duration // by the server's clock
	interval time.Duration // its own of the heartbeat

	bad   int8  // malformed messages in a row; owned by Message
	place int32 // in the server's clients; guarded by its mu

	mu       sync.Mutex
	waits    bool           // guarded by mu, as the rest; for the answer to the last ping
	warned   bool           // that the token expires
	late     bool           // the token had expired, and was accepted within the leeway
	ended    bool           //
	pinged   time.Duration  // when the last ping was sent
	identity *auth.Identity // another after auth
}

// newClient makes a client. It is not in use until start.
func (s *Server) newClient(r *http.Request, id *auth.Identity) *client {
	now := s.clock()
	c := &client{
		s: s, began: now, pinged: now, identity: id, late: !id.ExpiresAt().After(time.Now()),
		interval: s.limits.Heartbeat*3/4 + rand.N(s.limits.Heartbeat/4),
	}
	info := about(r)
	if c.id, c.path = info.own, info.path; c.path != info.route {
		c.path = strings.Clone(c.path)
	}
	if c.id == uuid.Nil || info.trace != info.id || id.Requester() == "" {
		c.given = info.kept()
	}
	if c.id == uuid.Nil {
		c.id = uuid.New()
	}
	return c
}

// about gives what is known of the request: its id, if it brought none, is that of
// the connection.
func (c *client) about() *requestInfo {
	if c.given != nil {
		return c.given
	}
	id := c.id.String()
	return &requestInfo{id: id, trace: id, path: c.path, requester: c.who().Requester()}
}

// wireOptions gives those of connections in enc.
func (s *Server) wireOptions(enc protocol.Encoding) *wire.Options {
	return &wire.Options{
		Encoding: enc, MaxMessage: s.limits.MessageBytes, MaxEvents: s.limits.OutboxEvents, MaxBytes: s.limits.OutboxBytes,
		Stall: s.limits.Heartbeat + s.limits.Pong, Delivered: s.metrics.delivered(transportOf(enc)), Conflated: s.metrics.conflated.Inc,
	}
}

func transportOf(enc protocol.Encoding) string {
	if enc == protocol.WebSocket {
		return "websocket"
	}
	return "sse"
}

func (c *client) isWebSocket() bool { return c.conn.Encoding() == protocol.WebSocket }

// Bye implements wire.Peer.
func (c *client) Bye(code protocol.CloseCode, position protocol.Cursor) []byte {
	bye := protocol.Bye{Code: code, Retry: c.s.comeBack(code), Cursor: position}
	if code == protocol.Drain && c.session != nil {
		bye.Retry = max(c.s.served(), soon)
	}
	if c.isWebSocket() {
		return byeFrames(bye)
	}
	return byeBlocks(bye)
}

// soon is the least time after which a client is told to come back.
const soon = 100 * time.Millisecond

// survive ends this connection alone when what was done for it panics.
func (c *client) survive() {
	if p := recover(); p != nil {
		info := c.about()
		c.s.opts.Logger.Error().Str("request_id", info.id).Str("uri_path", info.path).
			Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack()).Msg("a connection panicked")
		c.conn.Abort()
	}
}

// comeBack gives when a client that is closed with code should return: at once
// where it only has to resume, spread where many go at the same time.
func (s *Server) comeBack(code protocol.CloseCode) time.Duration {
	switch code {
	case protocol.SlowConsumer:
		return soon + rand.N(400*time.Millisecond)
	case protocol.Drain, protocol.GoingAway:
		return 500*time.Millisecond + rand.N(max(s.limits.Drain/4, time.Second))
	case protocol.Overload, protocol.LimitReached:
		return 5*time.Second + rand.N(10*time.Second)
	}
	return time.Second + rand.N(2*time.Second)
}

// start opens the session and welcomes the client, but for the Flush: what is
// subscribed may go with it. since is the client's own cursor. It is false when the
// server takes no more: then conn is closing.
func (c *client) start(since protocol.Cursor) bool {
	c.session = c.s.opts.Hub.Open(c.identity.Tenant, c.conn)
	if code := c.s.add(c); code != 0 {
		c.conn.Close(code)
		return false
	}
	c.s.metrics.connects.WithLabelValues(transportOf(c.conn.Encoding()), "ok").Inc()
	if c.session.Disproves(since) {
		since = protocol.Cursor{}
	}
	c.conn.Control(protocol.Welcome{
		ConnectionID: c.id.String(), TenantID: c.identity.Tenant, UserID: c.identity.User,
		ExpiresAt: c.identity.ExpiresAt(), Heartbeat: int((c.s.limits.Heartbeat + time.Second - 1) / time.Second),
	}.Encode(), since)
	c.conn.Wake(c.Due())
	return true
}

// Due implements wire.Peer: it does what the time asks for.
func (c *client) Due() time.Duration {
	if c.session == nil {
		return 0
	}
	defer c.survive()
	beat := c.interval - c.conn.Idle()
	if beat <= 0 {
		c.session.Heartbeat()
		c.conn.Flush()
		beat = c.interval
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return 0
	}
	return min(beat, c.probe(), c.expire())
}

// probe pings the client of a WebSocket once in an interval, and closes when the
// answer does not come. One that is behind would get the ping late: there the
// stall time watches. It gives when it is due again. With mu held.
func (c *client) probe() time.Duration {
	since := c.s.clock() - c.pinged
	switch {
	case !c.isWebSocket():
		return c.interval
	case c.waits && since < c.s.limits.Pong:
		return c.s.limits.Pong - since
	case c.waits && c.conn.Silent() > since+time.Second/2: // both are rounded
		c.conn.Close(protocol.NoPong)
		return c.interval
	}
	if c.waits = false; since < c.interval {
		return c.interval - since
	}
	c.pinged = c.s.clock()
	if c.conn.Behind() {
		return c.interval
	}
	c.waits = true
	c.conn.Raw(pingFrame)
	c.conn.Flush()
	return c.s.limits.Pong
}

// expire sees to the end of the token: first the word that it comes, then the
// close. A token that was accepted within the leeway lives to the end of that. It
// gives when it is due again. With mu held.
func (c *client) expire() time.Duration {
	end := c.identity.ExpiresAt()
	if c.late {
		end = end.Add(auth.Leeway)
	}
	left := time.Until(end)
	if left <= 0 {
		c.conn.Close(protocol.CloseUnauthorized)
		return c.interval
	}
	if left > expiringAhead {
		return left - expiringAhead
	}
	if !c.warned {
		c.warned = true
		c.conn.Control(protocol.Expiring{ExpiresAt: c.identity.ExpiresAt()}.Encode(), protocol.Cursor{})
		c.conn.Flush()
	}
	return left
}

// renew takes a new token's identity: subscriptions that it does not grant end.
func (c *client) renew(id *auth.Identity) error {
	c.mu.Lock()
	if !c.identity.SameHolder(id) {
		c.mu.Unlock()
		return protocol.Errorf(protocol.Forbidden, protocol.InMessage, "token", protocol.IsForbidden, "the token is of another user or tenant")
	}
	c.identity, c.warned, c.late = id, false, false
	c.mu.Unlock()
	c.conn.Wake(c.Due())
	c.session.Revoke(func(pattern string) bool { _, ok := id.MayRead(pattern); return ok })
	return nil
}

func (c *client) who() *auth.Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity
}

// Ended implements wire.Peer: it closes what is left and accounts for the
// connection.
func (c *client) Ended() {
	if c.session == nil {
		return
	}
	defer c.survive()
	c.session.Close()
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	defer c.s.remove(c) // a drain waits for it, and for the line that tells of it
	reason := "client_gone"
	if code := c.conn.Code(); code != 0 {
		reason = code.Reason()
	} else if c.conn.Left() {
		reason = "client_closed"
	}
	stats, transport := c.conn.Stats(), transportOf(c.conn.Encoding())
	c.s.metrics.disconnects.WithLabelValues(transport, reason).Inc()
	info := c.about()
	c.s.opts.Logger.Info().Str("request_id", info.id).Stringer("connection_id", c.id).Str("requester", info.requester).
		Str("transport", transport).Str("uri_path", c.path).Float64("seconds", (c.s.clock()-c.began).Seconds()).
		Int("events", stats.Events).Int64("response_bytes", stats.Bytes).Str("reason", reason).Msg("connection closed")
}
