package transport_test

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport"
)

// A request id is taken over when it is one, else made; a valid traceparent gives
// the trace id in its place.
func TestRequestIDs(t *testing.T) {
	i := start(t, nil)
	const made = `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	for _, c := range []struct{ id, parent, wantID, wantTrace string }{
		{"r-1", "", "^r-1$", ""},
		{"A.z_0:-9", "", "^A.z_0:-9$", ""},
		{strings.Repeat("x", 128), "", "^x{128}$", ""},
		{strings.Repeat("x", 129), "", made, ""},
		{"", "", made, ""},
		{"a b", "", made, ""},
		{"a/b", "", made, ""},
		{`a"b`, "", made, ""},
		{"ä", "", made, ""},
		{"r-1", "00-" + trace + "-00f067aa0ba902b7-01", "^r-1$", trace},
		{"", "00-" + trace + "-00f067aa0ba902b7-00", made, trace},
		{"r-1", "cc-" + trace + "-00f067aa0ba902b7-01-what-comes-later", "^r-1$", trace},
		{"r-1", "00-" + trace + "-00f067aa0ba902b7-01-more", "^r-1$", ""},
		{"r-1", "ff-" + trace + "-00f067aa0ba902b7-01", "^r-1$", ""},
		{"r-1", "00-" + strings.ToUpper(trace) + "-00f067aa0ba902b7-01", "^r-1$", ""},
		{"r-1", "00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01", "^r-1$", ""},
		{"r-1", "00-" + trace + "-0000000000000000-01", "^r-1$", ""},
		{"r-1", "00-" + trace[1:] + "-00f067aa0ba902b7-01", "^r-1$", ""},
		{"r-1", trace, "^r-1$", ""},
	} {
		for _, path := range []string{"/api/v1/events?token=" + token(t, nil), "/api/v1/events", "/nothing"} {
			a := i.do("GET", path, "", "", "X-Request-Id", c.id, "Traceparent", c.parent)
			id := a.header.Get("X-Request-Id")
			require.Regexp(t, c.wantID, id, "%v", c)
			want := c.wantTrace
			if want == "" {
				want = id
			}
			require.Equal(t, want, a.Meta.TraceID, "%v", c)
			require.True(t, a.Error == nil || a.Error.TraceID == want)
			require.Contains(t, i.lines.String(), `"request_id":"`+id+`"`)
		}
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	i := start(t, nil)
	for _, c := range []struct{ method, path, allow string }{
		{"GET", "/", ""},
		{"GET", "/api/v1/wsx", ""},
		{"GET", "/api/v1/stream/", ""},
		{"GET", "/api/v1/jobs//stream", ""},
		{"GET", "//api/v1/events?token=secret", ""},
		{"POST", "/api/v1//events", ""},
		{"GET", "/api/v1/./events", ""},
		{"GET", "/api/v2/../v1/events", ""},
		{"GET", "/api/v1/jobs/7/ws/x", ""},
		{"GET", "/API/V1/STREAM", ""},
		{"DELETE", "/api/v2/events", ""},
		{"POST", "/api/v1/ws", "GET"},
		{"POST", "/api/v1/stream", "GET"},
		{"POST", "/api/v1/jobs/7/stream", "GET"},
		{"PUT", "/api/v1/events", "GET, POST"},
		{"DELETE", "/api/v1/events", "GET, POST"},
		{"PATCH", "/health", "GET"},
		{"OPTIONS", "/api/v1/events", "GET, POST"},
		{"BREW", "/metrics", "GET"},
	} {
		a := i.do(c.method, c.path, token(t, nil), "", "X-Request-Id", "r")
		want := refuses(404, protocol.NotFound, protocol.InPath, "path", protocol.IsNotFound)
		if c.allow != "" {
			want = refuses(405, protocol.MethodNotAllowed, protocol.InPath, "method", protocol.NotSupported)
		}
		requireRefusal(t, want, a, "r")
		require.Equal(t, c.allow, a.header.Get("Allow"))
	}
	for path, status := range map[string]int{"/health": 200, "/metrics": 200, "/api/v1/events": 401, "/nothing": 404} {
		a := i.do("HEAD", path, "", "")
		require.Equal(t, status, a.status, path)
		require.Empty(t, a.body)
	}
}

// What the hub has no route for goes to the pages, with the hub's request id; a
// handler that panics is answered for, and the server lives on.
func TestPages(t *testing.T) {
	i := start(t, func(o *transport.Options) {
		o.Pages = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/panic":
				panic("secret words")
			case "/late":
				_, _ = w.Write([]byte("begun"))
				panic("too late")
			}
			_, _ = w.Write([]byte("a page"))
		})
	})
	a := i.do("GET", "/demo", "", "", "X-Request-Id", "r")
	require.Equal(t, [3]string{"a page", "r", ""}, [3]string{a.body, a.header.Get("X-Request-Id"), ""})
	requireRefusal(t, refuses(500, protocol.Internal, protocol.InInternal, "", ""), i.do("GET", "/panic", "", "", "X-Request-Id", "r"), "r")
	res, err := (&http.Client{Transport: i.client()}).Get(i.base + "/late")
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, res.Body.Close())
	}
	require.Error(t, err, "half an answer does not look like a whole one")
	require.Equal(t, 2, strings.Count(i.lines.String(), "a handler panicked"))
	require.Equal(t, 405, i.do("DELETE", "/api/v1/events", "", "").status, "routes are the hub's")
	require.Equal(t, "a page", i.do("GET", "/demo", "", "").body)
}

