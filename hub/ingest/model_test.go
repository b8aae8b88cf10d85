package ingest

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/hub/redislog"
	"github.com/pushhub/pushhub/protocol"
)

// The model: instances hear one stream of marks and messages over connections
// that stall, break and begin anew; what they ask of a real Redis is done late, or
// done and answered late, or not; they die. All messages have the same bytes but one in the
// test's eyes only: nothing but their names tells them apart.

var (
	modelN    = flag.Int("model.n", cmp.Or(envInt("MODEL_N"), 150), "schedules of the model, of each kind")
	modelSeed = flag.Uint64("model.seed", 1, "the first seed of the model")
)

func envInt(name string) int {
	n, _ := strconv.Atoi(os.Getenv(name))
	return n
}

const pattern = "alerts:*"

// world is one schedule.
type world struct {
	t       judge
	off     rule // of all peers
	anon    bool // each peer has names of its own for what it hears
	rng     *rand.Rand
	log     *redislog.Log
	tenants []string
	pace    time.Duration // the longest from mark to mark; long: some come too late
	stream  []item        // what Redis sent, to whom it was connected to
	peers   []*peer
	late    []redislog.Claim // given up by those who made them, and still on the way
	story   strings.Builder
}

// judge is told what is wrong.
type judge interface {
	require.TestingT
	Context() context.Context
}

// item is a mark, or a message.
type item struct {
	mark   int64
	tenant string
	number int // of the tenant's messages
}

// peer is one instance.
type peer struct {
	name   string
	g      *Ingester
	alive  bool
	plain  bool            // it may use no transactions
	begins *redislog.Claim // with the subscription that is on the way; nil: none is
	placed bool            // plain: the Claim was made, the subscription not
	answer func()          // is on the way; nil: none is
	next   int             // of stream, that it has not read yet; -1: it is not connected
	mark   int64           // 0: none since it was connected
	count  int64
	heard  []item
}

func (w *world) tell(format string, args ...any) { fmt.Fprintf(&w.story, format+"\n", args...) }

func (w *world) join() {
	g := New(Options{Log: w.log, MaxBytes: 64 << 10})
	g.pace.lookBack = 0 // when to look is the model's to say, and nobody is forgotten
	g.pace.stale, g.pace.tick = time.Hour, time.Hour
	g.hangUp = func(error) {} // nor does one hang up because nothing comes
	g.off = w.off
	p := &peer{name: string(rune('a' + len(w.peers))), g: g, alive: true, next: -1, plain: w.rng.IntN(4) == 0}
	w.peers = append(w.peers, p)
	w.connect(p)
	w.subscribe(p)
}

func (w *world) connect(p *peer) {
	c := ear{p.g}.Begins()
	p.begins, p.placed = &c, false
}

// subscribe has Redis do what connect sent, or a part of it.
func (w *world) subscribe(p *peer) {
	c, at := *p.begins, len(w.stream)
	if !p.placed {
		if w.setMark(); c.Open == redislog.OpenFromMark {
			c.Open = w.stream[at].mark
		}
		_, err := w.log.Lease(w.t.Context(), c)
		require.NoError(w.t, err)
		if p.placed = p.plain; p.plain {
			return
		}
	} else {
		ear{p.g}.Unmarked()
	}
	w.tell("%s is connected", p.name)
	p.next, p.mark, p.begins = at, 0, nil
}

func (w *world) disconnect(p *peer) {
	w.tell("%s is cut", p.name)
	if p.begins != nil && w.rng.IntN(2) == 0 {
		w.late = append(w.late, *p.begins)
	}
	p.next, p.begins = -1, nil
	p.g.missing()
}

// ask has a peer make a Claim.
func (w *world) ask(p *peer) {
	g := p.g
	if p.answer != nil {
		p.answer()
		p.answer = nil
		return
	}
	claim, newest := g.claim(), g.newest
	if w.rng.IntN(8) == 0 {
		w.late = append(w.late, claim)
		return
	}
	if claim.Mark == 0 {
		w.setMark()
	}
	stand, err := w.log.Lease(w.t.Context(), claim)
	require.NoError(w.t, err)
	asked := time.Now()
	p.answer = func() { g.heed(claim, newest, stand, asked) }
	if w.rng.IntN(4) > 0 {
		w.ask(p)
	}
}

// arrive has Redis do one of what is late.
func (w *world) arrive() {
	if len(w.late) == 0 {
		return
	}
	i := w.rng.IntN(len(w.late))
	if w.late[i].Mark == 0 {
		w.setMark()
	}
	_, err := w.log.Lease(w.t.Context(), w.late[i])
	require.NoError(w.t, err)
	w.late = slices.Delete(w.late, i, i+1)
}

