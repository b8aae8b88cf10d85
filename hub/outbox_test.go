package hub_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// waiting is one frame of the model of an outbox.
type waiting struct {
	event  *protocol.Event // nil: a control message
	frame  string
	cursor protocol.Cursor
	live   bool
}

// model says what an Outbox does, with a plain list.
type model struct {
	queue            []waiting
	events, maxEvent int
	bytes, maxBytes  int
}

// event gives what Outbox.Event is to give.
func (m *model) event(w waiting, behind bool) (conflated, ok bool) {
	at := -1
	for i, old := range m.queue {
		if behind && w.event.Key != "" && old.live && !old.event.Final &&
			old.event.Topic == w.event.Topic && old.event.Key == w.event.Key {
			at = i // the newest of them
		}
		if old.live && old.event.Final && old.event.Topic == w.event.Topic && old.event.Key == w.event.Key {
			at = -1 // what waits before a final one stays
		}
	}
	events, bytes := m.events+1, m.bytes+len(w.frame)
	if at >= 0 {
		events, bytes = events-1, bytes-len(m.queue[at].frame)
	}
	if m.maxEvent > 0 && events > m.maxEvent || m.maxBytes > 0 && bytes > m.maxBytes && events > 1 {
		return false, false
	}
	if at >= 0 {
		m.queue = append(m.queue[:at], m.queue[at+1:]...)
	}
	m.events, m.bytes = events, bytes
	m.queue = append(m.queue, w)
	return at >= 0, true
}

func (m *model) take(n, maxBytes int) []waiting {
	var out []waiting
	bytes := 0
	for len(m.queue) > 0 && len(out) < n {
		w := m.queue[0]
		if bytes += len(w.frame); bytes > maxBytes && len(out) > 0 {
			break
		}
		out, m.queue = append(out, w), m.queue[1:]
		if w.live {
			m.events--
			m.bytes -= len(w.frame)
		}
	}
	return out
}

func TestOutboxAgainstModel(t *testing.T) {
	keys := []string{"", "k", "k", "k", "l", "m", "n", "o", "p"}
	rapid.Check(t, func(t *rapid.T) {
		m := &model{
			maxEvent: rapid.SampledFrom([]int{0, 3, 200}).Draw(t, "max events"),
			maxBytes: rapid.SampledFrom([]int{0, 20, 2000}).Draw(t, "max bytes"),
		}
		box := &hub.Outbox{MaxEvents: m.maxEvent, MaxBytes: m.maxBytes}
		seq := uint64(0)
		next := func() waiting {
			seq++
			return waiting{
				event: &protocol.Event{
					Cursor: protocol.Cursor{Epoch: "e", Seq: seq},
					Topic:  rapid.SampledFrom([]string{"a", "b"}).Draw(t, "topic"),
					Key:    rapid.SampledFrom(keys).Draw(t, "key"),
					Final:  rapid.IntRange(0, 5).Draw(t, "final") == 0,
				},
				frame: fmt.Sprintf("%0*d", rapid.IntRange(1, 9).Draw(t, "width"), seq),
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"live": func(t *rapid.T) {
				// Many at once, that holes come to be more than frames.
				for range rapid.SampledFrom([]int{1, 1, 1, 90}).Draw(t, "n") {
					w, behind := next(), rapid.IntRange(0, 9).Draw(t, "behind") > 0
					w.live, w.cursor = true, w.event.Cursor
					conflated, ok := m.event(w, behind)
					gotConflated, gotOK := box.Event(w.event, []byte(w.frame), true, behind)
					require.Equal(t, [2]bool{conflated, ok}, [2]bool{gotConflated, gotOK})
				}
			},
			"retained": func(t *rapid.T) {
				w := next()
				m.queue = append(m.queue, w)
				box.Add(hub.RetainedEntry(w.event, []byte(w.frame), false))
			},
			"control": func(*rapid.T) {
				w := waiting{frame: "{}", cursor: protocol.Cursor{Epoch: "e", Seq: seq}}
				m.queue = append(m.queue, w)
				box.Add(hub.ControlEntry([]byte(w.frame), w.cursor))
			},
			"take": func(t *rapid.T) {
				n, maxBytes := rapid.IntRange(1, 40).Draw(t, "n"), rapid.IntRange(1, 60).Draw(t, "bytes")
				want := m.take(n, maxBytes)
				got := box.Take(make([]hub.Entry, 0, n), maxBytes)
				require.Len(t, got, len(want))
				for i, w := range want {
					require.Equal(t, w.frame, string(got[i].Frame))
					require.Same(t, w.event, got[i].Event)
					if w.cursor.IsZero() {
						require.Nil(t, got[i].Cursor)
					} else {
						require.Equal(t, w.cursor, *got[i].Cursor)
					}
					require.Equal(t, w.live, got[i].Live())
				}
			},
			"drop": func(t *rapid.T) {
				if rapid.IntRange(0, 20).Draw(t, "really") == 0 {
					m.queue, m.events, m.bytes = nil, 0, 0
					box.Drop()
				}
			},
			"": func(t *rapid.T) {
				bytes, replaying := 0, 0
				for _, w := range m.queue {
					bytes += len(w.frame)
					if w.event != nil && !w.live {
						replaying++
					}
				}
				require.Equal(t, len(m.queue), box.Len())
				require.Equal(t, bytes, box.Bytes())
				require.Equal(t, replaying, box.Replaying())
				require.Zero(t, box.Left(), "of one client, when another has the outbox")
			},
		})
	})
}

