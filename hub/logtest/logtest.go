// Package logtest is the one test suite that every hub.Log passes, with what it
// takes to write such tests: a Recorder, which is a hub.Listener that can be
// waited on, and a real redis-server of a test's own.
//
// The suite says in tests what the comments of hub.Log say in words. It is
// about what an asker sees; what only one log has, such as the faults that the
// log in memory can make, is tested beside that log.
package logtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// Open gives two instances that share one log, which keeps what retention says.
// A log that lives in one process gives the same instance twice. Listen was not
// called on them. Open has them closed when t ends, by t.Cleanup. It may give
// the same log in every test: the suite uses new tenants each time.
type Open func(t *testing.T, retention hub.Retention) (a, b hub.Log)

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, part := range []struct {
		name      string
		retention string
		run       func(t *testing.T, a, b hub.Log)
	}{
		{"Sequence", keepAll, testSequence},
		{"EventAsPublished", keepAll, testEventAsPublished},
		{"TimeOfTheLog", keepAll, testTimeOfTheLog},
		{"Dedupe", keepAll, testDedupe},
		{"DedupeWithinOneBatch", keepAll, testDedupeWithinOneBatch},
		{"DedupeRace", keepAll, testDedupeRace},
		{"BatchesAreAtomic", keepAll, testBatchesAreAtomic},
		{"TenantsApart", keepAll, testTenantsApart},
		{"TopicsApart", keepAll, testTopicsApart},
		{"CancelledContext", keepAll, testCancelledContext},

		{"FreshTenant", keepAll, testFreshTenant},
		{"FreshTenantRace", keepAll, testFreshTenantRace},
		{"LookIsNew", keepAll, testLookIsNew},
		{"TopicQueries", keepAll, testTopicQueries},
		{"TopicOrder", keepAll, testTopicOrder},
		{"BoundOfAnswer", keepAll, testBoundOfAnswer},
		{"Index", keepAll, testIndex},
		{"KnownNotAhead", keepAll, testKnownNotAhead},
		{"KnownAhead", keepAll, testKnownAhead},
		{"KnownAheadRace", keepAll, testKnownAheadRace},

		{"RetentionByCount", "few.>:3/1h,>:10/1h", testRetentionByCount},
		{"RetentionByAge", "short.>:100/1s,>:100/1h", testRetentionByAge},

		{"Watch", keepAll, testWatch},
		{"LiveAsLooked", keepAll, testLiveAsLooked},
		{"LiveComplete", keepAll, testLiveComplete},
		{"LiveOverEpochs", keepAll, testLiveOverEpochs},
		{"Unwatch", keepAll, testUnwatch},
		{"WatchAgain", keepAll, testWatchAgain},
		{"Reset", keepAll, testReset},
		{"WatchDoesNotBlock", keepAll, testWatchDoesNotBlock},

		{"Model", "few.>:3/1h,>:1000/1h", testModel},
	} {
		t.Run(part.name, func(t *testing.T) {
			retention, err := hub.ParseRetention(part.retention)
			require.NoError(t, err)
			a, b := open(t, retention)
			part.run(t, a, b)
		})
	}
}

// keepAll is the retention of tests that are not about it.
const keepAll = ">:100000/1h"

// listen has both instances tell Recorders, the same one if they are the same.
func listen(t *testing.T, a, b hub.Log) (ra, rb *Recorder) {
	ra = NewRecorder(t)
	a.Listen(ra)
	if a == b {
		return ra, ra
	}
	rb = NewRecorder(t)
	b.Listen(rb)
	return ra, rb
}

// newTenant gives the name of a tenant that nobody has used.
func newTenant() string { return "t-" + rand.Text() }

// on gives a small event for a topic, with a time, so that its bytes are known.
func on(topic string, data any) protocol.Publication {
	return protocol.Publication{
		Topic: topic,
		Type:  "test.v1",
		Time:  "2026-05-27T10:15:00.123Z",
		Data:  fmt.Appendf(nil, `{"n":%v}`, data),
	}
}

// once is on with a dedupe.
func once(topic, dedupe string, data any) protocol.Publication {
	p := on(topic, data)
	p.Dedupe = dedupe
	return p
}

// publish publishes, which must not fail, and gives the cursors.
func publish(t require.TestingT, l hub.Log, tenant string, events ...protocol.Publication) []protocol.Cursor {
	help(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cursors, err := l.Publish(ctx, tenant, events)
	require.NoError(t, err)
	require.Len(t, cursors, len(events))
	return cursors
}

// tryPublish is publish for goroutines, which must not end the test. It says
// whether it went well.
func tryPublish(t *testing.T, l hub.Log, tenant string, events ...protocol.Publication) ([]protocol.Cursor, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cursors, err := l.Publish(ctx, tenant, events)
	return cursors, assert.NoError(t, err) && assert.Len(t, cursors, len(events))
}

// look looks, which must not fail.
func look(t require.TestingT, l hub.Log, tenant string, q hub.Query) hub.View {
	help(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	v, err := l.Look(ctx, tenant, q)
	require.NoError(t, err)
	require.Len(t, v.Topics, len(q.Topics))
	return v
}

// lookAt looks at one topic.
func lookAt(t require.TestingT, l hub.Log, tenant string, q hub.TopicQuery) hub.TopicView {
	help(t)
	return look(t, l, tenant, hub.Query{Topics: []hub.TopicQuery{q}}).Topics[0]
}

func help(t require.TestingT) {
	if h, ok := t.(interface{ Helper() }); ok {
		h.Helper()
	}
}

// seqs gives the seqs of events, never nil.
func seqs(events []*protocol.Event) []uint64 {
	all := make([]uint64, len(events))
	for i, e := range events {
		all[i] = e.Cursor.Seq
	}
	return all
}

// from1 gives 1, 2 … n.
func from1(n int) []uint64 {
	all := make([]uint64, n)
	for i := range all {
		all[i] = uint64(i) + 1
	}
	return all
}

// requireEvent checks all of an event but its arrival.
func requireEvent(t require.TestingT, p protocol.Publication, c protocol.Cursor, prev uint64, e *protocol.Event) {
	help(t)
	require.Equal(t, c, e.Cursor)
	require.Equal(t, prev, e.Prev, "prev of %v", c)
	require.Equal(t, p.Topic, e.Topic)
	require.Equal(t, p.Type, e.Type)
	require.Equal(t, p.Key, e.Key)
	require.Equal(t, p.Final, e.Final)
	if p.Time != "" {
		require.Equal(t, string(bytesOf(p, c)), string(e.JSON))
	}
}

// bytesOf gives the JSON of an event that has a time.
func bytesOf(p protocol.Publication, c protocol.Cursor) []byte {
	b := append(c.Append([]byte(`{"id":"`)), '"')
	return p.AppendBody(b, noTime)
}
