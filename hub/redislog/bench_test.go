package redislog

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/protocol"
)

var progress = protocol.Publication{
	Topic: "jobs.7b0c5b1e-3f5c-4c62-9a7e-1c2d3e4f5a6b", Type: "render.progress.v1", Source: "render-node-7",
	Data: []byte(`{"progress":42,"frame":1042,"eta":12.5}`), Key: "progress",
}

func BenchmarkPublish(b *testing.B) {
	server := logtest.StartRedis(b)
	l, err := Open(Options{Redis: &redis.Options{Addr: server.Addr()}, Retention: defaultRetention})
	require.NoError(b, err)
	defer l.Close()
	publish := func(b *testing.B, events []protocol.Publication) {
		if _, err := l.Publish(b.Context(), "bench", events); err != nil {
			b.Error(err)
		}
	}
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			publish(b, []protocol.Publication{progress})
		}
	})
	b.Run("dedupe", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			p := progress
			p.Dedupe = strconv.Itoa(n)
			publish(b, []protocol.Publication{p})
		}
	})
	b.Run("topics", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			p := progress
			p.Topic = "jobs." + strconv.Itoa(n%10_000)
			publish(b, []protocol.Publication{p})
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				publish(b, []protocol.Publication{progress})
			}
		})
	})
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprintf("batch%d", n), func(b *testing.B) {
			events := make([]protocol.Publication, n)
			for i := range events {
				events[i] = progress
			}
			for b.Loop() {
				publish(b, events)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n*b.N), "ns/event")
		})
	}
	b.Run("64KiB", func(b *testing.B) {
		p := progress
		p.Data = []byte(`"` + strings.Repeat("x", 64<<10-2) + `"`)
		b.SetBytes(64 << 10)
		for b.Loop() {
			publish(b, []protocol.Publication{p})
		}
	})
}

func BenchmarkLook(b *testing.B) {
	server := logtest.StartRedis(b)
	l, err := Open(Options{Redis: &redis.Options{Addr: server.Addr()}, Retention: defaultRetention})
	require.NoError(b, err)
	defer l.Close()
	events := make([]protocol.Publication, 1000)
	queries := make([]hub.TopicQuery, 300)
	for i := range events {
		events[i] = progress
		events[i].Topic = "jobs." + strconv.Itoa(i%300)
	}
	for i := range queries {
		queries[i] = hub.TopicQuery{Topic: "jobs." + strconv.Itoa(i)}
	}
	_, err = l.Publish(b.Context(), "bench", events)
	require.NoError(b, err)
	many := make([]protocol.Publication, 1000)
	for i := range 20 {
		for j := range many {
			many[j] = progress
			many[j].Topic = "jobs." + strconv.Itoa(1000*i+j)
		}
		_, err = l.Publish(b.Context(), "index", many)
		require.NoError(b, err)
	}
	for name, q := range map[string]struct {
		tenant string
		query  hub.Query
	}{
		"head":           {"bench", hub.Query{}},
		"topic":          {"bench", hub.Query{Topics: queries[:1]}},
		"newest":         {"bench", hub.Query{Topics: []hub.TopicQuery{{Topic: "jobs.1", Newest: 1}}}},
		"300 topics":     {"bench", hub.Query{Topics: queries}},
		"index of 20000": {"index", hub.Query{Index: true}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := l.Look(b.Context(), q.tenant, q.query); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type counter struct{ live atomic.Int64 }

func (*counter) Covered(string)                 {}
func (*counter) Lost(string)                    {}
func (c *counter) Live(string, *protocol.Event) { c.live.Add(1) }

// again gives the same bytes for ever.
type again struct {
	all  []byte
	next int
}

func (a *again) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m := copy(p[n:], a.all[a.next:])
		n += m
		a.next = (a.next + m) % len(a.all)
	}
	return n, nil
}

func BenchmarkLive(b *testing.B) {
	for _, tenants := range []int{1, 1000} {
		b.Run(fmt.Sprintf("tenants=%d", tenants), func(b *testing.B) {
			var got counter
			l := &live{}
			c := newConn(&live{ctx: b.Context()}, endpoint{})
			var wire bytes.Buffer
			for i := range tenants {
				s := &sub{tenant: strconv.Itoa(i), calls: &l.calls[i%64], listener: &got}
				s.wanted.Store(true)
				s.channel = keysOf(s.tenant).channel()
				c.channels[s.channel] = s
				wire.Write(appendCommand(nil, "smessage", s.channel, record("k3f9x2abcd", 1042+uint64(i))))
			}
			r := newReader(&again{all: wire.Bytes()})
			b.ReportAllocs()
			for b.Loop() {
				if err := c.read(r); err != nil {
					b.Fatal(err)
				}
			}
			require.EqualValues(b, b.N, got.live.Load())
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
