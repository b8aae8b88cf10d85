// Package torture lets everything go wrong that a night on call can bring, in real
// processes: a Redis, several instances of the hub, publishers, and readers that
// come back by themselves. What happened is written down (loadtest/history), and
// judged by that alone.
package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/pushhub/pushhub/loadtest/history"
)

// Config says what is tortured, and how.
type Config struct {
	Binary   string        // of the hub
	Redis    string        // Standalone, Sentinel or Cluster
	Hubs     int           // instances
	Readers  int           // half are event streams, half WebSockets; a tenth of them is slow
	Rate     float64       // events per second over HTTP
	RawRate  float64       // by PUBLISH
	Drain    time.Duration // of an instance that is asked to end, in whole seconds
	Duration time.Duration // in which faults are begun
	Seed     uint64        // of the schedule
	Faults   []string      // by name, each at least once; none: any that the Redis has
	History  string        // file to write; empty: one that is removed
	Log      io.Writer     // what the processes say
	Say      func(format string, args ...any)
}

// The world of one run.
type world struct {
	config   Config
	say      func(string, ...any)
	history  *history.Writer
	ports    ports
	db       *database
	hubs     []*hub
	balancer *balancer
	topics   []*topic
	readers  []*reader
	secret   string
	tokens   map[string]string // by tenant
	poster   *http.Client
	shaky    atomic.Bool  // a Cluster is not whole
	cuts     atomic.Int64 // by CLIENT KILL, begun and ended
	draining atomic.Pointer[hub]
	settling atomic.Bool // the end: nobody stalls any more
}

// tenants of a run: what is published to one must not be seen by the other.
var tenants = []string{"acme", "globex"}

// names of topics; those of jobs are keyed.
var names = []struct {
	name string
	raw  bool
}{
	{"alerts", false}, {"news.a", false}, {"news.b", false}, {"jobs.h1", false}, {"jobs.h2", false},
	{"raw.a", true}, {"raw.b", true}, {"jobs.r1", true}, {"jobs.r2", true}, {"notes", true},
}

// what readers subscribe to, in turn.
var wishes = [][]string{
	{"alerts", "jobs.h1", "raw.a", "jobs.r1"},
	{">"},
	{"jobs.>", "alerts"},
	{"news.>", "raw.>", "notes"},
	{"jobs.h1", "jobs.h2", "jobs.r1", "jobs.r2", "alerts", "news.a", "news.b", "raw.a", "raw.b", "notes"},
}

// Run runs a schedule and gives the account of it. An error means that there is
// none: the bench itself failed.
func Run(ctx context.Context, config Config) (account *history.Account, err error) {
	dir, err := os.MkdirTemp("", "torture-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := config.History
	if path == "" {
		path = filepath.Join(dir, "history")
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	w := &world{config: config, say: config.Say, history: history.NewWriter(file), tokens: map[string]string{}}
	faults, err := w.schedule()
	if err != nil {
		return nil, err
	}
	defer w.stop()
	if err := w.start(ctx, dir); err != nil {
		return nil, err
	}
	if err := w.torture(ctx, faults); err != nil {
		return nil, err
	}
	if err := w.history.Flush(); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return history.Check(file)
}

func (w *world) start(ctx context.Context, dir string) (err error) {
	if w.db, err = startDatabase(ctx, w.config.Redis, dir, &w.ports, io.Discard); err != nil {
		return err
	}
	w.secret = fmt.Sprintf("%064x", rand.Uint64())
	for _, tenant := range append([]string{prober}, tenants...) {
		// They are good whatever clock an instance has.
		if w.tokens[tenant], err = w.token(tenant, 365*24*time.Hour); err != nil {
			return err
		}
	}
	for i := range w.config.Hubs {
		h, err := newHub(fmt.Sprintf("hub%d", i+1), &w.config, w.secret, w.db, &w.ports)
		if err != nil {
			return err
		}
		w.hubs = append(w.hubs, h)
		if err := h.up(ctx); err != nil {
			return err
		}
	}
	w.balancer = &balancer{out: map[*hub]bool{}, all: w.hubs}
	w.poster = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100, MaxIdleConns: 1000, IdleConnTimeout: 5 * time.Second}}
	for _, tenant := range tenants {
		for _, n := range names {
			t := &topic{tenant: tenant, name: n.name, raw: n.raw, keyed: strings.HasPrefix(n.name, "jobs."), w: w}
			w.topics = append(w.topics, t)
			w.history.Add(history.Record{Kind: history.Topic, Topic: t.full(), Keyed: t.keyed})
		}
	}
	for i := range w.config.Readers {
		tenant := tenants[i%len(tenants)]
		r := &reader{number: i + 1, tenant: tenant, topics: wishes[i/2%len(wishes)], ws: i/2%2 == 1, slow: i%10 == 9, token: w.tokens[tenant], w: w, seen: map[string]int{}}
		w.readers = append(w.readers, r)
		w.history.Add(history.Record{Kind: history.Reader, Reader: r.number, Tenant: r.tenant, Topics: r.topics, Slow: r.slow})
	}
	return nil
}

