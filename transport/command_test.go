package transport_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/transport"
)

// open dials without topics and takes the welcome.
func (i *instance) open(headers ...string) *socket {
	i.t.Helper()
	ws := i.dial("/api/v1/ws?token="+token(i.t, nil), headers...)
	require.Contains(i.t, ws.next(), "welcome")
	return ws
}

// ended expects bye and the close frame with its code.
func (s *socket) ended(code int, reason string) {
	s.t.Helper()
	require.Regexp(s.t, fmt.Sprintf(`^{"op":"bye","code":%d,"reason":"%s","retry":[0-9]+(,"cursor":"[^"]+")?}$`, code, reason), s.next())
	_, err := s.read()
	var closed websocket.CloseError
	require.ErrorAs(s.t, err, &closed)
	require.Equal(s.t, websocket.CloseError{Code: websocket.StatusCode(code), Reason: reason}, closed)
}

func TestMalformedMessages(t *testing.T) {
	i := start(t, nil)
	ws := i.open("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	for message, details := range map[string]string{
		`x`:                             `{"message":"malformed"}`,
		`{}`:                            `{"op":"required"}`,
		`{"op":"shout"}`:                `{"op":"not_supported"}`,
		`{"op":"subscribe"}`:            `{"topics":"required"}`,
		`{"op":"subscribe","topics":1}`: `{"topics":"malformed"}`,
		`{"op":"subscribe","topics":["a"],"since":"x"}`: `{"since":"malformed"}`,
		`{"op":"auth"}`:              `{"token":"required"}`,
		`{"op":"ping","ref":["\""]}`: `{"ref":"malformed"}`,
	} {
		ws.say(message)
		require.Regexp(t, `^{"op":"error","error":{"code":"bad_request","message":"[^"]+","origin":"message","details":`+details+
			`,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}}$`, ws.next(), message)
	}
	ws.say(`{"op":"subscribe","ref":"\u003c7>","topics":["a..b"]}`)
	require.Contains(t, ws.next(), `{"op":"error","ref":"<7>","error":{`, "the ref comes back")
}

// Ten malformed messages in a row are too many. Any well-formed one ends the row,
// also one that is refused.
func TestTenMalformed(t *testing.T) {
	i := start(t, nil)
	for _, end := range []string{`{"op":"ping"}`, `{"op":"subscribe","topics":["users.u2"]}`, `{"op":"unsubscribe","topics":["never"]}`, `{"op":"auth","token":"x"}`} {
		ws := i.open()
		for range 3 {
			for n := range 9 {
				if n%2 == 0 {
					ws.say(`{"op":"none"}`)
				} else {
					require.NoError(t, ws.ws.Write(context.Background(), websocket.MessageBinary, []byte(`{"op":"ping"}`)))
				}
				require.Contains(t, ws.next(), `"code":"bad_request"`)
			}
			ws.say(end)
			require.NotContains(t, ws.next(), "bye")
		}
		for range 10 {
			ws.say("")
			require.Contains(t, ws.next(), `{"message":"malformed"}`)
		}
		ws.ended(4400, "bad_request")
	}
}

func TestBinaryMessage(t *testing.T) {
	i := start(t, nil)
	ws := i.open()
	require.NoError(t, ws.ws.Write(context.Background(), websocket.MessageBinary, []byte(`{"op":"ping","ref":"1"}`)))
	require.Contains(t, ws.next(), `"details":{"message":"not_supported"}`)
}

func TestMaxMessageBytes(t *testing.T) {
	i := start(t, func(o *transport.Options) { o.Limits.MessageBytes = 1000 })
	fits := `{"op":"ping","more":"` + strings.Repeat("x", 977) + `"}`
	require.Len(t, fits, 1000)
	ws := i.open()
	ws.say(fits)
	require.Equal(t, `{"op":"pong"}`, ws.next())
	ws.say(fits + " ")
	ws.ended(1009, "message_too_big")

	whole := i.raw(0) // in pieces: no frame alone is too large
	whole.handshake("/api/v1/ws?token="+token(t, nil), "HTTP/1.1")
	whole.accepted()
	whole.frame()
	piece := maskedFrame(1, strings.Repeat("x", 400))
	whole.write("\x01" + piece[1:])
	for range 5 {
		whole.write("\x00" + piece[1:])
	}
	_, bye := whole.frame()
	require.Contains(t, bye, `"code":1009`)

	vast := i.raw(0) // declared, never sent
	vast.handshake("/api/v1/ws?token="+token(t, nil), "HTTP/1.1")
	vast.accepted()
	vast.frame()
	vast.write("\x81\xff\x3f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00" + strings.Repeat("x", 2000))
	_, bye = vast.frame()
	require.Contains(t, bye, `"code":1009`)
}