func (w *world) setMark() {
	var last int64 = 1_700_000_000_000_000
	for _, i := range w.stream {
		last = max(last, i.mark)
	}
	w.stream = append(w.stream, item{mark: last + 1 + w.rng.Int64N(w.pace.Microseconds())})
}

func (w *world) publish() {
	tenant := w.tenants[w.rng.IntN(len(w.tenants))]
	n := 0
	for _, i := range w.stream {
		if i.tenant == tenant {
			n++
		}
	}
	w.stream = append(w.stream, item{tenant: tenant, number: n})
}

// read has a peer read some of what was sent to it.
func (w *world) read(p *peer, n int) {
	if !p.alive || p.next < 0 {
		return
	}
	for ; n > 0 && p.next < len(w.stream); n-- {
		i := w.stream[p.next]
		p.next++
		switch {
		case i.mark > 0:
			p.mark, p.count = i.mark, 0
			ear{p.g}.Marked(i.mark)
		case p.mark > 0:
			p.count++
			p.heard = append(p.heard, i)
			event := protocol.Publication{Topic: "a", Type: "t", Data: []byte(strconv.Itoa(i.number))}
			name := redislog.RawName{Mark: p.mark, Pattern: pattern, N: p.count}
			if w.anon {
				name.Pattern += p.name
			}
			require.True(w.t, p.g.take(i.tenant, redislog.Raw{Name: name, Event: event}))
		}
	}
}

// bury has the others know that a peer is dead, as they do after some seconds.
func (w *world) bury(p *peer) {
	w.disconnect(p)
	p.alive, p.answer = false, nil
	p.g.queues = map[string]*queue{}
	p.g.renew(w.t.Context())
}

// act has a peer bring in something, as the one who leads or as another. Some
// answers are lost.
func (w *world) act(p *peer, wild bool) {
	g := p.g
	if !p.alive || len(g.queues) == 0 {
		return
	}
	if wild {
		g.leading, g.stand, g.clear = w.rng.IntN(2) == 0, redislog.Standing{}, math.MaxInt64
	}
	for _, tenant := range w.tenants {
		q := g.queues[tenant]
		if q == nil || w.rng.IntN(2) == 0 {
			continue
		}
		if w.rng.IntN(4) == 0 {
			w.tell("%s brings something for %s, and is not told so", p.name, tenant)
			n := w.rng.IntN(g.due(q) + 1)
			require.NoError(w.t, g.bring(w.t.Context(), tenant, q.waiting[:n], !g.leading))
			continue
		}
		w.tell("%s brings what it has for %s", p.name, tenant)
		w.advance(p, q)
	}
}

func (w *world) advance(p *peer, q *queue) {
	p.g.mu.Lock()
	p.g.advance(w.t.Context(), q)
	p.g.turns, q.busy = nil, false
	p.g.mu.Unlock()
}

// run runs a schedule. wild: any of them brings in what it has at any time, also twice;
// else as the lease and what they tell each other have it.
func (w *world) run(wild bool) {
	for range 2 + w.rng.IntN(2) {
		w.join()
	}
	for range 60 + w.rng.IntN(100) {
		p := w.peers[w.rng.IntN(len(w.peers))]
		switch n := w.rng.IntN(100); {
		case n < 40:
			w.publish()
		case n < 50:
			w.setMark()
		case n < 64:
			w.read(p, w.rng.IntN(20))
		case n < 77:
			w.act(p, wild)
		case n < 86:
			if p.alive {
				w.ask(p)
			}
		case n < 88:
			w.arrive()
		case n < 92:
			if p.alive && (p.next >= 0 || p.begins != nil) {
				w.disconnect(p)
			}
		case n < 98:
			if p.begins != nil {
				w.subscribe(p)
			} else if p.alive && p.next < 0 {
				w.connect(p)
			}
		case n < 99:
			if len(w.peers) < 6 {
				w.join()
			}
		default:
			w.tell("%s dies", p.name)
			w.bury(p)
		}
	}
	w.join() // so that one is alive
	for len(w.late) > 0 {
		w.arrive()
	}
	for _, p := range w.peers {
		for p.begins != nil {
			w.subscribe(p)
		}
	}
	rest := true
	for n := 0; rest; n++ {
		require.Less(w.t, n, 2000, "something waits for ever")
		rest = false
		for _, p := range w.peers {
			if !p.alive {
				continue
			}
			p.g.opts.MaxBytes = 1 // one message at a time
			w.read(p, len(w.stream))
			w.ask(p)
			for _, q := range p.g.queues {
				rest = true
				w.advance(p, q)
			}
		}
	}
}

