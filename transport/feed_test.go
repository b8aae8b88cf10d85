package transport_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// feed gives a page, whose query is made of pairs.
func (i *instance) feed(pairs ...string) (events []shown, page answer) {
	i.t.Helper()
	q := url.Values{}
	for n := 0; n+1 < len(pairs); n += 2 {
		q.Add(pairs[n], pairs[n+1])
	}
	page = i.do("GET", "/api/v1/events?"+q.Encode(), token(i.t, nil), "", "X-Request-Id", "r")
	require.Equal(i.t, 200, page.status, page.body)
	require.True(i.t, strings.HasPrefix(page.body, `{"data":[`), page.body)
	require.Equal(i.t, "r", page.Meta.TraceID)
	decodeJSON(i.t, string(page.Data), &events)
	return events, page
}

// fill publishes n events of several topics, types, sources and times, an hour
// apart.
func (i *instance) fill(n int) (all []shown) {
	i.t.Helper()
	noon := time.Date(2026, 5, 27, 12, 0, 0, 0, time.UTC)
	for k := range n {
		topic := []string{"a", "b.x", "b.y", "jobs.7", "jobs.8"}[k%5]
		at := noon.Add(time.Duration(k) * time.Hour).Format(time.RFC3339)
		body := fmt.Sprintf(`{"topic":%q,"type":"t%d","source":"s%d","time":%q,"data":%d}`, topic, k%3, k%2, at, k)
		id := i.do("POST", "/api/v1/events", token(i.t, nil), body).ids(i.t)[0]
		all = append(all, shown{id, topic, fmt.Sprint("t", k%3), at, fmt.Sprint("s", k%2), fmt.Append(nil, k)})
	}
	return all
}

func keep(all []shown, belongs func(n int, e shown) bool) []shown {
	kept := []shown{}
	for n, e := range all {
		if belongs(n, e) {
			kept = append(kept, e)
		}
	}
	return kept
}

func TestFeedFilters(t *testing.T) {
	i := start(t, nil)
	events, empty := i.feed()
	require.Equal(t, []shown{}, events)
	require.Regexp(t, `^{"data":\[\],"error":null,"meta":{"trace_id":"r","next":"[a-z0-9]+-0"}}$`, empty.body)
	all := i.fill(30)
	for name, c := range map[string]struct {
		query   []string
		belongs func(n int, e shown) bool
	}{
		"all":             {nil, func(int, shown) bool { return true }},
		"from the start":  {[]string{"since", empty.Meta.Next}, func(int, shown) bool { return true }},
		"nothing given":   {[]string{"topics", "", "type", "", "source", "", "from", "", "to", "", "since", "", "limit", "", "last", ""}, func(int, shown) bool { return true }},
		"topic":           {[]string{"topics", "a"}, func(n int, e shown) bool { return e.Topic == "a" }},
		"topics":          {[]string{"topics", "a,b.*"}, func(n int, e shown) bool { return n%5 < 3 }},
		"overlapping":     {[]string{"topics", ">", "topics", "a,b.>"}, func(int, shown) bool { return true }},
		"unknown topic":   {[]string{"topics", "c"}, func(int, shown) bool { return false }},
		"type":            {[]string{"type", "t1"}, func(n int, e shown) bool { return e.Type == "t1" }},
		"unknown type":    {[]string{"type", "t"}, func(int, shown) bool { return false }},
		"source":          {[]string{"source", "s0"}, func(n int, e shown) bool { return e.Source == "s0" }},
		"from, inclusive": {[]string{"from", all[7].Time}, func(n int, e shown) bool { return n >= 7 }},
		"just after":      {[]string{"from", "2026-05-27T19:00:00.000000001Z"}, func(n int, e shown) bool { return n >= 8 }},
		"to, inclusive":   {[]string{"to", "2026-05-27T21:00:00+02:00"}, func(n int, e shown) bool { return n <= 7 }},
		"one moment":      {[]string{"from", all[3].Time, "to", all[3].Time}, func(n int, e shown) bool { return n == 3 }},
		"all of them": {[]string{"topics", "jobs.*", "type", "t0", "source", "s1", "from", all[2].Time, "to", all[20].Time}, func(n int, e shown) bool {
			return n%5 >= 3 && n%3 == 0 && n%2 == 1 && n >= 2 && n <= 20
		}},
		"since":                {[]string{"since", all[9].ID}, func(n int, e shown) bool { return n > 9 }},
		"since the end":        {[]string{"since", all[29].ID}, func(int, shown) bool { return false }},
		"the newest":           {[]string{"last", "1"}, func(n int, e shown) bool { return n >= 25 }},
		"the newest of a kind": {[]string{"last", "2", "topics", "b.*"}, func(n int, e shown) bool { return n >= 20 && (e.Topic == "b.x" || e.Topic == "b.y") }},
		"more than there are":  {[]string{"last", "1000"}, func(int, shown) bool { return true }},
		"a page":               {[]string{"limit", "4"}, func(n int, e shown) bool { return n < 4 }},
		"a page of the newest": {[]string{"last", "2", "limit", "3"}, func(n int, e shown) bool { return n >= 20 && n < 23 }},
	} {
		events, page := i.in(t).feed(c.query...)
		require.Equal(t, keep(all, c.belongs), events, name)
		require.NotEmpty(t, page.Meta.Next, name)
		require.Empty(t, page.Meta.Gaps, name)
	}
}

