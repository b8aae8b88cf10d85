package search

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pushhub/pushhub/hub/redislog/redissim"
	"github.com/pushhub/pushhub/protocol"
)

// world is the truth of one schedule: which events are in the log, in which
// order, and what cursors mean. It is told by the model Redis, in the moment in
// which a script has run.
//
// An event's number is its place in the order of publication, over all epochs.
// That is what the promises are checked with, never a seq: seqs are given again.
//
// While a replica was made the primary and the old one goes on for some, what the
// old one takes is lost: it is nowhere when the split is over. Such an event is
// late. Who gets it must have wanted it. If it was acknowledged, who was subscribed
// before and does not get it is owed a gap, in the end: see debt. Its cursor stands for
// what both had before.
type world struct {
	mu       sync.Mutex  // below every lock of a hub, of a log and of the model Redis
	line     int         // of the primary: others only have late events
	splits   map[int]int // line → the number of events when it was left
	head     protocol.Cursor
	events   []*protocol.Event
	byTopic  map[string][]int // without the late ones
	late     map[int]int      // number → how many events there were when its line was left
	numbers  map[protocol.Cursor]int
	epochs   map[string]epoch
	books    map[string]*publication // by the type of its event, which nobody else has
	steps    []line
	failure  string
	undone   bool // what was trimmed may be there again …
	trims    bool // … if something was
	lossless bool // nothing is done in this schedule that needs a gap

	published, delivered, superseded         int
	gaps, epochGaps, needless, needlessEpoch int
}

// epoch says where an epoch began: at seq base, after number events.
type epoch struct {
	base   uint64
	number int
}

// publication is an event that a publisher asked for.
type publication struct {
	dedupe  bool
	in      time.Time // when it came into the log; zero: never
	unknown bool      // the publisher was told that it may be there or not
	refused bool      // … that it is not
	again   bool      // may be there again: what there was may be lost
}

const acme = "acme"

func newWorld() *world {
	w := &world{
		byTopic: map[string][]int{}, late: map[int]int{}, splits: map[int]int{}, numbers: map[protocol.Cursor]int{},
		epochs: map[string]epoch{}, books: map[string]*publication{},
	}
	for _, t := range topics {
		w.byTopic[t] = nil
	}
	return w
}

// observe is told of each script that ran.
func (w *world) observe(t redissim.Transaction) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if name, ok := t.Hash("pushhub:{"+acme+"}:m", "epoch"); ok {
		if _, known := w.epochs[name]; !known {
			text, _ := t.Hash("pushhub:{"+acme+"}:m", "seq")
			seq, _ := strconv.ParseUint(text, 10, 64)
			base := seq - uint64(len(t.Messages)) // the script that begins it may append, too
			w.epochs[name] = epoch{base, w.before(t.Line)}
			w.note("    epoch %s begins at %d", name, base)
		}
	}
	for _, m := range t.Messages {
		w.event(m.Text, t.Line)
	}
}

// before gives how many events there are that one of a line is after.
func (w *world) before(line int) int {
	if line != w.line {
		return w.splits[line]
	}
	return len(w.events)
}

// event takes an event as its record has it.
func (w *world) event(record string, line int) {
	late := line != w.line
	head, _, _ := strings.Cut(record, "\n")
	part := strings.Split(head, "\t")
	cursor, err := protocol.ParseCursor(part[1])
	if err != nil {
		w.failf("a record has the cursor %q", part[1])
		return
	}
	e := &protocol.Event{Cursor: cursor, Final: part[4] == "1", Topic: part[5], Type: part[6], Key: part[7]}
	n := len(w.events)
	if was, ok := w.numbers[cursor]; ok {
		w.failf("the cursor %s was given to %s, and is given again", cursor, w.name(was))
		return
	}
	w.numbers[cursor] = n
	w.events = append(w.events, e)
	if late {
		w.late[n] = w.splits[line]
	} else {
		w.byTopic[e.Topic] = append(w.byTopic[e.Topic], n)
		w.head = cursor
	}
	b := w.books[e.Type]
	if b == nil {
		w.failf("%s was published by nobody", w.name(n))
		return
	}
	now := time.Now()
	if !b.in.IsZero() && !late && !b.again && !(b.dedupe && now.Sub(b.in) >= 10*time.Minute) {
		w.failf("%s was published once, and is there again", w.name(n))
	}
	if !late {
		b.in = now
	}
	if b.refused && !b.unknown {
		w.failf("%s is there, and was refused", w.name(n))
	}
}

// answered: a publisher was. unknown says that the error leaves open whether the
// events are there.
func (w *world) answered(batch []protocol.Publication, ids []protocol.Cursor, err error, unknown bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.note("    a publish of %s… gets %v", batch[0].Type, err)
	}
	for i, p := range batch {
		b := w.books[p.Type]
		switch {
		case err == nil:
			if n, ok := w.numbers[ids[i]]; !ok || w.events[n].Type != p.Type {
				w.failf("a publish of %s got %s, which it is not", p.Type, ids[i])
			}
		case !unknown:
			if b.refused = true; !b.in.IsZero() && !b.unknown {
				w.failf("a publish of %s got %v, and it is there", p.Type, err)
			}
		default:
			b.unknown = true
		}
	}
}

// headNow gives the cursor of the newest event.
func (w *world) headNow() protocol.Cursor {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.head
}

// promoted: another server is the primary from now on.
func (w *world) promoted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.splits[w.line] = len(w.events)
	w.line++
}

// lost: the last scripts may be undone, or all be gone.
func (w *world) lost() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.undone = true
	for _, b := range w.books {
		b.again = true
	}
}

// upTo gives how many events were published up to a cursor.
func (w *world) upTo(c protocol.Cursor) (int, bool) {
	if n, ok := w.numbers[c]; ok {
		if before, late := w.late[n]; late {
			return before, true
		}
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

func (w *world) note(format string, args ...any) { w.steps = append(w.steps, line{format, args}) }

// line is one of the story, put into words when somebody wants to read it.
type line struct {
	format string
	args   []any
}

// fail is failf for who does not have mu.
func (w *world) fail(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failf("%s", what)
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
