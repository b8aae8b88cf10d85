package hub_test

import (
	"fmt"
	"strings"
	"sync"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
)

// world is the truth of one schedule of the search: which events were
// acknowledged, in which order, and what cursors mean. It is the Listener of the
// log, and hands each event to the pipes of the instances.
//
// An event's number is its place in the order of publication, over all epochs.
// That is what the promises are checked with, never a seq: seqs are given again.
type world struct {
	log *memlog.Log

	mu       sync.Mutex // below every lock of a hub and of the log
	pipes    []*pipe    // of the instances that run
	events   []*protocol.Event
	byTopic  map[string][]int
	numbers  map[protocol.Cursor]int
	epochs   map[string]epoch
	steps    []step
	failure  string
	lossless bool // nothing was done in this schedule that needs a gap

	delivered, superseded                    int
	gaps, epochGaps, needless, needlessEpoch int
}

// epoch says where an epoch began: at seq base, after number events.
type epoch struct {
	base   uint64
	number int
}

const acme = "acme"

func newWorld(log *memlog.Log) *world {
	w := &world{
		log: log, lossless: true,
		byTopic: map[string][]int{}, numbers: map[protocol.Cursor]int{}, epochs: map[string]epoch{},
	}
	for _, t := range topics {
		w.byTopic[t] = nil
	}
	log.Listen(w)
	log.Watch(acme)
	return w
}

func (w *world) Covered(string) {}
func (w *world) Lost(string)    {}

// Live is called in the moment in which the log takes the event.
func (w *world) Live(_ string, e *protocol.Event) {
	w.mu.Lock()
	if _, ok := w.epochs[e.Cursor.Epoch]; !ok {
		w.epochs[e.Cursor.Epoch] = epoch{e.Cursor.Seq - 1, len(w.events)}
	}
	w.numbers[e.Cursor] = len(w.events)
	w.byTopic[e.Topic] = append(w.byTopic[e.Topic], len(w.events))
	w.events = append(w.events, e)
	pipes := w.pipes
	w.mu.Unlock()
	for _, p := range pipes {
		p.message(e)
	}
}

// began notes the epoch that the log is in.
func (w *world) began(v hub.View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.epochs[v.Epoch]; !ok {
		w.epochs[v.Epoch] = epoch{v.Base, len(w.events)}
	}
}

// upTo gives how many events were published up to a cursor.
func (w *world) upTo(c protocol.Cursor) (int, bool) {
	if n, ok := w.numbers[c]; ok {
		return n + 1, true
	}
	if e, ok := w.epochs[c.Epoch]; ok && c.Seq == e.base {
		return e.number, true
	}
	return 0, false
}

// missing gives the events of a topic with from ≤ number < to that excused does
// not excuse.
func (w *world) missing(topic string, from, to int, excused func(int) bool) []int {
	var all []int
	for _, n := range w.byTopic[topic] {
		if n >= from && n < to && !excused(n) {
			all = append(all, n)
		}
	}
	return all
}

// step notes what is done next.
func (w *world) step(format string, args ...any) {
	w.mu.Lock()
	w.note(format, args...)
	w.mu.Unlock()
}

func (w *world) note(format string, args ...any) { w.steps = append(w.steps, step{format, args}) }

// step is a line of the story, put into words when somebody wants to read it.
type step struct {
	format string
	args   []any
}

func (w *world) failf(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf(format, args...)
		w.note("FAILURE: %s", w.failure)
	}
}

func (w *world) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failure != ""
}

// story is the whole schedule, for a failure.
func (w *world) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, s := range w.steps {
		fmt.Fprintf(&b, s.format+"\n", s.args...)
	}
	return b.String()
}

// name gives an event in short, when it is put into words.
func (w *world) name(n int) fmt.Stringer { return numbered{n, w.events[n]} }

type numbered struct {
	n int
	e *protocol.Event
}

func (e numbered) String() string { return fmt.Sprintf("#%d %s %s", e.n, e.e.Topic, e.e.Cursor) }
