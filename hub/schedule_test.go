package hub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing/synctest"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
)

// What is published and subscribed in the search.
var (
	topics   = []string{"a", "b", "jobs.1", "jobs.2", "x.y.z", "users.u1.in", "users.u2.in"}
	patterns = []string{
		"a", "b", "jobs.1", "jobs.2", "x.y.z", "users.u1.in",
		"jobs.*", ">", "*", "x.>", "*.*", "jobs.>", "users.u1.>",
	}
)

// plan is what one schedule does: a few kinds of trouble at a time find more
// than all at once.
type plan struct {
	rng       *rand.Rand
	lossless  bool
	retention string
	steps     int
	cut       int
	kinds     []kind
	total     int // of the kinds' weights
}

type kind struct {
	weight int
	lossy  bool // can make a gap necessary
	do     func(*schedule)
}

func newPlan(seed uint64) *plan {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := &plan{rng: rng, lossless: rng.IntN(4) == 0, retention: ">:1000/24h", steps: 30 + rng.IntN(90)}
	if !p.lossless {
		p.retention = pick(rng, ">:1000/24h", ">:3/24h", ">:1000/20s", ">:5/90s")
	}
	p.cut = pick(rng, 0, 0, 1, 2, 5)
	for i, k := range kinds {
		if (k.lossy && p.lossless) || i >= basics && rng.IntN(2) == 0 {
			continue
		}
		p.kinds = append(p.kinds, k)
		p.total += k.weight
	}
	return p
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// schedule is one run of the search. Its steps come one after the other, from
// one goroutine, each when everything that the one before began has come to rest.
type schedule struct {
	*plan
	off       hub.Rule
	w         *world
	instances []*instance
	clients   []*client
}

type instance struct {
	name string
	hub  *hub.Hub
	pipe *pipe
}

func newSchedule(seed uint64, off hub.Rule) *schedule {
	s := &schedule{plan: newPlan(seed), off: off}
	retention, err := hub.ParseRetention(s.retention)
	if err != nil {
		panic(err)
	}
	s.w = newWorld(memlog.New(memlog.Options{Retention: retention}))
	s.w.lossless = s.lossless
	s.w.note("lossless %v, retention %s, answers cut at %d", s.lossless, s.retention, s.cut)
	synctest.Wait()
	s.look()
	for i := range 2 {
		s.instances = append(s.instances, s.start(fmt.Sprintf("hub%d", i)))
	}
	s.connected()
	return s
}

func (s *schedule) start(name string) *instance {
	p := newPipe(s.w, s.cut)
	h := hub.New(p, hub.Options{})
	h.SwitchOff(s.off)
	go p.run()
	return &instance{name, h, p}
}

// connected tells the world which pipes there are.
func (s *schedule) connected() {
	var all []*pipe
	for _, i := range s.instances {
		all = append(all, i.pipe)
	}
	s.w.mu.Lock()
	s.w.pipes = all
	s.w.mu.Unlock()
}

// look notes in which epoch the log is.
func (s *schedule) look() {
	v, err := s.w.log.Look(context.Background(), acme, hub.Query{})
	if err != nil {
		panic(err)
	}
	s.w.began(v)
}

func (s *schedule) run() {
	for range s.steps {
		n := s.rng.IntN(s.total)
		for _, k := range s.kinds {
			if n -= k.weight; n < 0 {
				k.do(s)
				break
			}
		}
		synctest.Wait()
		s.check()
		if s.w.failed() {
			return
		}
	}
	s.settle()
}

// settle lets everything come to rest: connections are made again, but a channel
// that is deaf stays so until it is found out.
func (s *schedule) settle() {
	s.w.step("the end: all settles")
	for _, i := range s.instances {
		i.pipe.change(func() { i.pipe.held, i.pipe.faults, i.pipe.swallow = false, 0, 0 })
		i.pipe.restore(nil)
		i.pipe.release(0, true)
	}
	for _, c := range s.clients {
		if c.conn != nil {
			s.patience(c, false)
		} else {
			s.connect(c)
		}
	}
	for range 3 {
		time.Sleep(25 * time.Second)
		s.publish(1)
		synctest.Wait()
	}
	time.Sleep(45 * time.Second)
	synctest.Wait()
	s.check()
	retained := s.retained()
	s.w.mu.Lock()
	for _, c := range s.clients {
		c.verdict(retained)
	}
	s.w.mu.Unlock()
}

// retained gives the events that are in the log.
func (s *schedule) retained() map[protocol.Cursor]bool {
	var q hub.Query
	for _, t := range topics {
		q.Topics = append(q.Topics, hub.TopicQuery{Topic: t})
	}
	v, err := s.w.log.Look(context.Background(), acme, q)
	if err != nil {
		panic(err)
	}
	all := map[protocol.Cursor]bool{}
	for _, tv := range v.Topics {
		for _, e := range tv.Events {
			all[e.Cursor] = true
		}
	}
	return all
}

// end takes everything down, that the bubble may end.
func (s *schedule) end() {
	for _, c := range s.clients {
		if c.conn != nil {
			s.disconnect(c)
		}
	}
	for _, i := range s.instances {
		i.hub.Close()
		i.pipe.stop()
	}
	s.w.log.Close()
}

func (s *schedule) publish(n int) {
	batch := make([]protocol.Publication, n)
	for i := range batch {
		p := protocol.Publication{Topic: pick(s.rng, topics...), Type: "t", Data: []byte("1")}
		if s.rng.IntN(2) == 0 {
			p.Key, p.Final = pick(s.rng, "k", "l"), s.rng.IntN(4) == 0
		}
		batch[i] = p
	}
	ids, err := s.w.log.Publish(context.Background(), acme, batch)
	if err != nil {
		panic(err)
	}
	var said strings.Builder
	for i, id := range ids[:min(n, 25)] {
		said.WriteString(fmt.Sprintf(" %s=%s", batch[i].Topic, id))
	}
	s.w.step("published%s", said.String())
}

// connect opens a session for a client on any instance, with what it wants. An
// EventSource has to want something.
func (s *schedule) connect(c *client) {
	if !c.ws && len(c.wishes) == 0 {
		return
	}
	i := pick(s.rng, s.instances...)
	s.w.mu.Lock()
	conn := c.back(i, false)
	s.w.note("%s connects to %s", c.name, i)
	s.w.mu.Unlock()
	conn.session = i.hub.Open(acme, conn)
	if !c.ws || len(c.wishes) < 2 || s.rng.IntN(2) == 0 {
		s.subscribe(c, c.wishes)
	} else { // two requests, one right after the other
		n := 1 + s.rng.IntN(len(c.wishes)-1)
		s.subscribe(c, c.wishes[:n])
		s.subscribe(c, c.wishes[n:])
	}
}

func (s *schedule) subscribe(c *client, wishes []*wish) {
	if len(wishes) == 0 {
		return
	}
	s.w.mu.Lock()
	ref, wants := c.asks(wishes)
	s.w.mu.Unlock()
	if err := c.conn.session.Subscribe(ref, wants, 100); err != nil {
		panic(err)
	}
	s.returned(c)
}

// returned: a call that changes the subscriptions of a client came back.
func (s *schedule) returned(c *client) {
	s.w.mu.Lock()
	c.conn.returned = c.conn.calls
	s.w.mu.Unlock()
}

func (s *schedule) disconnect(c *client) {
	s.w.mu.Lock()
	s.w.note("%s drops, %d frames unread", c.name, c.conn.box.Len())
	session := c.away()
	s.w.mu.Unlock()
	session.Close()
}

// patience makes a client slow or fast.
func (s *schedule) patience(c *client, slow bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.note("%s slow: %v", c.name, slow)
	c.conn.slow = slow
	c.conn.drain()
}
