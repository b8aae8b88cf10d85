package logtest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

func testRetentionByCount(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	for i := range 12 {
		publish(t, a, tenant, on("few.x", i), on("few", i)) // few.> does not match few
	}
	var batch []protocol.Publication
	for i := range 12 {
		batch = append(batch, on("few.y", i))
	}
	publish(t, b, tenant, batch...)

	v := look(t, b, tenant, hub.Query{Index: true, Topics: []hub.TopicQuery{
		{Topic: "few.x"}, {Topic: "few"}, {Topic: "few.y"}, {Topic: "few.x", Newest: 100}, {Topic: "few.x", After: 3, To: 21},
	}})
	require.Equal(t, []uint64{19, 21, 23}, seqs(v.Topics[0].Events))
	require.EqualValues(t, 23, v.Topics[0].Last)
	require.EqualValues(t, 17, v.Topics[0].Events[0].Prev, "the chain names what is gone")
	require.Equal(t, []uint64{6, 8, 10, 12, 14, 16, 18, 20, 22, 24}, seqs(v.Topics[1].Events))
	require.Equal(t, []uint64{34, 35, 36}, seqs(v.Topics[2].Events))
	require.Equal(t, []uint64{19, 21, 23}, seqs(v.Topics[3].Events))
	require.False(t, v.Topics[3].More, "what is gone is no more")
	require.Equal(t, []uint64{19, 21}, seqs(v.Topics[4].Events))
	require.EqualValues(t, 36, v.Head)
	require.Zero(t, v.Floor, "no topic left the index")
	require.Len(t, v.Index, 3)
}

// testRetentionByAge waits out the shortest age that there is. It does not wait
// for the topic to leave the index: when that happens is the log's affair.
func testRetentionByAge(t *testing.T, a, b hub.Log) {
	tenant := newTenant()
	started := time.Now()
	publish(t, a, tenant, on("long", 1), on("short.x", 2), on("short.x", 3))
	q := hub.Query{Index: true, Topics: []hub.TopicQuery{{Topic: "short.x"}, {Topic: "long"}}}
	var v hub.View
	deadline := time.NewTimer(time.Minute + patience) // age counts to about a minute
	defer deadline.Stop()
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		v = look(t, b, tenant, q)
		requireIndexed(t, v)
		if len(v.Topics[0].Events) == 0 {
			break
		}
		select {
		case <-pause.C:
		case <-deadline.C:
			t.Fatal("events of 1 s are still there")
		}
	}
	// Both clocks may count whole milliseconds.
	require.Greater(t, time.Since(started), 995*time.Millisecond, "it went too early")
	require.False(t, v.Topics[0].More)
	require.Len(t, v.Topics[1].Events, 1, "another topic's rule is its own")

	// The next event is chained to what is gone, in the index or by the floor. On
	// a busy machine it may be too old before it is looked at.
	for prev := uint64(3); ; prev++ {
		published := time.Now()
		c := publish(t, a, tenant, on("short.x", prev))[0]
		v = look(t, b, tenant, q)
		requireIndexed(t, v)
		if time.Since(published) < 900*time.Millisecond {
			require.Len(t, v.Topics[0].Events, 1)
			requireEvent(t, on("short.x", prev), c, prev, v.Topics[0].Events[0])
			break
		}
	}
}

// requireIndexed checks that short.x, whose last seq is at least 3, is in the
// index, or left it and raised the floor.
func requireIndexed(t *testing.T, v hub.View) {
	t.Helper()
	last := v.Topics[0].Last
	for _, i := range v.Index {
		if i.Topic == "short.x" {
			require.Equal(t, last, i.Last)
			require.GreaterOrEqual(t, last, uint64(3))
			return
		}
	}
	require.Zero(t, last)
	require.GreaterOrEqual(t, v.Floor, uint64(3))
}
