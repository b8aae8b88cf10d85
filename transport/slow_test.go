package transport_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport"
)

// way is how a client may be connected.
type way struct {
	name  string
	start func(testing.TB, func(*transport.Options)) *instance
	setup func(*instance)
	ws    bool
}

var ways = []way{
	{"WebSocket", start, nil, true},
	{"SSE", start, nil, false},
	{"SSE over TLS", secure, func(i *instance) { i.speak((*http.Protocols).SetHTTP1) }, false},
	{"SSE over HTTP/2", start, func(i *instance) { i.speak((*http.Protocols).SetUnencryptedHTTP2) }, false},
}

func onAllWays(t *testing.T, change func(*transport.Options), test func(t *testing.T, i *instance, w way)) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			i := w.start(t, change)
			if w.setup != nil {
				w.setup(i)
			}
			test(t, i, w)
		})
	}
}

// lazy gives a client that reads nothing but what it is asked for, through small
// buffers: each call of next gives a message, of an event its JSON.
func (i *instance) lazy(w way, query string) (next func() string, leave func() error) {
	i.t.Helper()
	query += "&token=" + token(i.t, nil)
	if w.ws {
		c := i.raw(64 << 10)
		c.handshake("/api/v1/ws?"+query, "HTTP/1.1")
		c.accepted()
		next = func() string {
			for {
				if opcode, payload := c.frame(); opcode == 1 {
					return payload
				}
			}
		}
		return next, c.net.Close
	}
	slow, before := *i, i.client
	slow.client = func() *http.Transport {
		c := before()
		c.DialContext = (&net.Dialer{Control: buffer(unix.SO_RCVBUF, 64<<10)}).DialContext
		return c
	}
	s := slow.stream("/api/v1/stream?" + query)
	next = func() string {
		b := s.next()
		for b.data == "" {
			b = s.next()
		}
		if b.id != "" && !strings.HasPrefix(b.data, `{"op"`) {
			require.Equal(i.t, b.id, decodeEvent(i.t, b.data).ID)
		}
		return b.data
	}
	return next, s.body.Close
}

// put publishes events straight into the hub.
func (i *instance) put(events ...protocol.Publication) []protocol.Cursor {
	i.t.Helper()
	cursors, err := i.hub.Publish(i.t.Context(), "acme", events)
	require.NoError(i.t, err)
	return cursors
}

// sized is an event whose data is its number and this many bytes.
func sized(topic string, n, bytes int) protocol.Publication {
	return protocol.Publication{Topic: topic, Type: "t", Data: fmt.Appendf(nil, `{"n":%d,"x":"%s"}`, n, strings.Repeat("x", bytes))}
}

func large(topic string, n int) protocol.Publication { return sized(topic, n, 50_000) }

func numberOf(t testing.TB, event string) int {
	t.Helper()
	var e struct{ Data struct{ N int } }
	decodeJSON(t, event, &e)
	return e.Data.N
}

func begun(t testing.TB, next func() string) {
	t.Helper()
	require.Contains(t, next(), `{"op":"welcome"`)
	require.Contains(t, next(), `{"op":"subscribed"`)
}

// A reader that stalls is told that it is too slow, and resumes without loss;
// meanwhile others get everything as it comes.
func TestStalledReader(t *testing.T) {
	onAllWays(t, nil, func(t *testing.T, i *instance, w way) {
		stalled, leave := i.lazy(w, "topics=a")
		begun(t, stalled)
		quick := i.stream("/api/v1/stream?topics=a&token=" + token(t, nil))
		quick.begin()
		pace := time.NewTicker(2 * time.Millisecond) // all at once would be a burst: see transport/wire
		defer pace.Stop()
		events := 0
		for waited, cut := 0., false; !cut; { // then it has five seconds to read the end
			<-pace.C
			i.put(large("a", events))
			require.Equal(t, events, numberOf(t, quick.next().data), "nobody waits for the stalled one")
			events++
			require.Less(t, events, 1000, "50 MB are more than the kernel and the outbox take")
			waits := i.metric(t, "pushhub_outbox_bytes")
			cut, waited = waited > 500_000 && waits < waited/2, waits // its outbox was dropped
		}
		var bye struct {
			Op, Reason, Cursor string
			Code, Retry        int
		}
		got, last := 0, ""
		for {
			m := stalled()
			if strings.HasPrefix(m, `{"op":"bye"`) {
				decodeJSON(t, m, &bye)
				break
			}
			require.Equal(t, got, numberOf(t, m))
			last = decodeEvent(t, m).ID
			got++
		}
		require.Equal(t, 4413, bye.Code)
		require.Equal(t, "slow_consumer", bye.Reason)
		require.Equal(t, last, bye.Cursor, "the last event that came whole")
		require.Less(t, bye.Retry, 1000, "it shall resume at once")
		require.Less(t, got, events)

		require.NoError(t, leave())
		require.Eventually(t, func() bool { return strings.Contains(i.lines.String(), `"reason":"slow_consumer"`) }, i.patience, time.Millisecond)

		again, _ := i.lazy(w, "topics=a&since="+bye.Cursor) // a replay, at its own pace
		require.Contains(t, again(), "welcome")
		for ; got < events; got++ {
			require.Equal(t, got, numberOf(t, again()))
		}
		require.Contains(t, again(), `{"op":"subscribed"`)
	})
}

// A stalled reader of progress gets the newest of each job when it reads again,
// and always what is final.
func TestConflatedReader(t *testing.T) {
	const rounds, jobs = 500, 3
	onAllWays(t, nil, func(t *testing.T, i *instance, w way) {
		stalled, _ := i.lazy(w, "topics=jobs.*&last=0")
		begun(t, stalled)
		for n := range rounds {
			for job := range jobs {
				p := large(fmt.Sprint("jobs.", job), n)
				p.Key, p.Data = "progress", p.Data[:len(p.Data)-40_000-2]
				p.Data = append(p.Data, `"}`...)
				p.Final = n == rounds/2+job*10 || n == rounds-1
				i.put(p)
			}
		}
		last, finals, got := map[string]int{}, map[string]int{}, 0
		for finals["jobs.0"]+finals["jobs.1"]+finals["jobs.2"] < 2*jobs {
			m := stalled()
			require.NotContains(t, m, `{"op"`, "it is not closed")
			topic, n := decodeEvent(t, m).Topic, numberOf(t, m)
			require.True(t, got == 0 || last[topic] == 0 || n > last[topic], "%s: %d after %d", topic, n, last[topic])
			last[topic] = n
			if n == rounds-1 || n == rounds/2+10*int(topic[len(topic)-1]-'0') {
				finals[topic]++
			}
			got++
		}
		require.Equal(t, map[string]int{"jobs.0": 2, "jobs.1": 2, "jobs.2": 2}, finals)
		if w.name == "WebSocket" || w.name == "SSE" { // elsewhere the queue only may, after a while
			require.Less(t, got, rounds*jobs, "much was superseded")
			require.Positive(t, i.metric(t, "pushhub_conflated_total"))
		}
		i.put(protocol.Publication{Topic: "jobs.0", Type: "t", Data: []byte(`{"n":5000}`)})
		require.Equal(t, 5000, numberOf(t, stalled()), "it goes on")
	})
}

// A reader that keeps up gets every event of a key, also when 500 come in one
// batch: conflation is by back-pressure alone.
func TestBurst(t *testing.T) {
	onAllWays(t, nil, func(t *testing.T, i *instance, w way) {
		next, _ := i.lazy(w, "topics=jobs.7&last=0")
		begun(t, next)
		for round := range 4 {
			var batch []protocol.Publication
			for n := range 500 {
				p := protocol.Publication{Topic: "jobs.7", Type: "t", Data: fmt.Appendf(nil, `{"n":%d}`, 500*round+n)}
				if round%2 == 0 {
					p.Key = "progress"
				}
				batch = append(batch, p)
			}
			published := make(chan struct{})
			go func() { defer close(published); i.put(batch...) }()
			for n := range 500 {
				require.Equal(t, 500*round+n, numberOf(t, next()))
			}
			<-published
		}
		require.Zero(t, i.metric(t, "pushhub_conflated_total"))
	})
}

// The bounds of the outbox are settings: what runs into one that is low is well within
// the usual ones.
func TestOutboxBounds(t *testing.T) {
	const events = 128
	for name, c := range map[string]struct {
		change func(*transport.Options)
		cut    bool
	}{
		"usual":  {nil, false},
		"events": {func(o *transport.Options) { o.Limits.OutboxEvents = 1 }, true},
		"bytes":  {func(o *transport.Options) { o.Limits.OutboxBytes = 16 << 10 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := (&net.ListenConfig{Control: buffer(unix.SO_SNDBUF, 64<<10)}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			require.NoError(t, err)
			i := serveOn(t, l, nil, c.change)
			stalled, _ := i.lazy(ways[0], "topics=a")
			begun(t, stalled)
			pace := time.NewTicker(2 * time.Millisecond) // as in TestStalledReader
			defer pace.Stop()
			for n := range events { // 512 KB are more than the kernel takes
				<-pace.C
				i.put(sized("a", n, 4000))
			}
			for n := range events {
				m := stalled()
				if strings.HasPrefix(m, `{"op":"bye","code":4413`) {
					require.True(t, c.cut)
					return
				}
				require.Equal(t, n, numberOf(t, m))
			}
			require.False(t, c.cut)
		})
	}
}
