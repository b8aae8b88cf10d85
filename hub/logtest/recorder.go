package logtest

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pushhub/pushhub/protocol"
)

// patience bounds every wait for something that must come.
const patience = 20 * time.Second

// Kind names a method of hub.Listener.
type Kind string

// The methods of hub.Listener.
const (
	Covered Kind = "covered"
	Lost    Kind = "lost"
	Live    Kind = "live"
)

// Call is one call of a Listener.
type Call struct {
	Kind  Kind
	Event *protocol.Event // of Live, else nil
}

// Recorder is a hub.Listener that keeps all calls and can be waited on. It fails
// its test when two calls for one tenant overlap.
type Recorder struct {
	mu      sync.Mutex
	tenants map[string]*recording // guarded by mu
	change  chan struct{}         // guarded by mu; closed and replaced at each call
}

// recording is what came for one tenant. The Recorder's mu guards it.
type recording struct {
	calls    []Call
	events   map[protocol.Cursor]*protocol.Event // the first of each cursor
	busy     bool                                // a call is under way
	overlaps int
}

// NewRecorder gives a Recorder that reports overlapping calls when t ends.
func NewRecorder(t testing.TB) *Recorder {
	r := &Recorder{tenants: make(map[string]*recording), change: make(chan struct{})}
	t.Cleanup(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for tenant, rec := range r.tenants {
			if rec.overlaps > 0 {
				t.Errorf("tenant %s: %d calls of the listener overlapped another", tenant, rec.overlaps)
			}
		}
	})
	return r
}

// Covered implements hub.Listener.
func (r *Recorder) Covered(tenant string) { r.record(tenant, Call{Kind: Covered}) }

// Lost implements hub.Listener.
func (r *Recorder) Lost(tenant string) { r.record(tenant, Call{Kind: Lost}) }

// Live implements hub.Listener.
func (r *Recorder) Live(tenant string, e *protocol.Event) {
	r.record(tenant, Call{Kind: Live, Event: e})
}

func (r *Recorder) record(tenant string, c Call) {
	r.mu.Lock()
	rec := r.recording(tenant)
	if rec.busy {
		rec.overlaps++
	}
	rec.busy = true
	r.mu.Unlock()

	runtime.Gosched() // gives a second call for the tenant, which is wrong, the chance to be seen

	r.mu.Lock()
	rec.busy = false
	rec.calls = append(rec.calls, c)
	if e := c.Event; e != nil && rec.events[e.Cursor] == nil {
		rec.events[e.Cursor] = e
	}
	close(r.change)
	r.change = make(chan struct{})
	r.mu.Unlock()
}

// recording gives the tenant's, made when needed. mu is held.
func (r *Recorder) recording(tenant string) *recording {
	rec := r.tenants[tenant]
	if rec == nil {
		rec = &recording{events: make(map[protocol.Cursor]*protocol.Event)}
		r.tenants[tenant] = rec
	}
	return rec
}

// Calls gives all calls for a tenant so far.
func (r *Recorder) Calls(tenant string) []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.recording(tenant).calls)
}

// Events gives the events that came for a tenant so far, as they came.
func (r *Recorder) Events(tenant string) []*protocol.Event {
	return Events(r.Calls(tenant))
}

// Count says how many calls of a kind came for a tenant so far.
func (r *Recorder) Count(tenant string, kind Kind) int {
	return Count(r.Calls(tenant), kind)
}

// Await waits until done says yes to the calls for a tenant, and gives them. It
// is asked now and after calls for any tenant. The test fails when that takes
// too long; what says what is waited for.
func (r *Recorder) Await(t testing.TB, what, tenant string, done func(calls []Call) bool) []Call {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		r.mu.Lock()
		// Calls are only ever appended, so that done may read these without the lock.
		calls, change := slices.Clip(r.recording(tenant).calls), r.change
		r.mu.Unlock()
		if done(calls) {
			return calls
		}
		select {
		case <-change:
		case <-timer.C:
			t.Fatalf("tenant %s: no %s within %v; the last of %d calls: %v", tenant, what, patience, len(calls), last(calls))
		}
	}
}

// AwaitCount waits for the n-th call of a kind for a tenant, and gives all calls
// up to now.
func (r *Recorder) AwaitCount(t testing.TB, tenant string, kind Kind, n int) []Call {
	t.Helper()
	return r.Await(t, string(kind), tenant, func(calls []Call) bool { return Count(calls, kind) >= n })
}

// AwaitEvent waits until the event of a cursor came for a tenant, and gives it.
func (r *Recorder) AwaitEvent(t testing.TB, tenant string, c protocol.Cursor) *protocol.Event {
	t.Helper()
	var found *protocol.Event
	r.Await(t, "event "+c.String(), tenant, func([]Call) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		found = r.recording(tenant).events[c]
		return found != nil
	})
	return found
}

// Events gives the events of calls.
func Events(calls []Call) []*protocol.Event {
	var all []*protocol.Event
	for _, c := range calls {
		if c.Event != nil {
			all = append(all, c.Event)
		}
	}
	return all
}

// Count says how many calls are of a kind.
func Count(calls []Call, kind Kind) int {
	n := 0
	for _, c := range calls {
		if c.Kind == kind {
			n++
		}
	}
	return n
}

func last(calls []Call) string {
	if len(calls) == 0 {
		return "none"
	}
	c := calls[len(calls)-1]
	if c.Event != nil {
		return string(c.Kind) + " " + c.Event.Cursor.String()
	}
	return string(c.Kind)
}
