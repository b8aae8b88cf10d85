package ingest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/pushhub/pushhub/hub/redislog"
)

// Times of the ingest. Source: the model of the algorithm, in which these found
// no loss and no duplicate but for double faults.
const (
	window   = 30 * time.Second // what every instance keeps of what it heard
	keep     = 2 * window       // how long it is known what is in the log
	apart    = 5 * time.Second  // how far two instances may be apart in hearing one message
	lease    = 5 * time.Second
	grace    = 2500 * time.Millisecond // a lease is left to those who listened for a window
	tick     = 500 * time.Millisecond
	lookBack = 3 * time.Second // when the others look into the record
	batch    = 100             // messages in one append
)

// Options of an Ingester.
type Options struct {
	Log      *redislog.Log
	Mapping  Mapping
	MaxBytes int // of the data of one event
	Logger   zerolog.Logger
	// OnIngest is told how many messages an append brought into the log, and how
	// long that took. Optional.
	OnIngest func(events int, err error, took time.Duration)
}

// Stats counts what happened since the start. Every field may be read at any time.
type Stats struct {
	Ready    atomic.Bool  // the channels are heard
	Leading  atomic.Bool  // this instance appends
	Heard    atomic.Int64 // messages of the mapped channels
	Appended atomic.Int64
	Second   atomic.Int64 // of them by a second look: the one who leads did not
	Dropped  atomic.Int64 // no JSON, too large, or on a channel that maps to no topic
	TooLate  atomic.Int64 // could not be appended while it was known whether they are in the log
}

// Ingester is one instance's part in the ingest.
type Ingester struct {
	// fixed after construction
	opts  Options
	owner string
	stats Stats
	spare sync.Map // sampled warnings: text → when it was last logged

	mu      sync.Mutex
	heard   []*message        // of the window, in the order heard
	tenants map[string]*queue // of tenants with messages to append
	since   int64             // when listening began, µs of Redis' clock; 0: it does not
	offset  int64             // Redis' clock minus ours, µs
	stamp   int64             // of the newest message
	reign   int64             // 0: this instance does not lead
	until   time.Time         // the lease is ours till then at least

	found map[found]time.Time // owned by lead

	workers sync.WaitGroup
	hangUp  context.CancelCauseFunc // guarded by mu: ends the present connection
}

// message is one that was heard.
type message struct {
	tenant string
	raw    redislog.Raw
	at     time.Time
	done   atomic.Bool // it is in the log, or need not be
}

// New makes an Ingester; Run starts it.
func New(opts Options) *Ingester {
	if opts.OnIngest == nil {
		opts.OnIngest = func(int, error, time.Duration) {}
	}
	var id [8]byte
	for i := range id {
		id[i] = byte(rand.Uint32())
	}
	return &Ingester{opts: opts, owner: hex.EncodeToString(id[:]), tenants: map[string]*queue{}, found: map[found]time.Time{}}
}

// Stats gives the counters.
func (g *Ingester) Stats() *Stats { return &g.stats }

// Run ingests until ctx ends, and gives the lease back.
func (g *Ingester) Run(ctx context.Context) {
	var work sync.WaitGroup
	work.Go(func() { g.listen(ctx) })
	g.lead(ctx)
	g.mu.Lock()
	g.abdicate()
	g.mu.Unlock()
	work.Wait()
	g.workers.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, _, _, err := g.opts.Log.Lease(last, g.owner, redislog.Release, lease, grace); err != nil {
		g.opts.Logger.Debug().Err(err).Msg("the lease of the ingest was not given back: it ends by itself")
	}
}

// listen hears the channels, on one connection after the other.
func (g *Ingester) listen(ctx context.Context) {
	for pause := 50 * time.Millisecond; ctx.Err() == nil; {
		conn, hangUp := context.WithCancelCause(ctx)
		g.mu.Lock()
		g.hangUp = hangUp
		g.mu.Unlock()
		began := time.Now()
		err := g.opts.Log.Hear(conn, g.opts.Mapping.Patterns(), 16*g.opts.MaxBytes, g.ready, g.hear)
		hangUp(nil)
		g.stats.Ready.Store(false)
		g.mu.Lock()
		g.since = 0
		g.abdicate() // others have heard what we miss now
		g.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		g.warn("the raw channels are not heard", err)
		if time.Since(began) > time.Minute {
			pause = 50 * time.Millisecond
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, 2*time.Second)
	}
}

func (g *Ingester) ready() {
	g.mu.Lock()
	g.since = g.now()
	g.mu.Unlock()
	g.stats.Ready.Store(true)
}

