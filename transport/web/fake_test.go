package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

// fakeHub is a hub of one tenant that serves the page and speaks just as much SSE
// as the page needs, as the contract has it, and that can be made to misbehave.
// It lets the tests of the page say exactly what the page sees.
type fakeHub struct {
	*httptest.Server
	topics []string // fixed after construction

	// guarded by mu
	mu      sync.Mutex
	epoch   string
	events  []*protocol.Event // from the first on
	lost    map[uint64]bool   // seqs that are in no stream, which no hub may do
	floor   uint64            // seqs up to it are trimmed
	streams map[*stream]bool  // the open ones
	asked   []url.Values      // the queries of all streams
	resumed []string          // their Last-Event-IDs
	tokens  int               // given out
	refused map[string]bool   // tokens that are not good any more
	mute    bool              // announces no gap, which no hub may do
	held    chan struct{}     // nil, or closed when new streams may go on
}

// stream is one open connection.
type stream struct {
	frames chan []byte   // closed by whoever takes the stream out of streams
	gone   chan struct{} // closed when its handler has returned
}

func newFakeHub(t testing.TB, topics ...string) *fakeHub {
	t.Helper()
	h := &fakeHub{topics: topics, epoch: "k3f9x2", streams: map[*stream]bool{}, lost: map[uint64]bool{}, refused: map[string]bool{}}
	page := Handler(func(*http.Request) Config {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.tokens++
		return Config{Tenant: "demo", Token: fmt.Sprintf("token-%d", h.tokens), Topics: h.topics}
	})
	mux := http.NewServeMux()
	mux.Handle("/", page)
	mux.HandleFunc("GET /api/v1/stream", h.stream)
	h.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		h.release()
		h.cut()
		h.Close()
	})
	return h
}

// stream is the SSE endpoint.
func (h *fakeHub) stream(w http.ResponseWriter, r *http.Request) {
	if !h.await(r) {
		return
	}
	s, first, ok := h.open(r)
	if !ok {
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	defer close(s.gone)
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store, no-transform")
	_, _ = w.Write(first)
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case f, more := <-s.frames:
			if !more {
				return
			}
			_, _ = w.Write(f)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			h.mu.Lock()
			delete(h.streams, s)
			h.mu.Unlock()
			return
		}
	}
}

// open registers a stream and gives what it begins with, up to `subscribed`.
func (h *fakeHub) open(r *http.Request) (*stream, []byte, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	query := r.URL.Query()
	h.asked = append(h.asked, query)
	h.resumed = append(h.resumed, r.Header.Get("Last-Event-ID"))
	if h.refused[query.Get("token")] {
		return nil, nil, false
	}

	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = query.Get("since")
	}
	since, err := protocol.ParseCursor(text)
	resume := err == nil
	out := protocol.AppendRetry(nil, 20*time.Millisecond)
	out = control(out, text, protocol.Welcome{ConnectionID: "c1", TenantID: "demo", ExpiresAt: time.Now().Add(time.Hour), Heartbeat: 20})

	broken := protocol.GapReason("")
	from := since.Seq
	switch {
	case resume && since.Epoch != h.epoch && h.mute:
		from = 0
	case resume && since.Epoch != h.epoch:
		broken, from = protocol.GapEpoch, 0
	case resume && from < h.floor:
		broken, from = protocol.GapExpired, h.floor
	}
	answers := make([]protocol.SubscribedTopic, 0, len(h.topics))
	for topic := range strings.SplitSeq(query.Get("topics"), ",") {
		answer := protocol.SubscribedTopic{Topic: topic, Resumed: resume && broken == ""}
		if broken != "" {
			out = control(out, "", protocol.Gap{Topic: topic, Since: text, Reason: broken})
		}
		answers = append(answers, answer)
	}
	newest := map[string]uint64{}
	for _, e := range h.events {
		newest[e.Topic] = e.Cursor.Seq
	}
	for _, e := range h.events {
		switch {
		case h.lost[e.Cursor.Seq]:
			continue
		case resume && e.Cursor.Seq > from:
			out = append(out, e.Frame(protocol.SSE)...)
		case !resume && query.Get("last") == "1" && newest[e.Topic] == e.Cursor.Seq:
			out = append(out, e.Frame(protocol.SSENoID)...)
		default:
			continue
		}
		answers[0].Replayed++ // the sum is what counts
	}
	out = control(out, h.head().String(), protocol.Subscribed{Topics: answers, Cursor: h.head()})

	s := &stream{frames: make(chan []byte, 1024), gone: make(chan struct{})}
	h.streams[s] = true
	return s, out, true
}

