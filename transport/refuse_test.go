package transport_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport"
)

// upgrade are the headers of a WebSocket handshake.
var upgrade = []string{
	"Connection", "keep-alive, Upgrade", "Upgrade", "WebSocket", "Sec-WebSocket-Version", "13",
	"Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==",
}

// refusal is what the body of an error says.
type refusal struct {
	status  int
	code    protocol.Code
	origin  protocol.Origin
	details map[string]protocol.Reason
}

func refuses(status int, code protocol.Code, origin protocol.Origin, field string, reason protocol.Reason) refusal {
	r := refusal{status, code, origin, map[string]protocol.Reason{}}
	if field != "" {
		r.details[field] = reason
	}
	return r
}

// requireRefusal holds the whole of an error's answer: the envelope, its headers
// and the trace id of the request.
func requireRefusal(t testing.TB, want refusal, got answer, trace string) {
	t.Helper()
	require.Equal(t, want.status, got.status, got.body)
	require.Equal(t, "application/json; charset=utf-8", got.header.Get("Content-Type"))
	require.Equal(t, "no-store", got.header.Get("Cache-Control"))
	require.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"))
	require.Contains(t, got.header.Get("Vary"), "Origin")
	require.Equal(t, trace, got.header.Get("X-Request-Id"))
	require.True(t, strings.HasPrefix(got.body, `{"data":null,"error":{"code":"`), got.body)
	require.True(t, strings.HasSuffix(got.body, `"trace_id":"`+trace+`"},"meta":{"trace_id":"`+trace+`"}}`), got.body)
	require.NotNil(t, got.Error)
	require.Equal(t, want, refusal{got.status, got.Error.Code, got.Error.Origin, got.Error.Details}, got.body)
	require.NotEmpty(t, got.Error.Message)
	if want.status == http.StatusUnauthorized {
		require.Equal(t, "Bearer", got.header.Get("WWW-Authenticate"))
	}
}

