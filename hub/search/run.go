package search

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/redislog"
	"github.com/pushhub/pushhub/hub/redislog/redissim"
	"github.com/pushhub/pushhub/protocol"
)

// Subject is what is searched: the code as it is, or without some rule. All
// fields are optional.
type Subject struct {
	Hub    func(*hub.Hub)                                // is given each new hub
	Narrow func(*hub.Hub)                                // is given it in schedules that are Narrow
	Check  func(*hub.Hub) error                          // says what is wrong with a hub's state
	Log    func(redislog.Options) (*redislog.Log, error) // opens a log; redislog.Open
	// Prompt has every event come without a later one or a verify to show that it
	// is missing: there are none. The schedules must have no connections that
	// are deaf, or of a server that was the primary.
	Prompt bool
	Patch  func(script string) string // as redissim.Options has it
}

// Result is what one schedule came to.
type Result struct {
	Failure string // the first promise that was broken
	Story   string // all that happened, if one was

	Migrations                               int
	Events, Late, Delivered, Superseded      int
	Gaps, EpochGaps, Needless, NeedlessEpoch int

	Heals, Reads, Shared, Resets, Reconnects int64
}

// Run runs a schedule.
func Run(t *testing.T, s Schedule, of Subject) (r Result) {
	synctest.Test(t, func(*testing.T) {
		x := newRun(s, of)
		x.all()
		x.end()
		r = x.result()
	})
	return r
}

// run is one run of a schedule. Its steps come one after the other, from one
// goroutine, each when everything that the one before began has come to rest.
type run struct {
	Schedule
	Subject
	rng       *rand.Rand // of the step that is done
	w         *world
	redis     *redissim.Redis
	instances []*instance
	clients   []*client
	started   int                    // instances
	unsure    []protocol.Publication // may be there or not; has a dedupe
	unsureTo  time.Time              // when it is forgotten
	sure      []protocol.Publication // was acknowledged; has a dedupe
	sureTo    time.Time              // when it is forgotten
	split     bool
	whole     time.Time // when the last old primary ended
	publishes sync.WaitGroup
	sums      Result // of instances that are no more
}

// instance is a hub on its log.
type instance struct {
	name string
	hub  *hub.Hub
	log  *cutLog
	down bool // connects to nothing
	held bool // what it hears is held back

	stalled bool // what it asks of the live connection waits
}

func (i *instance) String() string { return i.name }

// cutLog is a log whose answers have at most cut events of a topic.
type cutLog struct {
	*redislog.Log
	cut    int
	resets atomic.Int64
}

// Look implements hub.Log.
func (l *cutLog) Look(ctx context.Context, tenant string, q hub.Query) (hub.View, error) {
	v, err := l.Log.Look(ctx, tenant, q)
	for i := range v.Topics {
		if tv := &v.Topics[i]; l.cut > 0 && q.Topics[i].Newest == 0 && len(tv.Events) > l.cut {
			tv.Events, tv.More = tv.Events[:l.cut], true
		}
	}
	return v, err
}

// Reset implements hub.Log.
func (l *cutLog) Reset(tenant string) {
	l.resets.Add(1)
	l.Log.Reset(tenant)
}

func newRun(s Schedule, of Subject) *run {
	x := &run{Schedule: s, Subject: of, w: newWorld()}
	if x.Log == nil {
		x.Log = redislog.Open
	}
	opts := redissim.Options{Patch: x.Patch, Observe: x.w.observe, Fail: x.w.fail}
	if x.Cluster {
		opts.Moves = "{" + acme + "}"
	}
	x.redis = redissim.New(opts)
	x.w.lossless, x.w.trims = s.Lossless, s.Retention != keepsAll
	for range s.Hubs {
		x.instances = append(x.instances, x.start())
	}
	synctest.Wait()
	return x
}

func (x *run) start() *instance {
	i := &instance{name: fmt.Sprintf("hub%d", x.started)}
	x.started++
	retention, err := hub.ParseRetention(x.Retention)
	if err != nil {
		panic(err)
	}
	of := redislog.Options{Retention: retention}
	const enough = 1000 // connections: who waits for one does so on a timer that another bubble made
	if x.Cluster {
		of.Cluster = &redis.ClusterOptions{Addrs: redissim.Nodes, Dialer: x.redis.Dialer(i.name), PoolSize: enough}
	} else {
		of.Redis = &redis.Options{Addr: "redis:6379", Dialer: x.redis.Dialer(i.name), PoolSize: enough}
	}
	l, err := x.Log(of)
	if err != nil {
		panic(err)
	}
	i.log = &cutLog{Log: l, cut: x.Cut}
	opts := hub.Options{Linger: time.Second}
	if x.Prompt {
		opts.Verify = 1000 * time.Hour
	}
	i.hub = hub.New(i.log, opts)
	if x.Hub != nil {
		x.Hub(i.hub)
	}
	if x.Schedule.Narrow && x.Subject.Narrow != nil {
		x.Subject.Narrow(i.hub)
	}
	return i
}