// verdict compares the log with what was heard.
func (w *world) verdict(ordered bool) {
	lost := int64(0)
	heard := map[string]map[int]bool{}
	for _, p := range w.peers {
		lost += p.g.stats.Lost.Load()
		for _, i := range p.heard {
			if heard[i.tenant] == nil {
				heard[i.tenant] = map[int]bool{}
			}
			heard[i.tenant][i.number] = heard[i.tenant][i.number] || p.alive
		}
	}
	for _, tenant := range w.tenants {
		v, err := w.log.Look(w.t.Context(), tenant, hub.Query{Topics: []hub.TopicQuery{{Topic: "a"}}})
		require.NoError(w.t, err)
		var got []int
		for _, e := range v.Topics[0].Events {
			_, data, _ := strings.Cut(string(e.JSON), `"data":`)
			n, err := strconv.Atoi(strings.TrimSuffix(data, "}"))
			require.NoError(w.t, err)
			got = append(got, n)
			_, was := heard[tenant][n]
			require.True(w.t, was, "%d was heard by nobody", n)
		}
		if ordered {
			require.True(w.t, slices.IsSorted(got), "%s has %v", tenant, got)
		}
		slices.Sort(got)
		require.Equal(w.t, slices.Compact(slices.Clone(got)), got, "%s has something twice", tenant)
		if lost > 0 {
			continue // somebody was told that it came too late
		}
		for n, must := range heard[tenant] {
			require.False(w.t, must && !slices.Contains(got, n), "%s lacks %d", tenant, n)
		}
	}
}

// modelLog is the log of all schedules.
func modelLog(t *testing.T) *redislog.Log {
	retention, err := hub.ParseRetention(">:1000/1h")
	require.NoError(t, err)
	log, err := redislog.Open(redislog.Options{Redis: &redis.Options{Addr: logtest.StartRedis(t).Addr()}, Retention: retention})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	return log
}

// play runs a schedule and judges it.
func play(t judge, log *redislog.Log, name string, seed uint64, wild, anon bool, off rule) *world {
	w := &world{t: t, off: off, anon: anon, log: log, rng: rand.New(rand.NewPCG(seed, 1)), pace: 6 * time.Second}
	if seed%4 == 0 {
		w.pace = 30 * time.Second
	}
	for i := range 1 + w.rng.IntN(3) {
		w.tenants = append(w.tenants, fmt.Sprintf("t%d-%s-%d", seed, name, i))
	}
	if story, ok := t.(*testing.T); ok {
		defer func() {
			if story.Failed() {
				story.Logf("-model.seed %d -model.n 1, %s\n%s", seed, name, w.story.String())
			}
		}()
	}
	require.NoError(t, log.Client().Del(t.Context(), "pushhub:ingest").Err())
	require.NoError(t, log.Client().HSet(t.Context(), "pushhub:ingest", "began", 0).Err())
	w.run(wild)
	w.verdict(!wild)
	return w
}

func TestModel(t *testing.T) {
	t.Parallel()
	log := modelLog(t)
	for _, wild := range []bool{false, true} {
		lossy := 0
		for seed := *modelSeed; seed < *modelSeed+uint64(*modelN); seed++ {
			w := play(t, log, map[bool]string{true: "wild", false: "tame"}[wild], seed, wild, false, 0)
			late := int64(0)
			for _, p := range w.peers {
				late += p.g.stats.Lost.Load()
			}
			if late > 0 {
				lossy++
			}
		}
		t.Logf("wild: %t; %d schedules, in %d of them messages came too late", wild, *modelN, lossy)
		require.Less(t, lossy, max(1, *modelN/4))
	}
}

// trap notes the first thing that is wrong, and ends the schedule.
type trap struct {
	*testing.T
	wrong string
}

func (t *trap) Errorf(format string, args ...any) { t.wrong = fmt.Sprintf(format, args...) }
func (t *trap) FailNow()                          { panic(t) }

// Every rule is needed: without it the model finds what is wrong then.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()
	log := modelLog(t)
	for name, c := range map[string]struct {
		off  rule
		anon bool // who hears a message has a name of its own for it
		wild bool
		want string
	}{
		"look":   {off: ruleLook, want: "waits for ever"},
		"older":  {off: ruleOlder, want: "Should be true"},
		"read":   {off: ruleRead, want: "Should be true"},
		"begins": {off: ruleBegins, want: "Should be true"},
		"serial": {off: ruleSerial, want: "waits for ever"},
		"names":  {anon: true, wild: true, want: "has something twice"},
	} {
		fails := func(seed uint64) (wrong string) {
			caught := &trap{T: t}
			defer func() {
				if p := recover(); p != nil && p != any(caught) {
					panic(p)
				}
				wrong = caught.wrong
			}()
			play(caught, log, name, seed, c.wild, c.anon, c.off)
			return ""
		}
		found := ""
		for seed := uint64(1); found == "" && seed <= 300; seed++ {
			if found = fails(seed); found != "" {
				t.Logf("without %s, schedule %d: %s", name, seed, strings.ReplaceAll(found, "\n", " "))
			}
		}
		require.Contains(t, found, c.want, name)
	}
}
