package transport_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "0123456789abcdef0123456789abcdef"

// instance is a hub on a real port.
type instance struct {
	t      *testing.T
	server *transport.Server
	log    *memlog.Log
	base   string // http://127.0.0.1:port
	lines  *logLines
}

// logLines is what the instance logged.
type logLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start starts an instance with a log in memory; change may alter its options.
func start(t *testing.T, change func(*transport.Options)) *instance {
	t.Helper()
	retention, err := hub.ParseRetention(hub.DefaultRetention)
	require.NoError(t, err)
	log := memlog.New(memlog.Options{Retention: retention})
	h := hub.New(log, hub.Options{Linger: time.Millisecond})
	verifier, err := auth.New(t.Context(), auth.Config{Secret: secret})
	require.NoError(t, err)
	i := &instance{t: t, log: log, lines: &logLines{}}
	opts := transport.Options{Hub: h, Verifier: verifier, Version: "test", Logger: zerolog.New(i.lines)}
	if change != nil {
		change(&opts)
	}
	i.server, err = transport.New(opts)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	i.base = "http://" + l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- i.server.Serve(l, nil) }()
	t.Cleanup(func() {
		require.NoError(t, i.server.Close())
		require.NoError(t, <-served)
		h.Close()
		log.Close()
	})
	return i
}

// token signs claims for tenant acme, which may publish everything; change may
// alter them.
func token(t *testing.T, change func(*auth.Claims)) string {
	t.Helper()
	c := auth.Claims{Tenant: "acme", User: "u1", Publish: []string{">"}, ExpiresAt: time.Now().Add(time.Hour).Unix()}
	if change != nil {
		change(&c)
	}
	s, err := auth.Sign("HS256", []byte(secret), "", c)
	require.NoError(t, err)
	return s
}

// answer is an HTTP answer, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
	Data   json.RawMessage
	Error  *protocol.Error
	Meta   struct {
		TraceID string   `json:"trace_id"`
		Next    string   `json:"next"`
		Gaps    []string `json:"gaps"`
	}
}

func (i *instance) do(method, path, token, body string, headers ...string) answer {
	i.t.Helper()
	req, err := http.NewRequest(method, i.base+path, strings.NewReader(body))
	require.NoError(i.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for n := 0; n+1 < len(headers); n += 2 {
		req.Header.Set(headers[n], headers[n+1])
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	require.NoError(i.t, err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	require.NoError(i.t, err)
	a := answer{status: res.StatusCode, header: res.Header, body: string(b)}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		require.NoError(i.t, json.Unmarshal(b, &a), a.body)
	}
	return a
}

// publish publishes one event of data and gives its cursor.
func (i *instance) publish(topic, data string) string {
	i.t.Helper()
	a := i.do("POST", "/api/v1/events", token(i.t, nil), fmt.Sprintf(`{"topic":%q,"type":"t.v1","data":%s}`, topic, data))
	require.Equal(i.t, http.StatusCreated, a.status, a.body)
	var got struct{ IDs []string }
	require.NoError(i.t, json.Unmarshal(a.Data, &got))
	return got.IDs[0]
}

// block is one block of an event stream.
type block struct{ id, event, data, retry string }

// stream is an SSE client.
type stream struct {
	t    *testing.T
	body io.ReadCloser
	in   *bufio.Reader
	res  *http.Response
}

func (i *instance) stream(path string, headers ...string) *stream {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), 30*time.Second)
	req, err := http.NewRequestWithContext(ctx, "GET", i.base+path, nil)
	require.NoError(i.t, err)
	for n := 0; n+1 < len(headers); n += 2 {
		req.Header.Set(headers[n], headers[n+1])
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	require.NoError(i.t, err)
	s := &stream{t: i.t, body: res.Body, in: bufio.NewReader(res.Body), res: res}
	i.t.Cleanup(func() { cancel(); _ = res.Body.Close() })
	return s
}

// next gives the next block that is no comment.
func (s *stream) next() block {
	s.t.Helper()
	b, err := s.read()
	require.NoError(s.t, err)
	return b
}

func (s *stream) read() (b block, err error) {
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return b, err
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "id":
			b.id = value
		case "event":
			b.event = value
		case "data":
			b.data = value
		case "retry":
			b.retry = value
		case "":
			if b != (block{}) {
				return b, nil
			}
		}
	}
}

// begin reads up to subscribed and gives what came before it, and it.
func (s *stream) begin() (before []block, subscribed block) {
	s.t.Helper()
	require.NotEmpty(s.t, s.next().retry)
	require.Contains(s.t, s.next().data, `{"op":"welcome"`)
	for {
		b := s.next()
		if strings.HasPrefix(b.data, `{"op":"subscribed"`) {
			return before, b
		}
		before = append(before, b)
	}
}

// socket is a WebSocket client.
type socket struct {
	t  *testing.T
	ws *websocket.Conn
}

func (i *instance) dial(path string, headers ...string) *socket {
	i.t.Helper()
	h := http.Header{}
	for n := 0; n+1 < len(headers); n += 2 {
		h.Set(headers[n], headers[n+1])
	}
	ws, _, err := websocket.Dial(i.t.Context(), "ws"+strings.TrimPrefix(i.base, "http")+path, &websocket.DialOptions{
		Subprotocols: []string{"pushhub.v1"}, HTTPHeader: h,
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	})
	require.NoError(i.t, err)
	ws.SetReadLimit(1 << 20)
	i.t.Cleanup(func() { _ = ws.CloseNow() })
	return &socket{i.t, ws}
}

func (s *socket) next() string {
	s.t.Helper()
	m, err := s.read()
	require.NoError(s.t, err)
	return m
}

func (s *socket) read() (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	_, b, err := s.ws.Read(ctx)
	return string(b), err
}

func (s *socket) say(message string) {
	s.t.Helper()
	require.NoError(s.t, s.ws.Write(s.t.Context(), websocket.MessageText, []byte(message)))
}
