package webtest_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pushhub/pushhub/transport/web/webtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Tests that find no complaint rely on Complaints hearing each of these.
func TestComplaints(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src 'self'")
			_, _ = w.Write([]byte(`<!doctype html><link rel="icon" href="data:,"><body style="color: red">text<script src="/page.js"></script>`))
		case "/page.js":
			w.Header().Set("Content-Type", "text/javascript")
			_, _ = w.Write([]byte(`
				console.log("not a complaint");
				console.error("of the page");
				fetch("/missing").then(() => document.body.append(" done"));
				throw new Error("uncaught");`))
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()

	tab := webtest.Tab(t, webtest.Chromium(t))
	complaints := webtest.Complaints(t, tab)
	assert.Empty(t, complaints())
	webtest.Do(t, tab, chromedp.Navigate(server.URL+"/"))
	assert.Equal(t, "text done", webtest.Wait[string](t, tab, `document.body.innerText.endsWith("done") && document.body.innerText`))
	heard := strings.Join(complaints(), "\n")
	for _, want := range []string{"of the page", "uncaught", "Content Security Policy", "404"} {
		require.Contains(t, heard, want)
	}
	assert.NotContains(t, heard, "not a complaint")
	assert.Equal(t, 5, webtest.Eval[int](t, tab, `new Promise((done) => setTimeout(done, 1, 5))`), "a promise's value")
}
