package transport_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// The same event has the same bytes over WebSocket, SSE and the feed, and data is
// as published but for white space.
func TestSameBytes(t *testing.T) {
	i := start(t, nil)
	tok := token(t, nil)
	sse := i.stream("/api/v1/stream?topics=a.%3E,alerts&token=" + tok)
	before, subscribed := sse.begin()
	require.Empty(t, before)
	require.NotEmpty(t, subscribed.id, "a tenant without events has a cursor too")
	ws := i.dial("/api/v1/ws?topics=a.b&token=" + tok)
	require.Contains(t, ws.next(), `{"op":"welcome"`)
	require.Contains(t, ws.next(), `{"op":"subscribed","topics":[{"topic":"a.b","resumed":false,"replayed":0}],"cursor":"`+subscribed.id+`"}`)

	id := i.publish("a.b", "{ \"n\" : 1.00000000000000000001e+5,\n \"n\": 2, \"u\":\"\\u00e9\u2028<>&\" }")
	b := sse.next()
	require.Equal(t, id, b.id)
	require.Empty(t, b.event)
	require.True(t, strings.HasSuffix(b.data, "\"data\":{\"n\":1.00000000000000000001e+5,\"n\":2,\"u\":\"\\u00e9\u2028<>&\"}}"), b.data)
	require.Equal(t, b.data, ws.next())
	feed := i.do("GET", "/api/v1/events?topics=a.b", tok, "")
	require.Equal(t, "["+b.data+"]", string(feed.Data))
	require.Equal(t, id, feed.Meta.Next)
}

// One id brings back all topics and patterns of a stream, exactly.
func TestResumeByLastEventID(t *testing.T) {
	i := start(t, nil)
	path := "/api/v1/stream?topics=alerts,jobs.*,nodes.%3E&token=" + token(t, nil)
	first := i.stream(path)
	_, subscribed := first.begin()
	i.publish("alerts", "0")
	last := first.next().id
	require.NoError(t, first.body.Close())
	for n := range 400 {
		i.publish([]string{"alerts", "jobs.7", "nodes.a.b", "other"}[n%4], fmt.Sprint(n))
	}
	for name, id := range map[string]string{"before the first event": subscribed.id, "after it": last} {
		again := i.stream(path, "Last-Event-ID", id)
		require.NotEmpty(t, again.next().retry)
		require.Equal(t, id, again.next().id, "welcome repeats the client's own cursor")
		if name == "before the first event" {
			require.Contains(t, again.next().data, `"data":0`)
		}
		for n := range 400 {
			if n%4 == 3 {
				continue
			}
			b := again.next()
			require.Contains(t, b.data, fmt.Sprintf(`"data":%d}`, n), name)
			require.NotEmpty(t, b.id)
		}
		require.Contains(t, again.next().data, `{"op":"subscribed"`)
	}
}

func TestWebSocketCommands(t *testing.T) {
	i := start(t, nil)
	ws := i.dial("/api/v1/ws?token=" + token(t, nil))
	require.Contains(t, ws.next(), `{"op":"welcome"`)
	ws.say(`{"op":"ping","ref":"1"}`)
	require.Equal(t, `{"op":"pong","ref":"1"}`, ws.next())
	a := i.publish("alerts", "1")
	i.publish("jobs.1", "2")
	i.publish("jobs.1", "3")
	i.publish("alerts", "4")
	ws.say(`{"op":"subscribe","ref":"2","topics":[{"topic":"alerts","since":"` + a + `"},{"topic":"jobs.*","last":1},"nodes.n1"]}`)
	require.Contains(t, ws.next(), `"data":3}`)
	require.Contains(t, ws.next(), `"data":4}`)
	require.Contains(t, ws.next(), `{"op":"subscribed","ref":"2","topics":[{"topic":"alerts","resumed":true,"replayed":1},{"topic":"jobs.*","resumed":false,"replayed":1},{"topic":"nodes.n1","resumed":false,"replayed":0}]`)
	ws.say(`{"op":"unsubscribe","ref":"3","topics":["alerts"]}`)
	require.Equal(t, `{"op":"unsubscribed","ref":"3","topics":["alerts"]}`, ws.next())
	i.publish("alerts", "5")
	i.publish("jobs.9", "6")
	require.Contains(t, ws.next(), `"data":6}`)
	for range 10 {
		ws.say("nonsense")
		require.Contains(t, ws.next(), `{"op":"error","error":{"code":"bad_request"`)
	}
	require.Contains(t, ws.next(), `{"op":"bye","code":4400,"reason":"bad_request"`)
	_, err := ws.read()
	require.Equal(t, websocket.StatusCode(4400), websocket.CloseStatus(err))
}