// With pages of any size one gets everything, once, in order; next stands at the
// head in the end.
func TestFeedPages(t *testing.T) {
	i := start(t, nil)
	all := i.fill(40)
	filters := map[string]struct {
		query   []string
		belongs func(n int, e shown) bool
	}{
		"":       {nil, func(int, shown) bool { return true }},
		"topics": {[]string{"topics", "b.*,jobs.7"}, func(n int, e shown) bool { return n%5 >= 1 && n%5 <= 3 }},
		"type":   {[]string{"type", "t2"}, func(n int, e shown) bool { return n%3 == 2 }},
		"few":    {[]string{"topics", "a", "type", "t0", "source", "s0"}, func(n int, e shown) bool { return n%30 == 0 }},
	}
	for name, f := range filters {
		want := keep(all, f.belongs)
		for limit := 1; limit <= len(all)+1; limit++ {
			got, since := []shown{}, ""
			for {
				events, page := i.feed(append([]string{"limit", fmt.Sprint(limit), "since", since}, f.query...)...)
				require.LessOrEqual(t, len(events), limit)
				got = append(got, events...)
				since = page.Meta.Next
				if len(events) == 0 {
					break
				}
			}
			require.Equal(t, want, got, "%s by %d", name, limit)
			require.Equal(t, all[len(all)-1].ID, since)
		}
	}
	i.publish("a", "0")
	more, _ := i.feed("since", all[len(all)-1].ID)
	require.Len(t, more, 1)
}

func TestFeedLimits(t *testing.T) {
	i := start(t, nil)
	var batch []string
	for range 1000 {
		batch = append(batch, `{"topic":"a","type":"t","data":1}`)
	}
	i.do("POST", "/api/v1/events", token(t, nil), `{"events":[`+strings.Join(batch, ",")+`]}`).ids(t)
	for limit, want := range map[string]int{"": 100, "1": 1, "1000": 1000} {
		events, _ := i.feed("limit", limit)
		require.Len(t, events, want)
	}
}

