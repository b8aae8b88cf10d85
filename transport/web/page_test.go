package web

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/web/webtest"
)

// page is the demo page in a tab.
type page struct {
	t   *testing.T
	ctx context.Context
	hub *fakeHub
}

// open shows the page of hub in a tab of its own and waits until it is live.
// When the test ends nothing may have been complained of.
func open(t *testing.T, browser context.Context, hub *fakeHub) *page {
	t.Helper()
	p := &page{t, webtest.Tab(t, browser), hub}
	complaints := webtest.Complaints(t, p.ctx)
	t.Cleanup(func() { assert.Empty(t, complaints(), "the browser complains") })
	webtest.Do(t, p.ctx, chromedp.Navigate(hub.URL+"/"))
	p.until(`document.body.dataset.state === "live"`)
	return p
}

// until waits for a JavaScript expression to be true.
func (p *page) until(expression string, args ...any) {
	p.t.Helper()
	webtest.Wait[any](p.t, p.ctx, fmt.Sprintf(expression, args...))
}

// text is what an element says.
func (p *page) text(selector string) string {
	p.t.Helper()
	return webtest.Eval[string](p.t, p.ctx, fmt.Sprintf(`document.querySelector(%q)?.textContent ?? "(none)"`, selector))
}

// drop presses the button and waits until the hub has nobody. The page comes back
// only after back, however long the test takes.
func (p *page) drop() {
	p.t.Helper()
	p.hub.hold()
	p.press()
	p.until(`document.body.dataset.state === "dropped"`)
	require.Eventually(p.t, func() bool { return p.hub.listeners() == 0 }, 10*time.Second, 10*time.Millisecond)
}

// back waits until the page has come back n times in all.
func (p *page) back(n int) {
	p.t.Helper()
	p.hub.release()
	p.until(`document.querySelector("#resumes").textContent === "%d" && document.body.dataset.state === "live"`, n)
}

func (p *page) press() {
	p.t.Helper()
	webtest.Do(p.t, p.ctx, chromedp.Click(chromedp.CSS(`#drop`)))
}

// kinds counts the bars of the strip by kind.
func (p *page) kinds() map[string]int {
	p.t.Helper()
	return webtest.Eval[map[string]int](p.t, p.ctx,
		`[...document.querySelectorAll("#strip i")].reduce((n, b) => ({...n, [b.dataset.kind]: (n[b.dataset.kind] ?? 0) + 1}), {})`)
}

// The page in a real browser. The tests share it, each in a tab of its own.
func TestPage(t *testing.T) {
	browser := webtest.Chromium(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, context.Context)
	}{
		{"jobs advance and end", testJobs},
		{"alerts stream in", testAlerts},
		{"strangers' data is only text", testText},
		{"drop and resume", testDrop},
		{"topics that do not cover the tenant", testTopics},
		{"a gap is shown", testGap},
		{"a loss is shown", testLoss},
		{"skipped while live", testSkipped},
		{"the hub restarts", testRestart},
		{"a connection that breaks", testBreak},
		{"a token that ends", testToken},
		{"closed for good", testForbidden},
		{"lines to try by hand", testByHand},
		{"fits a phone", testPhone},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most of the time they wait for the button
			c.test(t, browser)
		})
	}
}

func testJobs(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, ">")
	hub.job(t, "old", "completed", "encoding", 100, "")
	hub.job(t, "a", "running", "preparing", 0, "")
	p := open(t, browser, hub)

	p.until(`document.querySelector("#finished li")?.textContent.includes("Scene old")`)
	const bar = `document.querySelector("#jobs li[data-job=a] [role=progressbar]")`
	p.until(bar + `.ariaValueNow === "0"`)
	assert.Equal(t, "preparing", p.text(`#jobs li[data-job=a] [aria-current=step]`))
	assert.Equal(t, "Scene a, preparing", webtest.Eval[string](t, p.ctx, bar+`.ariaLabel`))

	cursor := hub.job(t, "a", "running", "rendering", 42, "")
	p.until(bar + `.ariaValueNow === "42"`)
	p.until(bar + `.firstChild.getBoundingClientRect().width > 0.4 * ` + bar + `.getBoundingClientRect().width`)
	assert.Equal(t, "42 %", p.text(`#jobs li[data-job=a] .status`))
	assert.Equal(t, "rendering", p.text(`#jobs li[data-job=a] [aria-current=step]`))
	assert.Equal(t, "frame 100 of 240", p.text(`#jobs li[data-job=a] .frames`))
	assert.Equal(t, cursor, p.text("#cursor"))
	assert.Equal(t, "3", p.text("#received"))

	hub.job(t, "b", "failed", "rendering", 61, "GPU ran out of memory")
	p.until(`document.querySelector("#finished li").textContent.includes("Scene b")`) // never seen running
	hub.job(t, "b2", "running", "rendering", 61, "")
	hub.job(t, "b2", "failed", "rendering", 61, "GPU ran out of memory")
	p.until(`document.querySelector("#jobs li[data-job=b2][data-status=failed] .message")?.textContent === "GPU ran out of memory"`)
	hub.job(t, "a", "completed", "encoding", 100, "")
	p.until(`document.querySelector("#jobs li[data-job=a][data-status=completed] .status")?.textContent === "completed"`)
	p.until(`document.querySelectorAll("#jobs li").length === 0`) // they leave after a while
	p.until(`document.querySelectorAll("#finished li").length === 4`)
	assert.Contains(t, p.text("#finished li"), "Scene a")
}

