package logtest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pushhub/pushhub/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// witness is a testing.TB that keeps what it is told. Fatal does not return.
type witness struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (w *witness) Helper()          {}
func (w *witness) Cleanup(f func()) { w.cleanups = append(w.cleanups, f) }
func (w *witness) Errorf(format string, args ...any) {
	w.errors = append(w.errors, fmt.Sprintf(format, args...))
}
func (w *witness) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (w *witness) end() {
	for _, f := range w.cleanups {
		f()
	}
}

func TestRecorder(t *testing.T) {
	r := NewRecorder(t)
	var wg sync.WaitGroup
	e1 := &protocol.Event{Cursor: protocol.Cursor{Epoch: "e", Seq: 1}}
	e2 := &protocol.Event{Cursor: protocol.Cursor{Epoch: "e", Seq: 2}}
	wg.Go(func() {
		r.Covered("t")
		r.Live("t", e1)
		r.Lost("t")
		r.Covered("u")
		r.Live("t", e2)
	})
	require.Same(t, e2, r.AwaitEvent(t, "t", e2.Cursor))
	calls := r.AwaitCount(t, "u", Covered, 1)
	require.Equal(t, []Call{{Kind: Covered}}, calls)
	require.Equal(t, []Call{{Covered, nil}, {Live, e1}, {Lost, nil}, {Live, e2}}, r.Calls("t"))
	require.Equal(t, []*protocol.Event{e1, e2}, r.Events("t"))
	require.Equal(t, 1, r.Count("t", Lost))
	require.Empty(t, r.Calls("nobody"))
	wg.Wait()
}

func TestRecorderSeesOverlaps(t *testing.T) {
	w := &witness{}
	r := NewRecorder(w)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				r.Covered("t")
			}
		})
	}
	wg.Wait()
	w.end()
	require.Len(t, w.errors, 1)

	// One after the other, from several goroutines and over several tenants.
	w = &witness{}
	r = NewRecorder(w)
	var mu sync.Mutex
	for range 4 {
		wg.Go(func() {
			for range 100 {
				mu.Lock()
				r.Covered("t")
				mu.Unlock()
			}
		})
	}
	wg.Go(func() { r.Covered("u") })
	wg.Wait()
	w.end()
	require.Empty(t, w.errors)
}
