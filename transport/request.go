package transport

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// requestInfo is what logs and errors say of a request. The handler fills it in.
type requestInfo struct {
	id        string
	own       uuid.UUID // the id, if the request brought none
	trace     string
	path      string
	route     string // the mux's pattern of the path
	requester string

	query    url.Values
	queryErr error
	streamed int    // status of a connection that was taken over, else 0
	report   func() // writes the line about the request, once
	reported bool
}

type infoKey struct{}

// about gives what is known of the request; observe put it there.
func about(r *http.Request) *requestInfo {
	return r.Context().Value(infoKey{}).(*requestInfo)
}

func (s *Server) newInfo(r *http.Request, route string) *requestInfo {
	info := &requestInfo{id: r.Header.Get("X-Request-Id"), path: r.URL.Path, route: route, requester: "ip:" + s.clientIP(r)}
	if info.path == route {
		info.path = route // which does not hold on to the request
	}
	if !isRequestID(info.id) {
		info.own = uuid.New()
		info.id = info.own.String()
	}
	info.query, info.queryErr = url.ParseQuery(r.URL.RawQuery)
	info.trace = traceID(r.Header.Get("Traceparent"))
	if info.trace == "" {
		info.trace = info.id
	}
	return info
}

// kept gives what a connection needs of it for its life: nothing that holds on to
// the request.
func (i *requestInfo) kept() *requestInfo {
	k := &requestInfo{id: strings.Clone(i.id), path: strings.Clone(i.path), requester: strings.Clone(i.requester)}
	if k.trace = k.id; i.trace != i.id {
		k.trace = strings.Clone(i.trace)
	}
	return k
}

func isRequestID(id string) bool {
	if len(id) == 0 || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._:-", c) >= 0) {
			return false
		}
	}
	return true
}

// traceID gives the trace id of a W3C traceparent header (Trace Context, section
// 3.2), "" for none that is valid.
func traceID(header string) string {
	parts := strings.Split(header, "-")
	if len(parts) < 4 || len(parts[0]) != 2 || parts[0] == "ff" || len(parts[1]) != 32 || len(parts[2]) != 16 || len(parts[3]) != 2 ||
		parts[0] == "00" && len(parts) != 4 {
		return ""
	}
	for _, p := range parts[:4] {
		if strings.Trim(p, "0123456789abcdef") != "" {
			return ""
		}
	}
	if strings.Trim(parts[1], "0") == "" || strings.Trim(parts[2], "0") == "" {
		return ""
	}
	return parts[1]
}

// clientIP gives the address of the client: the last of X-Forwarded-For that is
// not a trusted proxy's, as far as the peer is one.
func (s *Server) clientIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		addr, err := netip.ParseAddr(host)
		if err != nil || !slices.ContainsFunc(s.opts.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) }) {
			return host
		}
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			return host
		}
		host = hop.String()
	}
	return host
}

// identify says who is asking, in which tenant. The error is a *protocol.Error.
func (s *Server) identify(r *http.Request) (*auth.Identity, error) {
	query := about(r).query
	token, origin := auth.FromRequest(r.Header, query)
	id, err := s.opts.Verifier.Verify(r.Context(), token)
	s.metrics.authenticated(err)
	if err != nil {
		return nil, auth.WithOrigin(err, origin)
	}
	tenant, err := auth.TenantFromRequest(r.Header, query)
	if err != nil {
		return nil, err
	}
	if id, err = id.For(tenant); err != nil {
		if r.Header.Get(auth.TenantHeader) == "" && tenant != "" {
			return nil, auth.WithOrigin(err, protocol.InQuery)
		}
		return nil, err
	}
	if who := id.Requester(); who != "" {
		about(r).requester = who
	}
	return id, nil
}

// query reads a request's parameters; what is empty counts as absent.
type query struct{ values url.Values }

func parseQuery(r *http.Request) (query, error) {
	info := about(r)
	if info.queryErr != nil {
		return query{}, protocol.Errorf(protocol.BadRequest, protocol.InQuery, "query", protocol.Malformed, "the query is not well-formed")
	}
	return query{info.query}, nil
}

func (q query) get(name string) string {
	for _, v := range q.values[name] {
		if v != "" {
			return v
		}
	}
	return ""
}

func badQuery(field string, reason protocol.Reason, format string, args ...any) error {
	return protocol.Errorf(protocol.BadRequest, protocol.InQuery, field, reason, format, args...)
}

// number reads a whole number in a range; def where it is absent.
func (q query) number(name string, def, low, high int) (int, error) {
	v := q.get(name)
	if v == "" {
		return def, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		return 0, badQuery(name, protocol.Malformed, "%s is not a whole number from %d to %d", name, low, high)
	}
	return n, nil
}

func (q query) flag(name string) (bool, error) {
	switch q.get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, badQuery(name, protocol.Malformed, "%s is neither true nor false", name)
}

