package protocol

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
)

// The messages from the hub to a client. Each is one JSON object with its op
// first; events alone have none. Encode gives the bytes.

// Welcome is the first message of every connection.
type Welcome struct {
	ConnectionID string
	TenantID     string
	UserID       string
	ExpiresAt    time.Time
	Heartbeat    int // seconds
}

// Gap says that events of a topic after Since are gone. Topic is the pattern as
// it was subscribed where a pattern is concerned.
type Gap struct {
	Topic  string
	Since  string // the cursor from which something may be missing, as far as known
	Reason GapReason
}

// GapReason says why events are gone.
type GapReason string

// The reasons of a gap.
const (
	GapExpired GapReason = "expired" // trimmed by count or age
	GapEpoch   GapReason = "epoch"   // the cursor is not of this life of the log
)

// Subscribed says "caught up": what was subscribed is complete up to Cursor.
type Subscribed struct {
	Ref    string
	Topics []SubscribedTopic
	Cursor Cursor
}

// SubscribedTopic is one topic or pattern of Subscribed.
type SubscribedTopic struct {
	Topic    string
	Resumed  bool // a cursor was given, and nothing after it is gone
	Replayed int  // retained events sent before this message
}

// Unsubscribed answers unsubscribe; without a Ref it tells that a narrower token
// took topics away.
type Unsubscribed struct {
	Ref    string
	Topics []string
}

// Authenticated answers auth.
type Authenticated struct {
	Ref       string
	ExpiresAt time.Time
}

// Pong answers ping.
type Pong struct{ Ref string }

// Heartbeat is sent after an interval without traffic. A zero Cursor means that
// it cannot safely advance now.
type Heartbeat struct{ Cursor Cursor }

// Expiring tells that the token ends soon.
type Expiring struct{ ExpiresAt time.Time }

// Bye is the last message of a connection that the hub closes.
type Bye struct {
	Code   CloseCode
	Retry  time.Duration // when to come back
	Cursor Cursor        // last event completely written; zero if none was
}

// ErrorMessage answers a message that is refused.
type ErrorMessage struct {
	Ref   string
	Error *Error
}

// Encode gives the JSON of the message.
func (m Welcome) Encode() []byte {
	return begin("welcome").text("connection_id", m.ConnectionID).text("tenant_id", m.TenantID).text("user_id", m.UserID).
		text("expires_at", stamp(m.ExpiresAt)).number("heartbeat", int64(m.Heartbeat)).end()
}

// Encode gives the JSON of the message.
func (m Gap) Encode() []byte {
	return begin("gap").text("topic", m.Topic).text("since", m.Since).text("reason", string(m.Reason)).end()
}

// Encode gives the JSON of the message.
func (m Subscribed) Encode() []byte {
	b := begin("subscribed").some("ref", m.Ref).name("topics")
	b = append(b, '[')
	for i, t := range m.Topics {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(append(b, `{"topic":`...), t.Topic), `,"resumed":`...)
		b = append(strconv.AppendBool(b, t.Resumed), `,"replayed":`...)
		b = append(strconv.AppendInt(b, int64(t.Replayed), 10), '}')
	}
	return append(b, ']').text("cursor", m.Cursor.String()).end()
}

// Encode gives the JSON of the message.
func (m Unsubscribed) Encode() []byte {
	b := begin("unsubscribed").some("ref", m.Ref).name("topics")
	b = append(b, '[')
	for i, t := range m.Topics {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, t)
	}
	return append(b, ']').end()
}

// Encode gives the JSON of the message.
func (m Authenticated) Encode() []byte {
	return begin("authenticated").some("ref", m.Ref).text("expires_at", stamp(m.ExpiresAt)).end()
}

// Encode gives the JSON of the message.
func (m Pong) Encode() []byte { return begin("pong").some("ref", m.Ref).end() }

// Encode gives the JSON of the message.
func (m Heartbeat) Encode() []byte {
	return begin("heartbeat").some("cursor", m.Cursor.String()).end()
}

// Encode gives the JSON of the message.
func (m Expiring) Encode() []byte {
	return begin("expiring").text("expires_at", stamp(m.ExpiresAt)).end()
}

// Encode gives the JSON of the message.
func (m Bye) Encode() []byte {
	return begin("bye").number("code", int64(m.Code)).text("reason", m.Code.Reason()).number("retry", m.Retry.Milliseconds()).
		some("cursor", m.Cursor.String()).end()
}

// Encode gives the JSON of the message.
func (m ErrorMessage) Encode() []byte {
	return append(begin("error").some("ref", m.Ref).name("error"), encode(m.Error)...).end()
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// message is the JSON of one that is being written.
type message []byte

func begin(op string) message {
	return appendString(append(make(message, 0, 224), `{"op":`...), op)
}

func (m message) name(name string) message {
	return append(append(append(m, ',', '"'), name...), '"', ':')
}

func (m message) text(name, value string) message { return appendString(m.name(name), value) }

// some is text, but nothing where the value is empty.
func (m message) some(name, value string) message {
	if value == "" {
		return m
	}
	return m.text(name, value)
}

func (m message) number(name string, value int64) message {
	return strconv.AppendInt(m.name(name), value, 10)
}

func (m message) end() []byte { return append(m, '}') }

// encode is json.Marshal without the escapes meant for HTML: patterns hold a >.
// What is given cannot fail to encode.
func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// appendString appends s as a JSON string, without escapes meant for HTML.
func appendString[T ~[]byte](b T, s string) T {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
