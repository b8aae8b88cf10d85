package hub_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
)

// Who comes back within a minute costs the log nothing, or shares what another
// asked; after that the log is asked again, and what it gives is the same.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memlog.New(memlog.Options{})
		h := hub.New(mem, hub.Options{})
		defer func() { h.Close(); mem.Close() }()
		stay := h.Open("acme", newSink())
		defer stay.Close()
		synctest.Wait()
		c := publish(t, h, many(3000, 3)...)
		at := func(seq uint64) protocol.Cursor { return protocol.Cursor{Epoch: c.Epoch, Seq: seq} }
		read := func(events int, wants ...hub.Want) int64 {
			t.Helper()
			before := h.Stats().Reads.Load()
			lines, _ := resume(t, h, wants...)
			require.Len(t, lines, events)
			return h.Stats().Reads.Load() - before
		}

		require.Zero(t, read(2900, hub.Want{Pattern: "t.*", Since: at(100)}), "the ring holds all")
		require.Zero(t, read(500, hub.Want{Pattern: "t.1", Since: at(1500)}))
		require.NotZero(t, read(900, hub.Want{Pattern: "t.1", Since: at(300)}), "so far back it is not looked through for one topic")

		time.Sleep(2 * time.Minute) // the ring is empty now
		require.NotZero(t, read(900, hub.Want{Pattern: "t.1", Since: at(300)}))
		require.EqualValues(t, 1, read(1, hub.Want{Pattern: "t.2", Last: 1}))
		require.Zero(t, read(1, hub.Want{Pattern: "t.2", Last: 1}))
		require.NotZero(t, read(2, hub.Want{Pattern: "t.2", Last: 2}), "memory has one of it")
		require.Zero(t, read(1, hub.Want{Pattern: "t.2", Since: at(2997)}, hub.Want{Pattern: "t.2", Last: 1}))

		publish(t, h, "t.2", "t.2")
		require.Zero(t, read(4, hub.Want{Pattern: "t.2", Last: 4}), "what comes is added to what was read")
		require.Zero(t, read(3, hub.Want{Pattern: "t.2", Since: at(2997)}))

		time.Sleep(61 * time.Second)
		require.EqualValues(t, 1, read(4, hub.Want{Pattern: "t.2", Last: 4}), "old memory is not trusted")
		require.NoError(t, h.Check())
	})
}

// Large events push each other out of the ring; what was read before is not
// brought up to date over a hole then.
func TestMemoryIsBounded(t *testing.T) {
	h, _ := open(t, ">:100000/1h")
	stay := newCounter()
	session := h.Open("acme", stay)
	defer session.Close()
	require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: "small"}}, 9))
	stay.wait(t)
	first := publish(t, h, "small")
	lines, _ := resume(t, h, hub.Want{Pattern: "small", Last: 1})
	require.Equal(t, []string{"kept small 1"}, lines)
	large := make([]byte, 1<<20)
	for i := range large {
		large[i] = '1'
	}
	for range 10 {
		_, err := h.Publish(t.Context(), "acme", []protocol.Publication{{Topic: "large", Type: "t", Data: large}})
		require.NoError(t, err)
		publish(t, h, "small")
	}
	require.NoError(t, h.Check())
	lines, _ = resume(t, h, hub.Want{Pattern: "small", Since: first})
	require.Equal(t, []string{"kept small 3", "kept small 5", "kept small 7", "kept small 9", "kept small 11",
		"kept small 13", "kept small 15", "kept small 17", "kept small 19", "kept small 21"}, lines)
}
