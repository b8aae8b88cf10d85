package memlog

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/protocol"
)

func TestForget(t *testing.T) {
	l := open(t, nil)
	publish(t, l, "t", once("a", "x"), on("b"))
	old := look(t, l, "t")
	l.Forget("t")
	v := look(t, l, "t", "a")
	require.NotEqual(t, old.Epoch, v.Epoch)
	require.Equal(t, hub.View{Epoch: v.Epoch, Topics: []hub.TopicView{{}}}, v)
	require.Equal(t, []uint64{1, 2}, publish(t, l, "t", on("b"), once("a", "x")), "the dedupes are gone too")
	require.NoError(t, l.tenant("t").check())
}

func TestNewEpoch(t *testing.T) {
	l := open(t, nil)
	publish(t, l, "t", on("a"), on("b"))
	old := look(t, l, "t")
	l.NewEpoch("t", 0)
	v := look(t, l, "t", "a")
	require.NotEqual(t, old.Epoch, v.Epoch)
	require.Equal(t, hub.View{
		Epoch: v.Epoch, Past: []protocol.Cursor{{Epoch: old.Epoch, Seq: 2}}, Head: 2, Index: old.Index, Topics: v.Topics,
	}, v)
	require.Len(t, v.Topics[0].Events, 1)
	require.Equal(t, []uint64{3}, publish(t, l, "t", on("a")))
}

func TestNewEpochWithLoss(t *testing.T) {
	l := open(t, rules(t, "few:1/1h,>:100/1h"))
	publish(t, l, "t",
		once("a", "kept"), on("few"), on("b"), on("a"), // 1–4 stay
		once("a", "lost"), on("few"), on("c"), on("b"), on("few")) // 5–9 are lost
	l.NewEpoch("t", 5)
	require.NoError(t, l.tenant("t").check())
	v := look(t, l, "t", "a", "b", "c", "few")
	require.Equal(t, [3]uint64{4, 4, 0}, [3]uint64{v.Past[0].Seq, v.Head, v.Floor})
	require.Equal(t, []uint64{1, 4}, seqs(v.Topics[0].Events))
	require.Equal(t, []uint64{3}, seqs(v.Topics[1].Events))
	require.Equal(t, hub.TopicView{}, v.Topics[2], "c was never published to")
	require.Equal(t, hub.TopicView{Last: 4}, v.Topics[3], "not after the head")
	require.Len(t, v.Index, 3)

	require.Equal(t, []uint64{1, 5}, publish(t, l, "t", once("a", "kept"), once("a", "lost")))
	e := look(t, l, "t", "a").Topics[0].Events[2]
	require.Equal(t, protocol.Cursor{Epoch: v.Epoch, Seq: 5}, e.Cursor, "the seq is given again, in the new epoch")
	require.EqualValues(t, 4, e.Prev)
	require.NoError(t, l.tenant("t").check())

	l.NewEpoch("t", 1000)
	require.NoError(t, l.tenant("t").check())
	require.Zero(t, look(t, l, "t").Head)
}

func TestTrim(t *testing.T) {
	l := open(t, nil)
	publish(t, l, "t", on("a"), on("a"), on("a"), on("b"))
	l.Trim("t", "a", 2)
	l.Trim("t", "nobody", 0)
	l.Trim("t", "b", 5)
	v := look(t, l, "t", "a", "b")
	require.Equal(t, []uint64{2, 3}, seqs(v.Topics[0].Events))
	require.Equal(t, []uint64{4}, seqs(v.Topics[1].Events))
	l.Trim("t", "a", 0)
	require.Equal(t, hub.TopicView{Last: 3}, look(t, l, "t", "a").Topics[0])
	require.NoError(t, l.tenant("t").check())
}

func TestDeafen(t *testing.T) {
	l := open(t, nil)
	r := logtest.NewRecorder(t)
	l.Listen(r)
	l.Watch("t")
	r.AwaitCount(t, "t", logtest.Covered, 1)
	publish(t, l, "t", on("a"))
	l.Deafen("t")
	publish(t, l, "t", on("a"))
	require.Equal(t, []uint64{1}, seqs(r.Events("t")), "Live comes before Publish returns, or not at all")
	l.Reset("t")
	r.AwaitCount(t, "t", logtest.Covered, 2)
	require.Equal(t, 1, r.Count("t", logtest.Lost))
	publish(t, l, "t", on("a"))
	require.Equal(t, []uint64{1, 3}, seqs(r.Events("t")))
}
