package transport_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/transport"
)

// What comes with the request of a stream, or after it, is never taken for
// another request.
func TestDataAfterStreamRequest(t *testing.T) {
	i := start(t, nil)
	tok := token(t, nil)
	body := `{"topic":"a","type":"t","data":"smuggled"}`
	smuggled := fmt.Sprintf("POST /api/v1/events HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", tok, len(body), body)
	for name, c := range map[string]struct{ headers, after string }{
		"pipelined":    {"", smuggled},
		"as body":      {fmt.Sprintf("Content-Length: %d\r\n", len(smuggled)), smuggled},
		"chunked":      {"Transfer-Encoding: chunked\r\n", "0\r\n\r\n" + smuggled},
		"half a body":  {"Content-Length: 100000\r\n", smuggled},
		"just garbage": {"", strings.Repeat("\x00\xff", 100_000)},
	} {
		s := i.in(t).raw(0)
		s.write("GET /api/v1/stream?topics=a&token=" + tok + " HTTP/1.1\r\nHost: hub\r\n" + c.headers + "\r\n" + c.after)
		res, err := http.ReadResponse(s.in, nil)
		require.NoError(t, err, name)
		require.Equal(t, 200, res.StatusCode)
		s.write(smuggled)
		got := &stream{i: i, t: t, body: res.Body, in: newBuffered(res.Body)}
		got.begin()
		id := i.publish("a", "1")
		require.Equal(t, id, got.next().id, name)
		require.NoError(t, s.net.Close())
	}
	events, _ := i.feed()
	require.Len(t, events, 5, "of the test itself only")
}

// Frames that come in one piece with the handshake are obeyed.
func TestEarlyFrames(t *testing.T) {
	frames := maskedFrame(1, `{"op":"ping","ref":"1"}`) + maskedFrame(9, "hello") + maskedFrame(1, `{"op":"ping","ref":"2"}`)
	for name, start := range map[string]func(testing.TB, func(*transport.Options)) *instance{"plain": start, "TLS": secure} {
		i := start(t, nil)
		for cut := range len(frames) + 1 { // what is behind it comes later
			ws := i.in(t).raw(0)
			if trust := i.client().TLSClientConfig; trust != nil {
				trust.ServerName = "127.0.0.1"
				ws.net = tls.Client(ws.net, trust)
				ws.in = newReader(ws.net)
			}
			var b bytes.Buffer
			fmt.Fprintf(&b, "GET /api/v1/ws?token=%s HTTP/1.1\r\nHost: hub\r\n", token(t, nil))
			for n := 0; n < len(upgrade); n += 2 {
				fmt.Fprintf(&b, "%s: %s\r\n", upgrade[n], upgrade[n+1])
			}
			b.WriteString("\r\n" + frames[:cut])
			ws.write(b.String())
			ws.accepted()
			ws.write(frames[cut:])
			for _, want := range []string{"1 ", `1 {"op":"pong","ref":"1"}`, "10 hello", `1 {"op":"pong","ref":"2"}`} {
				opcode, payload := ws.frame()
				require.True(t, strings.HasPrefix(fmt.Sprint(opcode, " ", payload), want), "%s, %d: %d %s", name, cut, opcode, payload)
			}
			require.NoError(t, ws.net.Close())
		}
	}
}

// Frames that break RFC 6455 end the connection, and nothing else.
func TestBrokenFrames(t *testing.T) {
	i := start(t, nil)
	for name, frame := range map[string]string{
		"not masked":            "\x81\x02{}",
		"reserved bit":          "\xc1\x80\x00\x00\x00\x00",
		"unknown opcode":        "\x83\x80\x00\x00\x00\x00",
		"unknown control":       "\x8b\x80\x00\x00\x00\x00",
		"continuation of none":  "\x80\x80\x00\x00\x00\x00",
		"text within a text":    "\x01\x81\x00\x00\x00\x00x" + maskedFrame(1, "{}"),
		"ping in pieces":        "\x09\x80\x00\x00\x00\x00",
		"ping too large":        "\x89\xfe\x00\x7e\x00\x00\x00\x00" + strings.Repeat("x", 126),
		"close of one byte":     "\x88\x81\x00\x00\x00\x00x",
		"close with a bad code": "\x88\x82\x00\x00\x00\x00\x03\xed", // 1005
		"length with its sign":  "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",
		"half a frame":          "\x81\xfe\x10",
		"HTTP":                  "GET / HTTP/1.1\r\nHost: hub\r\n\r\n",
	} {
		ws := i.raw(0)
		ws.handshake("/api/v1/ws?token="+token(t, nil), "HTTP/1.1")
		ws.accepted()
		ws.frame()
		ws.write(frame)
		if name == "half a frame" {
			require.NoError(t, ws.net.Close())
			continue
		}
		var said strings.Builder
		for {
			opcode, payload, err := ws.tryFrame()
			if err != nil {
				break
			}
			said.WriteString(fmt.Sprint(opcode, " ", payload, "\n"))
		}
		require.Contains(t, said.String(), `1 {"op":"bye","code":1002,"reason":"bad_request"`, name)
		require.Contains(t, said.String(), "8 \x03\xeabad_request", name)
		require.NoError(t, ws.net.Close())
	}
	require.Eventually(t, func() bool { return i.metric(t, "pushhub_connections") == 0 }, i.patience, time.Millisecond)
	ws := i.open()
	ws.say(`{"op":"ping"}`)
	require.Equal(t, `{"op":"pong"}`, ws.next())
}