// Gaps name just the topics, or patterns, of which something after since is gone.
func TestFeedGaps(t *testing.T) {
	i := start(t, nil)
	all := i.fill(30)
	i.log.Trim("acme", "a", 2)
	i.log.Trim("acme", "b.x", 0)
	for name, c := range map[string]struct {
		query []string
		want  []string
	}{
		"of two":         {[]string{"topics", "a,b.x,b.y", "since", all[0].ID}, []string{"a", "b.x"}},
		"of a pattern":   {[]string{"topics", "b.*,b.y", "since", all[0].ID}, []string{"b.*"}},
		"after the gap":  {[]string{"topics", "a", "since", all[20].ID}, nil},
		"just before it": {[]string{"topics", "a", "since", all[19].ID}, nil},
		"within it":      {[]string{"topics", "a", "since", all[14].ID}, []string{"a"}},
		"foreign":        {[]string{"topics", "jobs.*,a", "since", "foreign-1"}, []string{"a", "jobs.*"}},
		"ahead":          {[]string{"topics", "b.y", "since", all[0].ID[:strings.Index(all[0].ID, "-")] + "-999"}, []string{"b.y"}},
		"without since":  {[]string{"topics", "a"}, nil},
		"the newest":     {[]string{"topics", "a", "last", "100"}, nil},
	} {
		_, page := i.in(t).feed(c.query...)
		require.ElementsMatch(t, c.want, page.Meta.Gaps, name)
	}
	foreign, _ := i.feed("topics", "jobs.7", "since", "foreign-1")
	require.Len(t, foreign, 6, "everything retained comes after it")
	epoch, _, _ := strings.Cut(all[0].ID, "-")
	for _, topics := range []string{"jobs.7", "jobs.>", "jobs.7,nothing"} {
		foreign, _ := i.feed("topics", topics, "since", "foreign-1")
		ahead, page := i.feed("topics", topics, "since", epoch+"-999")
		require.Equal(t, foreign, ahead, "nor can it be ahead of the log")
		require.Equal(t, epoch+"-30", page.Meta.Next)
	}
}

func TestFeedRefuses(t *testing.T) {
	i := start(t, nil)
	tok := token(t, nil)
	bad := func(field string, reason protocol.Reason) refusal {
		return refuses(400, protocol.BadRequest, protocol.InQuery, field, reason)
	}
	for query, want := range map[string]refusal{
		"topics=a..b": bad("topics", protocol.Malformed),
		"topics=a,":   bad("topics", protocol.Malformed),
		"topics=" + strings.Repeat("a,", 100) + "b": {},
		"since=x":                            bad("since", protocol.Malformed),
		"limit=0":                            bad("limit", protocol.Malformed),
		"limit=1001":                         bad("limit", protocol.Malformed),
		"limit=ten":                          bad("limit", protocol.Malformed),
		"last=-1":                            bad("last", protocol.Malformed),
		"last=1001":                          bad("last", protocol.Malformed),
		"last=1&since=e-1":                   bad("last", protocol.IsConflict),
		"from=yesterday":                     bad("from", protocol.Malformed),
		"type=%01":                           bad("type", protocol.Malformed),
		"source=" + strings.Repeat("x", 129): bad("source", protocol.Malformed),
		"to=2026-05-27":                      bad("to", protocol.Malformed),
		"from=2026-05-27T10:15:00Z&to=2026-05-27T10:14:59Z": bad("to", protocol.Invalid),
		"topics=users.u2":    refuses(403, protocol.Forbidden, protocol.InQuery, "topics", protocol.IsForbidden),
		"topics=a,users.%3E": refuses(403, protocol.Forbidden, protocol.InQuery, "topics", protocol.IsForbidden),
	} {
		got := i.do("GET", "/api/v1/events?"+query, tok, "", "X-Request-Id", "r")
		if want.status == 0 { // each topic once: these are two
			require.Equal(t, 200, got.status)
			continue
		}
		requireRefusal(t, want, got, "r")
	}
	i.log.with(func(context.Context) error { return hub.ErrUnavailable })
	requireRefusal(t, refuses(503, protocol.Unavailable, protocol.InInternal, "", ""), i.do("GET", "/api/v1/events", tok, "", "X-Request-Id", "r"), "r")
}