func (x *run) stop(i *instance) {
	i.hub.Close()
	_ = i.log.Close() // says only that connections were broken
	st := i.hub.Stats()
	x.sums.Heals += st.Heals.Load()
	x.sums.Reads += st.Reads.Load()
	x.sums.Shared += st.SharedReads.Load()
	x.sums.Resets += i.log.resets.Load()
	x.sums.Reconnects += int64(i.log.Stats().Reconnects)
}

// all does all steps, and what has to come after them.
func (x *run) all() {
	for n, step := range x.Steps {
		k := kindOf(step.Kind)
		x.rng = rand.New(rand.NewPCG(step.Seed, 2))
		x.w.step("%d %s:%d", n, step.Kind, step.Seed)
		k.do(x)
		synctest.Wait()
		x.check()
		if x.w.failed() {
			return
		}
	}
	x.rng = rand.New(rand.NewPCG(0, 3))
	x.settle()
}

// settle lets everything come to rest: connections are made again, but one that
// is deaf stays so until it is found out.
func (x *run) settle() {
	x.w.step("the end: all settles")
	x.endSplit()
	x.redis.FinishMigration()
	for _, i := range x.instances {
		x.redis.Hold(i.name, false)
		x.redis.Stall(i.name, false)
		x.redis.Elsewhere(i.name, 0)
		x.redis.Refuse(i.name, false)
		x.redis.Spoil(i.name, "", false, 0)
		x.redis.Mislead(i.name, 0)
	}
	for x.redis.Held() > 0 {
		x.redis.Release(0)
	}
	for _, c := range x.clients {
		if c.conn != nil {
			x.patience(c, false)
		} else {
			x.connect(c)
		}
	}
	if !x.Prompt {
		for range 3 {
			time.Sleep(25 * time.Second)
			x.publish(1)
			synctest.Wait()
		}
		x.retained() // each publish may have come by a connection that was broken, and an epoch still be due
	}
	x.w.mu.Lock()
	epochs := len(x.w.epochs)
	x.w.mu.Unlock()
	time.Sleep(45 * time.Second)
	synctest.Wait()
	x.check()
	if x.w.mu.Lock(); len(x.w.epochs) != epochs && !x.Prompt {
		x.w.failf("an epoch begins, and all has been well for long")
	}
	x.w.mu.Unlock()
	retained := x.retained()
	x.w.mu.Lock()
	for _, c := range x.clients {
		c.verdict(retained)
	}
	x.w.mu.Unlock()
}

// retained gives the events that are in the log.
func (x *run) retained() map[protocol.Cursor]bool {
	var q hub.Query
	for _, t := range topics {
		q.Topics = append(q.Topics, hub.TopicQuery{Topic: t})
	}
	v, err := x.instances[0].log.Log.Look(context.Background(), acme, q)
	for range 100 { // connections that were broken while they were not used
		if err == nil {
			break
		}
		v, err = x.instances[0].log.Log.Look(context.Background(), acme, q)
	}
	if err != nil {
		x.w.fail(fmt.Sprint("all is well again, and the log says ", err))
		return nil
	}
	all := map[protocol.Cursor]bool{}
	for _, tv := range v.Topics {
		for _, e := range tv.Events {
			all[e.Cursor] = true
		}
	}
	return all
}

func (x *run) check() {
	if x.Check == nil {
		return
	}
	for _, i := range x.instances {
		if err := x.Check(i.hub); err != nil {
			x.w.fail(fmt.Sprintf("%s: %v", i, err))
		}
	}
}

// end takes everything down, that the bubble may end.
func (x *run) end() {
	for _, c := range x.clients {
		if c.conn != nil {
			x.disconnect(c)
		}
	}
	x.redis.Close()
	for _, i := range x.instances {
		x.stop(i)
	}
	x.publishes.Wait()
	time.Sleep(time.Second) // go-redis does not wait for who asks for the map of a Cluster
}

