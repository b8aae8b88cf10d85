package memlog

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

func TestDedupeForTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, nil)
		require.Equal(t, []uint64{1}, publish(t, l, "t", once("a", "x")))
		time.Sleep(5 * time.Minute)
		require.Equal(t, []uint64{2}, publish(t, l, "t", once("a", "y")))
		time.Sleep(5*time.Minute - time.Millisecond)
		require.Equal(t, []uint64{1}, publish(t, l, "t", once("a", "x")), "within ten minutes")
		time.Sleep(time.Millisecond)
		require.Equal(t, []uint64{3, 2}, publish(t, l, "t", once("a", "x"), once("a", "y")), "x is old, y is not")
		require.NoError(t, l.tenant("t").check())
	})
}

func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, rules(t, "jobs.>:100/10s,>:100/1h"))
		publish(t, l, "t", on("jobs.1"))
		time.Sleep(4 * time.Second)
		publish(t, l, "t", on("jobs.1"), on("a"))
		time.Sleep(6 * time.Second)
		require.Len(t, look(t, l, "t", "jobs.1").Topics[0].Events, 2, "none is older than 10 s")

		time.Sleep(time.Millisecond)
		v := look(t, l, "t", "jobs.1")
		require.Equal(t, []uint64{2}, seqs(v.Topics[0].Events))
		require.EqualValues(t, 1, v.Topics[0].Events[0].Prev, "the chain names what is gone")

		time.Sleep(4 * time.Second)
		v = look(t, l, "t", "jobs.1", "a")
		require.Equal(t, []hub.TopicView{{Last: 2}, {Last: 3, Events: v.Topics[1].Events}}, v.Topics)
		require.Equal(t, []hub.TopicLast{{Topic: "jobs.1", Last: 2}, {Topic: "a", Last: 3}}, v.Index, "it is still known")
		require.Zero(t, v.Floor)

		publish(t, l, "t", on("jobs.1"))
		v = look(t, l, "t", "jobs.1")
		require.Equal(t, []uint64{4}, seqs(v.Topics[0].Events))
		require.EqualValues(t, 2, v.Topics[0].Events[0].Prev, "the index knows what is gone")
	})
}

func TestAgeOnPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, rules(t, ">:100/10s"))
		publish(t, l, "t", on("a"), on("a"))
		time.Sleep(10*time.Second + time.Millisecond)
		publish(t, l, "t", on("a"))
		state := l.tenant("t")
		require.Len(t, state.topics["a"].Value.(*topic).events, 1)
		require.NoError(t, state.check())
	})
}

// TestSweep waits for what nobody publishes to or looks at.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, rules(t, "jobs.>:100/10s,>:100/1h"))
		publish(t, l, "t", once("jobs.1", "x"), on("a"), on("jobs.2"))
		epoch := look(t, l, "t").Epoch
		time.Sleep(sweepEvery + time.Millisecond)
		synctest.Wait()

		v := look(t, l, "t", "jobs.1", "a")
		require.Equal(t, []hub.TopicLast{{Topic: "a", Last: 2}}, v.Index)
		require.Equal(t, hub.TopicView{}, v.Topics[0])
		require.Equal(t, []uint64{2}, seqs(v.Topics[1].Events))
		require.EqualValues(t, 3, v.Floor)
		require.Equal(t, []uint64{4}, publish(t, l, "t", on("jobs.1")))
		require.EqualValues(t, 3, look(t, l, "t", "jobs.1").Topics[0].Events[0].Prev, "chained to the floor")

		time.Sleep(time.Hour + sweepEvery)
		synctest.Wait()
		state := l.tenant("t")
		require.NoError(t, state.check())
		require.Nil(t, state.topics)
		require.Nil(t, state.firsts)
		require.Nil(t, state.ids)
		require.EqualValues(t, 4, look(t, l, "t").Floor)

		// Its clients' cursors are still good.
		require.Equal(t, epoch, look(t, l, "t").Epoch)
		require.Equal(t, []uint64{5}, publish(t, l, "t", on("b")))
		require.EqualValues(t, 4, look(t, l, "t", "b").Topics[0].Events[0].Prev)
	})
}

