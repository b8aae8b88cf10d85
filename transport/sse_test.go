package transport_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport"
)

func TestStreamHeaders(t *testing.T) {
	i := start(t, nil)
	path := "/api/v1/stream?topics=a&token=" + token(t, nil)
	s := i.stream(path, "X-Request-Id", "r-1", "Origin", i.base)
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no",
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Request-Id": "r-1", "Vary": "Origin",
		"Access-Control-Allow-Origin": i.base, "Content-Length": "", "Transfer-Encoding": "",
	} {
		require.Equal(t, want, s.res.Header.Get(name), name)
	}
	require.NotEmpty(t, s.res.Header.Get("Date"))
	require.True(t, s.res.Close, "it ends with the connection")
	require.EqualValues(t, -1, s.res.ContentLength)
	head := i.do("HEAD", path, "", "")
	require.Equal(t, 200, head.status)
	require.Equal(t, "text/event-stream; charset=utf-8", head.header.Get("Content-Type"))
	require.Empty(t, head.body)
}

// retry is spread: those whose instance died do not come back in one moment.
func TestRetryIsSpread(t *testing.T) {
	i := start(t, nil)
	path := "/api/v1/stream?topics=a&token=" + token(t, nil)
	seen := map[int]bool{}
	for range 60 {
		s := i.stream(path)
		retry, err := strconv.Atoi(s.next().retry)
		require.NoError(t, err)
		require.GreaterOrEqual(t, retry, 1000)
		require.LessOrEqual(t, retry, 5000)
		seen[retry/100] = true
		require.NoError(t, s.body.Close())
	}
	require.Greater(t, len(seen), 10, "%v", seen)
}

func TestNamedEvents(t *testing.T) {
	i := start(t, nil)
	s := i.stream("/api/v1/stream?topics=a,jobs.1&named=true&token=" + token(t, nil))
	_, subscribed := s.begin()
	require.Equal(t, "control", subscribed.event)
	id := i.publish("a", "1")
	b := s.next()
	require.Equal(t, [2]string{id, "t.v1"}, [2]string{b.id, b.event})
	plain := i.stream("/api/v1/stream?topics=a&named=false&last=1&token=" + token(t, nil))
	before, _ := plain.begin()
	require.Equal(t, []block{{"", "", b.data, ""}}, before, "the same bytes, without a name")
}

// What a fresh client is shown has no id, and neither has welcome: only what it
// can resume from does.
func TestFreshStream(t *testing.T) {
	i := start(t, nil)
	tok := token(t, nil)
	for n := range 5 {
		i.publish("a", fmt.Sprint(n))
		i.publish("jobs.1", fmt.Sprint(n))
		i.publish("jobs.2", fmt.Sprint(n))
	}
	head := i.publish("z", "0")
	for query, want := range map[string][]string{
		"topics=a":                {},
		"topics=jobs.1":           {"jobs.1 4"},
		"topics=jobs.*":           {"jobs.1 4", "jobs.2 4"},
		"topics=a,jobs.1":         {"jobs.1 4"},
		"topics=%3E":              {},
		"topics=a&last=2":         {"a 3", "a 4"},
		"topics=jobs.*,a&last=2":  {"a 3", "jobs.1 3", "jobs.2 3", "a 4", "jobs.1 4", "jobs.2 4"},
		"topics=%3E&last=1":       {"a 4", "jobs.1 4", "jobs.2 4", "z 0"},
		"topics=jobs.1&last=0":    {},
		"topics=jobs.1&last=1000": {"jobs.1 0", "jobs.1 1", "jobs.1 2", "jobs.1 3", "jobs.1 4"},
	} {
		s := i.stream("/api/v1/stream?" + query + "&token=" + tok)
		require.NotEmpty(t, s.next().retry)
		welcome := s.next()
		require.Contains(t, welcome.data, `{"op":"welcome"`)
		require.Equal(t, [2]string{"", "control"}, [2]string{welcome.id, welcome.event}, query)
		got := []string{}
		b := s.next()
		for ; b.event == ""; b = s.next() {
			require.Empty(t, b.id, query)
			e := decodeEvent(t, b.data)
			got = append(got, e.Topic+" "+string(e.Data))
		}
		require.Equal(t, want, got, query)
		require.Contains(t, b.data, `{"op":"subscribed"`)
		require.Contains(t, b.data, `"cursor":"`+b.id+`"`)
		require.Equal(t, head, b.id)
		require.NoError(t, s.body.Close())
	}
}

