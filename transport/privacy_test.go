package transport_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/auth"
)

// views are all the ways to see events of some patterns: what each gives is the
// topics in the order of the events, up to the one on the topic "end".
func views(t testing.TB, i *instance, token, patterns string, publish func()) map[string][]string {
	t.Helper()
	q := "topics=" + url.QueryEscape(patterns) + "&token=" + token
	before := i.do("GET", "/api/v1/events?topics=end&limit=1000", token, "").Meta.Next
	sse := i.stream("/api/v1/stream?" + q)
	sse.begin()
	named := i.stream("/api/v1/stream?named=true&" + q)
	named.begin()
	ws := i.dial("/api/v1/ws?" + q)
	require.Contains(t, ws.next(), "welcome")
	require.Contains(t, ws.next(), "subscribed")
	publish()
	i.publish("end", "0")

	got := map[string][]string{}
	see := func(way, data string) (more bool) {
		if data == "" || strings.HasPrefix(data, `{"op"`) { // retry, and control messages
			return true
		}
		topic := decodeEvent(t, data).Topic
		if topic != "end" {
			got[way] = append(got[way], topic)
		}
		return topic != "end"
	}
	for way, next := range map[string]func() string{
		"live SSE":         func() string { return sse.next().data },
		"live named SSE":   func() string { return named.next().data },
		"live WebSocket":   ws.next,
		"replay SSE":       i.data("/api/v1/stream?since=" + before + "&" + q),
		"replay WebSocket": i.dial("/api/v1/ws?since=" + before + "&" + q).next,
		"last":             i.data("/api/v1/stream?last=1000&" + q),
	} {
		got[way] = nil
		for see(way, next()) {
		}
	}
	for way, query := range map[string]string{"feed": "since=" + before + "&", "feed of last": "last=1000&"} {
		a := i.do("GET", "/api/v1/events?limit=1000&"+query+q, "", "")
		require.Equal(t, 200, a.status, a.body)
		var events []shown
		decodeJSON(t, string(a.Data), &events)
		got[way] = nil
		for _, e := range events {
			if e.Topic != "end" {
				got[way] = append(got[way], e.Topic)
			}
		}
	}
	return got
}

// data gives the data of a stream's blocks one by one.
func (i *instance) data(path string) func() string {
	s := i.stream(path)
	return func() string { return s.next().data }
}

// The users. topics of others are left out of every pattern that begins with a
// wildcard, whichever way one looks.
func TestPrivateTopics(t *testing.T) {
	all := []string{"a", "users.u1", "users.u2", "a.b", "users.u1.inbox", "users.u2.inbox", "users.u1.x.y", "users.u2.x.y", "users.u10", "a.u2", "users"}
	mine := []string{"a", "users.u1", "a.b", "users.u1.inbox", "users.u1.x.y", "a.u2", "users"}
	plain := token(t, nil)
	for _, c := range []struct {
		name, token, patterns string
		want                  []string
	}{
		{"everything", plain, ">,end", mine},
		{"by stars", plain, "*,*.*,*.*.*,*.*.*.*,end", mine},
		{"after a star", plain, "*.>,end", []string{"users.u1", "a.b", "users.u1.inbox", "users.u1.x.y", "a.u2"}},
		{"somebody's name", plain, "*.u2,end", []string{"a.u2"}},
		{"my own", plain, "users.u1,users.u1.>,end", []string{"users.u1", "users.u1.inbox", "users.u1.x.y"}},
		{"granted >", token(t, func(c *auth.Claims) { c.Topics = []string{">"} }), ">,end", mine},
		{"granted all users", token(t, func(c *auth.Claims) { c.Topics = []string{"users.>", "end"} }), "users.>,end",
			[]string{"users.u1", "users.u2", "users.u1.inbox", "users.u2.inbox", "users.u1.x.y", "users.u2.x.y", "users.u10"}},
		{"nobody", token(t, func(c *auth.Claims) { c.User = "" }), ">,end", []string{"a", "a.b", "a.u2", "users"}},
		{"one called *", token(t, func(c *auth.Claims) { c.User = "*" }), ">,end", []string{"a", "a.b", "a.u2", "users"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := start(t, nil)
			got := views(t, i, c.token, c.patterns, func() {
				for _, topic := range all {
					i.publish(topic, "1")
				}
			})
			for way, topics := range got {
				require.Equal(t, c.want, topics, way)
			}
		})
	}
}

