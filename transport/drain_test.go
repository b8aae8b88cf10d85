package transport_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport"
)

// drain begins to drain and gives the outcome.
func (i *instance) drain(ctx context.Context) chan error {
	done := make(chan error, 1)
	go func() { done <- i.server.Drain(ctx) }()
	return done
}

// Every client is closed in its turn, and told when to come back and from where; no
// new one is taken; publishers are served to the end.
func TestDrain(t *testing.T) {
	onAllWays(t, nil, func(t *testing.T, i *instance, w way) {
		i = i.in(t)
		tok := token(t, nil)
		require.Equal(t, 200, i.do("GET", "/health", "", "").status)
		holder := i.hold()
		streams := make([]*stream, 5)
		for n := range streams {
			streams[n] = i.stream("/api/v1/stream?topics=a&token=" + tok)
			streams[n].begin()
		}
		id := i.publish("a", "1")
		for _, s := range streams {
			require.Equal(t, id, s.next().id)
		}
		done := i.drain(t.Context())
		require.Regexp(t, `^{"op":"bye","code":1012,"reason":"drain","retry":\d+,"cursor":"[a-z0-9]+-[01]"}$`, holder())
		first := i.publish("a", "2") // they are served until it is their turn
		for n, s := range streams {
			last := id
			b := s.next()
			if b.id == first {
				last, b = first, s.next()
			}
			require.True(t, n < len(streams)-1 || last == first, "the last was not served any more")
			require.Equal(t, block{last, "control", byeJSON(protocol.Drain, b.retry, last), ""}, s.next())
			_, err := s.read()
			require.Equal(t, io.EOF, err)
			retry, err := strconv.Atoi(b.retry)
			require.NoError(t, err)
			turn := drainTime / 2 * time.Duration(n+1) / time.Duration(len(streams)+1)
			require.GreaterOrEqual(t, retry, int(max(100*time.Millisecond, turn).Milliseconds()), "as long as it was still served")
		}

		health := i.do("GET", "/health", "", "")
		require.Equal(t, 503, health.status)
		require.Contains(t, health.body, `{"status":"unhealthy","version":"test"`)
		require.Equal(t, 200, i.do("GET", "/health/live", "", "").status)
		requireBye(t, i.stream("/api/v1/stream?topics=a&token="+tok), protocol.Drain, "")
		i.publish("a", "3")
		select {
		case err := <-done:
			t.Fatal("it did not wait for the last client: ", err)
		default:
		}
		holder()
		require.NoError(t, <-done)
		require.Contains(t, i.lines.String(), `"reason":"drain"`)
	})
}

// Clients are closed evenly over the first half of the drain time, and told to come back
// evenly over the whole: twice as long after it began.
func TestDrainIsSpread(t *testing.T) {
	const clients, over = 20, 10 * time.Second
	bubble(t, func(o *transport.Options) { o.Limits.Drain = over }, func(t *testing.T, i *instance) {
		streams := make([]*stream, clients)
		for n := range streams {
			streams[n] = i.stream("/api/v1/stream?topics=a&token=" + token(t, nil))
			streams[n].begin()
		}
		began := time.Now()
		done := i.drain(t.Context())
		for n, s := range streams {
			b := s.next()
			turn := over / 2 * time.Duration(n) / clients
			require.Equal(t, turn, time.Since(began).Round(time.Millisecond), n)
			require.Equal(t, strconv.FormatInt(max(100*time.Millisecond, turn).Milliseconds(), 10), b.retry, n)
			s.next()
			_, err := s.read()
			require.Equal(t, io.EOF, err)
		}
		require.NoError(t, <-done)
	})
}

// Who keeps a connection to publish is asked with the answer to make another.
func TestDrainSendsPublishersAway(t *testing.T) {
	i := start(t, nil)
	holder := i.hold()
	keeps := &http.Client{Transport: &http.Transport{}}
	closes := func() bool {
		answer, err := keeps.Get(i.base + "/health/live")
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		return answer.Close
	}
	require.False(t, closes())
	done := i.drain(t.Context())
	holder()
	require.True(t, closes())
	holder()
	require.NoError(t, <-done)
}