// TestSweepKeepsFloor lets a topic leave whose last seq is below the floor.
func TestSweepKeepsFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, rules(t, "jobs.>:100/10s,>:100/1h"))
		publish(t, l, "t", on("a"), on("jobs.1"))
		for range 61 {
			time.Sleep(sweepEvery)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		v := look(t, l, "t")
		require.Empty(t, v.Index)
		require.EqualValues(t, 2, v.Floor)
	})
}

// TestClockJumps has a wall clock that jumps by more than all that is kept: an age is
// the time that has passed.
func TestClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var off time.Duration
		l := New(Options{Retention: rules(t, ">:100/10s"), Now: func() time.Time { return time.Now().Add(off) }})
		defer l.Close()
		for _, off = range []time.Duration{0, 24 * time.Hour, -24 * time.Hour} {
			time.Sleep(3 * time.Second)
			publish(t, l, "t", once("a", "x"), on("a"))
			got := look(t, l, "t", "a").Topics[0].Events
			require.Contains(t, string(got[len(got)-1].JSON), time.Now().Add(off).UTC().Format(`"time":"2006-01-02T15:04:05.000Z"`))
		}
		require.Equal(t, []uint64{1, 2, 3, 4}, seqs(look(t, l, "t", "a").Topics[0].Events), "x is there once")
		time.Sleep(4*time.Second + time.Millisecond)
		require.Equal(t, []uint64{3, 4}, seqs(look(t, l, "t", "a").Topics[0].Events))
		require.NoError(t, l.tenant("t").check())
	})
}

// TestCoveredAtOnce has each note read before the next: none needs time to pass.
func TestCoveredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, nil)
		var got []string
		l.Listen(&script{log: &got})
		l.Watch("t")
		synctest.Wait()
		publish(t, l, "t", on("a"))
		l.Reset("t")
		synctest.Wait()
		publish(t, l, "t", on("a"))
		l.Unwatch("t")
		synctest.Wait()
		publish(t, l, "t", on("a"))
		l.Reset("t")
		synctest.Wait()
		require.Empty(t, l.notes.wishes, "what nobody watches is forgotten")
		l.Watch("t")
		synctest.Wait()
		require.Equal(t, []string{"covered", "1", "lost", "covered", "2", "covered"}, got)
		require.Empty(t, l.notes.queue)
	})
}

// TestNotesTogether leaves several notes before the first can be read.
func TestNotesTogether(t *testing.T) {
	for _, c := range []struct {
		name  string
		leave func(l *Log)
		want  []string
	}{
		{"unwatch and watch", func(l *Log) { l.Unwatch("t"); l.Watch("t") }, []string{"covered", "1"}},
		{"reset", func(l *Log) { l.Reset("t") }, []string{"lost", "covered", "1"}},
		{"reset and unwatch", func(l *Log) { l.Reset("t"); l.Unwatch("t") }, nil},
		{"reset, unwatch and watch", func(l *Log) { l.Reset("t"); l.Unwatch("t"); l.Watch("t") }, []string{"covered", "1"}},
		{"reset twice", func(l *Log) { l.Reset("t"); l.Reset("t") }, []string{"lost", "covered", "1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := open(t, nil)
				var got []string
				s := &script{log: &got}
				l.Listen(s)
				l.Watch("t")
				synctest.Wait()
				// The callback for another tenant holds run while the notes are left.
				s.hold = make(chan struct{})
				l.Watch("other")
				synctest.Wait()
				got = nil
				c.leave(l)
				close(s.hold)
				synctest.Wait()
				publish(t, l, "t", on("a"))
				require.Equal(t, c.want, got)
			})
		})
	}
}

// script writes down what comes for the tenant t; other tenants wait for hold.
type script struct {
	hold chan struct{}
	log  *[]string
}

func (s *script) add(tenant, what string) {
	if tenant != "t" {
		<-s.hold
		return
	}
	*s.log = append(*s.log, what)
}

func (s *script) Covered(tenant string) { s.add(tenant, "covered") }
func (s *script) Lost(tenant string)    { s.add(tenant, "lost") }
func (s *script) Live(tenant string, e *protocol.Event) {
	s.add(tenant, string(rune('0'+e.Cursor.Seq)))
}
