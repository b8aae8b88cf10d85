package protocol_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

// unframe reads one whole frame of a server as RFC 6455, section 5.2 has it.
func unframe(t *testing.T, b []byte) (opcode byte, payload, rest []byte) {
	t.Helper()
	require.GreaterOrEqual(t, len(b), 2)
	require.Zero(t, b[0]&0x70, "no extension")
	require.NotZero(t, b[0]&0x80, "whole")
	require.Zero(t, b[1]&0x80, "a server masks nothing")
	n, at := uint64(b[1]), uint64(2)
	switch n {
	case 126:
		n, at = uint64(binary.BigEndian.Uint16(b[2:])), 4
		require.GreaterOrEqual(t, n, uint64(126), "the shortest form")
	case 127:
		n, at = binary.BigEndian.Uint64(b[2:]), 10
		require.GreaterOrEqual(t, n, uint64(1<<16), "the shortest form")
	}
	require.GreaterOrEqual(t, uint64(len(b)), at+n)
	return b[0] & 0x0f, b[at : at+n], b[at+n:]
}

func TestTextFrame(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 70_000} {
		payload := bytes.Repeat([]byte("x"), n)
		opcode, got, rest := unframe(t, protocol.AppendTextFrame(nil, payload))
		require.EqualValues(t, 1, opcode)
		require.Equal(t, string(payload), string(got), n)
		require.Empty(t, rest)
	}
	require.Equal(t, "before\x81\x02hi", string(protocol.AppendTextFrame([]byte("before"), []byte("hi"))))
}

func FuzzTextFrame(f *testing.F) {
	f.Add([]byte("{}"), uint(0))
	f.Add([]byte("x"), uint(65535))
	f.Fuzz(func(t *testing.T, payload []byte, more uint) {
		payload = append(payload, make([]byte, more%70_000)...)
		b := protocol.AppendTextFrame([]byte("ab"), payload)
		require.Equal(t, "ab", string(b[:2]))
		opcode, got, rest := unframe(t, b[2:])
		require.EqualValues(t, 1, opcode)
		require.True(t, bytes.Equal(payload, got))
		require.Empty(t, rest)
	})
}

// Every close code of the contract, its text, and its frame, which no code can
// make too long.
func TestCloseFrames(t *testing.T) {
	reasons := map[protocol.CloseCode]string{
		1001: "going_away", 1002: "bad_request", 1007: "bad_request", 1009: "message_too_big", 1012: "drain", 1013: "overload",
		4400: "bad_request", 4401: "unauthorized", 4403: "forbidden", 4408: "no_pong", 4413: "slow_consumer", 4429: "limit_reached",
	}
	for code := range protocol.CloseCode(5000) {
		reason := code.Reason()
		if want := reasons[code]; want != "" {
			require.Equal(t, want, reason, code)
		} else {
			require.Equal(t, "closed", reason, code)
		}
		opcode, payload, rest := unframe(t, protocol.AppendCloseFrame(nil, code))
		require.EqualValues(t, 8, opcode)
		require.Equal(t, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason, string(payload))
		require.LessOrEqual(t, len(payload), 125, "a control frame")
		require.Empty(t, rest)
	}
}

// dispatched is one event as an EventSource gives it to a page.
type dispatched struct{ lastID, name, data string }

// eventSource reads a stream as WHATWG HTML, section 9.2.6 says, to the letter.
// retry is that of the last retry: line, "" for none.
func eventSource(stream string) (events []dispatched, lastID, retry string) {
	var name string
	var data strings.Builder
	stream = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.TrimPrefix(stream, "\ufeff"))
	lines := strings.Split(stream, "\n")
	for _, line := range lines[:len(lines)-1] {
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if data.Len() > 0 {
				events = append(events, dispatched{lastID, name, strings.TrimSuffix(data.String(), "\n")})
			}
			name = ""
			data.Reset()
		case field == "event":
			name = value
		case field == "data":
			data.WriteString(value + "\n")
		case field == "id" && !strings.Contains(value, "\x00"):
			lastID = value
		case field == "retry" && strings.Trim(value, "0123456789") == "":
			retry = value
		}
	}
	return events, lastID, retry
}

func TestStreamBlocks(t *testing.T) {
	require.Equal(t, "id: e-1\nevent: t\ndata: {}\n\n", string(protocol.AppendSSE(nil, "e-1", "t", []byte("{}"))))
	require.Equal(t, "data: {}\n\n", string(protocol.AppendSSE(nil, "", "", []byte("{}"))))
	require.Equal(t, "retry: 2731\n\n", string(protocol.AppendRetry(nil, 2731*time.Millisecond+999*time.Microsecond)))
	require.Equal(t, ":\n\n", string(protocol.AppendComment(nil)))

	b := protocol.AppendRetry(nil, time.Second)
	b = protocol.AppendSSE(b, "", protocol.ControlName, []byte(`{"op":"welcome"}`))
	b = protocol.AppendComment(b)
	b = protocol.AppendSSE(b, "e-1", "", []byte(`{"id":"e-1"}`))
	b = protocol.AppendSSE(b, "", protocol.ControlName, []byte(`{"op":"gap"}`))
	events, lastID, retry := eventSource(string(b))
	require.Equal(t, []dispatched{{"", "control", `{"op":"welcome"}`}, {"e-1", "", `{"id":"e-1"}`}, {"e-1", "control", `{"op":"gap"}`}}, events,
		"a block without an id leaves the last one")
	require.Equal(t, "e-1", lastID)
	require.Equal(t, "1000", retry)
}

// Whatever may be in a type, a topic or data, an EventSource gets it whole and
// nothing else.
func FuzzStreamBlock(f *testing.F) {
	f.Add("t.v1", "source", `{"a":"\n"}`)
	f.Add(" leading: colon", "\u2028", `"data: x"`)
	f.Fuzz(func(t *testing.T, kind, source, data string) {
		compact, ok := protocol.Compact([]byte(data))
		if !ok || !protocol.CheckLabel(kind) || !protocol.CheckLabel(source) {
			return
		}
		p := protocol.Publication{Topic: "a", Type: kind, Source: source, Data: compact}
		e := newEvent("e-1", p)
		for enc, want := range map[protocol.Encoding]dispatched{
			protocol.SSE: {"e-1", "", string(e.JSON)}, protocol.SSENamed: {"e-1", kind, string(e.JSON)},
			protocol.SSENoID: {"", "", string(e.JSON)}, protocol.SSENamedNoID: {"", kind, string(e.JSON)},
		} {
			frame := e.Frame(enc)
			require.True(t, utf8.Valid(frame))
			events, _, retry := eventSource(string(frame))
			require.Equal(t, []dispatched{want}, events)
			require.Empty(t, retry)
		}
	})
}

// newEvent makes an event as a log does.
func newEvent(cursor string, p protocol.Publication) *protocol.Event {
	c, err := protocol.ParseCursor(cursor)
	if err != nil {
		panic(err)
	}
	return &protocol.Event{
		Cursor: c, Topic: p.Topic, Type: p.Type, Key: p.Key, Final: p.Final,
		JSON: p.AppendBody(fmt.Appendf(nil, `{"id":%q`, cursor), time.Date(2026, 5, 27, 10, 15, 0, 123_987_654, time.FixedZone("", 7200))),
	}
}