func control(out []byte, id string, m interface{ Encode() []byte }) []byte {
	return protocol.AppendSSE(out, id, protocol.ControlName, m.Encode())
}

// head is the cursor of the newest event; with mu held.
func (h *fakeHub) head() protocol.Cursor {
	return protocol.Cursor{Epoch: h.epoch, Seq: uint64(len(h.events))}
}

// publish appends an event and sends it to all streams. It gives its cursor.
func (h *fakeHub) publish(t testing.TB, topic, kind string, data any) string {
	t.Helper()
	return h.put(t, topic, kind, data, true)
}

// lose appends an event that no stream gets.
func (h *fakeHub) lose(t testing.TB) {
	t.Helper()
	h.put(t, "alerts", "alert.v1", map[string]any{"title": "lost"}, false)
}

func (h *fakeHub) put(t testing.TB, topic, kind string, data any, send bool) string {
	t.Helper()
	body, err := json.Marshal(data)
	require.NoError(t, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	c := protocol.Cursor{Epoch: h.epoch, Seq: uint64(len(h.events)) + 1}
	p := protocol.Publication{Topic: topic, Type: kind, Data: body}
	e := &protocol.Event{Cursor: c, Topic: topic, Type: kind}
	e.JSON = p.AppendBody([]byte(`{"id":"`+c.String()+`"`), time.Now())
	h.events = append(h.events, e)
	if !send {
		h.lost[c.Seq] = true
		return c.String()
	}
	for s := range h.streams {
		s.frames <- e.Frame(protocol.SSE)
	}
	return c.String()
}

// job publishes the progress of a render job.
func (h *fakeHub) job(t testing.TB, id, status, stage string, progress float64, message string) string {
	t.Helper()
	return h.publish(t, "jobs."+id, "render.progress.v1", map[string]any{
		"job_id": id, "name": "Scene " + id, "status": status, "stage": stage, "progress": progress,
		"frame": int(progress * 2.4), "frames": 240, "message": message,
	})
}

// alert publishes an alert.
func (h *fakeHub) alert(t testing.TB, severity, title, message string) string {
	t.Helper()
	return h.publish(t, "alerts", "alert.v1", map[string]any{"severity": severity, "title": title, "message": message})
}

// tell sends a control message to all streams.
func (h *fakeHub) tell(id string, m interface{ Encode() []byte }) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.streams {
		s.frames <- control(nil, id, m)
	}
}

// trim forgets all events up to now.
func (h *fakeHub) trim() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.floor = uint64(len(h.events))
}

// restart begins a new life without events.
func (h *fakeHub) restart() {
	h.mu.Lock()
	h.epoch, h.events, h.floor = "m4a1b0", nil, 0
	clear(h.lost)
	h.mu.Unlock()
	h.cut()
}

// cut ends all streams, and waits for that.
func (h *fakeHub) cut() {
	h.mu.Lock()
	cut := h.streams
	h.streams = map[*stream]bool{}
	for s := range cut {
		close(s.frames)
	}
	h.mu.Unlock()
	for s := range cut {
		<-s.gone
	}
}

// hold lets new streams wait until release.
func (h *fakeHub) hold() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = make(chan struct{})
}

func (h *fakeHub) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held != nil {
		close(h.held)
		h.held = nil
	}
}

// await waits until new streams are not held; false: the client has left before.
func (h *fakeHub) await(r *http.Request) bool {
	h.mu.Lock()
	held := h.held
	h.mu.Unlock()
	if held == nil {
		return true
	}
	select {
	case <-held:
		return true
	case <-r.Context().Done():
		return false
	}
}

// muteGaps lets the hub hide that events are gone.
func (h *fakeHub) muteGaps() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mute = true
}

// refuse makes a token worthless.
func (h *fakeHub) refuse(token string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refused[token] = true
}

// last gives the query and Last-Event-ID of the newest stream, and how many there
// were.
func (h *fakeHub) last() (url.Values, string, int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.asked)
	if n == 0 {
		return nil, "", 0
	}
	return h.asked[n-1], h.resumed[n-1], n
}

// listeners is how many streams are open.
func (h *fakeHub) listeners() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams)
}
