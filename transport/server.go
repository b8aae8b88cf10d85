// Package transport is what the world touches: the routes, who may use them, and
// what they answer. WebSocket and SSE connections end here in a client, which
// ties a session of the hub to the sending half of a socket (transport/wire).
//
// One table turns errors into statuses, close codes and texts (respond.go); one
// reading of a request says who asks for what (request.go).
package transport

import (
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/wire"
)

// Limits bound what one client can take. Zero fields have the defaults named.
type Limits struct {
	MessageBytes int           // of one message from a client; 16 KiB
	EventBytes   int           // data of one event; 64 KiB
	BodyBytes    int           // of one publish; 1 MiB
	Topics       int           // per connection; 100
	OutboxEvents int           // live events that wait per connection; 256
	OutboxBytes  int           // and their bytes; 1 MiB
	Connections  int           // per instance; 0: no bound of its own
	Handshake    time.Duration // until a request's header is there; three times that until its body is; 10 s
	Heartbeat    time.Duration // longest silence; each connection's own lies between ¾ of it and it; 20 s
	Pong         time.Duration // how long an answer to a ping may take; 10 s
	Drain        time.Duration // over which the clients of an instance that ends come to others (see Server.Drain); 30 s
}

func (l Limits) withDefaults() Limits {
	number := func(n *int, def int) {
		if *n == 0 {
			*n = def
		}
	}
	duration := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	number(&l.MessageBytes, 16<<10)
	number(&l.EventBytes, 64<<10)
	number(&l.BodyBytes, 1<<20)
	number(&l.Topics, 100)
	number(&l.OutboxEvents, 256)
	number(&l.OutboxBytes, 1<<20)
	duration(&l.Handshake, 10*time.Second)
	duration(&l.Heartbeat, 20*time.Second)
	duration(&l.Pong, 10*time.Second)
	duration(&l.Drain, 30*time.Second)
	return l
}

// Options of a Server. Hub and Verifier are required.
type Options struct {
	Hub              *hub.Hub
	Verifier         *auth.Verifier
	Logger           zerolog.Logger
	Version          string
	Limits           Limits
	Origins          []string // allowed for WebSocket and CORS; none: the hub's own origin only; "*": all
	AllowCredentials bool
	TrustedProxies   []netip.Prefix // whose X-Forwarded-For and -Proto are believed
	Registry         *prometheus.Registry
	State            func() State // nil: always ready, without Redis
	Pages            http.Handler // serves what is no route of the hub; nil: 404
}

// State is what /health tells of the world behind the hub.
type State struct {
	Ready    bool   // everything that the start waits for was there once
	Redis    string // connected, disconnected or none
	Degraded bool   // something is away for longer than a moment
	Services map[string]string
}

// Server serves the hub over HTTP. Its methods may be called by several
// goroutines at once.
type Server struct {
	// fixed after construction
	began   time.Time
	opts    Options
	limits  Limits
	origins origins
	metrics *metrics
	engine  *wire.Engine
	options map[protocol.Encoding]*wire.Options
	ended   func() // ends engine, once
	handler http.Handler
	http    *http.Server

	draining   atomic.Bool  // set with mu held
	drainBegan atomic.Int64 // the clock when it was, ns

	mu      sync.Mutex    // before the lock of a Conn
	clients []*client     // guarded by mu; each at its place
	empty   chan struct{} // closed when draining and no client is left
}

// clock gives the time since the server was made: that of its clients.
func (s *Server) clock() time.Duration { return time.Since(s.began) }

