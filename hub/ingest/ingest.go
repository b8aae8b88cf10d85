package ingest

import (
	"cmp"
	"context"
	"errors"
	"math"
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
	lookBack time.Duration // how long those who do not lead leave a message to the one who does
	stale    time.Duration // what another has said before that long, and not again, counts no more
	last     time.Duration // for what is left at the end
}

var defaultPace = pace{
	tick: 500 * time.Millisecond, mark: time.Second, lease: 5 * time.Second,
	lookBack: 2 * time.Second, stale: 3 * time.Second, last: 2 * time.Second,
}

// least is the time from one Claim to the next at least.
func (p *pace) least() time.Duration { return p.tick / 20 }

const (
	// keep is how far behind the newest in the log a message may be and still be
	// appended: long after the others have looked for it.
	keep = time.Minute
	// Answers to Claims are counted, one a tick, and not seconds: while this process or
	// Redis was stopped nobody could do anything.
	//
	// deaf is how many come before a connection is given up that brings nothing
	// meanwhile, marks neither.
	deaf = 8
	// patience is with how many one waits for another to whom older messages are open
	// and who brings none of them in. It is longer than stale.
	patience = 10
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

	mu       sync.Mutex
	hangUp   context.CancelCauseFunc // ends the present connection
	begun    bool                    // a subscription was asked for on it
	unmarked bool                    // and no mark comes with that
	from     int64                   // its first mark; 0: none came yet
	at       int64                   // its last mark
	newest   int64                   // the first mark of the last connection that had one
	serial   int64                   // of the last Claim
	stand    redislog.Standing       // how things stood
	clear    int64                   // nothing older than this mark is open to others
	refused  time.Time               // since when the lease cannot be asked for; zero: it can
	why      error                   // why not
	counted  time.Time               // when the last answer that counts was asked for
	unheard  int                     // answers since something was heard
	unmoved  int                     // answers since stand.Open was something else
	leading  bool
	queues   map[string]*queue // tenant → its messages that wait; none is empty
	held     int               // bytes of those
	turns    []*queue          // to be seen to by a worker
	leaving  bool              // nothing more is heard, and all that waits is brought in
	closing  bool              // nothing more is brought in

	more *sync.Cond // with mu: turns has more, or it is closing
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
	g.more = sync.NewCond(&g.mu)
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

// Run ingests until ctx ends. Then it gives the lease back and brings in what it has
// heard and is not in the log, for two seconds and as long as Redis takes to answer.
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
	g.leave(calls)
	g.mu.Lock()
	g.closing = true
	g.more.Broadcast()
	g.mu.Unlock()
	working.Wait()
	g.mu.Lock()
	left := 0
	for _, q := range g.queues {
		left += len(q.waiting)
	}
	clear(g.queues)
	g.mu.Unlock()
	if left > 0 {
		g.stats.Lost.Add(int64(left))
		g.opts.Logger.Warn().Int("messages", left).Msg("raw messages are given up at the end: Redis does not take them")
	}
	g.renew(calls) // nobody has to wait for this instance
}

// leave gives the lease back, and has all that waits brought in: who leads may not have
// heard it, and not know that yet. If others take long to let it, it goes in out of order.
func (g *Ingester) leave(ctx context.Context) {
	g.missing()
	g.mu.Lock()
	g.leaving = true
	g.mu.Unlock()
	for late := time.Now().Add(g.pace.last / 2); ; {
		g.renew(ctx)
		if time.Now().After(late) {
			g.mu.Lock()
			g.clear = math.MaxInt64
			g.mu.Unlock()
		}
		if !g.see() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(g.pace.least()):
		}
	}
}

