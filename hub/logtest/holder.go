package logtest

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// holder is a Listener as a hub is one: its callbacks take the lock under which
// it watches and unwatches. It is about one tenant.
type holder struct {
	*Recorder

	// Fixed after construction.
	log     hub.Log
	tenant  string
	entered chan Kind // a callback for the tenant has begun; what does not fit is left out; never closed

	mu      sync.Mutex
	covered bool // guarded by mu: Covered came after the last Watch, and no Lost
}

func newHolder(t *testing.T, l hub.Log, tenant string) *holder {
	h := &holder{Recorder: NewRecorder(t), log: l, tenant: tenant, entered: make(chan Kind, 1)}
	l.Listen(h)
	return h
}

func (h *holder) callback(tenant string, kind Kind, record func()) {
	if tenant == h.tenant {
		select {
		case h.entered <- kind:
		default:
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if tenant == h.tenant && kind != Live {
		h.covered = kind == Covered
	}
	record()
}

func (h *holder) Covered(tenant string) {
	h.callback(tenant, Covered, func() { h.Recorder.Covered(tenant) })
}

func (h *holder) Lost(tenant string) {
	h.callback(tenant, Lost, func() { h.Recorder.Lost(tenant) })
}

func (h *holder) Live(tenant string, e *protocol.Event) {
	h.callback(tenant, Live, func() { h.Recorder.Live(tenant, e) })
}

// again unwatches and watches n times, with no callback in between.
func (h *holder) again(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for range n {
		h.log.Unwatch(h.tenant)
		h.log.Watch(h.tenant)
	}
	h.covered = false
}

// publish publishes as soon as the tenant is covered, until enough events are
// due, and gives those. An event is due when the tenant was covered before and
// after it was published. An answer of fewer means that the test has failed.
func (h *holder) publish(t *testing.T, l hub.Log, enough int) (due []protocol.Cursor) {
	deadline := time.Now().Add(patience)
	for n := 0; len(due) < enough; n++ {
		for !h.isCovered() { // not Await: it would come too late for what a hurry can show
			if !assert.True(t, time.Now().Before(deadline), "no Covered after the last Watch") {
				return due
			}
			runtime.Gosched()
		}
		c, ok := tryPublish(t, l, h.tenant, on("a", n))
		if !ok {
			return due
		}
		if h.isCovered() {
			due = append(due, c[0])
		}
	}
	return due
}

func (h *holder) isCovered() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.covered
}

// awaitCovered waits until the tenant is covered.
func (h *holder) awaitCovered(t *testing.T) {
	t.Helper()
	h.Await(t, "Covered after the last Watch", h.tenant, func([]Call) bool { return h.isCovered() })
}

// testWatchAgain is in a hurry: the Covered of an earlier Watch must not come
// after a later one while an Unwatch between them is still to take effect.
func testWatchAgain(t *testing.T, a, b hub.Log) {
	h := newHolder(t, a, newTenant())
	a.Watch(h.tenant)
	for round := range 100 {
		h.again(1 + round%4*10)
		var due [2][]protocol.Cursor
		var wg sync.WaitGroup
		for i, l := range []hub.Log{a, b} {
			wg.Go(func() { due[i] = h.publish(t, l, 3) })
		}
		wg.Wait()
		require.False(t, t.Failed())
		for _, c := range slices.Concat(due[0], due[1]) {
			h.AwaitEvent(t, h.tenant, c)
		}
	}
}

// testWatchDoesNotBlock calls Watch, Unwatch and Reset under a lock that a
// callback for the same tenant is waiting for.
func testWatchDoesNotBlock(t *testing.T, a, b hub.Log) {
	h := newHolder(t, a, newTenant())
	other := newTenant()
	underLock := func(kind Kind, begin func()) {
		t.Helper()
		done := make(chan struct{}) // closed when all calls have returned
		h.mu.Lock()
		defer h.mu.Unlock()
		select {
		case <-h.entered: // it is not about this one
		default:
		}
		begin()
		for deadline := time.After(patience); ; {
			select {
			case got := <-h.entered:
				if got == kind {
					break
				}
				h.mu.Unlock() // what came of a Reset before: it goes first
				h.mu.Lock()
				continue
			case <-deadline:
				t.Fatalf("no %s", kind)
			}
			break
		}
		go func() {
			defer close(done)
			a.Reset(h.tenant)
			a.Unwatch(h.tenant)
			a.Watch(h.tenant)
			a.Watch(other)
			a.Unwatch(other)
		}()
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatalf("Watch, Unwatch or Reset waits for %s", kind)
		}
		h.covered = false
	}

	underLock(Covered, func() { a.Watch(h.tenant) })
	h.awaitCovered(t)
	h.AwaitEvent(t, h.tenant, publish(t, b, h.tenant, on("a", 1))[0])

	var wg sync.WaitGroup
	underLock(Live, func() {
		wg.Go(func() { tryPublish(t, b, h.tenant, on("a", 2)) })
	})
	wg.Wait()
	h.awaitCovered(t)
	h.AwaitEvent(t, h.tenant, publish(t, b, h.tenant, on("a", 3))[0])
}
