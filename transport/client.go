package transport

import (
	"math/rand/v2"
	"net/http"
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

// client is the server's side of one connection: a session of the hub, the
// sending half of the socket, and the timers that belong to them.
type client struct {
	// fixed after construction
	s         *Server
	info      *requestInfo
	transport string // websocket or sse
	id        string // connection_id
	began     time.Time
	conn      *wire.Conn
	session   *hub.Session
	interval  time.Duration // its own of the heartbeat
	ping      func()        // of a WebSocket, else nil

	mu       sync.Mutex
	identity *auth.Identity // guarded by mu; another after auth
	heard    time.Time      // guarded by mu; when the client last sent something
	reason   string         // guarded by mu; why it ended, if the hub's Code does not say
	ended    bool           // guarded by mu
	timers   [3]*time.Timer // guarded by mu: heartbeat, ping, expiry
}

// newClient makes a client that writes in enc to socket. It is not in use until start.
func (s *Server) newClient(r *http.Request, id *auth.Identity, enc protocol.Encoding, bye func(protocol.Bye) []byte) (*client, wire.Options) {
	c := &client{
		s: s, info: about(r), transport: "sse", id: uuid.NewString(), began: time.Now(), identity: id, heard: time.Now(),
		interval: s.limits.Heartbeat*3/4 + rand.N(s.limits.Heartbeat/4),
	}
	if enc == protocol.WebSocket {
		c.transport = "websocket"
	}
	return c, wire.Options{
		Encoding: enc, MaxEvents: s.limits.OutboxEvents, MaxBytes: s.limits.OutboxBytes,
		Stall: s.limits.Heartbeat + s.limits.Pong,
		Bye: func(code protocol.CloseCode, position protocol.Cursor) []byte {
			return bye(protocol.Bye{Code: code, Retry: s.comeBack(code), Cursor: position})
		},
		Delivered: s.metrics.delivered(c.transport), Conflated: s.metrics.conflated.Inc,
	}
}

// comeBack gives when a client that is closed with code should return: at once
// where it only has to resume, spread where many go at the same time.
func (s *Server) comeBack(code protocol.CloseCode) time.Duration {
	switch code {
	case protocol.SlowConsumer:
		return 100*time.Millisecond + rand.N(400*time.Millisecond)
	case protocol.Drain, protocol.GoingAway:
		return 500*time.Millisecond + rand.N(max(s.limits.Drain/4, time.Second))
	case protocol.Overload, protocol.LimitReached:
		return 5*time.Second + rand.N(10*time.Second)
	}
	return time.Second + rand.N(2*time.Second)
}

// start opens the session and welcomes the client. since is the client's own
// cursor. It is false when the server takes no more: then conn is closing.
func (c *client) start(conn *wire.Conn, since protocol.Cursor) bool {
	c.conn = conn
	if code := c.s.add(c); code != 0 {
		conn.Close(code)
		return false
	}
	c.session = c.s.opts.Hub.Open(c.identity.Tenant, conn)
	c.s.metrics.connects.WithLabelValues(c.transport, "ok").Inc()
	if c.session.Disproves(since) {
		since = protocol.Cursor{}
	}
	conn.Control(protocol.Welcome{
		ConnectionID: c.id, TenantID: c.identity.Tenant, UserID: c.identity.User,
		ExpiresAt: c.identity.ExpiresAt, Heartbeat: int((c.s.limits.Heartbeat + time.Second - 1) / time.Second),
	}.Encode(), since)
	conn.Flush()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timers[0] = time.AfterFunc(c.interval, c.beat)
	if c.ping != nil {
		c.timers[1] = time.AfterFunc(c.interval, c.probe)
	}
	c.expire()
	return true
}

// beat sends a heartbeat when nothing was sent for the interval.
func (c *client) beat() {
	next := c.interval - c.conn.Idle()
	if next <= 0 {
		c.session.Heartbeat()
		c.conn.Flush()
		next = c.interval
	}
	c.again(0, next)
}

// probe pings the client, and closes when the answer does not come. One that is
// behind would get the ping late: there the stall time watches.
func (c *client) probe() {
	defer c.again(1, c.interval)
	if c.conn.Behind() {
		return
	}
	sent := time.Now()
	c.ping()
	time.AfterFunc(c.s.limits.Pong, func() {
		c.mu.Lock()
		dead := !c.ended && c.heard.Before(sent)
		c.mu.Unlock()
		if dead {
			c.conn.Close(protocol.NoPong)
		}
	})
}

func (c *client) again(timer int, after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.timers[timer].Reset(after)
	}
}

// expire sets the timer for the end of the token: first the word that it comes,
// then the close. With mu held. A token that was accepted within the leeway
// lives to the end of that.
func (c *client) expire() {
	end := c.identity.ExpiresAt
	if !end.After(time.Now()) {
		end = end.Add(auth.Leeway)
	}
	if t := c.timers[2]; t != nil {
		t.Stop()
	}
	of := c.identity
	c.timers[2] = time.AfterFunc(time.Until(end)-expiringAhead, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.ended || c.identity != of {
			return
		}
		c.conn.Control(protocol.Expiring{ExpiresAt: of.ExpiresAt}.Encode(), protocol.Cursor{})
		c.conn.Flush()
		c.timers[2] = time.AfterFunc(time.Until(end), func() {
			c.mu.Lock()
			over := !c.ended && c.identity == of
			c.mu.Unlock()
			if over {
				c.conn.Close(protocol.CloseUnauthorized)
			}
		})
	})
}

// renew takes a new token's identity: subscriptions that it does not grant end.
func (c *client) renew(id *auth.Identity) error {
	c.mu.Lock()
	if !c.identity.SameHolder(id) {
		c.mu.Unlock()
		return protocol.Errorf(protocol.Forbidden, protocol.InMessage, "token", protocol.IsForbidden, "the token is of another user or tenant")
	}
	c.identity = id
	c.expire()
	c.mu.Unlock()
	c.session.Revoke(func(pattern string) bool { _, ok := id.MayRead(pattern); return ok })
	return nil
}

func (c *client) who() *auth.Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity
}

// hear notes that the client is alive.
func (c *client) hear() {
	c.mu.Lock()
	c.heard = time.Now()
	c.mu.Unlock()
}

// because notes why the connection ends, if the hub does not close it.
func (c *client) because(reason string) {
	c.mu.Lock()
	if c.reason == "" {
		c.reason = reason
	}
	c.mu.Unlock()
}

// end closes what is left and accounts for the connection. It is called once.
func (c *client) end() {
	c.conn.Abort()
	if c.session != nil {
		c.session.Close()
	}
	c.mu.Lock()
	c.ended = true
	for _, t := range c.timers {
		if t != nil {
			t.Stop()
		}
	}
	reason := c.reason
	c.mu.Unlock()
	c.s.remove(c)
	if code := c.conn.Code(); code != 0 {
		reason = code.Reason()
	}
	if reason == "" {
		reason = "client_gone"
	}
	stats := c.conn.Stats()
	c.s.metrics.disconnects.WithLabelValues(c.transport, reason).Inc()
	c.s.opts.Logger.Info().Str("request_id", c.info.id).Str("connection_id", c.id).Str("requester", c.info.requester).
		Str("transport", c.transport).Str("uri_path", c.info.path).Float64("seconds", time.Since(c.began).Seconds()).
		Int("events", stats.Events).Int64("response_bytes", stats.Bytes).Str("reason", reason).Msg("connection closed")
}