// A client that is behind gets the last of each key, and each final one.
func TestOutboxConflates(t *testing.T) {
	box := &hub.Outbox{MaxEvents: 4}
	put := func(seq uint64, key string, final bool) (conflated, ok bool) {
		e := &protocol.Event{Cursor: protocol.Cursor{Epoch: "e", Seq: seq}, Topic: "jobs.1", Key: key, Final: final}
		return box.Event(e, fmt.Append(nil, seq), true, true)
	}
	for seq := range uint64(1000) {
		conflated, ok := put(seq+1, "progress", false)
		require.Equal(t, seq > 0, conflated)
		require.True(t, ok)
	}
	conflated, _ := put(1001, "progress", true)
	require.True(t, conflated, "a final one supersedes what waits before it")
	conflated, _ = put(1002, "progress", false)
	require.False(t, conflated, "nothing supersedes a final one")
	put(1003, "", false)
	_, ok := put(1004, "", false)
	require.True(t, ok)
	_, ok = put(1005, "", false)
	require.False(t, ok, "over the budget")
	conflated, ok = put(1006, "progress", false)
	require.True(t, conflated && ok, "what supersedes does not count more")
	var got []string
	for _, e := range box.Take(make([]hub.Entry, 0, 10), 1<<20) {
		got = append(got, string(e.Frame))
	}
	require.Equal(t, []string{"1001", "1003", "1004", "1006"}, got)
}

// One event that alone is larger than the budget still goes.
func TestOutboxTakesOneThatIsTooLarge(t *testing.T) {
	box := &hub.Outbox{MaxBytes: 3}
	e := &protocol.Event{Topic: "a"}
	_, ok := box.Event(e, []byte("large"), false, false)
	require.True(t, ok)
	_, ok = box.Event(e, []byte("x"), false, false)
	require.False(t, ok)
	require.Len(t, box.Take(make([]hub.Entry, 0, 4), 1), 1)
}

// What was taken is not superseded, also after the holes were closed up.
func TestOutboxForgetsWhatWasTaken(t *testing.T) {
	box := &hub.Outbox{}
	put := func(key, frame string) bool {
		conflated, _ := box.Event(&protocol.Event{Topic: "a", Key: key}, []byte(frame), false, true)
		return conflated
	}
	put("x", "x1")
	put("", "rest")
	require.Len(t, box.Take(make([]hub.Entry, 0, 1), 1<<20), 1)
	for i := range 200 {
		put("y", fmt.Sprint("y", i))
	}
	require.False(t, put("x", "x2"))
	var got []string
	for _, e := range box.Take(make([]hub.Entry, 0, 10), 1<<20) {
		got = append(got, string(e.Frame))
	}
	require.Equal(t, []string{"rest", "y199", "x2"}, got)
}

// What was taken is let go of, also if the outbox is never empty.
func TestOutboxThatNeverDrains(t *testing.T) {
	var box hub.Outbox
	box.MaxEvents = 256
	one := make([]hub.Entry, 0, 1)
	for n := range 100_000 {
		e := &protocol.Event{Topic: "a", Key: fmt.Sprint("k", n), Cursor: protocol.Cursor{Epoch: "e", Seq: uint64(n)}}
		_, ok := box.Event(e, []byte("x"), true, true)
		require.True(t, ok)
		if box.Len() > 100 {
			got := box.Take(one, 1<<20)
			require.EqualValues(t, n-100, got[0].Event.Cursor.Seq)
		}
	}
	room, places := box.Room()
	require.Less(t, room, 1000)
	require.Less(t, places, 1000)
}