// Whatever a token lacks is refused alike on every route.
func TestTokensRefused(t *testing.T) {
	i := start(t, nil)
	routes := map[string]func(query, token string, headers ...string) answer{
		"ws": func(q, token string, headers ...string) answer {
			return i.do("GET", "/api/v1/ws?"+q, token, "", append(headers, upgrade...)...)
		},
		"job ws": func(q, token string, headers ...string) answer {
			return i.do("GET", "/api/v1/jobs/7/ws?"+q, token, "", append(headers, upgrade...)...)
		},
		"training": func(q, token string, headers ...string) answer {
			return i.do("GET", "/api/v1/training/ws?"+q, token, "", append(headers, upgrade...)...)
		},
		"stream": func(q, token string, headers ...string) answer {
			return i.do("GET", "/api/v1/stream?topics=a&"+q, token, "", headers...)
		},
		"alerts": func(q, token string, headers ...string) answer {
			return i.do("GET", "/api/v1/alerts/stream?"+q, token, "", headers...)
		},
		"feed": func(q, token string, headers ...string) answer {
			return i.do("GET", "/api/v1/events?"+q, token, "", headers...)
		},
		"publish": func(q, token string, headers ...string) answer {
			return i.do("POST", "/api/v1/events?"+q, token, `{"topic":"a","type":"t","data":1}`, headers...)
		},
	}
	with := func(change func(*auth.Claims)) string { return token(t, change) }
	good, any := with(nil), with(func(c *auth.Claims) { c.Tenant, c.Service = "*", "render" })
	unauthorized := func(origin protocol.Origin, field string, reason protocol.Reason) refusal {
		return refuses(401, protocol.Unauthorized, origin, field, reason)
	}
	const query, headers = protocol.InQuery, protocol.InHeaders
	for name, c := range map[string]struct {
		query, token string
		headers      []string
		want         refusal
	}{
		"none":            {"", "", nil, unauthorized(headers, "token", protocol.Required)},
		"empty":           {"token=", "", nil, unauthorized(headers, "token", protocol.Required)},
		"no bearer":       {"", "", []string{"Authorization", "Basic dTpw"}, unauthorized(headers, "token", protocol.Required)},
		"no jwt":          {"", "x", nil, unauthorized(headers, "token", protocol.Malformed)},
		"no jwt in query": {"token=x", good, nil, unauthorized(query, "token", protocol.Malformed)},
		"signature":       {"token=" + good[:len(good)-4] + "AAAA", "", nil, unauthorized(query, "token", protocol.Invalid)},
		"alg none":        {"", "eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + ".", nil, unauthorized(headers, "token", protocol.Invalid)},
		"expired": {"", with(func(c *auth.Claims) { c.ExpiresAt = time.Now().Add(-time.Minute).Unix() }), nil,
			unauthorized(headers, "token", protocol.Expired)},
		"without exp": {"", with(func(c *auth.Claims) { c.ExpiresAt = 0 }), nil, unauthorized(headers, "exp", protocol.Required)},
		"of tomorrow": {"", with(func(c *auth.Claims) { c.NotBefore = time.Now().Add(time.Hour).Unix() }), nil,
			unauthorized(headers, "nbf", protocol.Invalid)},
		"no tenant":   {"", with(func(c *auth.Claims) { c.Tenant = "" }), nil, unauthorized(headers, "tenant_id", protocol.Required)},
		"bad tenant":  {"", with(func(c *auth.Claims) { c.Tenant = "a/b" }), nil, unauthorized(headers, "tenant_id", protocol.Malformed)},
		"* of a user": {"", with(func(c *auth.Claims) { c.Tenant = "*" }), nil, unauthorized(headers, "service_name", protocol.Required)},
		"bad topics":  {"", with(func(c *auth.Claims) { c.Topics = []string{"a..b"} }), nil, unauthorized(headers, "topics", protocol.Malformed)},
		"not subscribed": {"", with(func(c *auth.Claims) { c.Subscription = &auth.Subscription{Status: "canceled"} }), nil,
			refuses(403, protocol.Forbidden, headers, "subscription", protocol.Invalid)},
		"subscription over": {"", with(func(c *auth.Claims) {
			c.Subscription = &auth.Subscription{Status: "active", ValidUntil: "2020-01-01T00:00:00Z"}
		}), nil, refuses(403, protocol.Forbidden, headers, "subscription", protocol.Expired)},
		"another tenant":       {"tenant=other", good, nil, refuses(403, protocol.Forbidden, query, "tenant", protocol.IsForbidden)},
		"another by header":    {"", good, []string{"X-Tenant-Id", "other"}, refuses(403, protocol.Forbidden, headers, "tenant", protocol.IsForbidden)},
		"malformed tenant":     {"tenant=a/b", good, nil, refuses(400, protocol.BadRequest, query, "tenant", protocol.Malformed)},
		"malformed by header":  {"", good, []string{"X-Tenant-Id", "a b"}, refuses(400, protocol.BadRequest, headers, "tenant", protocol.Malformed)},
		"two tenants":          {"tenant=acme", good, []string{"X-Tenant-Id", "other"}, refuses(400, protocol.BadRequest, query, "tenant", protocol.IsConflict)},
		"* without a tenant":   {"", any, nil, refuses(400, protocol.BadRequest, headers, "tenant", protocol.Required)},
		"* with a bad tenant":  {"tenant=*", any, nil, refuses(400, protocol.BadRequest, query, "tenant", protocol.Malformed)},
		"a query that is none": {"a=%zz", good, nil, refuses(400, protocol.BadRequest, query, "query", protocol.Malformed)},
	} {
		for route, ask := range routes {
			if name == "a query that is none" && route == "publish" {
				continue // which has none
			}
			got := ask(c.query, c.token, append([]string{"X-Request-Id", "r-1"}, c.headers...)...)
			requireRefusal(t, c.want, got, "r-1")
			for _, token := range []string{c.token, good, any} {
				if token != "" && token != "x" {
					require.NotContains(t, got.body, token, "%s %s", name, route)
				}
			}
		}
	}
	requireNoTokens(t, i)
}

// requireNoTokens holds that no token is in what the instance logged, nor a part
// of one that could be used.
func requireNoTokens(t testing.TB, i *instance) {
	t.Helper()
	require.NotContains(t, i.lines.String(), "eyJ", "the beginning of every JWT")
	require.NotContains(t, i.lines.String(), "token=")
}

func TestTopicsRefused(t *testing.T) {
	i := start(t, func(o *transport.Options) { o.Limits.Topics = 3 })
	plain := token(t, nil)
	narrow := token(t, func(c *auth.Claims) { c.Topics = []string{"alerts.>", "jobs.*"} })
	job := token(t, func(c *auth.Claims) { c.Job = "7" })
	const bad, no = protocol.BadRequest, protocol.Forbidden
	const query, path, headers = protocol.InQuery, protocol.InPath, protocol.InHeaders
	forbidden := refuses(403, no, query, "topics", protocol.IsForbidden)
	for _, c := range []struct {
		paths string // ws, stream: which route; a path: that one
		query string
		token string
		want  refusal
	}{
		{"stream", "", plain, refuses(400, bad, query, "topics", protocol.Required)},
		{"stream", "topics=", plain, refuses(400, bad, query, "topics", protocol.Required)},
		{"ws stream", "topics=a..b", plain, refuses(400, bad, query, "topics", protocol.Malformed)},
		{"ws stream", "topics=a,,b", plain, refuses(400, bad, query, "topics", protocol.Malformed)},
		{"ws stream", "topics=a,%20b", plain, refuses(400, bad, query, "topics", protocol.Malformed)},
		{"ws stream", "topics=%3E.a", plain, refuses(400, bad, query, "topics", protocol.Malformed)},
		{"ws stream", "topics=a,b,c,d", plain, refuses(400, bad, query, "topics", protocol.Invalid)},
		{"ws stream", "topics=a,b&topics=c,d", plain, refuses(400, bad, query, "topics", protocol.Invalid)},
		{"/api/v1/alerts/stream", "topics=a,b,c", plain, refuses(400, bad, query, "topics", protocol.Invalid)},
		{"/api/v1/jobs/7/stream", "topics=a,b,c", plain, refuses(400, bad, query, "topics", protocol.Invalid)},
		{"/api/v1/jobs/7/ws", "topics=a,b,c", plain, refuses(400, bad, query, "topics", protocol.Invalid)},
		{"ws stream", "topics=a&since=x", plain, refuses(400, bad, query, "since", protocol.Malformed)},
		{"ws stream", "topics=a&since=e-01", plain, refuses(400, bad, query, "since", protocol.Malformed)},
		{"stream", "topics=a&lastEventId=x", plain, refuses(400, bad, query, "lastEventId", protocol.Malformed)},
		{"ws stream", "topics=a&last=-1", plain, refuses(400, bad, query, "last", protocol.Malformed)},
		{"ws stream", "topics=a&last=1001", plain, refuses(400, bad, query, "last", protocol.Malformed)},
		{"ws stream", "topics=a&last=x", plain, refuses(400, bad, query, "last", protocol.Malformed)},
		{"stream", "topics=a&named=1", plain, refuses(400, bad, query, "named", protocol.Malformed)},

		{"ws stream", "topics=users.u2", plain, forbidden},
		{"ws stream", "topics=users.*", plain, forbidden},
		{"ws stream", "topics=users.%3E", plain, forbidden},
		{"ws stream", "topics=a,users.u2.inbox", plain, forbidden},
		{"ws stream", "topics=alerts", narrow, forbidden},
		{"ws stream", "topics=%3E", narrow, forbidden},
		{"ws stream", "topics=jobs.%3E", narrow, forbidden},
		{"ws stream", "topics=jobs.7.frames", narrow, forbidden},
		{"ws stream", "topics=alerts.x,b", narrow, forbidden},
		{"ws stream", "topics=jobs.8", job, forbidden},
		{"ws stream", "topics=jobs.*", job, forbidden},
		{"ws stream", "topics=alerts", job, forbidden},
		{"/api/v1/alerts/stream", "", narrow, refuses(403, no, path, "topics", protocol.IsForbidden)},
		{"/api/v1/alerts/stream", "", job, refuses(403, no, path, "topics", protocol.IsForbidden)},
		{"/api/v1/jobs/8/stream", "", job, refuses(403, no, path, "topics", protocol.IsForbidden)},
		{"/api/v1/jobs/8/ws", "", job, refuses(403, no, path, "topics", protocol.IsForbidden)},
		{"/api/v1/jobs/a.b/ws", "", plain, refuses(400, bad, path, "job_id", protocol.Malformed)},
		{"/api/v1/jobs/a%2Fb/ws", "", plain, refuses(400, bad, path, "job_id", protocol.Malformed)},
		{"/api/v1/jobs/*/stream", "", plain, refuses(400, bad, path, "job_id", protocol.Malformed)},
		{"/api/v1/jobs/%3E/stream", "", plain, refuses(400, bad, path, "job_id", protocol.Malformed)},
		{"/api/v1/jobs/" + strings.Repeat("a", 65) + "/stream", "", plain, refuses(400, bad, path, "job_id", protocol.Malformed)},
		{"/api/v1/training/ws", "", plain, refuses(400, bad, path, "job_id", protocol.Required)},
	} {
		for p := range strings.FieldsSeq(c.paths) {
			if p[0] != '/' {
				p = "/api/v1/" + p
			}
			var h []string
			if strings.HasSuffix(p, "ws") {
				h = upgrade
			}
			t.Run(fmt.Sprint(p, "?", c.query), func(t *testing.T) {
				requireRefusal(t, c.want, i.in(t).do("GET", p+"?"+c.query, c.token, "", append(h, "X-Request-Id", "r-2")...), "r-2")
			})
		}
	}
	requireRefusal(t, refuses(400, bad, headers, "Last-Event-ID", protocol.Malformed),
		i.do("GET", "/api/v1/stream?topics=a&since=e-1", plain, "", "Last-Event-ID", "0", "X-Request-Id", "r-3"), "r-3")
}
