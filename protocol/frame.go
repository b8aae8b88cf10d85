package protocol

import (
	"encoding/binary"
	"strconv"
	"time"
)

// Encoding is a way to put an event on a connection.
type Encoding uint8

// The encodings. Those without an id are for events that are shown for "last":
// an id there would promise that everything before it was sent.
const (
	WebSocket Encoding = iota
	SSE
	SSENamed
	SSENoID
	SSENamedNoID
	encodings
)

// WithoutID gives the encoding that leaves out the id: line.
func (e Encoding) WithoutID() Encoding {
	switch e {
	case SSE:
		return SSENoID
	case SSENamed:
		return SSENamedNoID
	}
	return e
}

// AppendTextFrame appends a whole, unmasked WebSocket text frame (RFC 6455,
// section 5.2): what a server sends, the same bytes for every client.
func AppendTextFrame(b, payload []byte) []byte {
	const finText = 0x81
	switch n := len(payload); {
	case n < 126:
		b = append(b, finText, byte(n))
	case n < 1<<16:
		b = append(b, finText, 126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, finText, 127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(b, payload...)
}

// AppendCloseFrame appends a WebSocket close frame (RFC 6455, section 5.5.1).
func AppendCloseFrame(b []byte, code CloseCode) []byte {
	const finClose = 0x88
	reason := code.Reason()
	b = append(b, finClose, byte(2+len(reason)))
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	return append(b, reason...)
}

// ControlName is the SSE event name of every message that is not an event.
const ControlName = "control"

// AppendSSE appends one block of an event stream (WHATWG HTML, section 9.2): an
// id: line unless id is empty, an event: line unless name is empty, one data:
// line. data must hold no line break, which compact JSON cannot.
func AppendSSE(b []byte, id, name string, data []byte) []byte {
	if id != "" {
		b = append(b, "id: "...)
		b = append(b, id...)
		b = append(b, '\n')
	}
	if name != "" {
		b = append(b, "event: "...)
		b = append(b, name...)
		b = append(b, '\n')
	}
	b = append(b, "data: "...)
	b = append(b, data...)
	return append(b, '\n', '\n')
}

// AppendRetry appends the block that tells an EventSource how long to wait
// before it reconnects.
func AppendRetry(b []byte, after time.Duration) []byte {
	b = append(b, "retry: "...)
	b = strconv.AppendInt(b, after.Milliseconds(), 10)
	return append(b, '\n', '\n')
}

// AppendComment appends a comment block: traffic that means nothing.
func AppendComment(b []byte) []byte { return append(b, ":\n\n"...) }
