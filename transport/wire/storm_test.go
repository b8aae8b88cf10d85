package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/wire"
)

// Everything at once, again and again: producers of several kinds, a reader that
// is now quick and now slow, readers of the counters, and an end at any moment.
// Then what the reader got is held against what was sent.
func TestStorm(t *testing.T) {
	test := func(t *testing.T, l *link) {
		for round := range 24 {
			s := &storm{link: l, end: []string{"close", "finish", "abort"}[round%3]}
			s.run(round%2 == 0)
		}
	}
	onBothPaths(t, test)
	t.Run("TLS", func(t *testing.T) { test(t, &link{t: t, tls: certificate(t)}) })
}

// storm is one connection.
type storm struct {
	*link
	end  string
	done atomic.Bool // no producer goes on
}

// A topic of the storm has events without a key, with one, and final ones, in
// turn: what an event is follows from its seq.
func stormEvent(topic string, seq uint64) *protocol.Event {
	e := event(topic, seq, int(seq*37%700))
	if seq%3 > 0 {
		keyed(e, seq%15 == 1)
	}
	return e
}

func (s *storm) run(bounded bool) {
	s.counts.delivered.Store(0)
	s.done.Store(false)
	s.open(medium, func(o *setup) {
		if bounded {
			o.MaxEvents, o.MaxBytes = 400, 100_000
		}
	})
	var all sync.WaitGroup
	for p := range 3 {
		all.Go(func() { s.produce(fmt.Sprint("topic", p)) })
	}
	all.Go(s.watch)
	got := make(chan []byte)
	go func() { got <- s.drink() }()
	for enough := rand.Int64N(300_000); s.conn.Stats().Bytes < enough && s.conn.Code() == 0; {
		runtime.Gosched()
	}
	switch s.end {
	case "close":
		s.conn.Close(protocol.Drain)
	case "finish":
		s.conn.Finish()
	case "abort":
		s.conn.Abort()
	}
	s.done.Store(true)
	all.Wait()
	s.check(<-got)
	s.conn.Abort()
	_ = s.far.Close()
}

func (s *storm) produce(topic string) {
	for seq := uint64(1); !s.done.Load(); seq++ {
		for s.conn.Waiting() > 200_000 && !s.done.Load() {
			runtime.Gosched()
		}
		s.conn.Event(stormEvent(topic, seq), true)
		if rand.IntN(3) > 0 {
			s.conn.Flush()
		}
	}
}

// watch does what else may be done to a Conn at any time.
func (s *storm) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for !s.done.Load() {
		_ = s.conn.Room(ctx)
		_, _, _, _ = s.conn.Idle(), s.conn.Waiting(), s.conn.Stats(), s.conn.Code()
		s.conn.Heartbeat(protocol.Cursor{})
		s.conn.Flush()
	}
}

// drink reads to the end, in gulps of any size.
func (s *storm) drink() []byte {
	var all []byte
	gulp := make([]byte, 64<<10)
	_ = s.far.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		n, err := s.far.Read(gulp[:1+rand.IntN(len(gulp))])
		all = append(all, gulp[:n]...)
		if err != nil {
			require.NotErrorIs(s.t, err, context.DeadlineExceeded)
			return all
		}
	}
}

// check: whole blocks; each topic in order, none twice; none missing but what a
// later one of its key superseded; bye last, with the last event's id; counted.
func (s *storm) check(stream []byte) {
	t, code := s.t, s.conn.Code()
	torn := s.end == "abort" || s.end == "finish" && code != 0 // it met a bye, and cut it short
	in := bufio.NewReader(bytes.NewReader(stream))
	last := map[string]uint64{}
	events, reached, bye := 0, "", ""
	for {
		b, err := next(in)
		if err != nil {
			require.Equal(t, io.EOF, err)
			require.True(t, torn || b.data == "", "a torn block: %q", b.data)
			break
		}
		require.Empty(t, bye, "something after bye")
		switch {
		case b.name == "bye":
			bye = b.data
		case b != (block{}):
			topic, seq := topicOf(t, b), seqOf(t, b)
			require.Greater(t, seq, last[topic], topic)
			for missing := last[topic] + 1; missing < seq; missing++ {
				e := stormEvent(topic, missing)
				require.True(t, e.Key != "" && !e.Final, "%s %d is missing between %d and %d", topic, missing, last[topic], seq)
			}
			last[topic], reached = seq, b.id
			events++
		}
	}
	if torn {
		return // the kernel may have had more than the client
	}
	if s.end == "close" {
		require.Contains(t, []protocol.CloseCode{protocol.Drain, protocol.SlowConsumer}, code)
	}
	if code != 0 {
		require.Equal(t, fmt.Sprintf("%d %s", code, reached), bye)
	}
	require.Equal(t, wire.Stats{Events: events, Bytes: int64(len(stream))}, s.conn.Stats())
	require.EqualValues(t, events, s.delivered.Load())
	require.Zero(t, s.conn.Waiting())
}
