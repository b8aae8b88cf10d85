// Package history is what a run of the torture bench leaves behind: who published
// what and what was said of it, and what each reader saw, in the order in which it
// happened. [Check] holds the one against the other. It knows the promises of the
// wire contract and shares no code with the hub, nor with who writes the history.
//
// A history is a file of lines, each a [Record] in JSON.
package history

import (
	"bufio"
	"encoding/json"
	"io"
	"sync"
	"time"
)

// The kinds of records, and the fields that each has beside At.
const (
	Topic      = "topic"      // before it is published to: Topic, Keyed
	Reader     = "reader"     // before it connects: Reader, Tenant, Topics (as subscribed), Slow
	Publish    = "publish"    // is about to be published: Topic, N, Final; its attempts may be many
	Ack        = "ack"        // was published: Topic, N, ID if the publisher was told it
	Unknown    = "unknown"    // may have been published, and is not tried again: Topic, N
	Unheard    = "unheard"    // nobody listened when it was published, raw: Topic, N
	Open       = "open"       // begins to connect: Reader, Why (to which instance)
	Subscribed = "subscribed" // has caught up: Reader, ID
	Event      = "event"      // got an event: Reader, Topic, N, ID
	Gap        = "gap"        // was told of a gap: Reader, Topic (as subscribed), Why (its reason)
	Drop       = "drop"       // its connection ended: Reader, Why
	GaveUp     = "gave up"    // was answered what an EventSource never comes back from: Reader, Why
	Fault      = "fault"      // was injected: Why, Two, Epoch, Parts
	Healed     = "healed"     // was taken back: Why
	Ending     = "ending"     // an instance was asked to end: Why (which)
	Life       = "life"       // Redis has another primary, or that another life, and had a moment before: Why
	Wrong      = "wrong"      // the bench itself saw what must not be: Why
)

// A Record is something that happened. Topics of events and publishes are named
// <tenant>/<topic>.
type Record struct {
	At     int64    `json:"at"` // ns since the history began, never falling
	Kind   string   `json:"kind"`
	Reader int      `json:"reader,omitempty"` // from 1 on
	Tenant string   `json:"tenant,omitempty"`
	Topic  string   `json:"topic,omitempty"`
	Topics []string `json:"topics,omitempty"`
	N      int      `json:"n,omitempty"` // number of the event in its topic: 1, 2, 3 … in the order of publishing
	ID     string   `json:"id,omitempty"`
	Why    string   `json:"why,omitempty"`
	Final  bool     `json:"final,omitempty"`
	Keyed  bool     `json:"keyed,omitempty"` // the topic's events have one conflation key
	Slow   bool     `json:"slow,omitempty"`  // the reader stalls now and then
	Two    bool     `json:"two,omitempty"`   // two servers may take themselves for the primary of Redis
	Epoch  bool     `json:"epoch,omitempty"` // Redis may be another than before: gaps are right from then on
	Parts  bool     `json:"parts,omitempty"` // Redis loses keys one by one, in the midst of an epoch
}

// A Writer writes a history. Its methods may be called by several goroutines at
// once.
type Writer struct {
	began time.Time

	mu  sync.Mutex
	out *bufio.Writer // guarded by mu
	err error         // guarded by mu; the first
}

// NewWriter begins a history.
func NewWriter(w io.Writer) *Writer {
	return &Writer{began: time.Now(), out: bufio.NewWriterSize(w, 1<<20)}
}

// Add writes a record and gives its time, which is that of the call.
func (w *Writer) Add(r Record) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := time.Since(w.began)
	r.At = int64(at)
	b, err := json.Marshal(r)
	if err == nil {
		_, err = w.out.Write(append(b, '\n'))
	}
	if w.err == nil {
		w.err = err
	}
	return at
}

// Flush writes out what is buffered, and gives the first error of the Writer.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.out.Flush(); w.err == nil {
		w.err = err
	}
	return w.err
}