// Nothing of one tenant shows in another, though topics, users and jobs have the
// same names; a cursor of the other is foreign.
func TestTenants(t *testing.T) {
	i := start(t, nil)
	other := token(t, func(c *auth.Claims) { c.Tenant = "other" })
	service := token(t, func(c *auth.Claims) { c.Tenant, c.User, c.Service = "*", "", "render" })
	publish := func(token, query, topic, data string) answer {
		return i.do("POST", "/api/v1/events"+query, token, fmt.Sprintf(`{"topic":%q,"type":"t","data":%s,"dedupe":%q}`, topic, data, data))
	}
	got := views(t, i, token(t, nil), "a,jobs.7,users.u1,end", func() {
		for _, topic := range []string{"a", "jobs.7", "users.u1", "end"} {
			require.Equal(t, 201, publish(other, "", topic, `"theirs"`).status)
			require.Equal(t, 201, publish(service, "?tenant=other", topic, `"theirs by a service"`).status)
		}
		require.Equal(t, 201, publish(service, "?tenant=acme", "jobs.7", `"theirs"`).status, "nor does dedupe reach over the wall")
	})
	for way, topics := range got {
		require.Equal(t, []string{"jobs.7"}, topics, way)
	}
	ours := i.do("GET", "/api/v1/events?limit=1000", token(t, nil), "")
	theirs := i.do("GET", "/api/v1/events?limit=1000", other, "")
	require.NotContains(t, string(ours.Data), "service")
	require.Contains(t, string(theirs.Data), "service")
	epochOf := func(cursor string) string { e, _, _ := strings.Cut(cursor, "-"); return e }
	require.NotEqual(t, epochOf(ours.Meta.Next), epochOf(theirs.Meta.Next))

	s := i.stream("/api/v1/stream?topics=a&token="+other, "Last-Event-ID", ours.Meta.Next)
	before, _ := s.begin()
	require.Contains(t, before[0].data, `"reason":"epoch"`)
	require.Len(t, before, 3, "a gap, and all of their own")
}

// One token for several tenants: by its tenant_access, or as a service.
func TestTenantsOfOneToken(t *testing.T) {
	i := start(t, nil)
	two := token(t, func(c *auth.Claims) { c.Access = []auth.TenantAccess{{ID: "second"}} })
	service := token(t, func(c *auth.Claims) { c.Tenant, c.User, c.Service = "*", "", "render" })
	for _, c := range []struct {
		token, path string
		headers     []string
		tenant      string
		user        string
	}{
		{two, "/api/v1/ws?token=" + two, nil, "acme", "u1"},
		{two, "/api/v1/ws?tenant=acme&token=" + two, nil, "acme", "u1"},
		{two, "/api/v1/ws?tenant=second&token=" + two, nil, "second", "u1"},
		{two, "/api/v1/ws?tenant=second&token=" + two, []string{"X-Tenant-Id", "second"}, "second", "u1"},
		{two, "/api/v1/ws?tenant=&token=" + two, []string{"X-Tenant-Id", "second"}, "second", "u1"},
		{service, "/api/v1/ws?token=" + service, []string{"X-Tenant-Id", "third"}, "third", ""},
		{service, "/api/v1/ws?tenant=acme&token=" + service, nil, "acme", ""},
	} {
		require.Contains(t, i.dial(c.path, c.headers...).next(), fmt.Sprintf(`"tenant_id":%q,"user_id":%q`, c.tenant, c.user))
	}
	for _, tenant := range []string{"acme", "second"} {
		a := i.do("POST", "/api/v1/events", two, `{"topic":"a","type":"t","data":1}`, "X-Tenant-Id", tenant)
		require.Equal(t, 201, a.status)
		require.Equal(t, 1, strings.Count(string(i.do("GET", "/api/v1/events?tenant="+tenant, service, "").Data), `"id"`), tenant)
	}
}

// A token of one job sees that job, and publishes to no other.
func TestJobToken(t *testing.T) {
	i := start(t, nil)
	job := token(t, func(c *auth.Claims) { c.Job = "7" })
	for _, path := range []string{"/api/v1/ws", "/api/v1/training/ws", "/api/v1/jobs/7/ws"} {
		ws := i.dial(path + "?token=" + job)
		require.Contains(t, ws.next(), "welcome")
		require.Contains(t, ws.next(), `{"op":"subscribed","topics":[{"topic":"jobs.7",`, path)
		ws.say(`{"op":"subscribe","ref":"1","topics":["jobs.8"]}`)
		require.Contains(t, ws.next(), `"code":"forbidden"`)
	}
	ws := i.dial("/api/v1/ws?token=" + token(t, nil))
	require.Contains(t, ws.next(), "welcome")
	ws.say(`{"op":"ping"}`)
	require.Equal(t, `{"op":"pong"}`, ws.next(), "without topics there is welcome only")

	i.publish("jobs.8", "8")
	id := i.publish("jobs.7", "7")
	feed := i.do("GET", "/api/v1/events", job, "")
	require.Equal(t, 1, strings.Count(string(feed.Data), `"id"`), feed.body)
	require.Contains(t, string(feed.Data), id)
	require.Equal(t, 201, i.do("POST", "/api/v1/events", job, `{"topic":"jobs.7","type":"t","data":1}`).status)
	for _, topic := range []string{"jobs.8", "alerts", "jobs.7.x"} {
		require.Equal(t, 403, i.do("POST", "/api/v1/events", job, `{"topic":"`+topic+`","type":"t","data":1}`).status, topic)
	}
}
