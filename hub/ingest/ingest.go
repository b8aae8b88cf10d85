package ingest

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/pushhub/pushhub/hub/redislog"
)

// pace holds the times of the ingest.
type pace struct {
	tick     time.Duration // how often the lease is asked for, and what waits is seen to
	mark     time.Duration // from one mark to the next
	lease    time.Duration
	settled  time.Duration // how long one must have listened to lead: by then all others have said what they hold
	lookBack time.Duration // how long those who do not lead leave a message to the one who does
	patience time.Duration // how long one waits for another who holds older messages, and brings none of them in …
	stale    time.Duration // … or has said so before that long, and not again
	last     time.Duration // for what is left at the end
}

var defaultPace = pace{
	tick: 500 * time.Millisecond, mark: time.Second, lease: 5 * time.Second,
	settled: 3 * time.Second, lookBack: 2 * time.Second, patience: 5 * time.Second, stale: 3 * time.Second, last: 2 * time.Second,
}

const (
	// keep is how far behind the newest in the log a message may be and still be
	// appended: long after the others have looked for it.
	keep = time.Minute
	// deaf is how many questions for the lease, with which marks are set, are
	// answered before a connection that brings nothing meanwhile is given up.
	// Answers are counted, not seconds: in a process that was stopped nothing has
	// been read yet.
	deaf = 8
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
	Second   atomic.Int64 // of them while another instance led
	Dropped  atomic.Int64 // no JSON, too large, or on a channel that maps to no topic
	Lost     atomic.Int64 // given up: too many waited, or it came so late that nobody knows whether it is in the log
}

// Ingester is one instance's part in the ingest.
type Ingester struct {
	// fixed after construction
	opts  Options
	pace  pace
	most  int // bytes of messages that may wait
	owner string
	stats Stats
	off   rule          // tests only
	hurry chan struct{} // of one; has lead ask for the lease at once; never closed
	said  sync.Map      // warning → when it was last logged

	mu      sync.Mutex
	hangUp  context.CancelCauseFunc // ends the present connection
	since   time.Time               // when its first mark came; zero: none has yet
	from    int64                   // that mark, 0: none
	stand   redislog.Standing       // how things stood …
	stood   time.Time               // … when that was asked for
	sure    time.Time               // from when on all that others hold is in stand: they had time to say so
	blocked time.Time               // since when stand.Held is what it is
	refused time.Time               // since when the lease cannot be asked for; zero: it can
	why     error                   // why not
	unheard int                     // answers about the lease, one a tick, since something was heard
	counted time.Time               // when the last of them was asked for
	leading bool
	queues  map[string]*queue // tenant → its messages that wait; none is empty
	held    int               // bytes of those
	turns   []*queue          // to be seen to by a worker
	closing bool              // nothing more is heard

	more *sync.Cond // with mu: turns has more, or it is closing
	done *sync.Cond // with mu: queues has none, or it does not lead any more
}

// New makes an Ingester; Run starts it.
func New(opts Options) *Ingester {
	if opts.OnIngest == nil {
		opts.OnIngest = func(int, error, time.Duration) {}
	}
	g := &Ingester{
		opts: opts, pace: defaultPace, most: mostHeld, owner: strconv.FormatUint(rand.Uint64(), 36),
		hurry: make(chan struct{}, 1), queues: map[string]*queue{},
	}
	g.more, g.done = sync.NewCond(&g.mu), sync.NewCond(&g.mu)
	return g
}

// Refused says for how long Redis has refused to be written to, or not answered,
// and how; 0 while all is well. It is tried each half second.
func (g *Ingester) Refused() (time.Duration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refused.IsZero() {
		return 0, nil
	}
	return time.Since(g.refused), g.why
}

// Stats gives the counters.
func (g *Ingester) Stats() *Stats { return &g.stats }

// Run ingests until ctx ends. Then it brings in what it has heard and who leads has
// not, or all if it leads itself, and gives the lease back.
func (g *Ingester) Run(ctx context.Context) {
	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var listening, working sync.WaitGroup
	listening.Go(func() { g.listen(ctx) })
	for range workers {
		working.Go(func() { g.serve(calls) })
	}
	g.lead(ctx)
	listening.Wait()
	defer time.AfterFunc(g.pace.last, cancel).Stop()
	g.mu.Lock()
	g.closing = true
	g.turnDue() // before the workers may end
	g.more.Broadcast()
	g.mu.Unlock()
	working.Wait()
	if _, err := g.opts.Log.Lease(calls, redislog.Claim{Owner: g.owner, Mark: time.Hour}); err != nil {
		g.opts.Logger.Debug().Err(err).Msg("the lease of the ingest was not given back: it ends by itself")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.follow()
}

// listen hears the channels, on one connection after the other.
func (g *Ingester) listen(ctx context.Context) {
	const shortest = 50 * time.Millisecond // a connection that was good is wanted back at once
	for pause := shortest; ; {
		conn, hangUp := context.WithCancelCause(ctx)
		g.mu.Lock()
		g.hangUp, g.unheard = hangUp, 0
		g.mu.Unlock()
		err := g.opts.Log.Hear(conn, g.opts.Mapping.Patterns(), 16*g.opts.MaxBytes, ear{g})
		hangUp(nil)
		if ctx.Err() != nil {
			return
		}
		g.finish()
		if g.missing() {
			pause = shortest
		}
		g.warn("the raw channels are not heard", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, 2*time.Second)
	}
}

// finish waits, while this instance leads, until all that it heard is in the log,
// but not for long: who leads next may not have heard it.
func (g *Ingester) finish() {
	g.mu.Lock()
	defer g.mu.Unlock()
	late := false
	defer time.AfterFunc(g.pace.last, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		late = true
		g.done.Broadcast()
	}).Stop()
	for g.leading && len(g.queues) > 0 && !late {
		g.done.Wait()
	}
}

