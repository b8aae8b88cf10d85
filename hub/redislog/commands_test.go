package redislog

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

// What a script never answers is an error, whatever it is.
func TestAnswersThatMakeNoSense(t *testing.T) {
	type list = []any
	for _, answer := range []any{
		nil, "touch", int64(1), list{}, list{"e"}, list{int64(1), int64(1)}, list{"e", nil},
		list{"e", "no cursor"}, list{"e", list{}}, list{"e", int64(1), int64(2)},
	} {
		_, _, err := parseCursors(answer, 1)
		require.Error(t, err, "%v", answer)
	}
	epoch, cursors, err := parseCursors(list{"e", int64(7), "d-3"}, 2)
	require.NoError(t, err)
	require.Equal(t, []protocol.Cursor{{Epoch: "e", Seq: 7}, {Epoch: "d", Seq: 3}}, cursors)
	require.Equal(t, "e", epoch)

	l := &Log{live: &live{}}
	good := func() list {
		return list{"e", "d-1 c-0", "1", "0", list{"a", "1"}, list{list{"1", int64(0), record("e", 1)}}}
	}
	v, err := l.parseView(good(), 1)
	require.NoError(t, err)
	require.Equal(t, []uint64{1}, seqs(v.Topics[0]))
	require.Equal(t, []protocol.Cursor{{Epoch: "d", Seq: 1}, {Epoch: "c"}}, v.Past)
	for i, bad := range []any{int64(1), "d-1 c", "x", "-1", "x", list{list{}}} {
		answer := good()
		answer[i] = bad
		_, err := l.parseView(answer, 1)
		require.ErrorIs(t, err, errAnswer, "%d", i)
	}
	for _, topics := range []list{{}, {list{"1"}}, {list{"x", int64(0)}}, {list{"1", int64(0), int64(1)}}, {"x"}} {
		answer := good()
		answer[5] = topics
		_, err := l.parseView(answer, 1)
		require.ErrorIs(t, err, errAnswer, "%v", topics)
	}
	_, err = l.parseView("touch", 1)
	require.ErrorIs(t, err, errAnswer)
}
