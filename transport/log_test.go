package transport_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/transport"
)

// entry is one line of the log.
type entry struct {
	Level, Message, Requester, Protocol, Method, Transport, Reason string
	RequestID                                                      string `json:"request_id"`
	ConnectionID                                                   string `json:"connection_id"`
	Path                                                           string `json:"uri_path"`
	Status, Events                                                 int
	RequestBytes                                                   int     `json:"request_bytes"`
	ResponseBytes                                                  int     `json:"response_bytes"`
	ResponseTime                                                   float64 `json:"response_time"`
	Seconds                                                        float64
}

// entries gives the log's lines about a request, each of which is one JSON object.
func (i *instance) entries(id string) (all []entry) {
	i.t.Helper()
	for line := range strings.Lines(i.lines.String()) {
		var e entry
		require.NoError(i.t, json.Unmarshal([]byte(line), &e), line)
		if e.RequestID == id {
			all = append(all, e)
		}
	}
	return all
}

// One line for each request, and one more when a connection ends: how long, how
// many events, why.
func TestLog(t *testing.T) {
	i := start(t, nil)
	tok := token(t, nil)
	body := `{"topic":"a","type":"t","data":1}`
	i.do("POST", "/api/v1/events", tok, body, "X-Request-Id", "publish")
	i.do("GET", "/api/v1/events?token=x", "", "", "X-Request-Id", "refused")
	i.do("GET", "/nothing/%0A%7B%22level%22:%22fatal%22%7D", tok, "", "X-Request-Id", "unknown")
	i.do("GET", "/health", "", "", "X-Request-Id", "health")
	s := i.stream("/api/v1/stream?topics=a&last=1&token="+tok, "X-Request-Id", "stream")
	s.begin()
	ws := i.dial("/api/v1/ws?topics=a&token="+tok, "X-Request-Id", "ws")
	require.Contains(t, ws.next(), "welcome")
	require.Contains(t, ws.next(), "subscribed")
	i.publish("a", "2")
	s.next()
	ws.next()
	require.NoError(t, ws.ws.Close(1000, ""))
	require.NoError(t, s.body.Close())
	require.Eventually(t, func() bool { return len(i.entries("ws")) == 2 && len(i.entries("stream")) == 2 }, i.patience, time.Millisecond)

	published := i.entries("publish")
	require.Len(t, published, 1)
	require.Positive(t, published[0].ResponseTime)
	published[0].ResponseTime = 0
	require.Equal(t, entry{
		Level: "info", Message: "request", Requester: "user:u1", Protocol: "HTTP/1.1", Method: "POST", RequestID: "publish",
		Path: "/api/v1/events", Status: 201, RequestBytes: len(body), ResponseBytes: published[0].ResponseBytes,
	}, published[0])
	require.Greater(t, published[0].ResponseBytes, 50)
	require.Equal(t, 401, i.entries("refused")[0].Status)
	require.Equal(t, "/nothing/\n{\"level\":\"fatal\"}", i.entries("unknown")[0].Path)
	require.Len(t, i.entries("health"), 1)
	for id, c := range map[string]struct {
		status, events    int
		transport, reason string
	}{"stream": {200, 2, "sse", "client_gone"}, "ws": {101, 1, "websocket", "client_closed"}} {
		e := i.entries(id)
		require.Equal(t, [2]string{"request", "connection closed"}, [2]string{e[0].Message, e[1].Message})
		require.Equal(t, c.status, e[0].Status)
		require.Equal(t, entry{
			Level: "info", Message: "connection closed", Requester: "user:u1", Transport: c.transport, Reason: c.reason, RequestID: id,
			ConnectionID: e[1].ConnectionID, Path: e[0].Path, Events: c.events, ResponseBytes: e[1].ResponseBytes, Seconds: e[1].Seconds,
		}, e[1])
		require.Greater(t, e[1].ResponseBytes, 200)
		require.NotEmpty(t, e[1].ConnectionID)
		require.Positive(t, e[1].Seconds)
	}
}

// No token is in any line of the log, nor in an answer, wherever it came from and
// whatever became of the request.
func TestNoTokenIsLogged(t *testing.T) {
	i := start(t, func(o *transport.Options) { o.Limits.Connections = 2 })
	good := token(t, nil)
	bad := good[:len(good)-6] + "AAAAAA"
	for _, tok := range []string{good, bad, strings.Repeat("eyJ", 6000), "eyJhbGciOiJIUzI1NiJ9.e30.x"} {
		for _, path := range []string{"/api/v1/ws", "/api/v1/stream?topics=a..b", "/api/v1/stream", "/api/v1/events", "/nothing", "/api/v1/jobs/7/stream?topics=users.u2"} {
			join := "?"
			if strings.Contains(path, "?") {
				join = "&"
			}
			for _, a := range []answer{
				i.do("GET", path+join+"token="+tok, "", ""),
				i.do("GET", path+join+"token="+tok+"&a=%zz", "", ""),
				i.do("POST", path+join+"token="+tok, "", "{"),
				i.do("GET", path, tok, "", "Sec-WebSocket-Protocol", "pushhub.v2, pushhub.bearer."+tok),
				i.do("GET", path, "", "", append(upgrade, "Sec-WebSocket-Protocol", "pushhub.v2, pushhub.bearer."+tok)...),
			} {
				require.NotContains(t, a.body, "eyJ")
				require.NotContains(t, fmt.Sprint(a.header), "eyJ")
			}
		}
	}
	ws := i.dial("/api/v1/ws", "Authorization", "Bearer "+good)
	require.Contains(t, ws.next(), "welcome")
	require.Contains(t, ws.auth(bad), "unauthorized")
	ws.say(`{"op":"auth","token":["` + good + `"]}`)
	require.NotContains(t, ws.next(), "eyJ")
	require.NoError(t, ws.ws.Close(1000, ""))
	require.Eventually(t, func() bool { return strings.Contains(i.lines.String(), "client_closed") }, i.patience, time.Millisecond)
	requireNoTokens(t, i)
}
