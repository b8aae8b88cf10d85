package loadtest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stuck is a publisher whose first publish takes a while, and whose second fails.
type stuck struct {
	until int64

	mu   sync.Mutex
	all  [][]mark
	ends func(calls int)
}

func (p *stuck) Publish(ctx context.Context, marks []mark) error {
	p.mu.Lock()
	p.all = append(p.all, slices.Clone(marks))
	n := len(p.all)
	p.mu.Unlock()
	defer p.ends(n)
	switch n {
	case 1:
		sleepUntil(ctx, p.until)
	case 2:
		return errors.New("no answer")
	}
	return nil
}

func (p *stuck) Close() {}

// What a server that stalls keeps waiting counts from when it was due, not from when it
// could be sent: no omission is coordinated with the server.
func TestScheduleDoesNotWaitForTheServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := Schedule{Start: now(), Rate: 1000, Topics: 2}
	const stall = 300 * time.Millisecond
	p := &stuck{until: s.Start + int64(stall), ends: func(calls int) {
		if calls == 100 {
			cancel()
		}
	}}
	uncertain := map[uint64]uint32{}
	published, pace := s.Run(ctx, []Publisher{p}, 10, func(topic uint32, n uint64) { uncertain[2*(n-1)+uint64(topic)] = topic })

	sent := slices.Concat(p.all...)
	for i, m := range sent {
		require.Equal(t, mark{n: uint64(i)/2 + 1, k: uint32(i % 2), t: s.Start + int64(i)*int64(time.Millisecond)}, m)
	}
	require.GreaterOrEqual(t, len(sent), 100)
	require.Greater(t, len(p.all[1]), 1, "what was due meanwhile goes together, up to a batch")
	require.Len(t, p.all[2], 10)
	require.Len(t, uncertain, len(p.all[1]), "what was not answered may be there")
	require.Equal(t, map[string]int{"no answer": 1}, pace.Errors)
	require.EqualValues(t, len(sent), published[0]+published[1])
	require.EqualValues(t, len(sent), pace.Late.TotalCount())
	require.Greater(t, pace.Late.Max(), int64(stall/2), "and the table says how late the publisher was")
}
