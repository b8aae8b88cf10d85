package protocol

import (
	"encoding/json"
	"sync/atomic"
	"time"
)

// Publication is one thing to be published: checked by ParsePublication,
// ParseCloudEvent or the ingest, and not changed after that.
type Publication struct {
	Topic  string
	Type   string
	Time   string // RFC 3339 with a zone, as the publisher gave it; "" = the hub's own
	Source string // optional
	Data   []byte // compact JSON
	Key    string // conflation key, optional
	Final  bool   // never superseded
	Dedupe string // the publisher's own id of the event, optional

	field string // where in the body its topic stood
}

// TopicField names what gave the topic in the body that was parsed, for errors:
// topic, events[3].topic, subject of a CloudEvent.
func (p *Publication) TopicField() string { return p.field }

// AppendBody appends what follows the id in the event's JSON, from the comma
// before "topic" to the closing brace. now stands in for a missing time.
func (p *Publication) AppendBody(b []byte, now time.Time) []byte {
	b = append(b, `,"topic":`...)
	b = appendString(b, p.Topic)
	b = append(b, `,"type":`...)
	b = appendString(b, p.Type)
	b = append(b, `,"time":`...)
	if p.Time != "" {
		b = appendString(b, p.Time)
	} else {
		b = append(b, '"')
		b = now.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
		b = append(b, '"')
	}
	if p.Source != "" {
		b = append(b, `,"source":`...)
		b = appendString(b, p.Source)
	}
	b = append(b, `,"data":`...)
	b = append(b, p.Data...)
	return append(b, '}')
}

// Event is a published event with its place in the tenant's sequence. It is
// shared by all its readers: nothing in it changes once it is in use, but for
// the frames, which are made at most once per encoding and safe for concurrent
// use.
type Event struct {
	Cursor Cursor
	Prev   uint64 // seq of the event before it in its topic, or the floor of the log if none was known
	Topic  string
	Type   string
	Key    string // conflation key, "" = never superseded by a later one
	Final  bool
	At     int64  // arrival in the log, ms since 1970 by the log's clock
	JSON   []byte // the event as clients see it, compact

	frames [encodings]atomic.Pointer[[]byte]
}

// Frame gives the bytes that carry the event in an encoding. They are shared:
// do not change them.
func (e *Event) Frame(enc Encoding) []byte {
	slot := &e.frames[enc]
	if f := slot.Load(); f != nil {
		return *f
	}
	var f []byte
	switch enc {
	case WebSocket:
		f = AppendTextFrame(make([]byte, 0, len(e.JSON)+10), e.JSON)
	default:
		id, name := "", ""
		if enc == SSE || enc == SSENamed {
			id = e.Cursor.String()
		}
		if enc == SSENamed || enc == SSENamedNoID {
			name = e.Type
		}
		f = AppendSSE(make([]byte, 0, len(e.JSON)+len(id)+len(name)+24), id, name, e.JSON)
	}
	slot.CompareAndSwap(nil, &f)
	return *slot.Load()
}

// Meta reads time and source from the event's JSON. The time is zero where it
// cannot be read, which a log does not let happen.
func (e *Event) Meta() (at time.Time, source string) {
	var m struct {
		Time   string `json:"time"`
		Source string `json:"source"`
	}
	if json.Unmarshal(e.JSON, &m) == nil {
		at, _ = time.Parse(time.RFC3339Nano, m.Time)
	}
	return at, m.Source
}