// now gives the time by the clock of Redis, as far as known, µs. With mu held.
func (g *Ingester) now() int64 { return time.Now().UnixMicro() + g.offset }

// hear takes one message.
func (g *Ingester) hear(pattern, channel string, payload []byte) {
	rule, tenant, topic := g.opts.Mapping.find(channel)
	if rule == nil {
		g.drop("a raw channel maps to no topic", channel, nil)
		return
	}
	if rule.Pattern != pattern {
		return // it comes again, for the rule that counts
	}
	g.stats.Heard.Add(1)
	if payload == nil {
		g.drop("a raw message was dropped", channel, errTooLarge)
		return
	}
	event, err := rule.event(topic, payload, g.opts.MaxBytes)
	if err != nil {
		g.drop("a raw message was dropped", channel, err)
		return
	}
	h := sha256.New()
	h.Write([]byte(channel))
	h.Write([]byte{0})
	h.Write(payload)
	m := &message{tenant: tenant, at: time.Now(), raw: redislog.Raw{Event: event, Digest: base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12])}}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stamp = max(g.stamp+1, g.now())
	m.raw.Heard = g.stamp
	g.heard = append(g.heard, m)
	if g.reign > 0 {
		g.give(m)
	}
}

func (g *Ingester) drop(what, channel string, err error) {
	g.stats.Dropped.Add(1)
	if !g.sampled(what) {
		return
	}
	g.opts.Logger.Warn().Err(err).Str("channel", channel).Msg(what)
}

func (g *Ingester) warn(what string, err error) {
	if g.sampled(what) {
		g.opts.Logger.Warn().Err(err).Msg(what)
	}
}

// sampled says whether a warning of this text may be logged: one in ten seconds.
func (g *Ingester) sampled(what string) bool {
	now := time.Now()
	if last, ok := g.spare.Load(what); ok && now.Sub(last.(time.Time)) < 10*time.Second {
		return false
	}
	g.spare.Store(what, now)
	return true
}

// lead is the goroutine that holds the lease when it can get it, looks into the
// record when it does not, and forgets what is older than the window.
func (g *Ingester) lead(ctx context.Context) {
	timer := time.NewTicker(tick)
	defer timer.Stop()
	last := time.Now()
	for {
		paused := time.Since(last) > apart
		last = time.Now()
		g.renew(ctx, redislog.Take, paused)
		g.secondLook(ctx)
		g.forget()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

// renew asks for the lease. paused: this process was stopped for so long that
// what it heard since may be in the log under an earlier time; if another led
// meanwhile, it hears anew.
func (g *Ingester) renew(ctx context.Context, want redislog.Want, paused bool) {
	g.mu.Lock()
	listening, since, was := g.since != 0, g.since, g.reign
	eligible := listening && g.now()-since >= window.Microseconds()
	g.mu.Unlock()
	asked := time.Now()
	free := grace
	if eligible {
		free = 0
	}
	if !listening {
		want = redislog.Release // and learn the time
	}
	n, has, clock, err := g.opts.Log.Lease(ctx, g.owner, want, lease, free)
	if err != nil {
		if ctx.Err() == nil {
			g.warn("the lease of the ingest cannot be asked for", err)
		}
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.setClock(clock, asked)
	if paused && (!has || n != was) {
		g.hangUp(errPaused)
		g.heard = nil
		g.abdicate()
		return
	}
	if !has || g.since == 0 {
		g.abdicate()
		return
	}
	g.until = asked.Add(lease)
	if n != g.reign {
		g.begin(n)
	}
}

// setClock learns how far the clock of Redis is from ours. What listening time
// is known by the old one is moved along. With mu held.
func (g *Ingester) setClock(clock, asked time.Time) {
	took := time.Since(asked)
	if took > time.Second {
		return // too vague
	}
	offset := clock.UnixMicro() - asked.Add(took/2).UnixMicro()
	if g.since != 0 {
		g.since += offset - g.offset
	}
	g.offset = offset
}

// forget drops what is older than the window and done, and what is so old that
// it cannot be told any more whether it is in the log.
func (g *Ingester) forget() {
	for f, when := range g.found {
		if time.Since(when) > keep {
			delete(g.found, f)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, m := range g.heard {
		age := time.Since(m.at)
		if age < window || !m.done.Load() && age < keep {
			break
		}
		if !m.done.Load() {
			g.stats.TooLate.Add(1)
			m.done.Store(true)
		}
		n++
	}
	if n > 0 {
		g.heard = append([]*message(nil), g.heard[n:]...)
	}
}
