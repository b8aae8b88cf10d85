package ingest_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/ingest"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/hub/redislog"
)

// BenchmarkAllCut is the time from a raw PUBLISH until it is in the log, with two
// instances: undisturbed, and as the first that anybody hears after all connections that
// hear raw channels were killed. Medians in ms, and their ratio.
func BenchmarkAllCut(b *testing.B) {
	r := logtest.StartRedis(b)
	one := openLog(b, r.URL())
	for _, log := range []*redislog.Log{one, openLog(b, r.URL())} {
		o := options(b, log)
		o.Logger = zerolog.Nop()
		run(b, log, ingest.New(o))
	}
	c := client(b, r)
	head := func() uint64 {
		v, err := one.Look(b.Context(), "t0", hub.Query{})
		require.NoError(b, err)
		return v.Head
	}
	n := 0
	inLog := func() time.Duration {
		before := head()
		for {
			n++
			began := time.Now()
			hearers, err := c.Publish(b.Context(), "alerts:tenant:t0", strconv.Itoa(n)).Result()
			require.NoError(b, err)
			if hearers > 0 {
				for head() == before {
				}
				return time.Since(began)
			}
		}
	}
	inLog() // one of them leads
	var calm, cut []time.Duration
	for b.Loop() {
		time.Sleep(100 * time.Millisecond) // both hear, and what was cut is over
		calm = append(calm, inLog())
		require.NoError(b, c.ClientKillByFilter(b.Context(), "TYPE", "pubsub").Err())
		cut = append(cut, inLog())
	}
	median := func(all []time.Duration) float64 {
		slices.Sort(all)
		return all[len(all)/2].Seconds() * 1e3
	}
	b.ReportMetric(median(calm), "calm-ms")
	b.ReportMetric(median(cut), "cut-ms")
	b.ReportMetric(median(cut)/median(calm), "cut/calm")
	b.ReportMetric(0, "ns/op")
}