func testAlerts(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, ">")
	p := open(t, browser, hub)
	for i := range 12 {
		hub.alert(t, []string{"info", "warning", "critical"}[i%3], fmt.Sprintf("Alert %d", i), "the message")
	}
	p.until(`document.querySelector("#alerts strong")?.textContent === "Alert 11"`)
	assert.Equal(t, "critical", p.text("#alerts .tag"))
	assert.Equal(t, "the message", p.text("#alerts p"))
	assert.Equal(t, 6, webtest.Eval[int](t, p.ctx, `document.querySelectorAll("#alerts li").length`), "the list is bounded")
	assert.Equal(t, "Critical alert: Alert 11", p.text("#said"))

	hub.publish(t, "nodes.n1", "node.v1", map[string]any{"load": 0.5})
	p.until(`document.querySelector("#alerts strong").textContent === "nodes.n1"`)
	assert.Equal(t, `{"load":0.5}`, p.text("#alerts p"))
}

func testText(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, ">")
	p := open(t, browser, hub)
	const evil = `<img src=x onerror="document.body.remove()"><script>alert(1)</script>`
	hub.alert(t, evil, evil, evil)
	for _, data := range []any{nil, 42, "text", []int{1}, true, map[string]any{"name": evil, "stage": evil, "progress": "NaN", "frames": evil}} {
		hub.publish(t, "jobs.x", "render.progress.v1", data)
		hub.publish(t, "alerts", "alert.v1", data)
	}
	hub.alert(t, "info", evil, evil)
	p.until(`document.querySelector("#received").textContent === "14"`)
	assert.Equal(t, evil, p.text("#alerts strong"))
	assert.Equal(t, evil, p.text("#jobs .name"))
	assert.False(t, webtest.Eval[bool](t, p.ctx, `!!document.querySelector("img, main script")`))
}

func testDrop(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, ">")
	hub.alert(t, "info", "before", "")
	p := open(t, browser, hub)
	query, _, _ := hub.last()
	assert.Equal(t, "1", query.Get("last"))
	assert.Equal(t, ">", query.Get("topics"))
	assert.Equal(t, "token-1", query.Get("token"))
	assert.Empty(t, query.Get("since"))

	cursor := hub.job(t, "a", "running", "rendering", 10, "")
	p.until(`document.querySelector("#cursor").textContent === %q`, cursor)
	p.drop()
	assert.Equal(t, "Dropped", p.text("#state"))
	p.until(`/^Back in [123] s$/.test(document.querySelector("#drop").textContent)`)
	p.press() // does nothing: it is on its way back
	for i := range 17 {
		hub.job(t, "a", "running", "rendering", 11+float64(i), "")
	}
	p.back(1)
	assert.Equal(t, "27 %", p.text("#jobs .status"))

	query, header, n := hub.last()
	assert.Equal(t, 2, n)
	assert.Equal(t, cursor, query.Get("since"))
	assert.Empty(t, query.Get("last"))
	assert.Empty(t, header, "a new EventSource has no Last-Event-ID")
	assert.Equal(t, "Resumed after "+cursor+": 17 events replayed, 0 missing", p.text("#log li[data-kind=good] strong"))
	assert.Contains(t, p.text("#log li p"), "The hub says: resumed, 17 replayed, no gap announced")
	assert.Contains(t, p.text("#log li p"), "Counted here: 17 received, none twice")
	assert.Equal(t, map[string]int{"live": 1, "replayed": 17}, p.kinds())
	assert.Equal(t, 17, webtest.Eval[int](t, p.ctx, `document.querySelectorAll(".receipt i[data-kind=replayed]").length`))
	assert.Equal(t, "1", p.text("#resumes"))
	assert.Equal(t, "0", p.text("#gaps"))

	// And again, with nothing to replay.
	p.drop()
	p.back(2)
	assert.Contains(t, p.text("#log li strong"), ": 0 events replayed, 0 missing")
	p.until(`document.querySelector("#drop").textContent === "Drop the connection"`)
}