// A header or a body that does not come, and an answer that is not taken, hold a
// connection for a bounded time only.
func TestSlowClients(t *testing.T) {
	post := "POST /api/v1/events?token=%s HTTP/1.1\r\nHost: hub\r\nContent-Length: 1000\r\n\r\n{"
	for name, c := range map[string]struct {
		send   func(t *testing.T) string
		within time.Duration
		answer string // how it begins
	}{
		"nothing":                  {func(*testing.T) string { return "" }, 10 * time.Second, ""},
		"half a header":            {func(*testing.T) string { return "GET /api/v1/stream HTTP/1.1\r\nHost: hub\r\nX: " }, 10 * time.Second, ""},
		"half a body":              {func(t *testing.T) string { return fmt.Sprintf(post, token(t, nil)) }, 30 * time.Second, "HTTP/1.1 400"},
		"half a body of a nobody":  {func(*testing.T) string { return fmt.Sprintf(post, "x") }, 30 * time.Second, "HTTP/1.1 401"},
		"half a body for no route": {func(t *testing.T) string { return strings.Replace(fmt.Sprintf(post, ""), "events", "x", 1) }, 30 * time.Second, "HTTP/1.1 404"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, i *instance) {
				conn, err := i.client().DialContext(t.Context(), "tcp", i.addr)
				require.NoError(t, err)
				began := time.Now()
				if request := c.send(t); request != "" {
					_, err = io.WriteString(conn, request)
					require.NoError(t, err)
				}
				b, err := io.ReadAll(conn)
				require.NoError(t, err)
				require.True(t, strings.HasPrefix(string(b), c.answer), "%q", b)
				require.LessOrEqual(t, time.Since(began), c.within)
			})
		})
	}
	t.Run("an answer not taken", func(t *testing.T) {
		bubble(t, nil, func(t *testing.T, i *instance) {
			i.put(large("a", 1), large("a", 2))
			conn, err := i.client().DialContext(t.Context(), "tcp", i.addr)
			require.NoError(t, err)
			_, err = io.WriteString(conn, "GET /api/v1/events?token="+token(t, nil)+" HTTP/1.1\r\nHost: hub\r\n\r\n")
			require.NoError(t, err)
			time.Sleep(121 * time.Second)
			b, err := io.ReadAll(conn)
			require.NoError(t, err)
			require.Less(t, len(b), 50_000, "the hub has given up")
		})
	})
}

// Requests that are too large in any way are refused, and cost little.
func TestVastRequests(t *testing.T) {
	i := start(t, nil)
	tok := token(t, nil)
	var names []string
	for n := range 15_000 {
		names = append(names, fmt.Sprintf("%x", n))
	}
	for name, c := range map[string]struct {
		query, header string
		want          int
	}{
		"header":       {"topics=a", strings.Repeat("x", 100_000), http.StatusRequestHeaderFieldsTooLarge},
		"topics":       {"topics=" + strings.Join(names, ",")[:60_000], "", http.StatusBadRequest},
		"same topics":  {"topics=" + strings.Repeat("a,", 25_000) + "b..", "", http.StatusBadRequest},
		"parameters":   {"topics=" + strings.Repeat("&a", 20_000), "", http.StatusBadRequest},
		"hops":         {"topics=a..b", strings.Repeat("10.0.0.1,", 5_000), http.StatusBadRequest},
		"a long topic": {"topics=" + strings.Repeat("a", 60_000), "", http.StatusBadRequest},
		"a long since": {"topics=a&since=" + strings.Repeat("1", 60_000), "", http.StatusBadRequest},
	} {
		a := i.do("GET", "/api/v1/stream?"+c.query, tok, "", "X-Forwarded-For", c.header)
		require.Equal(t, c.want, a.status, name)
	}
}

