package hub_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
)

// What is fresh is owed everything from its first event on, also while something else that
// was subscribed with it is still being replayed: the ring may forget meanwhile, and the log.
func TestFreshHasNoHole(t *testing.T) {
	for _, fresh := range []string{"a", "*"} {
		t.Run(fresh, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := memlog.New(memlog.Options{}) // keeps 1,000 of a topic
				h := hub.New(log, hub.Options{})
				defer func() { h.Close(); log.Close() }()
				stays := h.Open("acme", newSink()) // from now on the ring has everything
				defer stays.Close()
				synctest.Wait()
				first := publish(t, h, "b.b")
				for range 300 {
					publish(t, h, "b.b")
				}
				s := slowSink{newSink(), make(chan struct{})}
				session := h.Open("acme", s)
				defer session.Close()
				require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: "b.b", Since: first}, {Pattern: fresh}}, 9))
				synctest.Wait() // 256 events of the ring are queued
				for range 300 {
					publish(t, h, "a")
				}
				s.room <- struct{}{} // 256 more, the first of a among them
				synctest.Wait()
				time.Sleep(2 * time.Minute)
				for range 1200 {
					publish(t, h, "a")
				}
				time.Sleep(2 * time.Minute)
				publish(t, h, "b.b")
				close(s.room)
				lines, _ := s.caughtUp(t)
				last, gaps := 0, 0
				for _, line := range lines {
					var n int
					if _, err := fmt.Sscanf(line, "kept a %d", &n); err == nil {
						require.True(t, last == 0 || n == last+1 || gaps > 0, "a %d after a %d, and no gap", n, last)
						last = n
					} else if strings.HasPrefix(line, "{") {
						gaps++
					}
				}
				require.NotZero(t, last)
				require.Equal(t, 1, gaps)
			})
		})
	}
}

// An epoch that begins before anything was sent to who is fresh is nothing to it.
func TestFreshWhileAnEpochBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New(memlog.Options{})
		fails := false
		h := hub.New(&spoiled{Log: log, spoil: func(int64, *hub.View) error {
			if !fails {
				return nil
			}
			fails = false
			log.NewEpoch("acme", 0)
			return fmt.Errorf("%w: the primary is gone", hub.ErrUnavailable)
		}}, hub.Options{})
		defer func() { h.Close(); log.Close() }()
		publish(t, h, "jobs.1")
		stays := h.Open("acme", newSink())
		defer stays.Close()
		synctest.Wait()
		fails = true
		lines, _ := resume(t, h, hub.Want{Pattern: "jobs.1", Last: 1})
		require.Equal(t, []string{"kept jobs.1 1"}, lines)
	})
}

// A gap of who came without a cursor names where it was in the epoch before.
func TestFreshGapHasACursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New(memlog.Options{})
		h := hub.New(log, hub.Options{})
		defer func() { h.Close(); log.Close() }()
		publish(t, h, "a", "b")
		s := slowSink{newSink(), make(chan struct{})}
		session := h.Open("acme", s)
		defer session.Close()
		require.NoError(t, session.Subscribe("1", []hub.Want{{Pattern: "a"}}, 9))
		require.NoError(t, session.Subscribe("2", []hub.Want{{Pattern: "*", Last: 1}}, 9))
		synctest.Wait()
		require.Equal(t, "kept b 2", s.until(t, 2)[1])
		log.NewEpoch("acme", 0)
		log.Reset("acme")
		synctest.Wait()
		session.Revoke(func(pattern string) bool { return pattern != "a" })
		close(s.room)
		synctest.Wait()
		gaps := 0
		for _, line := range s.until(t, 5) {
			if strings.Contains(line, `"op":"gap"`) {
				gaps++
				require.NotContains(t, line, `"since":""`)
			}
		}
		require.NotZero(t, gaps)
	})
}
