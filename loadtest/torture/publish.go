package torture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/pushhub/pushhub/loadtest/history"
)

// A topic has one publisher, which publishes one event after the other: so what was
// first is first.
type topic struct {
	tenant, name string
	raw          bool // by PUBLISH, else over HTTP
	keyed        bool // its events have one conflation key
	w            *world

	mu     sync.Mutex
	n      int // guarded by mu; the newest that was begun
	newest int // guarded by mu; the newest that was acknowledged
}

func (t *topic) full() string { return t.tenant + "/" + t.name }

func (t *topic) acked() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.newest
}

// finals: every so many events of a keyed topic one is final.
const finals = 25

// run publishes an event each interval until ctx ends. One that takes longer delays
// the next.
func (t *topic) run(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t.publish(context.WithoutCancel(ctx))
	}
}

// publish publishes the next event, and says whether it is known to be published.
func (t *topic) publish(ctx context.Context) bool {
	t.mu.Lock()
	t.n++
	n := t.n
	t.mu.Unlock()
	final := t.keyed && n%finals == 0
	t.w.history.Add(history.Record{Kind: history.Publish, Topic: t.full(), N: n, Final: final})
	rec := history.Record{Topic: t.full(), N: n}
	if t.raw {
		rec.Kind = t.send(ctx, n, final)
	} else {
		rec.Kind, rec.ID = t.post(ctx, n, final)
	}
	t.w.history.Add(rec)
	if rec.Kind != history.Ack {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.newest = n
	return true
}

// pad makes events as large as those of life.
var pad = strings.Repeat("x", 400)

func (t *topic) data(n int, final bool) json.RawMessage {
	status := "running"
	if final {
		status = "completed"
	}
	return fmt.Appendf(nil, `{"n":%d,"status":%q,"pad":%q}`, n, status, pad)
}

// send publishes raw, once. Whether anybody heard it is known where there is one
// server, unless it cuts connections in the same moment: those count that are cut
// before it has written to them. In a Cluster it is not promised while nodes fail and
// slots move.
func (t *topic) send(ctx context.Context, n int, final bool) (kind string) {
	channel := "events:tenant:" + t.tenant + ":" + t.name
	if job, ok := strings.CutPrefix(t.name, "jobs."); ok {
		channel = "render:tenant:" + t.tenant + ":job:" + job
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cuts := t.w.cuts.Load()
	heard, err := t.w.db.publish(ctx, channel, []byte(t.data(n, final)))
	inCluster := t.w.db.kind == Cluster // where a node does not know of who listens at the others
	switch {
	case err != nil || cuts%2 != 0 || cuts != t.w.cuts.Load() || inCluster && t.w.shaky.Load():
		return history.Unknown
	case heard == 0 && !inCluster:
		return history.Unheard
	}
	return history.Ack
}

// tries bounds how long one event is tried.
const tries = 90 * time.Second

// post publishes over HTTP, again and again with the same dedupe until it is
// acknowledged.
func (t *topic) post(ctx context.Context, n int, final bool) (kind, id string) {
	event := map[string]any{"topic": t.name, "type": "torture.v1", "data": t.data(n, final), "dedupe": fmt.Sprintf("%s-%d", t.name, n)}
	if t.keyed {
		event["key"], event["final"] = "progress", final
	}
	body, err := json.Marshal(event)
	if err != nil {
		panic(err) // it is ours
	}
	ctx, cancel := context.WithTimeout(ctx, tries)
	defer cancel()
	for {
		id, err := t.attempt(ctx, body)
		switch {
		case err == nil:
			return history.Ack, id
		case errors.As(err, new(refused)):
			t.w.wrong("%s %d was refused: %v", t.full(), n, err)
			return history.Unknown, ""
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.w.wrong("%s %d could not be published in %v: %v", t.full(), n, tries, err)
			return history.Unknown, ""
		}
	}
}

// refused is an answer that no repetition would change.
type refused string

func (r refused) Error() string { return string(r) }

// attempt publishes at one instance, over a connection that is kept.
func (t *topic) attempt(ctx context.Context, body []byte) (id string, err error) {
	h := t.w.balancer.pick()
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+h.front.addr()+"/api/v1/events", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+t.w.tokens[t.tenant])
	req.Header.Set("Content-Type", "application/json")
	res, err := t.w.poster.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	var answer struct {
		Data struct {
			IDs []string `json:"ids"`
		} `json:"data"`
	}
	switch {
	case res.StatusCode >= 500:
		return "", fmt.Errorf("%s: %s %.200s", h.name, res.Status, b)
	case res.StatusCode != http.StatusCreated:
		return "", refused(fmt.Sprintf("%s: %s %.200s", h.name, res.Status, b))
	}
	if err := json.Unmarshal(b, &answer); err != nil || len(answer.Data.IDs) != 1 {
		return "", refused(fmt.Sprintf("%s answered %.200s", h.name, b))
	}
	return answer.Data.IDs[0], nil
}
