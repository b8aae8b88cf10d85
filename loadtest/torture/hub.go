package torture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A hub is one instance, with the network before it and that behind it.
type hub struct {
	process
	front *proxy // clients and publishers come through it
	back  links  // to Redis
	addr  string // its own
}

// The settings of every instance. Retention is long, so that what is missing is
// not excused by age; few events may wait for a client, so that slow ones are cut off.
var hubSettings = []string{
	"HOST=127.0.0.1", "LOG_LEVEL=warn", "LOG_FORMAT=json", "REDIS_HOST=", "REDIS_SENTINEL_MASTER=",
	"HEARTBEAT_SECONDS=3", "PONG_SECONDS=6", "RETENTION=>:100000/1h", "OUTBOX_EVENTS=64",
}

func newHub(name string, c *Config, secret string, db *database, free *ports) (*hub, error) {
	port, err := free.take()
	if err != nil {
		return nil, err
	}
	h := &hub{addr: "127.0.0.1:" + strconv.Itoa(port)}
	if h.back, err = newLinks(slices.Concat(db.nodes, db.guard)); err != nil {
		return nil, err
	}
	if h.front, err = newProxy(h.addr); err != nil {
		return nil, err
	}
	h.front.start()
	env := append(os.Environ(), "PORT="+strconv.Itoa(port), "JWT_SECRET="+secret, fmt.Sprintf("DRAIN_SECONDS=%.0f", c.Drain.Seconds()))
	env = append(env, hubSettings...)
	env = append(env, db.settings(h.back)...)
	h.process = process{name: name, path: c.Binary, args: []string{"serve"}, env: env, log: c.Log}
	return h, nil
}

// up starts the instance and waits until it is ready.
func (h *hub) up(ctx context.Context) error {
	if err := h.start(); err != nil {
		return err
	}
	return await(ctx, h.name+" is ready", func() bool { return h.status(ctx, "/health") == http.StatusOK })
}

// Requests to an instance itself, past its front.
var direct = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func (h *hub) get(ctx context.Context, path string) (int, []byte) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.addr+path, nil)
	if err != nil {
		return 0, nil
	}
	res, err := direct.Do(r)
	if err != nil {
		return 0, nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil
	}
	return res.StatusCode, b
}

func (h *hub) status(ctx context.Context, path string) int {
	status, _ := h.get(ctx, path)
	return status
}

// health is what an instance says of itself; nothing if it does not answer.
type health struct {
	Status    string    `json:"status"`
	Timestamp time.Time `json:"timestamp"`
}

func (h *hub) health(ctx context.Context) (is health) {
	if _, b := h.get(ctx, "/health"); json.Unmarshal(b, &is) != nil {
		return health{}
	}
	return is
}

// metric sums a metric over its labels.
func (h *hub) metric(ctx context.Context, name string) (float64, error) {
	return h.metricWith(ctx, name, "")
}

// metricWith sums a metric over the labels that contain some text.
func (h *hub) metricWith(ctx context.Context, name, label string) (sum float64, err error) {
	status, b := h.get(ctx, "/metrics")
	if status != http.StatusOK {
		return 0, errors.New(h.name + " has no metrics")
	}
	for line := range bytes.Lines(b) {
		text := string(line)
		if rest, ok := strings.CutPrefix(text, name); ok && (rest[0] == ' ' || rest[0] == '{') && strings.Contains(rest, label) {
			v, err := strconv.ParseFloat(strings.TrimSpace(text[strings.LastIndexByte(text, ' '):]), 64)
			if err != nil {
				return 0, err
			}
			sum += v
		}
	}
	return sum, nil
}

// disconnects gives how many clients the instance has seen the end of, by the reason.
func (h *hub) disconnects(ctx context.Context) map[string]float64 {
	all := map[string]float64{}
	_, b := h.get(ctx, "/metrics")
	for line := range strings.Lines(string(b)) {
		_, after, ok := strings.Cut(line, `reason="`)
		reason, value, ok2 := strings.Cut(after, `"`)
		if n, err := strconv.ParseFloat(strings.TrimSpace(value[strings.LastIndexByte(value, ' ')+1:]), 64); err == nil && ok && ok2 && strings.HasPrefix(line, "pushhub_disconnects_total{") {
			all[reason] += n
		}
	}
	return all
}

func (h *hub) stop() {
	h.kill()
	h.front.close()
	h.back.close()
}

// A balancer knows which instances there are. Its methods may be called by several
// goroutines at once.
type balancer struct {
	mu  sync.Mutex
	out map[*hub]bool // guarded by mu; not to be chosen
	all []*hub
}

// pick chooses an instance: any that is not out.
func (b *balancer) pick() *hub {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range 100 {
		if h := b.all[rand.IntN(len(b.all))]; !b.out[h] {
			return h
		}
	}
	return b.all[0]
}

// take takes an instance out, or puts it back.
func (b *balancer) take(h *hub, out bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out[h] = out
}
