package transport_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/auth"
)

// metric gives the sum of a counter or gauge over its labels.
func (i *instance) metric(t testing.TB, name string) (sum float64) {
	t.Helper()
	families, err := i.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// exercise does some of everything that is counted.
func exercise(t testing.TB, i *instance) {
	t.Helper()
	tok := token(t, nil)
	i.publish("a", "1")
	i.do("POST", "/api/v1/events", tok, "{", "X-Tenant-Id", "acme")
	i.do("POST", "/api/v1/events", "", "{")
	i.do("GET", "/nothing/of/acme", "", "")
	i.do("BREW", "/api/v1/events", tok, "")
	i.do("GET", "/api/v1/jobs/7/stream?topics=users.u2", tok, "")
	i.do("GET", "/api/v1/ws", token(t, func(c *auth.Claims) { c.Subscription = &auth.Subscription{Status: "over"} }), "", upgrade...)
	s := i.stream("/api/v1/stream?topics=a,b&last=1&token="+tok, "Last-Event-ID", "foreign-1")
	s.begin()
	ws := i.dial("/api/v1/ws?topics=a&token=" + tok)
	require.Contains(t, ws.next(), "welcome")
	require.Contains(t, ws.next(), "subscribed")
	i.publish("a", "2")
	require.Contains(t, s.next().data, `"data":2`)
	require.Contains(t, ws.next(), `"data":2`)
	require.Eventually(t, func() bool { return i.metric(t, "pushhub_deliveries_total") == 2 }, i.patience, time.Millisecond)
}

// The metrics are those of the contract, with their labels, and no label has
// values that a client chooses.
func TestMetrics(t *testing.T) {
	i := start(t, nil)
	exercise(t, i)
	gone := i.open()
	require.NoError(t, gone.ws.Close(1000, ""))
	require.Eventually(t, func() bool { return i.metric(t, "pushhub_disconnects_total") == 1 }, i.patience, time.Millisecond)
	i.server.Published("redis", 2, nil, time.Millisecond)
	i.server.Published("redis", 1, errors.New("lost"), time.Millisecond)

	want := map[string][]string{
		"pushhub_connections": {"transport"}, "pushhub_subscriptions": nil, "pushhub_topics": nil, "pushhub_outbox_bytes": nil,
		"pushhub_draining":       nil,
		"pushhub_connects_total": {"result", "transport"}, "pushhub_disconnects_total": {"reason", "transport"},
		"pushhub_published_total": {"result", "source"}, "pushhub_publish_seconds": {"result", "source"},
		"pushhub_deliveries_total": {"transport"}, "pushhub_delivery_seconds": {"transport"},
		"pushhub_conflated_total": nil, "pushhub_replayed_total": nil, "pushhub_gaps_total": {"reason"},
		"pushhub_log_heals_total": nil, "pushhub_log_healed_events_total": nil,
		"pushhub_auth_total":          {"result"},
		"pushhub_http_requests_total": {"method", "route", "status"}, "pushhub_http_request_seconds": {"method", "route"},
	}
	families, err := i.registry.Gather()
	require.NoError(t, err)
	got := map[string][]string{}
	values := map[string]bool{}
	for _, f := range families {
		require.NotEmpty(t, f.GetMetric(), f.GetName())
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName())
				values[l.GetName()+"="+l.GetValue()] = true
			}
			got[f.GetName()] = labels
		}
	}
	require.Equal(t, want, got)
	require.Equal(t, []string{
		"method=GET", "method=POST", "method=other",
		"reason=client_closed", "reason=epoch", "reason=expired",
		"result=bad_request", "result=forbidden", "result=internal", "result=ok", "result=unauthorized",
		"route=/api/v1/events", "route=/api/v1/jobs/{job_id}/stream", "route=/api/v1/stream", "route=/api/v1/ws", "route=other",
		"source=http", "source=redis",
		"status=101", "status=200", "status=201", "status=400", "status=401", "status=403", "status=404", "status=405",
		"transport=sse", "transport=websocket",
	}, slices.Sorted(maps.Keys(values)))

	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	page := i.do("GET", "/metrics", "", "")
	require.Equal(t, 200, page.status)
	require.Contains(t, page.body, "\npushhub_deliveries_total{transport=\"websocket\"} 1\n")
}

func TestMetricValues(t *testing.T) {
	i := start(t, nil)
	exercise(t, i)
	require.Equal(t, 2.0, i.metric(t, "pushhub_gaps_total"), "foreign to a and to b")
	page := i.do("GET", "/metrics", "", "").body
	for series, want := range map[string]string{
		`pushhub_connections{transport="sse"}`:                                           "1",
		`pushhub_connections{transport="websocket"}`:                                     "1",
		`pushhub_subscriptions`:                                                          "3",
		`pushhub_topics`:                                                                 "2",
		`pushhub_outbox_bytes`:                                                           "0",
		`pushhub_draining`:                                                               "0",
		`pushhub_connects_total{result="ok",transport="sse"}`:                            "1",
		`pushhub_connects_total{result="ok",transport="websocket"}`:                      "1",
		`pushhub_connects_total{result="forbidden",transport="sse"}`:                     "1",
		`pushhub_connects_total{result="forbidden",transport="websocket"}`:               "1",
		`pushhub_published_total{result="ok",source="http"}`:                             "2",
		`pushhub_published_total{result="bad_request",source="http"}`:                    "1",
		`pushhub_published_total{result="unauthorized",source="http"}`:                   "1",
		`pushhub_publish_seconds_count{result="ok",source="http"}`:                       "2",
		`pushhub_deliveries_total{transport="sse"}`:                                      "1",
		`pushhub_deliveries_total{transport="websocket"}`:                                "1",
		`pushhub_delivery_seconds_count{transport="websocket"}`:                          "1",
		`pushhub_replayed_total`:                                                         "1",
		`pushhub_auth_total{result="ok"}`:                                                "6",
		`pushhub_auth_total{result="forbidden"}`:                                         "1",
		`pushhub_auth_total{result="unauthorized"}`:                                      "1",
		`pushhub_http_requests_total{method="GET",route="other",status="404"}`:           "1",
		`pushhub_http_requests_total{method="other",route="other",status="405"}`:         "1",
		`pushhub_http_requests_total{method="POST",route="/api/v1/events",status="201"}`: "2",
		`pushhub_http_request_seconds_count{method="GET",route="/api/v1/stream"}`:        "1",
		`pushhub_http_requests_total{method="GET",route="/api/v1/ws",status="101"}`:      "1",
	} {
		require.True(t, strings.Contains(page, "\n"+series+" "+want+"\n"), "%s %s", series, want)
	}
	i.drain(t.Context()) // the clients leave when the test ends
	require.Eventually(t, func() bool { return i.metric(t, "pushhub_draining") == 1 }, i.patience, time.Millisecond)
}