// Where the cursor is taken from, what becomes of welcome's id, and gaps: for
// just the topics concerned, before their next event, without an id.
func TestResumedStream(t *testing.T) {
	i := start(t, nil)
	first := i.publish("a", "1")
	i.publish("b", "2")
	i.publish("b", "3")
	i.publish("a", "4")
	i.log.Trim("acme", "b", 1)
	epoch, _, _ := strings.Cut(first, "-")
	zero, ahead := epoch+"-0", epoch+"-1000"
	keep := i.stream("/api/v1/stream?topics=a&token=" + token(t, nil)) // the tenant is known from now on
	keep.begin()
	const all = "topics=a,b,c.*&last=1"
	for _, c := range []struct {
		query, header string
		welcome       string // its id
		want          string
	}{
		{all, first, first, "gap b expired, 3, 4"},
		{all + "&since=" + first, "", first, "gap b expired, 3, 4"},
		{all + "&lastEventId=" + first, "", first, "gap b expired, 3, 4"},
		{all + "&since=" + zero, first, first, "gap b expired, 3, 4"},
		{all + "&since=" + first + "&lastEventId=" + zero, "", first, "gap b expired, 3, 4"},
		{"topics=a&since=" + zero, "", zero, "1, 4"},
		{"topics=%3E", first, first, "gap > expired, 3, 4"},
		{"topics=*,b", first, first, "gap b expired, 3, 4"},
		{"topics=c", zero, zero, ""},
		{all, "foreign-3", "", "gap a epoch, gap b epoch, gap c.* epoch, 1, 3, 4"},
		{"topics=a", ahead, ahead, "gap a epoch, 1, 4"},
	} {
		var h []string
		if c.header != "" {
			h = []string{"Last-Event-ID", c.header}
		}
		s := i.stream("/api/v1/stream?"+c.query+"&token="+token(t, nil), h...)
		require.NotEmpty(t, s.next().retry)
		welcome := s.next()
		require.Equal(t, c.welcome, welcome.id, "%v", c)
		var got []string
		b := s.next()
		for ; !strings.HasPrefix(b.data, `{"op":"subscribed"`); b = s.next() {
			if b.event == "" {
				e := decodeEvent(t, b.data)
				require.Equal(t, e.ID, b.id, "a replay has ids")
				got = append(got, string(e.Data))
				continue
			}
			var gap struct{ Op, Topic, Since, Reason string }
			decodeJSON(t, b.data, &gap)
			require.Equal(t, "gap", gap.Op)
			require.NotEmpty(t, gap.Since)
			require.Empty(t, b.id)
			got = append(got, "gap "+gap.Topic+" "+gap.Reason)
		}
		require.Equal(t, c.want, strings.Join(got, ", "), "%v", c)
		require.NoError(t, s.body.Close())
	}
}

// The topics of the path, of the query and of the token.
func TestTopicsOfStream(t *testing.T) {
	i := start(t, nil)
	plain, job := token(t, nil), token(t, func(c *auth.Claims) { c.Job = "7" })
	for path, want := range map[string][]string{
		"/api/v1/stream?topics=a&topics=b,a&token=" + plain:          {"a", "b"},
		"/api/v1/alerts/stream?token=" + plain:                       {"alerts"},
		"/api/v1/alerts/stream?topics=a,alerts&token=" + plain:       {"a", "alerts"},
		"/api/v1/alerts/stream?topics=a&token=" + plain:              {"a", "alerts"},
		"/api/v1/jobs/7/stream?token=" + plain:                       {"jobs.7"},
		"/api/v1/jobs/7/stream?topics=alerts.*,b&token=" + plain:     {"alerts.*", "b", "jobs.7"},
		"/api/v1/stream?token=" + job:                                {"jobs.7"},
		"/api/v1/jobs/7/stream?token=" + job:                         {"jobs.7"},
		"/api/v1/stream?topics=jobs.7&last=&since=&token=" + job:     {"jobs.7"},
		"/api/v1/stream?topics=users.u1,users.u1.%3E&token=" + plain: {"users.u1", "users.u1.>"},
	} {
		s := i.stream(path)
		_, subscribed := s.begin()
		var m struct{ Topics []protocol.SubscribedTopic }
		decodeJSON(t, subscribed.data, &m)
		var got []string
		for _, topic := range m.Topics {
			got = append(got, topic.Topic)
		}
		require.Equal(t, want, got, path)
		require.NoError(t, s.body.Close())
	}
}