func (x *run) result() Result {
	r, w := x.sums, x.w
	r.Events, r.Late, r.Delivered, r.Superseded = len(w.events), len(w.late), w.delivered, w.superseded
	r.Gaps, r.EpochGaps, r.Needless, r.NeedlessEpoch = w.gaps, w.epochGaps, w.needless, w.needlessEpoch
	if r.Failure = w.failure; r.Failure != "" {
		r.Story = w.story()
	}
	return r
}

// publish publishes n events by way of any instance.
func (x *run) publish(n int) {
	batch := make([]protocol.Publication, n)
	x.w.mu.Lock()
	dedupe := n < 10 && x.rng.IntN(3) == 0
	for i := range batch {
		x.w.published++
		p := protocol.Publication{Topic: pick(x.rng, topics...), Type: fmt.Sprintf("p%d", x.w.published), Data: []byte("1")}
		if x.rng.IntN(2) == 0 {
			p.Key, p.Final = pick(x.rng, "k", "l"), x.rng.IntN(4) == 0
		}
		if dedupe {
			p.Dedupe = p.Type
		}
		x.w.books[p.Type] = &publication{dedupe: dedupe}
		batch[i] = p
	}
	x.w.mu.Unlock()
	x.send(batch, time.Now())
}

// send publishes a batch that was made at some time. It does not wait for the
// answer.
func (x *run) send(batch []protocol.Publication, made time.Time) {
	i := pick(x.rng, x.instances...)
	x.publishes.Go(func() {
		ids, err := i.hub.Publish(context.Background(), acme, batch)
		x.w.answered(batch, ids, err, errors.Is(err, hub.ErrUnknown))
		x.owe(i, ids)
		if batch[0].Dedupe != "" {
			x.w.mu.Lock()
			if err != nil {
				x.unsure, x.unsureTo = batch, made.Add(9*time.Minute)
			} else if time.Now().After(x.sureTo) {
				x.sure, x.sureTo = batch, made.Add(9*time.Minute)
			}
			x.w.mu.Unlock()
		}
	})
	synctest.Wait()
	x.w.step("    published %s… of %d to %s; the head is %s", batch[0].Type, len(batch), i, x.w.headNow())
}

// owe: an instance was told that these events are in the log. Those that only an old
// primary has are lost, and owed to who was subscribed before: a gap will do, late.
func (x *run) owe(by *instance, acknowledged []protocol.Cursor) {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	for _, cursor := range acknowledged {
		n, known := x.w.numbers[cursor]
		if _, late := x.w.late[n]; !known || !late {
			continue
		}
		for _, c := range x.clients {
			if topic := x.w.events[n].Topic; n >= c.announced[topic] && !c.hasLate[n] && c.wants(topic, n) {
				c.debts[n] = debt{by, time.Now()}
			}
		}
	}
}

// connect opens a session for a client on any instance, with what it wants. An
// EventSource has to want something.
func (x *run) connect(c *client) {
	if !c.ws && len(c.wishes) == 0 {
		return
	}
	i := pick(x.rng, x.instances...)
	x.w.mu.Lock()
	conn := c.back(i, false)
	x.w.note("    %s connects to %s", c.name, i)
	x.w.mu.Unlock()
	conn.session = i.hub.Open(acme, conn)
	if !c.ws || len(c.wishes) < 2 || x.rng.IntN(2) == 0 {
		x.subscribe(c, c.wishes)
	} else { // two requests, one right after the other
		n := 1 + x.rng.IntN(len(c.wishes)-1)
		x.subscribe(c, c.wishes[:n])
		x.subscribe(c, c.wishes[n:])
	}
}

func (x *run) subscribe(c *client, wishes []*wish) {
	if len(wishes) == 0 {
		return
	}
	x.w.mu.Lock()
	ref, wants := c.asks(wishes)
	x.w.mu.Unlock()
	if err := c.conn.session.Subscribe(ref, wants, 100); err != nil {
		panic(err)
	}
	x.returned(c)
}

// returned: a call that changes the subscriptions of a client came back.
func (x *run) returned(c *client) {
	x.w.mu.Lock()
	c.conn.returned = c.conn.calls
	x.w.mu.Unlock()
}

func (x *run) disconnect(c *client) {
	x.w.mu.Lock()
	x.w.note("    %s drops, %d frames unread", c.name, c.conn.box.Len())
	session := c.away()
	x.w.mu.Unlock()
	session.Close()
}

// patience makes a client slow or fast.
func (x *run) patience(c *client, slow bool) {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	x.w.note("    %s slow: %v", c.name, slow)
	c.conn.slow = slow
	c.conn.drain()
}
