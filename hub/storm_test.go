package hub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
)

// counter is a client that counts, and checks that each topic comes in order.
type counter struct {
	mu       sync.Mutex
	last     map[string]uint64
	events   int
	disorder error
	done     chan struct{} // closed by the first subscribed
	once     sync.Once
}

func newCounter() *counter { return &counter{last: map[string]uint64{}, done: make(chan struct{})} }

func (c *counter) Event(e *protocol.Event, _ bool) (flush bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events++
	if c.last[e.Topic] >= e.Cursor.Seq && c.disorder == nil {
		c.disorder = fmt.Errorf("%s %d after %d", e.Topic, e.Cursor.Seq, c.last[e.Topic])
	}
	c.last[e.Topic] = e.Cursor.Seq
	return false
}

func (c *counter) Retained(e *protocol.Event, id bool) { c.Event(e, id) }
func (c *counter) Control(m []byte, _ protocol.Cursor) {
	if len(m) > 8 && string(m[:8]) == `{"op":"s` {
		c.once.Do(func() { close(c.done) })
	}
}
func (c *counter) Heartbeat(protocol.Cursor)      {}
func (c *counter) Flush()                         {}
func (c *counter) Room(ctx context.Context) error { return ctx.Err() }

func (c *counter) wait(t *testing.T) {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(30 * time.Second):
		require.FailNow(t, "no subscribed")
	}
}

// When an instance dies all its clients come to another one at once, which never
// heard of their topics: they share what the log is asked, whatever they ask for and
// however much they missed.
func TestResumeStorm(t *testing.T) {
	const topics = 10
	exact := make([]string, topics)
	for n := range exact {
		exact[n] = fmt.Sprintf("t.%d", n)
	}
	for name, c := range map[string]struct {
		sessions, events int // of each topic
		patterns         []string
	}{
		"topics":                     {2000, 100, exact},
		"topics, and much missed":    {500, 500, exact},
		"a pattern":                  {2000, 100, []string{"t.*"}},
		"a pattern, and much missed": {500, 500, []string{"t.*"}},
	} {
		t.Run(name, func(t *testing.T) {
			log := memlog.New(memlog.Options{})
			defer log.Close()
			h := hub.New(log, hub.Options{Linger: time.Millisecond})
			defer h.Close()
			all := many(topics*c.events, topics)
			first := publish(t, h, all[0])
			publish(t, h, all[1:]...)

			clients := make([]*counter, c.sessions)
			want := make([]int, c.sessions)
			for i := range clients {
				since := protocol.Cursor{Epoch: first.Epoch, Seq: rand.Uint64N(uint64(len(all)))}
				want[i] = len(all) - int(since.Seq)
				var wants []hub.Want
				for _, p := range c.patterns {
					wants = append(wants, hub.Want{Pattern: p, Since: since})
				}
				clients[i] = newCounter()
				session := h.Open("acme", clients[i])
				defer session.Close()
				require.NoError(t, session.Subscribe("", wants, 100))
			}
			for i, c := range clients {
				c.wait(t)
				c.mu.Lock()
				require.NoError(t, c.disorder)
				require.Equal(t, want[i], c.events)
				c.mu.Unlock()
			}
			reads := h.Stats().Reads.Load()
			t.Logf("%d sessions: %d reads, %d answered from memory", c.sessions, reads, h.Stats().SharedReads.Load())
			require.LessOrEqual(t, reads, int64(100))
		})
	}
}

