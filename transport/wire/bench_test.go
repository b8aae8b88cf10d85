package wire_test

import (
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/wire"
)

// BenchmarkFanOut brings one event of 256 bytes to 1,000 clients on loopback
// sockets, each read by a goroutine of its own. A delivery is over when its bytes
// are with the kernel: on the direct path that is when Flush returns.
func BenchmarkFanOut(b *testing.B) {
	const clients = 1000
	for _, path := range []struct {
		name   string
		direct bool
	}{{"direct", true}, {"goroutine", false}} {
		b.Run(path.name, func(b *testing.B) {
			var left sync.WaitGroup // deliveries of the event under way
			conns := make([]*wire.Conn, clients)
			var readers sync.WaitGroup
			for i := range conns {
				l := &link{t: b, direct: path.direct}
				l.open(usual, func(o *setup) {
					o.MaxEvents, o.MaxBytes = 256, 1<<20
					o.Delivered = func(_ *protocol.Event, n int) { left.Add(-n) }
				})
				conns[i] = l.conn
				readers.Go(func() { _, _ = io.Copy(io.Discard, l.far) })
			}
			seq := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				seq++
				e := event("a", seq, 150)
				left.Add(clients)
				for _, c := range conns {
					c.Event(e, true)
					c.Flush()
				}
				left.Wait()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/clients, "ns/delivery")
			for _, c := range conns {
				c.Abort()
			}
			readers.Wait()
		})
	}
}

// A delivery on the direct path allocates nothing.
func TestDirectDeliveryAllocates(t *testing.T) {
	l := &link{t: t, direct: true}
	l.open(usual, nil)
	var reader sync.WaitGroup
	reader.Go(func() { _, _ = io.Copy(io.Discard, l.far) })
	e := event("a", 1, 100)
	e.Frame(protocol.SSE)
	allocs := testing.AllocsPerRun(1000, func() { l.send(e) })
	l.conn.Abort()
	reader.Wait()
	require.Zero(t, allocs)
}
