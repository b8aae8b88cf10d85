package torture

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"github.com/pushhub/pushhub/loadtest/history"
)

// A reader is one client that always comes back.
type reader struct {
	number int
	tenant string
	topics []string // as subscribed
	ws     bool
	slow   bool // stalls now and then
	token  string
	w      *world

	// Owned by its goroutine.
	cursor  string            // of everything
	single  map[string]string // WebSocket, until subscribed: topics that are further
	caught  bool              // on this connection: subscribed
	retry   time.Duration     // EventSource's reconnection time
	told    time.Duration     // by bye, when to come back
	stalled time.Time         // when it stalled last

	mu   sync.Mutex
	seen map[string]int // guarded by mu; <tenant>/<topic> → number of the newest event
	up   bool           // guarded by mu; subscribed
}

// message is what a hub sends.
type message struct {
	Op     string `json:"op"`
	ID     string `json:"id"`
	Topic  string `json:"topic"`
	Reason string `json:"reason"`
	Cursor string `json:"cursor"`
	Retry  int    `json:"retry"`
	Data   struct {
		N int `json:"n"`
	} `json:"data"`
}

func (r *reader) add(rec history.Record) {
	rec.Reader = r.number
	r.w.history.Add(rec)
}

// run connects, reads, and comes back, until ctx ends.
func (r *reader) run(ctx context.Context) {
	r.retry = 3 * time.Second
	for ctx.Err() == nil {
		h := r.w.balancer.pick()
		r.add(history.Record{Kind: history.Open, Why: h.name})
		r.caught, r.told = false, 0
		read := r.stream
		if r.ws {
			read = r.socket
		}
		addr := h.front.addr()
		if r.slow { // the network would read in its place, megabytes
			addr = h.addr
		}
		err := read(ctx, addr)
		r.setUp(false)
		if ctx.Err() != nil {
			return
		}
		r.add(history.Record{Kind: history.Drop, Why: err.Error()})
		if h == r.w.draining.Load() && r.caught && r.told == 0 && !r.slow {
			r.w.wrong("%v was dropped by %s, which drains, without a bye: %v", r, h.name, err)
		}
		wait := r.retry
		switch {
		case r.ws && r.told > 0:
			wait = r.told
		case r.ws || !r.caught: // what a client of its own, or a balancer, would do
			wait = min(wait, 100*time.Millisecond+rand.N(400*time.Millisecond))
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (r *reader) setUp(up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up = up
}

// has says whether the reader is subscribed and has the newest of a topic.
func (r *reader) has(topic string, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.up && r.seen[topic] >= n
}

func (r *reader) query() url.Values {
	return url.Values{"token": {r.token}, "topics": {strings.Join(r.topics, ",")}}
}

// dialer gives a slow reader little room in the kernel.
func (r *reader) dialer() *net.Dialer {
	d := &net.Dialer{Timeout: 5 * time.Second}
	if r.slow {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 32<<10) })
		}
	}
	return d
}

func (r *reader) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: r.dialer().DialContext}}
}

// stream is a connection by the rules of EventSource, and no others.
func (r *reader) stream(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/api/v1/stream?"+r.query().Encode(), nil)
	if err != nil {
		return err
	}
	if r.cursor != "" {
		req.Header.Set("Last-Event-ID", r.cursor)
	}
	res, err := r.client().Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		r.add(history.Record{Kind: history.GaveUp, Why: res.Status})
		<-ctx.Done()
		return ctx.Err()
	}
	in := bufio.NewReaderSize(res.Body, 4096)
	var data []byte
	id, hasID := "", false
	for {
		r.stall()
		line, err := in.ReadBytes('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "data":
			data = append(data, value...)
		case "id":
			id, hasID = string(value), true
		case "retry":
			if ms, err := strconv.Atoi(string(value)); err == nil {
				r.retry = time.Duration(ms) * time.Millisecond
			}
		case "":
			if len(line) > 0 { // a comment
				continue
			}
			if hasID {
				r.cursor = id
			}
			if len(data) > 0 {
				r.message(data, id)
			}
			data, hasID = data[:0], false
		}
	}
}

// socket is a WebSocket that subscribes with a cursor per topic.
func (r *reader) socket(ctx context.Context, addr string) error {
	dialing, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(dialing, "ws://"+addr+"/api/v1/ws?"+url.Values{"token": {r.token}}.Encode(), &websocket.DialOptions{HTTPClient: r.client()})
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	type want struct {
		Topic string `json:"topic"`
		Since string `json:"since,omitempty"`
	}
	wants := make([]want, len(r.topics))
	for i, topic := range r.topics {
		wants[i] = want{topic, r.cursor}
		if own := r.single[topic]; own != "" {
			wants[i].Since = own
		}
	}
	b, err := json.Marshal(map[string]any{"op": "subscribe", "ref": "1", "topics": wants})
	if err != nil {
		return err
	}
	if err := conn.Write(dialing, websocket.MessageText, b); err != nil {
		return err
	}
	for {
		r.stall()
		_, b, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		r.message(b, "")
	}
}

// stall lets a slow reader not read for a while, now and then.
func (r *reader) stall() {
	if r.slow && !r.w.settling.Load() && time.Since(r.stalled) > 5*time.Second && rand.IntN(20) == 0 {
		time.Sleep(500*time.Millisecond + rand.N(2500*time.Millisecond)) // less than PONG_SECONDS
		r.stalled = time.Now()
	}
}

// message takes one. id is what an event stream had as id, "" of a WebSocket.
func (r *reader) message(b []byte, id string) {
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		r.w.wrong("reader %d was sent what is no message: %v: %.200q", r.number, err, b)
		return
	}
	switch m.Op {
	case "":
		r.event(m)
	case "gap":
		r.add(history.Record{Kind: history.Gap, Topic: m.Topic, Why: m.Reason})
		if r.ws && !r.caught {
			// Beyond a gap the cursor of before stands for nothing of the topic.
			delete(r.single, m.Topic)
		}
	case "subscribed":
		r.caught = true
		r.cursor, r.single = m.Cursor, nil
		r.setUp(true)
		r.add(history.Record{Kind: history.Subscribed, ID: m.Cursor})
	case "heartbeat":
		if r.caught && m.Cursor != "" {
			r.cursor = m.Cursor
		}
	case "bye":
		r.told = time.Duration(m.Retry) * time.Millisecond
	case "error":
		r.w.wrong("reader %d was sent %s", r.number, b)
	}
}

func (r *reader) event(m message) {
	switch {
	case !r.ws: // the id of the stream is the cursor
	case r.caught:
		r.cursor = m.ID
	case slices.Contains(r.topics, m.Topic): // before subscribed cursors are per topic
		if r.single == nil {
			r.single = map[string]string{}
		}
		r.single[m.Topic] = m.ID
	default: // of a pattern: what comes in order of seq is complete for it
		for _, pattern := range r.topics {
			if within(pattern, m.Topic) {
				if r.single == nil {
					r.single = map[string]string{}
				}
				r.single[pattern] = m.ID
			}
		}
	}
	name := r.tenant + "/" + m.Topic
	r.mu.Lock()
	r.seen[name] = max(r.seen[name], m.Data.N)
	r.mu.Unlock()
	r.add(history.Record{Kind: history.Event, Topic: name, N: m.Data.N, ID: m.ID})
}

// within says whether a topic lies within one of the patterns used here: x.>
func within(pattern, topic string) bool {
	return strings.HasPrefix(topic, strings.TrimSuffix(pattern, ">"))
}

func (r *reader) String() string { return fmt.Sprintf("reader %d", r.number) }