// MAX_TOPICS is of the whole connection; a refused subscribe changes nothing.
func TestMaxTopics(t *testing.T) {
	i := start(t, func(o *transport.Options) { o.Limits.Topics = 3 })
	ws := i.dial("/api/v1/ws?topics=a,b&token=" + token(t, nil))
	require.Contains(t, ws.next(), "welcome")
	require.Contains(t, ws.next(), "subscribed")
	refused := `{"op":"error","ref":"1","error":{"code":"bad_request","message":"a connection can have 3 subscriptions","origin":"message","details":{"topics":"invalid"}`
	ws.say(`{"op":"subscribe","ref":"1","topics":["c","d"]}`)
	require.Contains(t, ws.next(), refused)
	ws.say(`{"op":"subscribe","ref":"1","topics":["a","a","a","a"]}`)
	require.Contains(t, ws.next(), refused, "no message names more, though they are the same")
	i.publish("c", "0")
	i.publish("a", "1")
	require.Contains(t, ws.next(), `"data":1}`, "c was not subscribed")
	ws.say(`{"op":"subscribe","ref":"2","topics":["a","b","c"]}`)
	require.Contains(t, ws.next(), `{"op":"subscribed","ref":"2"`)
	ws.say(`{"op":"unsubscribe","ref":"3","topics":["b","never"]}`)
	require.Equal(t, `{"op":"unsubscribed","ref":"3","topics":["b","never"]}`, ws.next())
	ws.say(`{"op":"subscribe","ref":"4","topics":["d"]}`)
	require.Contains(t, ws.next(), `{"op":"subscribed","ref":"4"`)
	ws.say(`{"op":"subscribe","ref":"1","topics":["e"]}`)
	require.Contains(t, ws.next(), refused)
}

// A subscribe with one topic that is not granted subscribes to none of them.
func TestRefusedSubscribe(t *testing.T) {
	i := start(t, nil)
	ws := i.dial("/api/v1/ws?topics=z&token=" + token(t, func(c *auth.Claims) { c.Topics = []string{"a", "z"} }))
	require.Contains(t, ws.next(), "welcome")
	require.Contains(t, ws.next(), "subscribed")
	ws.say(`{"op":"subscribe","ref":"1","topics":["a","b"]}`)
	require.Regexp(t, `^{"op":"error","ref":"1","error":{"code":"forbidden","message":"[^"]+","origin":"message","details":{"topics":"forbidden"}`, ws.next())
	i.publish("a", "1")
	i.publish("z", "2")
	require.Contains(t, ws.next(), `"data":2}`)
}

// The order of a subscription: gaps, what is retained, subscribed, live. Each
// topic may have a cursor of its own, an exact topic's own wins over a pattern's,
// and what overlaps comes once.
func TestSubscribeOrder(t *testing.T) {
	i := start(t, nil)
	first := i.publish("a.x", "1")
	i.publish("b", "2")
	i.publish("a.y", "3")
	middle := i.publish("a.x", "4")
	i.publish("b", "5")
	i.publish("a.y", "6")
	i.log.Trim("acme", "b", 1)
	for _, c := range []struct{ topics, want string }{
		{`[{"topic":"a.*","since":"` + first + `"},{"topic":"b","since":"` + first + `"}]`, "gap b, 3, 4, 5, 6"},
		{`[{"topic":"a.*","since":"` + first + `"},{"topic":"a.x","since":"` + middle + `"}]`, "3, 6"},
		{`[{"topic":"a.*","since":"` + middle + `"},{"topic":"a.x","since":"` + first + `"}]`, "4, 6"},
		{`["a.x","a.*",">"],"since":"` + middle + `"`, "5, 6"},
		{`[{"topic":"b","last":5},{"topic":"a.*","last":1}]`, "4, 5, 6"},
		{`["a.x"],"last":1`, "4"},
		{`["a.x"],"last":1,"since":"` + middle + `"`, ""},
	} {
		ws := i.open()
		ws.say(`{"op":"subscribe","ref":"1","topics":` + c.topics + `}`)
		var got []string
		m := ws.next()
		for ; !strings.HasPrefix(m, `{"op":"subscribed","ref":"1"`); m = ws.next() {
			if strings.HasPrefix(m, `{"op":"gap"`) {
				var gap struct{ Topic string }
				decodeJSON(t, m, &gap)
				got = append(got, "gap "+gap.Topic)
			} else {
				got = append(got, string(decodeEvent(t, m).Data))
			}
		}
		require.Equal(t, c.want, strings.Join(got, ", "), c.topics)
	}
}