// token gives one that is good for so long.
func (w *world) token(tenant string, good time.Duration) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"tenant_id": tenant, "sub": "torture", "publish": []string{">"}, "exp": time.Now().Add(good).Unix(),
	}).SignedString([]byte(w.secret))
}

// wrong notes what the bench itself saw and must not be.
func (w *world) wrong(format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	w.history.Add(history.Record{Kind: history.Wrong, Why: why})
	w.say("WRONG: %s", why)
}

// torture lets clients work while faults come and go, and brings all to rest.
func (w *world) torture(ctx context.Context, faults []fault) error {
	reading, endReading := context.WithCancel(ctx)
	publishing, endPublishing := context.WithCancel(ctx)
	var readers, publishers sync.WaitGroup
	defer readers.Wait()
	defer endReading()
	defer publishers.Wait()
	defer endPublishing()
	for _, r := range w.readers {
		readers.Go(func() { r.run(reading) })
	}
	lives := w.db.lives(ctx)
	readers.Go(func() { w.watchLives(reading, lives) })
	if err := w.awaitReaders(ctx, "at the start"); err != nil {
		return err
	}
	raw := slices.DeleteFunc(slices.Clone(w.topics), func(t *topic) bool { return !t.raw })
	for _, t := range w.topics {
		interval := float64(len(w.topics)-len(raw)) / w.config.Rate
		if t.raw {
			interval = float64(len(raw)) / w.config.RawRate
		}
		publishers.Go(func() { t.run(publishing, time.Duration(interval*float64(time.Second))) })
	}
	rng := rand.New(rand.NewPCG(w.config.Seed, 2))
	end := time.Now().Add(w.config.Duration)
	for n := 0; n < len(w.config.Faults) || time.Now().Before(end); n++ {
		f := faults[rng.IntN(len(faults))]
		if n < len(faults) { // each once, then any
			f = faults[n]
		}
		// What a fault draws is its own, so that the others stay the same.
		if err := w.inject(ctx, f, rand.New(rand.NewPCG(w.config.Seed, uint64(3+n)))); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if err := pause(ctx, time.Duration(500+rng.IntN(2500))*time.Millisecond); err != nil {
			return err
		}
	}
	endPublishing()
	publishers.Wait()
	return w.settle(ctx)
}

// watchLives notes each new life of a primary: a busy machine may have replicas take
// over without a fault.
func (w *world) watchLives(ctx context.Context, lives map[string]bool) {
	for pause(ctx, 200*time.Millisecond) == nil {
		for life := range w.db.lives(ctx) {
			if !lives[life] {
				lives[life] = true
				w.history.Add(history.Record{Kind: history.Life, Why: life})
			}
		}
	}
}

