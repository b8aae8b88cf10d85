package transport_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

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
	t        testing.TB
	server   *transport.Server
	hub      *hub.Hub
	log      *faulty
	registry *prometheus.Registry
	addr     string
	base     string // http://127.0.0.1:port
	lines    *logLines
	client   func() *http.Transport // one for each request: no connection is shared
	patience time.Duration          // with one read of a client
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
func start(t testing.TB, change func(*transport.Options)) *instance {
	t.Helper()
	return serve(t, nil, change)
}

// drainTime is that of the instances of tests.
const drainTime = time.Second

// serve is start, with a config over TLS.
func serve(t testing.TB, config *tls.Config, change func(*transport.Options)) *instance {
	t.Helper()
	// Not wire.Listen: of its quiet connections the race detector does not see what
	// came before what, and tests share variables with handlers.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return serveOn(t, l, config, change)
}

func serveOn(t testing.TB, l net.Listener, config *tls.Config, change func(*transport.Options)) *instance {
	t.Helper()
	retention, err := hub.ParseRetention(hub.DefaultRetention)
	require.NoError(t, err)
	log := &faulty{Log: memlog.New(memlog.Options{Retention: retention})}
	h := hub.New(log, hub.Options{Linger: time.Millisecond})
	verifier, err := auth.New(t.Context(), auth.Config{Secret: secret})
	require.NoError(t, err)
	i := &instance{t: t, hub: h, log: log, lines: &logLines{}, registry: prometheus.NewRegistry(), patience: 10 * time.Second}
	i.client = func() *http.Transport { return &http.Transport{DisableKeepAlives: true} }
	opts := transport.Options{Hub: h, Verifier: verifier, Version: "test", Logger: zerolog.New(i.lines), Registry: i.registry, Limits: transport.Limits{Drain: drainTime}}
	if change != nil {
		change(&opts)
	}
	i.server, err = transport.New(opts)
	require.NoError(t, err)
	i.addr = l.Addr().String()
	i.base = "http://" + i.addr
	if config != nil {
		i.base = "https://" + i.addr
	}
	served := make(chan error, 1)
	go func() { served <- i.server.Serve(l, config) }()
	t.Cleanup(func() {
		require.NoError(t, i.server.Close())
		require.NoError(t, <-served)
		h.Close()
		log.Close()
	})
	return i
}

// in gives the instance for use in a subtest.
func (i *instance) in(t testing.TB) *instance {
	sub := *i
	sub.t = t
	return &sub
}

// token signs claims for tenant acme, which may publish everything; change may
// alter them.
func token(t testing.TB, change func(*auth.Claims)) string {
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
	res, err := i.client().RoundTrip(req)
	require.NoError(i.t, err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	require.NoError(i.t, err)
	a := answer{status: res.StatusCode, header: res.Header, body: string(b)}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") && method != "HEAD" {
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
	i    *instance
	t    testing.TB
	body io.ReadCloser
	in   *bufio.Reader
	res  *http.Response
}

func (i *instance) stream(path string, headers ...string) *stream {
	i.t.Helper()
	ctx, cancel := context.WithCancel(i.t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", i.base+path, nil)
	require.NoError(i.t, err)
	for n := 0; n+1 < len(headers); n += 2 {
		req.Header.Set(headers[n], headers[n+1])
	}
	res, err := i.client().RoundTrip(req)
	require.NoError(i.t, err)
	s := &stream{i: i, t: i.t, body: res.Body, in: bufio.NewReader(res.Body), res: res}
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
	late := time.AfterFunc(s.i.patience, func() { _ = s.body.Close() })
	defer late.Stop()
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

// socket is a WebSocket client. It reads all the time, as a browser does.
type socket struct {
	i    *instance
	t    testing.TB
	ws   *websocket.Conn
	came chan string // closed at the end, after err is set
	err  error
}

func (i *instance) dial(path string, headers ...string) *socket {
	i.t.Helper()
	h := http.Header{}
	for n := 0; n+1 < len(headers); n += 2 {
		h.Set(headers[n], headers[n+1])
	}
	ws, _, err := websocket.Dial(i.t.Context(), "ws"+strings.TrimPrefix(i.base, "http")+path, &websocket.DialOptions{
		Subprotocols: []string{"pushhub.v1"}, HTTPHeader: h,
		HTTPClient: &http.Client{Transport: i.client()},
	})
	require.NoError(i.t, err)
	ws.SetReadLimit(1 << 20)
	i.t.Cleanup(func() { _ = ws.CloseNow() })
	s := &socket{i, i.t, ws, make(chan string, 10_000), nil}
	go func() {
		defer close(s.came)
		for {
			_, b, err := ws.Read(context.Background()) // it ends with the test
			if err != nil {
				s.err = err
				return
			}
			s.came <- string(b)
		}
	}()
	return s
}

func (s *socket) next() string {
	s.t.Helper()
	m, err := s.read()
	require.NoError(s.t, err)
	return m
}

func (s *socket) read() (string, error) {
	select {
	case m, ok := <-s.came:
		if !ok {
			return "", s.err
		}
		return m, nil
	case <-time.After(s.i.patience):
		return "", context.DeadlineExceeded
	}
}

func (s *socket) say(message string) {
	s.t.Helper()
	require.NoError(s.t, s.ws.Write(s.t.Context(), websocket.MessageText, []byte(message)))
}

func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	return err
}

// buffer asks for an SO_RCVBUF or SO_SNDBUF of so many bytes, before the connection is
// made; 0 is the usual one.
func buffer(option, bytes int) func(network, address string, raw syscall.RawConn) error {
	if bytes == 0 {
		return nil
	}
	return func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, bytes)
		})
		return errors.Join(err, failed)
	}
}

// shown is an event as clients see it.
type shown struct {
	ID, Topic, Type, Time, Source string
	Data                          json.RawMessage
}

func decodeEvent(t testing.TB, b string) (e shown) {
	t.Helper()
	decodeJSON(t, b, &e)
	return e
}

func decodeJSON(t testing.TB, b string, into any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(b), into), b)
}

func newBuffered(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }
