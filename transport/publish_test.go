package transport_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport"
)

// ids gives the cursors that a publish was acknowledged with.
func (a answer) ids(t testing.TB) []string {
	t.Helper()
	require.Equal(t, 201, a.status, a.body)
	var got struct{ IDs []string }
	decodeJSON(t, string(a.Data), &got)
	return got.IDs
}

func TestPublish(t *testing.T) {
	i := start(t, nil)
	tok := token(t, nil)
	s := i.stream("/api/v1/stream?topics=%3E&token=" + tok)
	s.begin()
	for name, c := range map[string]struct {
		kind, body string
		topics     []string
		types      []string
		sources    []string
	}{
		"one":       {"application/json", `{"topic":"a","type":"t","data":1,"key":"k","final":true,"dedupe":"1"}`, []string{"a"}, []string{"t"}, []string{""}},
		"no type":   {"", `{"topic":"a","type":"t","data":1}`, []string{"a"}, []string{"t"}, []string{""}},
		"charset":   {"application/json; charset=utf-8", `{"topic":"a","type":"t","source":"s","data":1}`, []string{"a"}, []string{"t"}, []string{"s"}},
		"batch":     {"application/json", `{"events":[{"topic":"a","type":"t","data":1},{"topic":"b","type":"u","data":2}]}`, []string{"a", "b"}, []string{"t", "u"}, []string{"", ""}},
		"cloud":     {"application/cloudevents+json; charset=UTF-8", `{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"a"}`, []string{"a"}, []string{"t"}, []string{"s"}},
		"clouds":    {"Application/CloudEvents-Batch+JSON", `[{"specversion":"1.0","id":"2","source":"s","type":"t","subject":"a","data":{}},{"specversion":"1.0","id":"3","source":"s","type":"t","subject":"c"}]`, []string{"a", "c"}, []string{"t", "t"}, []string{"s", "s"}},
		"with time": {"", `{"topic":"a","type":"t","data":1,"time":"2020-02-02T02:02:02.000000001+01:00"}`, []string{"a"}, []string{"t"}, []string{""}},
	} {
		a := i.do("POST", "/api/v1/events", tok, c.body, "Content-Type", c.kind, "X-Request-Id", "r")
		ids := a.ids(t)
		require.Equal(t, fmt.Sprintf(`{"data":{"ids":["%s"]},"error":null,"meta":{"trace_id":"r"}}`, strings.Join(ids, `","`)), a.body)
		require.Equal(t, "no-store", a.header.Get("Cache-Control"))
		require.Len(t, ids, len(c.topics), name)
		for n, id := range ids {
			b := s.next()
			e := decodeEvent(t, b.data)
			require.Equal(t, []string{id, id, c.topics[n], c.types[n], c.sources[n]}, []string{b.id, e.ID, e.Topic, e.Type, e.Source}, name)
			at, err := time.Parse(time.RFC3339, e.Time)
			require.NoError(t, err)
			if name == "with time" {
				require.Equal(t, "2020-02-02T02:02:02.000000001+01:00", e.Time)
			} else {
				require.WithinDuration(t, time.Now(), at, time.Minute)
			}
			for _, hidden := range []string{`"key"`, `"final"`, `"dedupe"`, `"op"`} {
				require.NotContains(t, b.data, hidden)
			}
		}
	}
}

