package ingest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub/redislog"
)

// TestFirstHeardWaits: an instance whose connection is new has not heard what came
// just before it and may not be in the log: it must not be the first to append what
// came after that.
func TestFirstHeardWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{})
		for heardFor, want := range map[time.Duration]time.Duration{
			0:                4500 * time.Millisecond,
			time.Second:      3500 * time.Millisecond,
			3 * time.Second:  2 * time.Second,
			30 * time.Second: 2 * time.Second,
		} {
			g.since = time.Now().Add(-heardFor)
			require.True(t, g.take("t", redislog.Raw{}))
			q := g.queues["t"].waiting
			require.Equal(t, want, time.Until(q[len(q)-1].due), heardFor)
		}
	})
}