// inject lets a fault come and go.
func (w *world) inject(ctx context.Context, f fault, rng *rand.Rand) error {
	// In a Cluster nobody knows who heard a message that came by another node.
	unheard := f.only == Cluster || f.name == "cut-pubsub" && w.db.kind == Cluster
	at := w.history.Add(history.Record{Kind: history.Fault, Why: f.name, Two: f.two, Epoch: f.epoch || f.two, Parts: f.parts})
	w.say("%7.1f s  %s", at.Seconds(), f.name)
	if unheard {
		w.shaky.Store(true)
		defer w.shaky.Store(false)
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	err := f.do(ctx, w, rng)
	if unheard && err == nil {
		err = pause(ctx, 3*time.Second)
	}
	w.history.Add(history.Record{Kind: history.Healed, Why: f.name})
	return err
}

// settle brings all to rest: everybody gets the newest of everything.
func (w *world) settle(ctx context.Context) error {
	w.settling.Store(true)
	w.say("all faults are over: every reader has to get the newest of each topic")
	for _, t := range w.topics {
		err := await(ctx, t.full()+" is published to", func() bool { return t.publish(ctx) })
		if err != nil {
			return err
		}
	}
	if err := w.awaitReaders(ctx, "at the end"); err != nil {
		return err
	}
	err := await(ctx, "instances know who is gone", func() bool {
		connections := 0.0
		for _, h := range w.hubs {
			n, err := h.metric(ctx, "pushhub_connections")
			if err != nil {
				return false
			}
			connections += n
		}
		return int(connections) == len(w.readers)
	})
	if err != nil {
		w.wrong("connections of clients that are gone are still there: %v", err)
	}
	for _, h := range w.hubs {
		if n, err := h.metric(ctx, "go_goroutines"); err != nil || n > mostGoroutines {
			w.wrong("%s has %.0f goroutines at the end: %v", h.name, n, err)
		}
		n, err := h.metric(ctx, "process_resident_memory_bytes")
		w.say("%s has %.0f MiB", h.name, n/(1<<20))
		if err != nil || n > mostMemory {
			w.wrong("%s has %.0f bytes of memory at the end: %v", h.name, n, err)
		}
	}
	return ctx.Err()
}

// mostGoroutines is more than an instance has when all is quiet: some twenty of its
// own, and one for each connection that a publisher keeps.
const mostGoroutines = 200

// mostMemory is more than an instance needs for what the bench has it do, whatever went wrong.
const mostMemory = 256 << 20

// awaitReaders waits until every reader is subscribed and has what was acknowledged.
// What is missing then the account tells.
func (w *world) awaitReaders(ctx context.Context, when string) error {
	missing := ""
	err := await(ctx, "", func() bool {
		missing = ""
		for _, r := range w.readers {
			if !r.has("", 0) {
				missing = fmt.Sprintf("%v is not subscribed", r)
			}
			for _, t := range w.topics {
				wanted := slices.ContainsFunc(r.topics, func(p string) bool { return p == t.name || strings.HasSuffix(p, ">") && within(p, t.name) })
				if wanted && r.tenant == t.tenant && !r.has(t.full(), t.acked()) {
					missing = fmt.Sprintf("%v does not have %s %d", r, t.full(), t.acked())
				}
			}
			if missing != "" {
				return false
			}
		}
		return true
	})
	if err != nil && ctx.Err() == nil {
		w.wrong("%s: %s", when, missing)
		return nil
	}
	return err
}

func (w *world) stop() {
	for _, h := range w.hubs {
		h.stop()
	}
	if w.db != nil {
		w.db.stop()
	}
	w.ports.release()
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// schedule gives the faults that may be injected, in the order of the first round.
func (w *world) schedule() ([]fault, error) {
	var list []fault
	for _, f := range faults {
		asked := len(w.config.Faults) == 0 || slices.Contains(w.config.Faults, f.name)
		if asked && (f.only == "" || f.only == w.config.Redis) {
			list = append(list, f)
		}
	}
	for _, name := range w.config.Faults {
		if !slices.ContainsFunc(list, func(f fault) bool { return f.name == name }) {
			return nil, fmt.Errorf("no fault %q with a Redis that is %s: there are %s", name, w.config.Redis, strings.Join(Faults(w.config.Redis), ", "))
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no faults")
	}
	rng := rand.New(rand.NewPCG(w.config.Seed, 1))
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list, nil
}
