package hub_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
)

// What was read of a topic before the log forgot it does not hide that the rest is gone.
func TestForgottenBetweenPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New(memlog.Options{}) // jobs.> for an hour
		h := hub.New(log, hub.Options{})
		defer func() { h.Close(); log.Close() }()
		stays := h.Open("acme", newSink())
		defer stays.Close()
		synctest.Wait()
		time.Sleep(55 * time.Second) // the log sweeps each minute
		first := publish(t, h, "a")
		for range 300 {
			publish(t, h, "a")
		}
		time.Sleep(24*time.Hour - 5*time.Second)
		publish(t, h, "other") // the ring lets go of a
		slow := slowSink{newSink(), make(chan struct{})}
		session := h.Open("acme", slow)
		defer session.Close()
		require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: "a", Since: first}}, 9))
		synctest.Wait()              // it has the first piece
		time.Sleep(15 * time.Second) // the log forgets a
		close(slow.room)
		lines, _ := slow.caughtUp(t)
		require.Contains(t, lines, gapLine("a", protocol.Cursor{Epoch: first.Epoch, Seq: 129}.String(), protocol.GapExpired))

		lines, _ = resume(t, h, hub.Want{Pattern: "a", Since: first})
		require.Contains(t, lines, gapLine("a", protocol.Cursor{Epoch: first.Epoch, Seq: 1}.String(), protocol.GapExpired))
	})
}

// Who is fresh with a pattern, and was given an event of a topic that the log forgets before
// the replay is over, is told that the rest of it is gone.
func TestFreshPatternForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		retention, err := hub.ParseRetention("b:9/10s,>:9/1h")
		require.NoError(t, err)
		log := memlog.New(memlog.Options{Retention: retention})
		h := hub.New(log, hub.Options{})
		defer func() { h.Close(); log.Close() }()
		stays := h.Open("acme", newSink())
		defer stays.Close()
		synctest.Wait()
		publish(t, h, "b")
		slow := slowSink{newSink(), make(chan struct{})}
		session := h.Open("acme", slow)
		defer session.Close()
		require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: "*", Last: 1}}, 9))
		synctest.Wait()
		publish(t, h, "b")
		time.Sleep(130 * time.Second)
		publish(t, h, "a")
		close(slow.room)
		lines, _ := slow.caughtUp(t)
		require.Len(t, lines, 3, "b 1, a gap, a 3: %v", lines)
	})
}

// Of who asked for the last few of a topic and is overtaken by an epoch nothing is left out
// that is retained.
func TestLastOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New(memlog.Options{})
		h := hub.New(log, hub.Options{})
		defer func() { h.Close(); log.Close() }()
		for range 300 {
			publish(t, h, "a")
		}
		slow := slowSink{newSink(), make(chan struct{})}
		session := h.Open("acme", slow)
		defer session.Close()
		require.NoError(t, session.Subscribe("", []hub.Want{{Pattern: "a", Last: 300}}, 9))
		synctest.Wait()
		log.NewEpoch("acme", 0)
		log.Reset("acme")
		publish(t, h, "a")
		synctest.Wait()
		close(slow.room)
		lines, _ := slow.caughtUp(t)
		require.Len(t, lines, 302)
	})
}