// hold gives a WebSocket of a plain client that does not close by itself: the
// first call gives its bye, the second closes.
func (i *instance) hold() func() string {
	i.t.Helper()
	if strings.HasPrefix(i.base, "https") {
		s := i.stream("/api/v1/stream?topics=a&token=" + token(i.t, nil))
		s.begin()
		calls := 0
		return func() (m string) {
			if calls++; calls > 1 {
				require.NoError(i.t, s.body.Close())
				return ""
			}
			for m = s.next().data; !strings.Contains(m, "bye"); m = s.next().data {
			}
			return m
		}
	}
	c := i.raw(0)
	c.handshake("/api/v1/ws?topics=a&token="+token(i.t, nil), "HTTP/1.1")
	c.accepted()
	for _, m := c.frame(); !strings.Contains(m, "subscribed"); _, m = c.frame() {
	}
	calls := 0
	return func() (m string) {
		if calls++; calls > 1 {
			require.NoError(i.t, c.net.Close())
			return ""
		}
		for _, m = c.frame(); !strings.Contains(m, "bye"); _, m = c.frame() {
		}
		opcode, _ := c.frame()
		require.EqualValues(i.t, 8, opcode)
		return m
	}
}

// A WebSocket of a page is told by the close code, any other by the status.
func TestWebSocketWhileDraining(t *testing.T) {
	i := start(t, nil)
	holder := i.hold()
	done := i.drain(t.Context())
	holder()
	require.Equal(t, 503, i.do("GET", "/api/v1/ws", token(t, nil), "", upgrade...).status)
	ws := i.dial("/api/v1/ws?token="+token(t, nil), "Origin", i.base)
	require.Contains(t, ws.next(), `{"op":"error","error":{"code":"unavailable"`)
	ws.ended(1012, "drain")
	holder()
	require.NoError(t, <-done)
}

// Who does not leave is cut off when the time is over.
func TestDrainEndsInTime(t *testing.T) {
	i := start(t, nil)
	i.hold()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	<-i.drain(ctx)
	require.Less(t, time.Since(began), 4*time.Second, "not only after the linger time")
	require.NoError(t, <-i.drain(t.Context()), "nothing is left to be waited for")
}

func TestDrainWithoutClients(t *testing.T) {
	i := start(t, nil)
	require.NoError(t, <-i.drain(t.Context()))
	require.NoError(t, <-i.drain(t.Context()))
	_, err := (&http.Client{Transport: i.client()}).Get(i.base + "/health/live")
	require.Error(t, err, "nothing listens any more")

	i = start(t, nil)
	require.NoError(t, i.server.Close())
	require.NoError(t, <-i.drain(t.Context()), "also after the end")
}

func TestClose(t *testing.T) {
	i := start(t, nil)
	ws := i.open()
	s := i.stream("/api/v1/stream?topics=a&token=" + token(t, nil))
	s.begin()
	require.NoError(t, i.server.Close())
	_, err := ws.read()
	require.Error(t, err)
	require.Equal(t, websocket.StatusCode(-1), websocket.CloseStatus(err))
	_, err = s.read()
	require.Error(t, err)
	require.NoError(t, <-i.drain(t.Context()), "there is nobody left")
}

// Health tells the state behind the hub; 503 is only for what a proxy should act
// on.
func TestHealth(t *testing.T) {
	var state transport.State
	i := start(t, func(o *transport.Options) { o.State = func() transport.State { return state } })
	for _, c := range []struct {
		state  transport.State
		status int
		word   string
	}{
		{transport.State{Ready: false, Redis: "disconnected"}, 503, "unhealthy"},
		{transport.State{Ready: true, Redis: "connected", Services: map[string]string{"ingest": "leading"}}, 200, "healthy"},
		{transport.State{Ready: true, Redis: "disconnected", Degraded: true}, 200, "degraded"},
		{transport.State{Ready: true, Redis: "none"}, 200, "healthy"},
	} {
		state = c.state
		for _, path := range []string{"/health", "/api/v1/health"} {
			a := i.do("GET", path, "", "")
			require.Equal(t, c.status, a.status)
			services := "{}"
			if c.state.Services != nil {
				services = `{"ingest":"leading"}`
			}
			require.Regexp(t, fmt.Sprintf(`^{"status":"%s","version":"test","services":%s,"redis":"%s","timestamp":"[0-9T:-]{19}Z"}$`, c.word, services, c.state.Redis), a.body)
		}
		live := i.do("GET", "/health/live", "", "")
		require.Equal(t, 200, live.status)
	}
}