func TestCORS(t *testing.T) {
	listed := func(o *transport.Options) { o.Origins = []string{"https://app.example", "http://localhost:3000/"} }
	withCookies := func(o *transport.Options) { listed(o); o.AllowCredentials = true }
	all := func(o *transport.Options) { o.Origins = []string{"*"} }
	for name, c := range map[string]struct {
		options func(*transport.Options)
		origin  string
		allowed string // Access-Control-Allow-Origin
		cookies string
	}{
		"its own by default": {nil, "self", "self", ""},
		"others by default":  {nil, "https://app.example", "", ""},
		"listed":             {listed, "https://app.example", "https://app.example", ""},
		"listed with slash":  {listed, "http://localhost:3000", "http://localhost:3000", ""},
		"not listed":         {listed, "http://localhost:3001", "", ""},
		"null":               {listed, "null", "", ""},
		"with credentials":   {withCookies, "https://app.example", "https://app.example", "true"},
		"all":                {all, "https://any.example", "*", ""},
		"none given":         {listed, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			i := start(t, c.options)
			if c.origin == "self" {
				c.origin, c.allowed = i.base, i.base
			}
			for _, path := range []string{"/api/v1/events", "/health", "/nothing"} {
				a := i.do("GET", path, "", "", "Origin", c.origin)
				require.Equal(t, c.allowed, a.header.Get("Access-Control-Allow-Origin"))
				require.Equal(t, c.cookies, a.header.Get("Access-Control-Allow-Credentials"))
				require.Contains(t, a.header.Values("Vary"), "Origin")
				if c.allowed != "" {
					require.Equal(t, "X-Request-Id, Retry-After", a.header.Get("Access-Control-Expose-Headers"))
				}
			}
			pre := i.do("OPTIONS", "/api/v1/events", "", "", "Origin", c.origin, "Access-Control-Request-Method", "POST",
				"Access-Control-Request-Headers", "authorization,content-type")
			require.Equal(t, c.allowed, pre.header.Get("Access-Control-Allow-Origin"))
			require.Contains(t, pre.header.Values("Vary"), "Origin")
			if c.allowed == "" {
				require.Equal(t, 405, pre.status)
				require.Empty(t, pre.header.Get("Access-Control-Allow-Methods"))
				return
			}
			require.Equal(t, 204, pre.status)
			require.Equal(t, "GET, POST", pre.header.Get("Access-Control-Allow-Methods"))
			for _, name := range []string{"Authorization", "Content-Type", "Last-Event-ID", "Traceparent", "X-Request-Id", "X-Tenant-Id"} {
				require.Contains(t, pre.header.Get("Access-Control-Allow-Headers"), name)
			}
			require.NotEmpty(t, pre.header.Get("Access-Control-Max-Age"))
		})
	}
}

func TestOptions(t *testing.T) {
	for name, change := range map[string]func(*transport.Options){
		"hub":         func(o *transport.Options) { o.Hub = nil },
		"verifier":    func(o *transport.Options) { o.Verifier = nil },
		"no scheme":   func(o *transport.Options) { o.Origins = []string{"app.example"} },
		"a path":      func(o *transport.Options) { o.Origins = []string{"https://app.example/x"} },
		"a user":      func(o *transport.Options) { o.Origins = []string{"https://u@app.example"} },
		"all cookies": func(o *transport.Options) { o.Origins, o.AllowCredentials = []string{"*"}, true },
	} {
		i := start(t, nil)
		opts := transport.Options{Hub: i.hub, Verifier: &auth.Verifier{}}
		change(&opts)
		_, err := transport.New(opts)
		require.Error(t, err, name)
	}
}

// Who asks is the user of a token, else the address: of X-Forwarded-For only what
// trusted proxies wrote.
func TestRequester(t *testing.T) {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	trusting := func(o *transport.Options) {
		o.TrustedProxies = []netip.Prefix{loopback, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	}
	for _, c := range []struct {
		options func(*transport.Options)
		token   string
		hops    string
		want    string
	}{
		{nil, "", "", "ip:127.0.0.1"},
		{nil, "", "203.0.113.9", "ip:127.0.0.1"},
		{trusting, "", "", "ip:127.0.0.1"},
		{trusting, "", "203.0.113.9", "ip:203.0.113.9"},
		{trusting, "", "198.51.100.1, 203.0.113.9", "ip:203.0.113.9"},
		{trusting, "", "203.0.113.9, 10.1.2.3", "ip:203.0.113.9"},
		{trusting, "", "198.51.100.1, 203.0.113.9,10.1.2.3, fd00::1", "ip:203.0.113.9"},
		{trusting, "", "2001:db8::9, ::ffff:10.1.2.3", "ip:2001:db8::9"},
		{trusting, "", "203.0.113.9, unknown", "ip:127.0.0.1"},
		{trusting, "", "203.0.113.9, unknown, 10.1.2.3", "ip:10.1.2.3"},
		{trusting, "", "10.1.2.3", "ip:10.1.2.3"},
		{trusting, "", `x" , "level":"fatal`, "ip:127.0.0.1"},
		{trusting, token(t, nil), "203.0.113.9", "user:u1"},
		{nil, token(t, func(c *auth.Claims) { c.Service = "render" }), "", "service:render"},
		{nil, token(t, func(c *auth.Claims) { c.User = "a\n\"b" }), "", `user:a\n\"b`},
		{nil, token(t, func(c *auth.Claims) { c.User = "" }), "", "ip:127.0.0.1"},
	} {
		i := start(t, c.options)
		i.do("GET", "/api/v1/events", c.token, "", "X-Forwarded-For", c.hops)
		require.Contains(t, i.lines.String(), `"requester":"`+c.want+`"`, "%q", c.hops)
	}
}