// What is wrong with one event of a batch keeps all of it out of the log.
func TestPublishRefuses(t *testing.T) {
	i := start(t, func(o *transport.Options) { o.Limits.EventBytes, o.Limits.BodyBytes = 100, 2000 })
	tok := token(t, func(c *auth.Claims) { c.Publish = []string{"a", "jobs.*", "nodes.>"} })
	const fine = `{"topic":"a","type":"t","data":1}`
	const bad, no, large = protocol.BadRequest, protocol.Forbidden, protocol.PayloadTooLarge
	in := func(status int, code protocol.Code, field string, reason protocol.Reason) refusal {
		return refuses(status, code, protocol.InBody, field, reason)
	}
	big := `"` + strings.Repeat("x", 99) + `"`
	for name, c := range map[string]struct {
		kind, body string
		want       refusal
	}{
		"empty":             {"", ``, in(400, bad, "body", protocol.Malformed)},
		"no json":           {"", `topic=a`, in(400, bad, "body", protocol.Malformed)},
		"no utf-8":          {"", "{\"topic\":\"a\",\"type\":\"t\",\"data\":\"\xff\"}", in(400, bad, "body", protocol.Malformed)},
		"no topic":          {"", `{"type":"t","data":1}`, in(400, bad, "topic", protocol.Required)},
		"pattern":           {"", `{"topic":"a.*","type":"t","data":1}`, in(400, bad, "topic", protocol.Malformed)},
		"forbidden":         {"", `{"topic":"b","type":"t","data":1}`, in(403, no, "topic", protocol.IsForbidden)},
		"forbidden below":   {"", `{"topic":"jobs.7.x","type":"t","data":1}`, in(403, no, "topic", protocol.IsForbidden)},
		"large":             {"", `{"topic":"a","type":"t","data":` + big + `}`, in(413, large, "data", protocol.Invalid)},
		"batch malformed":   {"", `{"events":[` + fine + `,` + fine + `,{"topic":"a","type":"t"}]}`, in(400, bad, "events[2].data", protocol.Required)},
		"batch forbidden":   {"", `{"events":[` + fine + `,{"topic":"b","type":"t","data":1}]}`, in(403, no, "events[1].topic", protocol.IsForbidden)},
		"batch of one":      {"", `{"events":[{"topic":"b","type":"t","data":1}]}`, in(403, no, "events[0].topic", protocol.IsForbidden)},
		"batch large":       {"", `{"events":[` + fine + `,{"topic":"a","type":"t","data":` + big + `}]}`, in(413, large, "events[1].data", protocol.Invalid)},
		"batch of none":     {"", `{"events":[]}`, in(400, bad, "events", protocol.Required)},
		"cloud":             {"application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"b"}`, in(403, no, "subject", protocol.IsForbidden)},
		"cloud as one":      {"application/cloudevents+json", `[]`, in(400, bad, "body", protocol.Malformed)},
		"clouds":            {"application/cloudevents-batch+json", `[{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"a"},{}]`, in(400, bad, "events[1].specversion", protocol.Required)},
		"form":              {"application/x-www-form-urlencoded", fine, refuses(400, bad, protocol.InHeaders, "Content-Type", protocol.NotSupported)},
		"text":              {"text/plain", fine, refuses(400, bad, protocol.InHeaders, "Content-Type", protocol.NotSupported)},
		"no media type":     {"json;;", fine, refuses(400, bad, protocol.InHeaders, "Content-Type", protocol.Malformed)},
		"body too large":    {"", fine + strings.Repeat(" ", 2000), in(413, large, "body", protocol.Invalid)},
		"too large, no end": {"", strings.Repeat("[", 2001), in(413, large, "body", protocol.Invalid)},
	} {
		got := i.do("POST", "/api/v1/events", tok, c.body, "Content-Type", c.kind, "X-Request-Id", "r")
		t.Log(name)
		requireRefusal(t, c.want, got, "r")
	}
	none := token(t, func(c *auth.Claims) { c.Publish = nil })
	requireRefusal(t, in(403, no, "topic", protocol.IsForbidden), i.do("POST", "/api/v1/events", none, fine, "X-Request-Id", "r"), "r")

	feed := i.do("GET", "/api/v1/events", tok, "")
	require.Equal(t, "[]", string(feed.Data), "nothing of all that was published")
	require.True(t, strings.HasSuffix(feed.Meta.Next, "-0"))
	for _, topic := range []string{"a", "jobs.7", "nodes.x.y.z"} {
		i.do("POST", "/api/v1/events", tok, `{"topic":"`+topic+`","type":"t","data":1}`).ids(t)
	}
}

// A chunked body has no length to refuse it by.
func TestChunkedBody(t *testing.T) {
	i := start(t, func(o *transport.Options) { o.Limits.BodyBytes = 1000 })
	for size, status := range map[int]int{10: 201, 100_000: 413} {
		c := i.raw(0)
		c.write("POST /api/v1/events?token=" + token(t, nil) + " HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n")
		body := `{"topic":"a","type":"t","data":1}` + strings.Repeat(" ", size)
		_, _ = fmt.Fprintf(c.net, "%x\r\n%s\r\n0\r\n\r\n", len(body), body) // it may be closed meanwhile
		res, err := http.ReadResponse(c.in, nil)
		require.NoError(t, err)
		require.Equal(t, status, res.StatusCode)
		require.NoError(t, res.Body.Close())
	}
}

func TestDedupe(t *testing.T) {
	i := start(t, nil)
	tok := token(t, nil)
	s := i.stream("/api/v1/stream?topics=%3E&token=" + tok)
	s.begin()
	publish := func(body string) []string { return i.do("POST", "/api/v1/events", tok, body).ids(t) }
	first := publish(`{"topic":"a","type":"t","data":1,"dedupe":"x"}`)
	require.Equal(t, first, publish(`{"topic":"a","type":"t","data":2,"dedupe":"x"}`), "the first cursor again")
	other := publish(`{"topic":"b","type":"t","data":3,"dedupe":"x"}`)
	require.NotEqual(t, first, other, "of another topic")
	batch := publish(`{"events":[{"topic":"a","type":"t","data":4,"dedupe":"y"},{"topic":"a","type":"t","data":5,"dedupe":"x"},{"topic":"a","type":"t","data":6,"dedupe":"y"},{"topic":"a","type":"t","data":7}]}`)
	require.Equal(t, []string{first[0], batch[0]}, []string{batch[1], batch[2]})
	for _, want := range []string{"1", "3", "4", "7"} {
		require.Equal(t, want, string(decodeEvent(t, s.next().data).Data))
	}
}

// faulty is a log that may be made to fail.
type faulty struct {
	*memlog.Log
	fail atomic.Pointer[func(ctx context.Context) error]
}

func (f *faulty) Publish(ctx context.Context, tenant string, events []protocol.Publication) ([]protocol.Cursor, error) {
	if fail := f.fail.Load(); fail != nil {
		return nil, fmt.Errorf("publish: %w", (*fail)(ctx))
	}
	return f.Log.Publish(ctx, tenant, events)
}

func (f *faulty) Look(ctx context.Context, tenant string, q hub.Query) (hub.View, error) {
	if fail := f.fail.Load(); fail != nil {
		return hub.View{}, fmt.Errorf("look: %w", (*fail)(ctx))
	}
	return f.Log.Look(ctx, tenant, q)
}

// hang waits until the caller gives up.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (f *faulty) with(fail func(ctx context.Context) error) { f.fail.Store(&fail) }

// What the log says, and what a publisher reads of it: nothing internal.
func TestPublishWithoutLog(t *testing.T) {
	const body = `{"topic":"a","type":"t","data":1}`
	for name, c := range map[string]struct {
		fail error
		want refusal
	}{
		"nothing was changed":    {hub.ErrUnavailable, refuses(503, protocol.Unavailable, protocol.InInternal, "", "")},
		"the outcome is unknown": {hub.ErrUnknown, refuses(503, protocol.Unavailable, protocol.InInternal, "events", protocol.TimedOut)},
		"something else":         {errors.New("secret words"), refuses(500, protocol.Internal, protocol.InInternal, "", "")},
	} {
		t.Run(name, func(t *testing.T) {
			i := start(t, nil)
			i.log.with(func(context.Context) error { return c.fail })
			got := i.do("POST", "/api/v1/events", token(t, nil), body, "X-Request-Id", "r")
			requireRefusal(t, c.want, got, "r")
			require.NotContains(t, got.body, "secret words")
			require.Equal(t, c.want.status == 500, strings.Contains(i.lines.String(), "secret words"), "the operator sees what is no usual error")
		})
	}
	t.Run("it hangs", func(t *testing.T) {
		bubble(t, nil, func(t *testing.T, i *instance) {
			i.log.with(hang)
			began := time.Now()
			got := i.do("POST", "/api/v1/events", token(t, nil), body, "X-Request-Id", "r")
			requireRefusal(t, refuses(503, protocol.Unavailable, protocol.InInternal, "events", protocol.TimedOut), got, "r")
			require.LessOrEqual(t, time.Since(began), 5*time.Second)
		})
	})
	t.Run("the publisher leaves", func(t *testing.T) {
		bubble(t, nil, func(t *testing.T, i *instance) {
			i.log.with(hang)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "POST", i.base+"/api/v1/events", strings.NewReader(body))
			require.NoError(t, err)
			req.Header.Set("Authorization", "Bearer "+token(t, nil))
			_, err = i.client().RoundTrip(req)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			synctest.Wait()
			require.Contains(t, i.lines.String(), `"status":503`)
			require.NotContains(t, i.lines.String(), `"level":"error"`, "nothing is wrong here")
		})
	})
}
