package hub

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

// The log's clock and the instance's may be years apart: what is kept for a minute
// is kept for a minute.
func TestRingAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &ring{}
		logs := time.Now().Add(-3 * 365 * 24 * time.Hour).UnixMilli()
		r.push(&protocol.Event{Cursor: protocol.Cursor{Epoch: "e", Seq: 1}, At: logs}, &usual)
		time.Sleep(40 * time.Second)
		r.push(&protocol.Event{Cursor: protocol.Cursor{Epoch: "e", Seq: 2}, At: logs + 40_000}, &usual)
		r.age(&usual)
		require.Len(t, r.after(0), 2)
		time.Sleep(30 * time.Second)
		r.age(&usual)
		require.EqualValues(t, 1, r.lo)
		require.Len(t, r.after(1), 1)
		time.Sleep(31 * time.Second)
		r.age(&usual)
		require.EqualValues(t, 2, r.lo)
		require.Empty(t, r.after(2))
		r.age(&usual)
	})
}