// Data as deep as the hub takes it can be read again from the feed, by readers
// that stop at some depth.
func TestDeepData(t *testing.T) {
	i := start(t, nil)
	publish := func(depth int) answer {
		return i.do("POST", "/api/v1/events", token(t, nil), `{"topic":"a","type":"t","data":`+strings.Repeat("[", depth)+strings.Repeat("]", depth)+`}`)
	}
	require.Equal(t, 400, publish(9001).status)
	require.Equal(t, 201, publish(9000).status)
	page := i.do("GET", "/api/v1/events", token(t, nil), "")
	require.Equal(t, 200, page.status)
	require.True(t, json.Valid([]byte(page.body)))
}

// However many come at once, no more than MAX_CONNECTIONS are taken.
func TestMaxConnectionsHolds(t *testing.T) {
	const limit = 5
	i := start(t, func(o *transport.Options) { o.Limits.Connections = limit })
	tok := token(t, nil)
	var all sync.WaitGroup
	answers := make(chan string, 60)
	for range cap(answers) {
		s := i.raw(0)
		all.Go(func() {
			_, _ = io.WriteString(s.net, "GET /api/v1/stream?topics=a&token="+tok+" HTTP/1.1\r\nHost: hub\r\n\r\n")
			b := make([]byte, 0, 4096)
			for !bytes.Contains(b, []byte(`{"op":"`)) {
				n, err := s.net.Read(b[len(b):cap(b)])
				if b = b[:len(b)+n]; err != nil {
					break
				}
			}
			answers <- string(b)
		})
	}
	all.Wait()
	close(answers)
	welcomed := 0
	for a := range answers {
		require.True(t, strings.HasPrefix(a, "HTTP/1.1 200 OK\r\n"), a)
		if strings.Contains(a, `{"op":"welcome"`) {
			welcomed++
		} else {
			require.Contains(t, a, `{"op":"bye","code":1013`)
		}
	}
	require.Equal(t, limit, welcomed)
}

// However connections end, no goroutine of theirs is left.
func TestNoGoroutineIsLeft(t *testing.T) {
	i := start(t, nil)
	tok := token(t, nil)
	i.open() // what is made once is made
	before := runtime.NumGoroutine()
	for range 30 {
		for _, path := range []string{"/api/v1/ws?topics=a", "/api/v1/stream?topics=a", "/api/v1/ws", "/api/v1/stream?topics=a..b"} {
			c := i.raw(0)
			c.handshake(path+"&token="+tok, "HTTP/1.1")
			if path == "/api/v1/ws?topics=a" {
				c.write(maskedFrame(1, `{"op":"subscribe","topics":[">"],"last":1000}`))
			}
			require.NoError(t, c.net.Close())
		}
	}
	for began := time.Now(); runtime.NumGoroutine() > before; runtime.Gosched() {
		require.Less(t, time.Since(began), i.patience)
	}
}

// Any query, header and body is answered in the envelope, and never with 500.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "topics=a,b.*&since=e-1&limit=5&type=t&from=2026-05-27T10:15:00Z", "acme", "application/json", "")
	f.Add("POST", "tenant=acme", "", "application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"a"}`)
	f.Add("HEAD", "topics=%3E&last=2&named=true", "", "", "")
	f.Add("PUT", "%zz;", "\x00", "a/b; c=\"", "[")
	i := start(f, nil)
	f.Fuzz(func(t *testing.T, method, query, tenant, kind, body string) {
		r := httptest.NewRequest("GET", "/api/v1/events", strings.NewReader(body))
		r.Method, r.URL.RawQuery = method, query
		r.Header = http.Header{"Authorization": {"Bearer " + token(t, nil)}, "X-Tenant-Id": {tenant}, "Content-Type": {kind}, "Origin": {kind}}
		w := httptest.NewRecorder()
		i.server.Handler().ServeHTTP(w, r)
		require.Less(t, w.Code, 500, w.Body)
		if w.Code >= 400 {
			var a answer
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
			require.Equal(t, w.Code, a.Error.Code.Status())
		}
	})
}