// New makes a Server.
func New(opts Options) (*Server, error) {
	if opts.Hub == nil || opts.Verifier == nil {
		return nil, errors.New("transport: Hub and Verifier are required")
	}
	if opts.State == nil {
		opts.State = func() State { return State{Ready: true, Redis: "none"} }
	}
	if opts.Registry == nil {
		opts.Registry = prometheus.NewRegistry()
	}
	origins, err := parseOrigins(opts.Origins)
	if err != nil {
		return nil, err
	}
	if origins.all && opts.AllowCredentials {
		return nil, errors.New("CORS_ORIGINS * cannot go with CORS_ALLOW_CREDENTIALS: any page could act for its visitor")
	}
	s := &Server{
		opts: opts, limits: opts.Limits.withDefaults(), origins: origins,
		began: time.Now(), empty: make(chan struct{}),
	}
	s.metrics = newMetrics(opts.Registry, s)
	s.engine = wire.NewEngine()
	s.ended = sync.OnceFunc(s.engine.Close)
	s.options = map[protocol.Encoding]*wire.Options{}
	for _, enc := range []protocol.Encoding{protocol.WebSocket, protocol.SSE, protocol.SSENamed} {
		s.options[enc] = s.wireOptions(enc)
	}
	s.handler = s.routes()
	s.http = &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: s.limits.Handshake,
		ReadTimeout:       3 * s.limits.Handshake,
		WriteTimeout:      6 * s.limits.Heartbeat, // of what is no stream: those have deadlines of their own
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,

		DisableGeneralOptionsHandler: true, // OPTIONS * is a path like others
		ErrorLog:                     log.New(serverLog{opts.Logger}, "", 0),
		Protocols:                    new(http.Protocols),
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetHTTP2(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	return s, nil
}

// serverLog takes the words of net/http: about clients that do not speak HTTP.
type serverLog struct{ log zerolog.Logger }

func (l serverLog) Write(p []byte) (int, error) {
	l.log.Debug().Msg(string(p[:max(0, len(p)-1)]))
	return len(p), nil
}

// Handler gives the server's routes, for use without Serve.
func (s *Server) Handler() http.Handler { return s.handler }

// Serve takes connections from l until Drain or Close; then it gives nil. With a
// config it speaks TLS.
func (s *Server) Serve(l net.Listener, config *tls.Config) error {
	var err error
	if config != nil {
		s.http.TLSConfig = config
		err = s.http.ServeTLS(l, "", "")
	} else {
		err = s.http.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close ends everything at once.
func (s *Server) Close() error {
	s.beginDrain()
	s.cut()
	defer s.ended()
	return s.http.Close()
}

// full says why no new connection can be taken now, 0 if one can.
func (s *Server) full() protocol.CloseCode {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closedTo()
}

// closedTo is full with mu held.
func (s *Server) closedTo() protocol.CloseCode {
	switch {
	case s.draining.Load():
		return protocol.Drain
	case s.limits.Connections > 0 && len(s.clients) >= s.limits.Connections:
		return protocol.Overload
	}
	return 0
}

// add registers a client, or says as full does why it is not taken.
func (s *Server) add(c *client) protocol.CloseCode {
	s.mu.Lock()
	defer s.mu.Unlock()
	code := s.closedTo()
	if code == 0 {
		c.place = int32(len(s.clients))
		s.clients = append(s.clients, c)
	}
	return code
}

func (s *Server) remove(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.clients) - 1
	if int(c.place) > last || s.clients[c.place] != c {
		return // it was not taken
	}
	s.clients[c.place], s.clients[last].place = s.clients[last], c.place
	s.clients[last] = nil
	s.clients = s.clients[:last]
	s.checkEmpty()
}

// routes: every path of the contract, and 404 or 405 in the envelope for the rest.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h http.HandlerFunc) { mux.Handle(pattern, s.observe(pattern, h)) }
	handle("GET /api/v1/ws", s.serveWS)
	handle("GET /api/v1/jobs/{job_id}/ws", s.serveWS)
	handle("GET /api/v1/training/ws", s.serveWS)
	handle("GET /api/v1/stream", s.serveSSE)
	handle("GET /api/v1/alerts/stream", s.serveSSE)
	handle("GET /api/v1/jobs/{job_id}/stream", s.serveSSE)
	handle("POST /api/v1/events", s.publish)
	handle("GET /api/v1/events", s.feed)
	handle("GET /health", s.health)
	handle("GET /api/v1/health", s.health)
	handle("GET /health/live", s.live)
	handle("GET /metrics", s.metrics.handler(s.opts.Registry).ServeHTTP)
	unknown := s.observe("", s.unknown(mux))
	mux.Handle("/", unknown)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect || !clean(r) { // the mux would answer these itself
			unknown.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// clean says whether a path is as the mux wants it. It would redirect others to it,
// and repeat their query in the page that says so.
func clean(r *http.Request) bool {
	p := r.URL.Path
	return path.Clean(p) == p || strings.HasSuffix(p, "/") && path.Clean(p)+"/" == p
}

// unknown answers what is no route: 405 where the path is one, else a page or 404.
func (s *Server) unknown(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			probe := r.Clone(r.Context())
			probe.Method = method
			if _, pattern := mux.Handler(probe); clean(r) && pattern != "/" && pattern != "" {
				allowed = append(allowed, method)
			}
		}
		switch {
		case allowed != nil:
			methods := allowed[0]
			if len(allowed) > 1 {
				methods += ", " + allowed[1]
			}
			w.Header().Set("Allow", methods)
			s.fail(w, r, protocol.Errorf(protocol.MethodNotAllowed, protocol.InPath, "method", protocol.NotSupported, "this path takes %s", methods))
		case s.opts.Pages != nil:
			s.opts.Pages.ServeHTTP(w, r)
		default:
			s.fail(w, r, protocol.Errorf(protocol.NotFound, protocol.InPath, "path", protocol.IsNotFound, "there is nothing at this path"))
		}
	}
}
