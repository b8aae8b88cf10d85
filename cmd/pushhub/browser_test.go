package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/transport/web/webtest"
)

// TestEventSourceSurvivesKill has a plain EventSource of a real browser on three
// topics. Its instance is killed, the switch before it leads to another one, and
// the browser comes back by itself and misses nothing.
func TestEventSourceSurvivesKill(t *testing.T) {
	r := logtest.StartRedis(t)
	env := []string{"HOST=127.0.0.1", "PORT=0", "JWT_SECRET=" + secret, "REDIS_URL=" + r.URL()}
	first, one := startProgram(t, env, "serve")
	_, two := startProgram(t, env, "serve")
	b := newBalancer(t, one)
	tab := webtest.Chromium(t)
	webtest.Do(t, tab, chromedp.Navigate(b.url+"/health/live"))
	path := "/api/v1/stream?topics=alerts,jobs.*,nodes.n1&token=" + signToken(t, "--tenant=acme")
	webtest.Eval[bool](t, tab, fmt.Sprintf(`
		window.got = []; window.control = []; window.opened = 0;
		window.hub = new EventSource(%q);
		hub.onopen = () => { opened++; };
		hub.onmessage = (e) => { got.push({id: e.lastEventId, data: JSON.parse(e.data).data}); };
		hub.addEventListener("control", (e) => { control.push(JSON.parse(e.data).op); });
		true`, path))
	webtest.Wait[bool](t, tab, `control.includes("subscribed")`)

	publisher := signToken(t, "--tenant=acme", "--publish=>")
	n := 0
	publish := func(url string, count int) {
		var lines strings.Builder
		for range count {
			fmt.Fprintf(&lines, `{"topic":%q,"type":"t.v1","data":%d}`+"\n", []string{"alerts", "jobs.7", "other", "nodes.n1"}[n%4], n)
			n++
		}
		for line := range strings.Lines(lines.String()) {
			var e struct {
				Topic string
				Data  int
			}
			require.NoError(t, json.Unmarshal([]byte(line), &e))
			status, _, stderr := do(t, map[string]string{"PUSHHUB_URL": url, "PUSHHUB_TOKEN": publisher}, "publish", e.Topic, fmt.Sprint(e.Data))
			require.Zero(t, status, stderr)
		}
	}
	publish(one, 40)
	webtest.Wait[bool](t, tab, `got.length >= 20`)
	b.to(two)
	first.signal(t, os.Kill)
	publish(two, 40)
	webtest.Wait[bool](t, tab, `opened >= 2`)
	publish(two, 40)
	webtest.Wait[bool](t, tab, `got.length >= 90`)

	var want []int
	for k := range n {
		if k%4 != 2 {
			want = append(want, k)
		}
	}
	require.Equal(t, want, webtest.Eval[[]int](t, tab, `got.map((e) => e.data)`))
	require.NotContains(t, webtest.Eval[[]string](t, tab, `control`), "gap")
	require.NotContains(t, webtest.Eval[[]string](t, tab, `got.map((e) => e.id)`), "", "every event has an id")
}

// TestDevPage opens the demo as a newcomer does.
func TestDevPage(t *testing.T) {
	_, url := startDev(t, map[string]string{"PORT": "0"}, "--seed=1")
	tab := webtest.Chromium(t)
	complaints := webtest.Complaints(t, tab)
	webtest.Do(t, tab, chromedp.Navigate(url))
	progress := `[...document.querySelectorAll("[role=progressbar]")].map((p) => Number(p.getAttribute("aria-valuenow")))`
	webtest.Wait[bool](t, tab, progress+`.some((v) => v > 0 && v < 100)`)
	before := webtest.Eval[[]int](t, tab, progress)
	webtest.Wait[bool](t, tab, fmt.Sprintf(`JSON.stringify(%s) !== %q`, progress, mustJSON(t, before)))
	webtest.Do(t, tab, chromedp.Click(chromedp.CSS(`#drop`)))
	webtest.Wait[bool](t, tab, `/Resumed after \S+: [1-9]\d* events? replayed, 0 missing/.test(document.body.innerText)`)
	require.Empty(t, complaints())
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}