// Where seqs may be missing by right the page claims no more than the hub.
func testTopics(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, "jobs.*", "alerts", "alerts.*")
	p := open(t, browser, hub)
	query, _, _ := hub.last()
	assert.Equal(t, "jobs.*,alerts,alerts.*", query.Get("topics"))
	hub.alert(t, "info", "one", "")
	p.until(`document.querySelector("#received").textContent === "1"`)
	hub.lose(t) // stands for an event of a topic that is not subscribed
	cursor := hub.alert(t, "info", "two", "")
	p.until(`document.querySelector("#received").textContent === "2"`)
	p.drop()
	hub.lose(t)
	hub.alert(t, "info", "three", "")
	p.back(1)
	assert.Equal(t, "Resumed after "+cursor+": 1 event replayed, no gap announced", p.text("#log li[data-kind=good] strong"))
	assert.Equal(t, map[string]int{"live": 2, "replayed": 1}, p.kinds())
}

func testGap(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, ">")
	p := open(t, browser, hub)
	cursor := hub.alert(t, "info", "one", "")
	p.until(`document.querySelector("#received").textContent === "1"`)
	p.drop()
	hub.alert(t, "info", "two", "")
	hub.alert(t, "info", "three", "")
	hub.trim()
	hub.alert(t, "info", "four", "")
	p.back(1)
	assert.Equal(t, "1", p.text("#gaps"))
	assert.Equal(t, "Resumed after "+cursor+": 1 event replayed, the hub announced a gap in > (expired)",
		p.text("#log li[data-kind=gap] strong"))
	assert.Contains(t, p.text("#log li p"), "The hub says: not resumed, 1 replayed")
	assert.Equal(t, map[string]int{"live": 1, "gone": 2, "replayed": 1}, p.kinds())
	assert.False(t, webtest.Eval[bool](t, p.ctx, `document.querySelector("#legend [data-kind=gone]").hidden`))

	// A gap while live: the log began a new life.
	hub.tell("", protocol.Gap{Topic: ">", Since: "k3f9x2-4", Reason: protocol.GapEpoch})
	p.until(`document.querySelector("#gaps").textContent === "2"`)
	assert.Equal(t, "Gap in > after k3f9x2-4", p.text("#log li strong"))
}

// The fake does what a hub never may. A page that shows "0 missing" must be able
// to show another number.
func testLoss(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, ">")
	p := open(t, browser, hub)
	cursor := hub.alert(t, "info", "one", "")
	p.until(`document.querySelector("#received").textContent === "1"`)
	p.drop()
	hub.lose(t)
	hub.alert(t, "info", "two", "")
	hub.lose(t) // at the end of the replay
	p.back(1)
	assert.Equal(t, "Resumed after "+cursor+": 1 event replayed, 2 missing", p.text("#log li[data-kind=bad] strong"))
	assert.Equal(t, map[string]int{"live": 1, "missing": 2, "replayed": 1}, p.kinds())

	p.drop()
	hub.restart()
	hub.muteGaps() // it says nothing of that
	hub.alert(t, "info", "three", "")
	p.back(2)
	assert.Contains(t, p.text("#log li[data-kind=bad] strong"), "1 event replayed, in another epoch, no gap announced")
}

func testSkipped(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, ">")
	p := open(t, browser, hub)
	hub.alert(t, "info", "one", "")
	hub.lose(t) // stands for one that was superseded
	hub.alert(t, "info", "two", "")
	p.until(`document.querySelector("#received").textContent === "2"`)
	hub.lose(t)
	hub.tell("k3f9x2-4", protocol.Heartbeat{Cursor: protocol.Cursor{Epoch: "k3f9x2", Seq: 4}})
	p.until(`document.querySelector("#cursor").textContent === "k3f9x2-4"`)
	assert.Equal(t, map[string]int{"live": 2, "skipped": 2}, p.kinds())
}

func testRestart(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, ">")
	p := open(t, browser, hub)
	hub.job(t, "a", "running", "rendering", 10, "")
	p.until(`document.querySelector("#received").textContent === "1"`)
	hub.restart()
	p.until(`document.querySelector("#gaps").textContent === "1" && document.body.dataset.state === "live"`)
	assert.Contains(t, p.text("#log li strong"), "the hub announced a gap in > (epoch)")
	assert.Equal(t, "No job is running.", p.text("#jobs + p"), "the former life's job is gone")
	cursor := hub.job(t, "b", "running", "rendering", 20, "")
	p.until(`document.querySelector("#cursor").textContent === %q`, cursor)
	assert.Equal(t, map[string]int{"live": 2}, p.kinds())
}

