package protocol_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

func TestEventBytes(t *testing.T) {
	full := protocol.Publication{
		Topic: "jobs.7b0c", Type: `a"b\c`, Time: "2026-05-27T10:15:00.123Z", Source: "node <7> \u2028 é",
		Data: []byte(`{"progress":42}`), Key: "k", Final: true, Dedupe: "d",
	}
	require.Equal(t,
		`{"id":"k3f9x2-1042","topic":"jobs.7b0c","type":"a\"b\\c","time":"2026-05-27T10:15:00.123Z","source":"node <7> `+"\u2028"+` é","data":{"progress":42}}`,
		string(newEvent("k3f9x2-1042", full).JSON), "members in the order of the contract; key, final and dedupe are not shown")
	require.Equal(t,
		`{"id":"e-1","topic":"a","type":"t","time":"2026-05-27T08:15:00.123Z","data":null}`,
		string(newEvent("e-1", protocol.Publication{Topic: "a", Type: "t", Data: []byte("null")}).JSON), "the hub's own time is UTC, to the millisecond")
}

func TestMeta(t *testing.T) {
	at, source := newEvent("e-1", protocol.Publication{Topic: "a", Type: "t", Time: "2026-05-27T12:15:00+02:00", Source: "node", Data: []byte(`{"time":1,"source":2}`)}).Meta()
	require.True(t, at.Equal(time.Date(2026, 5, 27, 10, 15, 0, 0, time.UTC)), at)
	require.Equal(t, "node", source)
	at, source = newEvent("e-1", protocol.Publication{Topic: "a", Type: "t", Data: []byte("1")}).Meta()
	require.True(t, at.Equal(time.Date(2026, 5, 27, 8, 15, 0, 123e6, time.UTC)), at)
	require.Empty(t, source)
	at, source = (&protocol.Event{JSON: []byte("{")}).Meta()
	require.True(t, at.IsZero())
	require.Empty(t, source)
}

// The frame of an encoding is made once, also when many ask for it at once, and
// carries the same JSON everywhere.
func TestFrames(t *testing.T) {
	e := newEvent("e-1", protocol.Publication{Topic: "a", Type: "t.v1", Data: []byte(`{"n":1}`)})
	json := string(e.JSON)
	frames := map[protocol.Encoding]string{
		protocol.WebSocket:    "\x81" + string(rune(len(json))) + json,
		protocol.SSE:          "id: e-1\ndata: " + json + "\n\n",
		protocol.SSENamed:     "id: e-1\nevent: t.v1\ndata: " + json + "\n\n",
		protocol.SSENoID:      "data: " + json + "\n\n",
		protocol.SSENamedNoID: "event: t.v1\ndata: " + json + "\n\n",
	}
	for range 300 {
		e = newEvent("e-1", protocol.Publication{Topic: "a", Type: "t.v1", Data: []byte(`{"n":1}`)})
		var all sync.WaitGroup
		var got [4][5]*byte
		for i := range got {
			all.Go(func() {
				for enc := range protocol.Encoding(5) {
					got[i][enc] = &e.Frame(enc)[0]
				}
			})
		}
		all.Wait()
		for i := range got {
			require.Equal(t, got[0], got[i], "shared, not made again")
		}
	}
	for enc, want := range frames {
		require.Equal(t, want, string(e.Frame(enc)))
		require.Zero(t, testing.AllocsPerRun(100, func() { e.Frame(enc) }))
	}
}

func TestWithoutID(t *testing.T) {
	for enc, want := range map[protocol.Encoding]protocol.Encoding{
		protocol.WebSocket: protocol.WebSocket, protocol.SSE: protocol.SSENoID, protocol.SSENamed: protocol.SSENamedNoID,
		protocol.SSENoID: protocol.SSENoID, protocol.SSENamedNoID: protocol.SSENamedNoID,
	} {
		require.Equal(t, want, enc.WithoutID())
	}
}

// A frame costs its bytes and the pointer to them.
func TestFirstFrameAllocates(t *testing.T) {
	for enc := range protocol.Encoding(5) {
		events := make([]*protocol.Event, 101)
		for i := range events {
			events[i] = newEvent("e-1", protocol.Publication{Topic: "a", Type: "t.v1", Data: []byte(`{"n":1}`)})
		}
		n := 0
		require.LessOrEqual(t, testing.AllocsPerRun(100, func() { events[n].Frame(enc); n++ }), 3.0, enc)
	}
}