// 204 tells an EventSource to stop: its only topic is a job that is over, and it
// has seen the end.
func TestFinishedJob(t *testing.T) {
	i := start(t, nil)
	tok := token(t, nil)
	publish := func(topic string, final bool) string {
		a := i.do("POST", "/api/v1/events", tok, fmt.Sprintf(`{"topic":%q,"type":"t","data":1,"final":%v}`, topic, final))
		require.Equal(t, 201, a.status)
		var got struct{ IDs []string }
		decodeJSON(t, string(a.Data), &got)
		return got.IDs[0]
	}
	begun := publish("jobs.done", false)
	end := publish("jobs.done", true)
	publish("jobs.again", true)
	again := publish("jobs.again", false)
	publish("other.topic", true)
	later := publish("alerts", true)
	epoch, _, _ := strings.Cut(end, "-")
	for _, c := range []struct {
		path, cursor string
		status       int
	}{
		{"/api/v1/stream?topics=jobs.done", end, 204},
		{"/api/v1/stream?topics=jobs.done", later, 204},
		{"/api/v1/jobs/done/stream?", end, 204},
		{"/api/v1/jobs/done/stream?topics=jobs.done", end, 204},
		{"/api/v1/jobs/done/stream?since=" + end, "", 204},
		{"/api/v1/jobs/done/stream?lastEventId=" + end, "", 204},
		{"/api/v1/stream?topics=jobs.done", begun, 200},
		{"/api/v1/stream?topics=jobs.done", "", 200},
		{"/api/v1/stream?topics=jobs.done", "foreign-9", 200},
		{"/api/v1/stream?topics=jobs.done", epoch + "-999", 200},
		{"/api/v1/stream?topics=jobs.done,alerts", later, 200},
		{"/api/v1/stream?topics=jobs.*", later, 200},
		{"/api/v1/stream?topics=jobs.again", again, 200},
		{"/api/v1/stream?topics=jobs.unknown", later, 200},
		{"/api/v1/stream?topics=alerts", later, 200},
		{"/api/v1/stream?topics=other.topic", later, 200},
	} {
		s := i.stream(c.path+"&token="+tok, "Last-Event-ID", c.cursor)
		require.Equal(t, c.status, s.res.StatusCode, "%s %s", c.path, c.cursor)
		if c.status == 204 {
			require.Contains(t, s.res.Header.Get("Cache-Control"), "no-store", "the next client may have another cursor")
			b, err := io.ReadAll(s.body)
			require.NoError(t, err)
			require.Empty(t, b)
		}
		require.NoError(t, s.body.Close())
	}
}

// What passes by itself is no status to an EventSource, which would give up: it
// is a stream that says when to come back, and ends.
func TestStreamOfAFullInstance(t *testing.T) {
	i := start(t, func(o *transport.Options) { o.Limits.Connections = 1 })
	tok := token(t, nil)
	holder := i.stream("/api/v1/stream?topics=a&token=" + tok)
	holder.begin()
	requireBye(t, i.stream("/api/v1/stream?topics=a&token="+tok, "Last-Event-ID", "e-5"), protocol.Overload, "")
	requireRefusal(t, refuses(503, protocol.Unavailable, protocol.InInternal, "", ""),
		i.do("GET", "/api/v1/ws", tok, "", append(upgrade, "X-Request-Id", "r")...), "r")
	require.Equal(t, 401, i.do("GET", "/api/v1/stream?topics=a", "", "").status, "what must be mended is told all the same")
	i.publish("a", "1")
	require.Contains(t, holder.next().data, `"data":1`)
	require.NoError(t, holder.body.Close())
	require.Eventually(t, func() bool {
		s := i.stream("/api/v1/stream?topics=a&token=" + tok)
		defer func() { _ = s.body.Close() }()
		require.NotEmpty(t, s.next().retry)
		return strings.Contains(s.next().data, "welcome")
	}, i.patience, 1, "its place is free again")
}

// Nor is it a status that the keys to verify tokens with cannot be had: it passes.
func TestStreamWithoutKeys(t *testing.T) {
	keys := httptest.NewServer(http.NotFoundHandler())
	defer keys.Close()
	ctx, cancel := context.WithCancel(t.Context())
	verifier, err := auth.New(ctx, auth.Config{JWKSURL: keys.URL, Algorithm: "ES256"})
	require.NoError(t, err)
	defer verifier.Wait()
	defer cancel()
	i := start(t, func(o *transport.Options) { o.Verifier = verifier })
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tok, err := auth.Sign("ES256", key, "k1", auth.Claims{Tenant: "acme", ExpiresAt: time.Now().Add(time.Hour).Unix()})
	require.NoError(t, err)
	requireBye(t, i.stream("/api/v1/stream?topics=a&token="+tok), protocol.Overload, "")
	unavailable := refuses(503, protocol.Unavailable, protocol.InInternal, "", "")
	requireRefusal(t, unavailable, i.do("GET", "/api/v1/events", tok, "", "X-Request-Id", "r"), "r")
	requireRefusal(t, unavailable, i.do("GET", "/api/v1/ws", tok, "", append(upgrade, "X-Request-Id", "r")...), "r")
	ws := i.dial("/api/v1/ws?token="+tok, "Origin", i.base)
	require.Contains(t, ws.next(), `{"op":"error","error":{"code":"unavailable"`)
	ws.ended(1013, "overload")
	require.Equal(t, 401, i.do("GET", "/api/v1/stream?topics=a", "x", "").status)
}

// requireBye expects nothing but the hub's goodbye.
func requireBye(t testing.TB, s *stream, code protocol.CloseCode, id string) {
	t.Helper()
	require.Equal(t, http.StatusOK, s.res.StatusCode)
	require.Equal(t, "text/event-stream; charset=utf-8", s.res.Header.Get("Content-Type"))
	retry := s.next().retry
	require.NotEmpty(t, retry)
	require.Equal(t, block{id, "control", byeJSON(code, retry, id), ""}, s.next())
	_, err := s.read()
	require.Equal(t, io.EOF, err)
}

func byeJSON(code protocol.CloseCode, retry, cursor string) string {
	b := fmt.Sprintf(`{"op":"bye","code":%d,"reason":"%s","retry":%s`, code, code.Reason(), retry)
	if cursor != "" {
		b += `,"cursor":"` + cursor + `"`
	}
	return b + "}"
}