// The EventSource comes back by itself, with Last-Event-ID.
func testBreak(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, ">")
	p := open(t, browser, hub)
	cursor := hub.alert(t, "info", "one", "")
	p.until(`document.querySelector("#received").textContent === "1"`)
	hub.tell(cursor, protocol.Bye{Code: protocol.Drain, Retry: 0})
	hub.cut()
	p.until(`document.querySelector("#resumes").textContent === "1"`)
	_, header, n := hub.last()
	assert.Equal(t, cursor, header)
	assert.Equal(t, 2, n)
	assert.Equal(t, "Resumed after "+cursor+": 0 events replayed, 0 missing", p.text("#log li[data-kind=good] strong"))
	assert.Equal(t, "Live", p.text("#state"), "and the reason is forgotten")
}

func testToken(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, ">")
	p := open(t, browser, hub)
	cursor := hub.alert(t, "info", "one", "")
	p.until(`document.querySelector("#received").textContent === "1"`)
	hub.refuse("token-1")
	hub.tell(cursor, protocol.Bye{Code: protocol.CloseUnauthorized, Retry: 0})
	p.until(`document.querySelector("#state").textContent.startsWith("Closed: ")`)
	p.until(`document.querySelector("#resumes").textContent === "1"`)
	query, _, n := hub.last()
	assert.Equal(t, "token-2", query.Get("token"))
	assert.Equal(t, cursor, query.Get("since"))
	assert.Equal(t, 2, n, "the old token was not tried again")
}

func testForbidden(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, ">")
	p := open(t, browser, hub)
	cursor := hub.alert(t, "info", "one", "")
	hub.tell(cursor, protocol.Bye{Code: protocol.CloseForbidden, Retry: 0})
	p.until(`document.querySelector("#state").textContent === "Closed: forbidden"`)
	assert.Equal(t, "Connect again", p.text("#drop"))
	p.press()
	p.until(`document.querySelector("#resumes").textContent === "1"`)
	query, _, _ := hub.last()
	assert.Equal(t, cursor, query.Get("since"))
}

func testByHand(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, "jobs.*", ">")
	p := open(t, browser, hub)
	assert.False(t, webtest.Eval[bool](t, p.ctx, `document.querySelector("details").open`))
	assert.Equal(t, "curl -N '"+hub.URL+"/api/v1/stream?topics=jobs.*%2C%3E&last=1' \\\n  -H 'Authorization: Bearer token-1'", p.text("#follow"))
	publish := p.text("#publish")
	assert.True(t, strings.HasPrefix(publish, "curl "+hub.URL+"/api/v1/events \\\n"), publish)
	assert.Contains(t, publish, `-d '{"topic":"alerts","type":"alert.v1","data":{"severity":"warning","title":"Hello","message":"Published by hand"}}'`)

	webtest.Do(t, p.ctx, chromedp.Click(chromedp.CSS(`summary`)), chromedp.Click(chromedp.CSS(`[data-copy=follow]`)))
	p.until(`["Copied", "Selected"].includes(document.querySelector("[data-copy=follow]").textContent)`)
}

func testPhone(t *testing.T, browser context.Context) {
	hub := newFakeHub(t, ">")
	p := open(t, browser, hub)
	webtest.Do(t, p.ctx, chromedp.EmulateViewport(320, 640)) // the narrowest in use
	long := strings.Repeat("unbreakable", 12)
	hub.publish(t, "jobs.a", "render.progress.v1", map[string]any{"name": long, "stage": "rendering", "message": long})
	hub.publish(t, "jobs.b", "render.progress.v1", map[string]any{"name": long, "status": "failed", "message": long})
	hub.publish(t, "alerts."+long, "alert.v1", map[string]any{"severity": "critical", "title": long, "message": long, "job_id": long})
	hub.publish(t, long, "other.v1", long)
	p.until(`document.querySelector("#received").textContent === "4"`)
	p.drop()
	hub.trim()
	p.back(1)
	webtest.Do(t, p.ctx, chromedp.Click(chromedp.CSS(`summary`)))
	p.until(`document.querySelector("details").open`)
	assert.LessOrEqual(t, webtest.Eval[int](t, p.ctx, `document.documentElement.scrollWidth`), 320, "nothing juts out")
	p.until(`document.querySelector("#drop").getBoundingClientRect().top >= 0`) // the button stays in sight
}