// missing notes that messages are missed, and has the lease given up: others hear
// them. It says whether they were heard until now.
func (g *Ingester) missing() (heard bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	heard = g.stats.Ready.Swap(false)
	g.since, g.from = time.Time{}, 0
	g.follow()
	g.hasten()
	return heard
}

// hasten has lead ask for the lease now.
func (g *Ingester) hasten() {
	select {
	case g.hurry <- struct{}{}:
	default:
	}
}

// lead is the goroutine that has the lease when it can get it, and sees to what
// waits.
func (g *Ingester) lead(ctx context.Context) {
	for {
		g.renew(ctx)
		tick := g.pace.tick
		if g.see() {
			tick /= 5
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(tick):
		case <-g.hurry:
		}
	}
}

// errDeaf: see deaf.
var errDeaf = errors.New("marks are set and not heard")

// renew asks for the lease, or gives it back while the channels are not heard;
// with that come the marks.
func (g *Ingester) renew(ctx context.Context) {
	g.mu.Lock()
	since, was := g.since, g.leading
	claim := redislog.Claim{Owner: g.owner, Lasts: g.pace.lease, Mark: g.pace.mark, From: g.from, Held: g.oldest(), Stale: g.pace.stale}
	g.mu.Unlock()
	if since.IsZero() {
		claim.Lasts, claim.Mark = 0, 0
	} else {
		claim.Heir = was || time.Since(since) >= g.pace.settled
	}
	asked := time.Now()
	stand, err := g.opts.Log.Lease(ctx, claim)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		g.warn("the lease of the ingest cannot be asked for", err)
		if g.refused.IsZero() {
			g.refused = asked
		}
		g.why = err
	}
	if err != nil {
		return
	}
	g.refused = time.Time{}
	g.stands(stand, asked)
	if asked.Sub(g.counted) >= g.pace.tick*9/10 {
		g.unheard, g.counted = g.unheard+1, asked
	}
	if g.unheard > deaf {
		g.hangUp(errDeaf)
	}
	switch {
	case g.since != since: // what came in between is missed
		g.hasten()
	case !stand.Leads:
		g.follow()
	case !g.leading:
		g.leading = true
		g.stats.Leading.Store(true)
		g.opts.Logger.Info().Msg("this instance ingests the raw channels")
	}
}

// stands notes how things stood when that was asked for. Where Redis did not answer for
// a while it was deaf to the others, too. With mu held.
func (g *Ingester) stands(stand redislog.Standing, asked time.Time) {
	now := time.Now()
	if !g.stood.IsZero() && now.Sub(g.stood) > g.fresh() {
		g.sure, g.blocked = now.Add(2*g.pace.tick), now
	}
	if stand.Held != g.stand.Held {
		g.blocked = now
	}
	g.stand, g.stood = stand, asked
}

// fresh is for how long a standing counts.
func (g *Ingester) fresh() time.Duration { return 3 * g.pace.tick }

// follow leaves it to others to lead. With mu held.
func (g *Ingester) follow() {
	if !g.leading {
		return
	}
	g.leading = false
	g.done.Broadcast()
	g.stats.Leading.Store(false)
	g.opts.Logger.Info().Msg("this instance does not ingest the raw channels any more")
}

// ear is what an Ingester hears with.
type ear struct{ g *Ingester }

func (e ear) Subscribed() { e.g.hasten() } // for a mark

func (e ear) Marked(mark int64) {
	g := e.g
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unheard = 0
	if g.since.IsZero() {
		g.since, g.from = time.Now(), mark
		g.stats.Ready.Store(true)
		g.hasten()
		// Who has listened the longest has to be the first to lead.
		time.AfterFunc(g.pace.settled, g.hasten)
	}
}

func (g *Ingester) warn(what string, err error) {
	if g.sampled(what) {
		g.opts.Logger.Warn().Err(err).Msg(what)
	}
}

// sampled says whether a warning of this text may be logged: one in ten seconds.
func (g *Ingester) sampled(what string) bool {
	now := time.Now()
	if last, ok := g.said.Load(what); ok && now.Sub(last.(time.Time)) < 10*time.Second {
		return false
	}
	g.said.Store(what, now)
	return true
}
