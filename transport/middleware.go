package transport

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/pushhub/pushhub/protocol"
)

// observe wraps a route: request id, CORS, one log line, metrics, and an answer
// in place of a panic. route is the pattern of the mux, "" for unknown paths.
func (s *Server) observe(route string, h http.HandlerFunc) http.Handler {
	_, route, _ = strings.Cut(route, " ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		info := s.newInfo(r, route)
		r = withInfo(r, info)
		rec := &recorder{ResponseWriter: w}
		rec.Header().Set("X-Request-Id", info.id)
		if s.draining.Load() {
			rec.Header().Set("Connection", "close") // the next request finds another instance
		}
		info.report = func() {
			if !info.reported {
				info.reported = true
				s.report(route, r, info, rec, time.Since(began))
			}
		}
		defer info.report()
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.opts.Logger.Error().Str("request_id", info.id).Str("uri_path", info.path).
				Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack()).Msg("a handler panicked")
			if rec.status != 0 {
				panic(http.ErrAbortHandler) // half an answer must not look like a whole one
			}
			s.fail(rec, r, errors.New("panic"))
		}()
		if s.cors(rec, r) {
			return
		}
		h(rec, r)
	})
}

// report counts a request and writes its line in the log.
func (s *Server) report(route string, r *http.Request, info *requestInfo, rec *recorder, took time.Duration) {
	status := rec.status
	if info.streamed != 0 {
		status = info.streamed
	}
	s.metrics.request(route, r.Method, status, took)
	event := s.opts.Logger.Info()
	if route == "/metrics" || strings.Contains(route, "/health") {
		event = s.opts.Logger.Debug()
	}
	event.Str("request_id", info.id).Str("requester", info.requester).Str("protocol", r.Proto).
		Str("uri_path", info.path).Str("method", r.Method).Int64("request_bytes", max(r.ContentLength, 0)).
		Int("status", status).Int64("response_bytes", rec.bytes).
		Float64("response_time", took.Seconds()).Msg("request")
}

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach what is below.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// origins are the allowed origins, as "scheme://host[:port]" in lower case.
type origins struct {
	all  bool
	list map[string]bool
}

func parseOrigins(given []string) (origins, error) {
	o := origins{list: map[string]bool{}}
	for _, s := range given {
		if s == "*" {
			o.all = true
			continue
		}
		u, err := url.Parse(s)
		if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || strings.TrimSuffix(s, "/") != u.Scheme+"://"+u.Host {
			return o, fmt.Errorf("origin %q is not * or scheme://host[:port]", s)
		}
		o.list[strings.ToLower(u.Scheme+"://"+u.Host)] = true
	}
	return o, nil
}

// allow says whether a request with an Origin header may come in: its origin is
// in the list, or the hub's own.
func (o origins) allow(r *http.Request) bool {
	origin := strings.ToLower(r.Header.Get("Origin"))
	if o.all || o.list[origin] {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && u.Host == strings.ToLower(r.Host)
}

// cors sets the headers for an allowed origin; it is true when the request was a
// preflight and is answered.
func (s *Server) cors(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	preflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
	h := w.Header()
	h.Add("Vary", "Origin")
	if origin == "" || !s.origins.allow(r) {
		return false
	}
	if s.origins.all && !s.opts.AllowCredentials {
		origin = "*"
	}
	h.Set("Access-Control-Allow-Origin", origin)
	if s.opts.AllowCredentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if !preflight {
		h.Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After")
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID, Traceparent, X-Request-Id, X-Tenant-Id")
	h.Set("Access-Control-Max-Age", strconv.Itoa(600))
	w.WriteHeader(http.StatusNoContent)
	return true
}

// checkOrigin refuses a WebSocket of a page that is not allowed here.
func (s *Server) checkOrigin(r *http.Request) error {
	if r.Header.Get("Origin") == "" || s.origins.allow(r) {
		return nil
	}
	return protocol.Errorf(protocol.Forbidden, protocol.InHeaders, "Origin", protocol.IsForbidden, "this origin is not allowed")
}
