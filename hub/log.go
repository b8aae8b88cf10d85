package hub

import (
	"context"
	"errors"

	"github.com/pushhub/pushhub/protocol"
)

// Errors of a Log. What a Log returns wraps one of them or the context's error.
var (
	// ErrUnavailable: the log could not be asked, and nothing was changed.
	ErrUnavailable = errors.New("log unavailable")
	// ErrUnknown: the log did not answer, so what was published may be in it or not.
	ErrUnknown = errors.New("log did not answer: the outcome is unknown")
)

// A Log gives the events of each tenant their place in one sequence, keeps the
// newest of each topic, and tells its Listener of new ones. Hub instances that
// share a log share its tenants.
//
// The sequence: seqs count 1, 2, 3 … over all events of a tenant, without holes,
// in the order in which they are published. When events may have been lost, the
// log begins a new epoch; seqs go on from where the one before ended, or begin again
// when everything is gone. It never gives one cursor to two events.
//
// All methods may be called by several goroutines at once.
type Log interface {
	// Publish appends events, all or none, and gives their cursors in order. One
	// whose Dedupe was published to the same topic within ten minutes is not
	// appended again: it gets the first one's cursor. When Publish returns
	// without an error the events are in the log, neighbours in the sequence, and
	// are on their way to every Listener that watches the tenant. It never repeats
	// an attempt by itself. A context that ends meanwhile leaves ErrUnknown; one
	// that ended before changes nothing.
	Publish(ctx context.Context, tenant string, events []protocol.Publication) ([]protocol.Cursor, error)

	// Look gives one atomic view of the tenant as it is now, newer than
	// everything whose Publish returned before Look was called. A tenant
	// without an epoch gets one.
	Look(ctx context.Context, tenant string, q Query) (View, error)

	// Listen sets who is told of events. It is called once, before Watch.
	Listen(Listener)
	// Watch asks for the tenant's events: sooner or later the Listener gets
	// Covered. Unwatch ends that; after it a Live that was under way may still
	// come, and Covered needs a new Watch. They do not block, and are not called
	// while the tenant is in that state already.
	Watch(tenant string)
	Unwatch(tenant string)
	// Reset replaces the means by which the tenant's events come, which have
	// proved deaf: the Listener gets Lost and later Covered. It does not block.
	// For a tenant that is not watched it does nothing.
	Reset(tenant string)
}

// A Listener is told of what happens in watched tenants. For one tenant the
// calls come one after the other; they return soon and do no I/O.
type Listener interface {
	// Covered: every event published from now on will come to Live, until Lost.
	// It may come again without a Lost in between.
	Covered(tenant string)
	// Lost: events may be missing from now on, until Covered.
	Lost(tenant string)
	// Live gives one event. Between Covered and Lost events come in the order
	// of their seqs, without a hole; all the same a listener checks that. Next
	// to Covered and Lost older ones may come again.
	Live(tenant string, e *protocol.Event)
}

// Query says what a Look is to tell besides the tenant's head.
type Query struct {
	// Known is a cursor that the asker knows to have been reached. A log whose
	// head is behind it in the same epoch has lost events and begins a new
	// epoch. Zero: nothing is known.
	Known protocol.Cursor
	// Index asks for all topics whose last seq is greater than IndexAfter.
	Index      bool
	IndexAfter uint64
	// Topics asks for events.
	Topics []TopicQuery
}

// TopicQuery asks for retained events of one topic, oldest first: those with
// After < seq ≤ To (0: the head), at most Limit (0: no bound); or, with
// Newest > 0, whatever the others say, the newest of all.
type TopicQuery struct {
	Topic     string
	After, To uint64
	Limit     int
	Newest    int
}

// MaxPast is how many epochs before the present one a log knows.
const MaxPast = 8

// View is the state of a tenant at one moment.
type View struct {
	Epoch string
	// Past has the epochs before, newest first, at most MaxPast: each with the seq of
	// the last event that the log had of it or of those before when the next began. It is
	// empty when there was none, or everything before is gone.
	Past   []protocol.Cursor
	Head   uint64      // seq of the newest event, 0 before the first
	Floor  uint64      // events up to it may have been forgotten with their topics
	Index  []TopicLast // in any order
	Topics []TopicView // in the order of Query.Topics
}

// TopicLast is a topic of the index with the seq of its newest event.
type TopicLast struct {
	Topic string
	Last  uint64
}

// TopicView is what is retained of one topic. An event of it is known to be gone
// when its Prev chain says so: each event names the seq of the one before it.
type TopicView struct {
	Last   uint64 // seq of its newest event, retained or not; 0: the log does not know the topic (see View.Floor)
	Events []*protocol.Event
	// More: there is more of what was asked for; the log stopped at Limit, or at
	// a bound of its own of about 1 MiB for the events of one answer. Events has
	// the oldest, at least one.
	More bool
}