// listen hears the channels, on one connection after the other.
func (g *Ingester) listen(ctx context.Context) {
	for pause := time.Duration(0); ; {
		conn, hangUp := context.WithCancelCause(ctx)
		g.mu.Lock()
		g.hangUp, g.unheard = hangUp, 0
		g.mu.Unlock()
		err := g.opts.Log.Hear(conn, g.opts.Mapping.Patterns(), 16*g.opts.MaxBytes, ear{g})
		hangUp(nil)
		if ctx.Err() != nil {
			return
		}
		pause = listenAgain(pause, g.missing())
		g.warn("the raw channels are not heard", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

// listenAgain gives after what time, about, to listen again, from what it was the last
// time. A connection that was heard is wanted back at once: nobody else may be listening.
func listenAgain(pause time.Duration, heard bool) time.Duration {
	const shortest, longest = 50 * time.Millisecond, 2 * time.Second
	if heard {
		return shortest
	}
	return min(max(2*pause, shortest), longest)
}

// missing notes that messages are missed, and has the lease given up: others hear
// them. It says whether they were heard until now.
func (g *Ingester) missing() (heard bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	heard = g.stats.Ready.Swap(false)
	g.begun, g.unmarked, g.from, g.at = false, false, 0, 0
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
		case <-time.After(g.pace.least()):
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

// renew asks for the lease, or gives it back while the channels are not heard; with
// that come the marks, and what instances know of each other.
func (g *Ingester) renew(ctx context.Context) {
	g.mu.Lock()
	claim, newest := g.claim(), g.newest
	g.mu.Unlock()
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
	if err == nil {
		g.refused = time.Time{}
		g.heed(claim, newest, stand, asked)
	}
}

// heed does as the answer to a Claim says, that was made when newest was the first mark
// of the last connection. With mu held.
func (g *Ingester) heed(claim redislog.Claim, newest int64, stand redislog.Standing, asked time.Time) {
	if asked.Sub(g.counted) >= g.pace.tick*9/10 {
		g.counted = asked
		g.unheard++
		g.unmoved++
	}
	g.stands(stand, newest)
	if g.unheard > deaf {
		g.hangUp(errDeaf)
	}
	switch {
	case g.from != claim.From: // what came in between is missed
		g.hasten()
	case !stand.Leads:
		g.follow()
	case !g.leading:
		g.leading = true
		g.stats.Leading.Store(true)
		g.opts.Logger.Info().Msg("this instance ingests the raw channels")
	}
}

// claim is what this instance asks for now. With mu held.
func (g *Ingester) claim() redislog.Claim {
	c := redislog.Claim{Owner: g.owner, Mark: g.pace.mark, From: g.from, Open: g.oldest(), Stale: g.pace.stale}
	switch {
	case g.from != 0:
		c.Lasts = g.pace.lease
		if !g.off.has(ruleRead) {
			c.Open = cmp.Or(c.Open, g.at)
		}
	case g.unmarked:
		c.Mark, c.Open = 0, cmp.Or(c.Open, redislog.OpenAsBefore)
	case g.begun:
		c.Open = cmp.Or(c.Open, redislog.OpenAsBefore)
	}
	if !g.begun || g.from != 0 { // else the one that was made with the subscription is not yet in the past
		g.count()
	}
	c.Serial = g.serial
	return c
}

// count gives the next Claim a serial of its own. With mu held.
func (g *Ingester) count() {
	if !g.off.has(ruleSerial) {
		g.serial++
	}
}

// stands notes how things stood when newest was the first mark of the last connection.
// What is clear remains so: what is open to others gets no older, and a connection that
// begins later has a later mark. With mu held.
func (g *Ingester) stands(stand redislog.Standing, newest int64) {
	if stand.Open != g.stand.Open {
		g.unmoved = 0
	}
	g.stand = stand
	if stand.Open != 0 && g.unmoved <= patience && !g.off.has(ruleOlder) {
		newest = min(newest, stand.Open)
	}
	g.clear = max(g.clear, newest)
}

// follow leaves it to others to lead. With mu held.
func (g *Ingester) follow() {
	if !g.leading {
		return
	}
	g.leading = false
	g.stats.Leading.Store(false)
	g.opts.Logger.Info().Msg("this instance does not ingest the raw channels any more")
}

// ear is what an Ingester hears with.
type ear struct{ g *Ingester }

// Begins implements redislog.Ear.
func (e ear) Begins() redislog.Claim {
	g := e.g
	g.mu.Lock()
	defer g.mu.Unlock()
	g.begun = true
	g.count()
	c := redislog.Claim{Owner: g.owner, Serial: g.serial, Stale: g.pace.stale, Open: cmp.Or(g.oldest(), redislog.OpenFromMark)}
	if g.off.has(ruleBegins) {
		c.Open = 0
	}
	return c
}

// Unmarked implements redislog.Ear.
func (e ear) Unmarked() {
	e.g.mu.Lock()
	defer e.g.mu.Unlock()
	e.g.unmarked = true
	e.g.hasten()
}

// Marked implements redislog.Ear. The mark may be that of a connection that has just
// begun: it waits for all others to say that they have come as far.
func (e ear) Marked(mark int64) {
	g := e.g
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unheard, g.at = 0, mark
	if g.from == 0 {
		if mark <= g.newest {
			g.anew(mark)
		}
		g.from, g.newest = mark, mark
		g.stats.Ready.Store(true)
	}
	g.hasten()
}

// anew: marks have fallen to this one, since Redis lost the last. What waits has no order
// any more with what comes. With mu held.
func (g *Ingester) anew(mark int64) {
	g.clear = 0
	for _, q := range g.queues {
		for i := range q.waiting {
			q.waiting[i].from = min(q.waiting[i].from, mark)
		}
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
