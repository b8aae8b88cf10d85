package protocol

import (
	"bytes"
	"encoding/json"
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
	Topic    string `json:"topic"`
	Resumed  bool   `json:"resumed"`  // a cursor was given, and nothing after it is gone
	Replayed int    `json:"replayed"` // retained events sent before this message
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
	return encode(struct {
		Op           string `json:"op"`
		ConnectionID string `json:"connection_id"`
		TenantID     string `json:"tenant_id"`
		UserID       string `json:"user_id"`
		ExpiresAt    string `json:"expires_at"`
		Heartbeat    int    `json:"heartbeat"`
	}{"welcome", m.ConnectionID, m.TenantID, m.UserID, stamp(m.ExpiresAt), m.Heartbeat})
}

// Encode gives the JSON of the message.
func (m Gap) Encode() []byte {
	return encode(struct {
		Op     string    `json:"op"`
		Topic  string    `json:"topic"`
		Since  string    `json:"since"`
		Reason GapReason `json:"reason"`
	}{"gap", m.Topic, m.Since, m.Reason})
}

// Encode gives the JSON of the message.
func (m Subscribed) Encode() []byte {
	return encode(struct {
		Op     string            `json:"op"`
		Ref    string            `json:"ref,omitempty"`
		Topics []SubscribedTopic `json:"topics"`
		Cursor string            `json:"cursor"`
	}{"subscribed", m.Ref, m.Topics, m.Cursor.String()})
}

// Encode gives the JSON of the message.
func (m Unsubscribed) Encode() []byte {
	return encode(struct {
		Op     string   `json:"op"`
		Ref    string   `json:"ref,omitempty"`
		Topics []string `json:"topics"`
	}{"unsubscribed", m.Ref, m.Topics})
}

// Encode gives the JSON of the message.
func (m Authenticated) Encode() []byte {
	return encode(struct {
		Op        string `json:"op"`
		Ref       string `json:"ref,omitempty"`
		ExpiresAt string `json:"expires_at"`
	}{"authenticated", m.Ref, stamp(m.ExpiresAt)})
}

// Encode gives the JSON of the message.
func (m Pong) Encode() []byte {
	return encode(struct {
		Op  string `json:"op"`
		Ref string `json:"ref,omitempty"`
	}{"pong", m.Ref})
}

// Encode gives the JSON of the message.
func (m Heartbeat) Encode() []byte {
	return encode(struct {
		Op     string `json:"op"`
		Cursor string `json:"cursor,omitempty"`
	}{"heartbeat", m.Cursor.String()})
}

// Encode gives the JSON of the message.
func (m Expiring) Encode() []byte {
	return encode(struct {
		Op        string `json:"op"`
		ExpiresAt string `json:"expires_at"`
	}{"expiring", stamp(m.ExpiresAt)})
}

// Encode gives the JSON of the message.
func (m Bye) Encode() []byte {
	return encode(struct {
		Op     string    `json:"op"`
		Code   CloseCode `json:"code"`
		Reason string    `json:"reason"`
		Retry  int64     `json:"retry"`
		Cursor string    `json:"cursor,omitempty"`
	}{"bye", m.Code, m.Code.Reason(), m.Retry.Milliseconds(), m.Cursor.String()})
}

// Encode gives the JSON of the message.
func (m ErrorMessage) Encode() []byte {
	return encode(struct {
		Op    string `json:"op"`
		Ref   string `json:"ref,omitempty"`
		Error *Error `json:"error"`
	}{"error", m.Ref, m.Error})
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// encode is json.Marshal without the escapes meant for HTML: patterns hold a >.
// The structs above cannot fail to encode.
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
func appendString(b []byte, s string) []byte {
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
