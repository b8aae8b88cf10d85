// Package web holds what the hub gives to a person with a browser: the demo page
// of `pushhub dev`, embedded. The page is plain HTML, CSS and one ES module; it
// loads nothing from elsewhere and has no inline script or style, so that the
// strictest Content-Security-Policy holds.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"
)

//go:embed index.html style.css dev.js
var files embed.FS

// Config is what the page needs to know to follow the demo.
type Config struct {
	Tenant string
	Token  string   // it needs to read Topics, and to publish for the lines to try by hand
	Topics []string // topics and patterns; with just ">" the page can check that no seq is missing
}

const (
	configPath = "/dev/config.json"

	policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
		"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// asset is one embedded file.
type asset struct {
	contentType string
	etag        string
	body        []byte
}

// Handler serves the page at "/" and what it loads under "/dev/"; anything else
// is 404. The page asks for its Config before each connection, so cfg may give a
// new token each time; it may be called by several goroutines at once.
//
// Whoever can read the page gets the token: it is for a hub on the loopback.
func Handler(cfg func(r *http.Request) Config) http.Handler {
	assets := map[string]asset{
		"/":              load("index.html", "text/html; charset=utf-8"),
		"/dev/style.css": load("style.css", "text/css; charset=utf-8"),
		"/dev/dev.js":    load("dev.js", "text/javascript; charset=utf-8"),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")

		a, found := assets[r.URL.Path]
		switch {
		case !found && r.URL.Path != configPath:
			http.Error(w, "not found", http.StatusNotFound)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		case found:
			a.serve(w, r)
		default:
			serveConfig(w, cfg(r))
		}
	})
}

func load(name, contentType string) asset {
	body, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	sum := sha256.Sum256(body)
	return asset{contentType, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, body}
}

// serve lets the browser keep the file but ask each time whether it is still the
// same: a new binary must never meet the script of an old one.
func (a asset) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", a.contentType)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", a.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.body))
}

func serveConfig(w http.ResponseWriter, c Config) {
	topics := c.Topics
	if topics == nil {
		topics = []string{} // an array in any case
	}
	body, err := json.Marshal(struct {
		Tenant string   `json:"tenant"`
		Token  string   `json:"token"`
		Topics []string `json:"topics"`
	}{c.Tenant, c.Token, topics})
	if err != nil {
		panic(err) // strings cannot fail to encode
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // the client is gone: nothing to do about it
}