func (q query) cursor(name string) (protocol.Cursor, error) {
	v := q.get(name)
	if v == "" {
		return protocol.Cursor{}, nil
	}
	c, err := protocol.ParseCursor(v)
	if err != nil {
		return c, badQuery(name, protocol.Malformed, "%s: %v", name, err)
	}
	return c, nil
}

// topics reads the comma-separated topics and patterns of the query, each once.
func (q query) topics(max int) ([]string, error) {
	var all []string
	for _, v := range q.values["topics"] {
		for name := range strings.SplitSeq(v, ",") {
			if name == "" && v == "" || slices.Contains(all, name) {
				continue
			}
			if err := protocol.CheckPattern(name); err != nil {
				return nil, badQuery("topics", protocol.Malformed, "%v", err)
			}
			if len(all) == max {
				return nil, badQuery("topics", protocol.Invalid, "more than %d topics", max)
			}
			all = append(all, name)
		}
	}
	return all, nil
}

// wish is what a connection asks for in its path and query.
type wish struct {
	patterns []string
	own      string // that of them which the path or the token stands for
	since    protocol.Cursor
	last     int // -1: each topic's default
}

// wishOf reads what a WebSocket or SSE request asks for. SSE also takes the
// cursor of an EventSource. Nothing is checked against grants here.
func (s *Server) wishOf(r *http.Request, q query, id *auth.Identity, sse bool) (wish, error) {
	var w wish
	var err error
	if w.patterns, err = q.topics(s.limits.Topics); err != nil {
		return w, err
	}
	if w.since, err = q.cursor("since"); err != nil {
		return w, err
	}
	if sse {
		if w.since.IsZero() {
			if w.since, err = q.cursor("lastEventId"); err != nil {
				return w, err
			}
		}
		if header := r.Header.Get("Last-Event-ID"); header != "" {
			if w.since, err = protocol.ParseCursor(header); err != nil {
				return w, protocol.Errorf(protocol.BadRequest, protocol.InHeaders, "Last-Event-ID", protocol.Malformed, "Last-Event-ID: %v", err)
			}
		}
	}
	if w.last, err = q.number("last", -1, 0, protocol.MaxLast); err != nil {
		return w, err
	}
	if w.own, err = pathTopic(r, id); err != nil {
		return w, err
	}
	if w.own == "" && len(w.patterns) == 0 && id.Job != "" {
		w.own = protocol.JobsPrefix + id.Job
	}
	if w.own != "" && !slices.Contains(w.patterns, w.own) {
		w.patterns = append(w.patterns, w.own)
	}
	if len(w.patterns) > s.limits.Topics {
		return w, badQuery("topics", protocol.Invalid, "more than %d topics with that of the path", s.limits.Topics)
	}
	return w, nil
}

// pathTopic gives the topic that the request's path stands for, if any.
func pathTopic(r *http.Request, id *auth.Identity) (string, error) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/api/v1/alerts/"):
		return protocol.Alerts, nil
	case strings.HasPrefix(r.URL.Path, "/api/v1/training/"):
		if id.Job == "" {
			return "", protocol.Errorf(protocol.BadRequest, protocol.InPath, "job_id", protocol.Required, "this path is for tokens of one job")
		}
		return protocol.JobsPrefix + id.Job, nil
	}
	job := r.PathValue("job_id")
	if job == "" {
		return "", nil
	}
	topic := protocol.JobsPrefix + job
	if protocol.CheckTopic(topic) != nil || strings.Contains(job, ".") {
		return "", protocol.Errorf(protocol.BadRequest, protocol.InPath, "job_id", protocol.Malformed, "job_id is not 1 to %d of A-Za-z0-9_-", protocol.MaxTokenBytes)
	}
	return topic, nil
}

// wants turns a wish into what the hub is asked, if the identity grants it all.
func (w wish) wants(id *auth.Identity, origin protocol.Origin) ([]hub.Want, error) {
	wants := make([]hub.Want, len(w.patterns))
	for i, p := range w.patterns {
		from := origin
		if p == w.own {
			from = protocol.InPath
		}
		want, err := grant(id, protocol.TopicWish{Topic: p, Since: w.since, Last: w.last}, from)
		if err != nil {
			return nil, err
		}
		wants[i] = want
	}
	return wants, nil
}

// grant turns one wish into what the hub is asked, if the identity grants it.
func grant(id *auth.Identity, w protocol.TopicWish, origin protocol.Origin) (hub.Want, error) {
	hide, ok := id.MayRead(w.Topic)
	if !ok {
		return hub.Want{}, protocol.Errorf(protocol.Forbidden, origin, "topics", protocol.IsForbidden, "the token does not grant %s", w.Topic)
	}
	last := w.Last
	if last < 0 {
		last = hub.DefaultLast(w.Topic)
	}
	return hub.Want{Pattern: w.Topic, Since: w.Since, Last: last, Hide: hide, User: id.User}, nil
}

// accepted says that the request became a connection: its line is written now,
// and another one when the connection ends.
func (i *requestInfo) accepted(status int) {
	i.streamed = status
	i.report()
}

func withInfo(r *http.Request, info *requestInfo) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), infoKey{}, info))
}