// When the live channel was lost, and much was published meanwhile, all that were live
// heal together: the log is asked by topic, not by client.
func TestHealStorm(t *testing.T) {
	const sessions, topics, events = 400, 5, 300
	log := memlog.New(memlog.Options{})
	defer log.Close()
	h := hub.New(log, hub.Options{Linger: time.Millisecond})
	defer h.Close()
	clients := make([]*counter, sessions)
	for i := range clients {
		wants := []hub.Want{{Pattern: "t.*"}}
		if i%2 == 0 {
			wants = nil
			for n := range topics {
				wants = append(wants, hub.Want{Pattern: fmt.Sprintf("t.%d", n)})
			}
		}
		clients[i] = newCounter()
		session := h.Open("acme", clients[i])
		defer session.Close()
		require.NoError(t, session.Subscribe("", wants, 100))
	}
	for _, c := range clients {
		c.wait(t)
	}
	before := h.Stats().Reads.Load()
	log.Deafen("acme")
	publish(t, h, many(topics*events, topics)...)
	log.Reset("acme")
	for _, c := range clients {
		require.Eventually(t, func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.events == topics*events
		}, 30*time.Second, time.Millisecond)
		require.NoError(t, c.disorder)
	}
	require.EqualValues(t, 1, h.Stats().Heals.Load())
	reads := h.Stats().Reads.Load() - before
	t.Logf("%d sessions: %d reads, %d answered from memory", sessions, reads, h.Stats().SharedReads.Load())
	require.LessOrEqual(t, reads, int64(topics+1), "a read for each topic, and one of the index")
}

// Everything at once, in real time: at the end the hub's books are right, what is
// left hears what is published, and nothing is left behind.
func TestHubStorm(t *testing.T) {
	log := memlog.New(memlog.Options{})
	defer log.Close()
	h := hub.New(log, hub.Options{Verify: 5 * time.Millisecond, Linger: time.Millisecond})
	defer h.Close()
	topics := []string{"a", "b.c", "b.d", "jobs.1", "jobs.2", "x.y.z"}
	patterns := append([]string{">", "*", "b.*", "jobs.>", "*.*", "x.>"}, topics...)

	var workers, publishers sync.WaitGroup
	var stop atomic.Bool
	for range 2 {
		publishers.Go(func() {
			for n := 0; !stop.Load(); n++ {
				_, err := log.Publish(context.Background(), "acme", []protocol.Publication{
					{Topic: topics[rand.N(len(topics))], Type: "t", Data: []byte("1")},
					{Topic: topics[rand.N(len(topics))], Type: "t", Data: []byte("1"), Key: "k"},
				})
				if err != nil {
					t.Error(err)
					return
				}
				switch rand.N(400) {
				case 0:
					log.Deafen("acme")
				case 1:
					log.Reset("acme")
				case 2:
					log.NewEpoch("acme", rand.N(3))
				}
			}
		})
	}
	for range 8 {
		workers.Go(func() {
			for range 400 {
				session := h.Open("acme", newSink())
				for range rand.N(12) {
					p, q := patterns[rand.N(len(patterns))], patterns[rand.N(len(patterns))]
					switch rand.N(6) {
					case 0, 1, 2:
						_ = session.Subscribe("1", []hub.Want{{Pattern: p, Last: rand.N(3)}, {Pattern: q}}, 9)
					case 3:
						session.Unsubscribe("2", []string{p})
					case 4:
						session.Revoke(func(r string) bool { return r != p })
					default:
						session.Heartbeat()
					}
				}
				session.Close()
			}
		})
	}
	workers.Wait()
	stop.Store(true)
	publishers.Wait()
	require.NoError(t, h.Check())
	require.Zero(t, h.Stats().Sessions.Load())
	require.Zero(t, h.Stats().Subscriptions.Load())

	left := newCounter()
	session := h.Open("acme", left)
	require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: ">"}}, 9))
	left.wait(t)
	require.NoError(t, h.Check())
	session.Close()
	require.Zero(t, h.Stats().Topics.Load())
}

// A hub that closes ends whatever is under way.
func TestCloseInAStorm(t *testing.T) {
	for range 20 {
		log := memlog.New(memlog.Options{})
		h := hub.New(log, hub.Options{})
		var workers sync.WaitGroup
		for range 4 {
			workers.Go(func() {
				for range 10 {
					session := h.Open("acme", newCounter())
					_ = session.Subscribe("", []hub.Want{{Pattern: "jobs.*", Last: 1}}, 9)
					_, _ = log.Publish(context.Background(), "acme", []protocol.Publication{{Topic: "jobs.1", Type: "t", Data: []byte("1")}})
					session.Unsubscribe("", []string{"jobs.*"})
					session.Close()
				}
			})
		}
		h.Close()
		workers.Wait()
		h.Close() // for what was opened after the first
		log.Close()
	}
}
