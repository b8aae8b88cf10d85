package web

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(method, path string, header http.Header) *http.Response {
	h := Handler(func(*http.Request) Config {
		return Config{Tenant: "demo", Token: "a.b.c", Topics: []string{"jobs.*", ">"}}
	})
	r := httptest.NewRequest(method, path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, answer *http.Response) string {
	t.Helper()
	b := make([]byte, 1<<20)
	n, _ := answer.Body.Read(b)
	return string(b[:n])
}

func TestHandlerAnswers(t *testing.T) {
	for _, c := range []struct {
		method, path, contentType, cache string
		status                           int
	}{
		{"GET", "/", "text/html; charset=utf-8", "no-cache", 200},
		{"HEAD", "/", "text/html; charset=utf-8", "no-cache", 200},
		{"GET", "/?x=1", "text/html; charset=utf-8", "no-cache", 200},
		{"GET", "/dev/style.css", "text/css; charset=utf-8", "no-cache", 200},
		{"GET", "/dev/dev.js", "text/javascript; charset=utf-8", "no-cache", 200},
		{"GET", "/dev/config.json", "application/json", "no-store", 200},
		{"HEAD", "/dev/config.json", "application/json", "no-store", 200},
		{"POST", "/", "text/plain; charset=utf-8", "", 405},
		{"OPTIONS", "/dev/dev.js", "text/plain; charset=utf-8", "", 405},
		{"DELETE", "/dev/config.json", "text/plain; charset=utf-8", "", 405},
		{"GET", "/index.html", "text/plain; charset=utf-8", "", 404},
		{"GET", "/dev/", "text/plain; charset=utf-8", "", 404},
		{"GET", "/dev/index.html", "text/plain; charset=utf-8", "", 404},
		{"GET", "/dev/web.go", "text/plain; charset=utf-8", "", 404},
		{"POST", "/elsewhere", "text/plain; charset=utf-8", "", 404},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			answer := serve(c.method, c.path, nil)
			h := answer.Header
			assert.Equal(t, c.status, answer.StatusCode)
			assert.Equal(t, c.contentType, h.Get("Content-Type"))
			assert.Equal(t, c.cache, h.Get("Cache-Control"))
			assert.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
			assert.Equal(t, "no-referrer", h.Get("Referrer-Policy"))
			assert.Equal(t, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "+
				"base-uri 'none'; form-action 'none'; frame-ancestors 'none'", h.Get("Content-Security-Policy"))
			if c.status == http.StatusMethodNotAllowed {
				assert.Equal(t, "GET, HEAD", h.Get("Allow"))
			}
		})
	}
}

func TestHandlerAnswersUnchanged(t *testing.T) {
	for _, path := range []string{"/", "/dev/style.css", "/dev/dev.js"} {
		tag := serve("GET", path, nil).Header.Get("ETag")
		require.NotEmpty(t, tag)
		again := serve("GET", path, http.Header{"If-None-Match": {tag}})
		assert.Equal(t, http.StatusNotModified, again.StatusCode, path)
		assert.Empty(t, body(t, again))
		assert.Equal(t, http.StatusOK, serve("GET", path, http.Header{"If-None-Match": {`"other"`}}).StatusCode, path)
	}
}

func TestHandlerConfig(t *testing.T) {
	assert.Equal(t, `{"tenant":"demo","token":"a.b.c","topics":["jobs.*","\u003e"]}`, body(t, serve("GET", "/dev/config.json", nil)))

	w := httptest.NewRecorder()
	Handler(func(r *http.Request) Config { return Config{Tenant: r.Host} }).
		ServeHTTP(w, httptest.NewRequest("GET", "http://hub.example/dev/config.json", nil))
	assert.Equal(t, `{"tenant":"hub.example","token":"","topics":[]}`, w.Body.String())
}

// The page must run under its policy, and without a network.
func TestPageHasNothingInlineOrForeign(t *testing.T) {
	page := body(t, serve("GET", "/", nil))
	assert.NotRegexp(t, regexp.MustCompile(`(?i)<style|\sstyle=|\son\w+=|<script(?:[^>]*)>\s*[^<\s]|javascript:`), page)
	for _, path := range []string{"/", "/dev/style.css", "/dev/dev.js"} {
		text := body(t, serve("GET", path, nil))
		for _, address := range regexp.MustCompile(`(?:https?:)?//[\w.-]+\.\w+[^\s"')]*`).FindAllString(text, -1) {
			assert.Equal(t, "http://www.w3.org/2000/svg", address, path) // the name of a namespace
		}
		assert.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|@import|\beval\(`, text, path)
	}
}
