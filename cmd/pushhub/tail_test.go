package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeHub answers in a hub's place.
func fakeHub(t testing.TB, h http.HandlerFunc) (url string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// script answers the n-th request with the n-th part, and keeps the requests.
type script struct {
	mu       sync.Mutex
	parts    []string // "status\nbody"
	requests []*http.Request
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	n := len(s.requests)
	s.requests = append(s.requests, r)
	s.mu.Unlock()
	var status int
	line, body, _ := strings.Cut(s.parts[n], "\n")
	if _, err := fmt.Sscan(line, &status); err != nil {
		panic(err)
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

const (
	subscribed = "id: e-1\nevent: control\ndata: {\"op\":\"subscribed\",\"topics\":[],\"cursor\":\"e-1\"}\n\n"
	unauthed   = "401\n" + `{"data":null,"error":{"code":"unauthorized","message":"the token has expired","origin":"headers","details":{"token":"expired"},"trace_id":"x"},"meta":{"trace_id":"x"}}`
)

func TestTailResumes(t *testing.T) {
	t.Parallel()
	s := &script{parts: []string{
		"200\nretry: 1\n\n" + subscribed + "id: e-2\ndata: {\"id\":\"e-2\"}\n\n: heartbeat\n\nid: e-3\ndata: {\"id\":\"e",
		"200\nevent: control\ndata: {\"op\":\"gap\",\"topic\":\"alerts\",\"since\":\"e-2\",\"reason\":\"expired\"}\n\n" + subscribed +
			"id: e-9\ndata: {\"id\":\"e-9\"}\n\nid: e-10\nevent: control\ndata: {\"op\":\"heartbeat\",\"cursor\":\"e-10\"}\n\n" +
			"retry: 2\n\nevent: control\ndata: {\"op\":\"bye\",\"code\":1012,\"reason\":\"drain\",\"retry\":2}\n\n",
		"503\nno envelope",
		"429\n" + `{"error":{"code":"too_many_requests"}}`,
		unauthed,
	}}
	url := fakeHub(t, s.ServeHTTP)
	begin := time.Now()
	status, stdout, stderr := do(t, nil, "tail", "--url="+url, "--token=abc", "--since=e-0", "--last=3", "alerts", "jobs.>")
	require.Equal(t, 1, status)
	require.Equal(t, "{\"id\":\"e-2\"}\n{\"id\":\"e-9\"}\n", stdout)
	require.Contains(t, stderr, "gap: events of alerts after e-2 are gone (expired)")
	require.Contains(t, stderr, "the hub said bye: drain (1012): connecting again in 2ms")
	require.Contains(t, stderr, "503 Service Unavailable: the answer is not that of a hub: connecting again in")
	require.Contains(t, stderr, "pushhub: unauthorized: the token has expired (token expired)\n")
	require.Greater(t, time.Since(begin), time.Second, "it backs off when refused")
	require.Less(t, time.Since(begin), 10*time.Second)

	require.Len(t, s.requests, 5)
	for n, want := range []string{"", "e-2", "e-10", "e-10", "e-10"} {
		r := s.requests[n]
		require.Equal(t, want, r.Header.Get("Last-Event-ID"))
		require.Equal(t, "/api/v1/stream", r.URL.Path)
		require.Equal(t, "alerts,jobs.>", r.URL.Query().Get("topics"))
		require.Equal(t, "e-0", r.URL.Query().Get("since"))
		require.Equal(t, "3", r.URL.Query().Get("last"))
		require.Equal(t, "Bearer abc", r.Header.Get("Authorization"))
		require.NotContains(t, r.URL.String(), "abc")
	}
}

func TestTailEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		part, want string
		status     int
	}{
		{"204\n", "", 0},
		{unauthed, "unauthorized", 1},
		{"403\n{}", "403 Forbidden", 1},
		{"404\nnot here", "404 Not Found", 1},
		{"200\n" + subscribed + "event: control\ndata: {\"op\":\"bye\",\"code\":4403,\"reason\":\"forbidden\"}\n\n", "the hub said bye: forbidden (4403)", 1},
		{"200\nevent: control\ndata: {\"op\":\"bye\",\"code\":4401,\"reason\":\"unauthorized\"}\n\n", "(4401)", 1},
	} {
		s := &script{parts: []string{c.part}}
		status, stdout, stderr := do(t, map[string]string{"PUSHHUB_TOKEN": "abc"}, "tail", "--url="+fakeHub(t, s.ServeHTTP), "alerts")
		require.Equal(t, c.status, status, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, c.want)
	}
	status, _, stderr := do(t, nil, "tail", "--token=abc", "a..b")
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "malformed")
}

// TestTailFindsSilence is about a hub that holds the connection and says nothing.
func TestTailFindsSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		quiet := make(chan struct{})
		timer := time.AfterFunc(maxWait, func() { close(quiet) })
		defer timer.Stop()
		body, hub := io.Pipe()
		follower := &tail{out: io.Discard, notes: io.Discard}
		read := make(chan error, 1)
		go func() { read <- follower.read(body, timer) }()
		begin := time.Now()
		_, err := io.WriteString(hub, "event: control\ndata: {\"op\":\"welcome\",\"heartbeat\":5}\n\n")
		require.NoError(t, err)
		for range 10 {
			time.Sleep(10 * time.Second)
			_, err = io.WriteString(hub, "event: control\ndata: {\"op\":\"heartbeat\"}\n\n")
			require.NoError(t, err)
		}
		<-quiet
		require.Equal(t, 115*time.Second, time.Since(begin), "three heartbeats after the last word")
		require.NoError(t, hub.Close())
		require.ErrorContains(t, <-read, "the connection was closed")
	})
}

func TestTailBacksOff(t *testing.T) {
	t.Parallel()
	f := &tail{retry: 3 * time.Second}
	require.Equal(t, 3*time.Second, f.wait(), "the hub spreads its clients by itself")
	for failed, want := range []time.Duration{1: 3 * time.Second, 6 * time.Second, 12 * time.Second, 24 * time.Second, maxWait, maxWait, maxWait} {
		if failed == 0 {
			continue
		}
		f.failed = failed
		wait := f.wait()
		require.GreaterOrEqual(t, wait, want*3/4)
		require.LessOrEqual(t, wait, want*5/4)
	}
}

func TestTailEndsWhereItCannotWrite(t *testing.T) {
	t.Parallel()
	f := &tail{out: brokenPipe{}, notes: io.Discard}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	err := f.read(strings.NewReader("data: 1\n\n"), timer)
	require.ErrorAs(t, err, new(writeError))
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestTailStops(t *testing.T) {
	t.Parallel()
	_, url := startServe(t, nil)
	token := signToken(t, "--tenant=acme", "--publish=>")
	env := map[string]string{"PUSHHUB_TOKEN": token, "PUSHHUB_URL": url}
	for range 3 {
		status, _, stderr := do(t, env, "publish", "alerts", "1")
		require.Zero(t, status, stderr)
	}
	c := start(t, env, nil, "tail", "--last=2", "alerts")
	c.stdout.await(t, "two events", func(s string) bool { return strings.Count(s, "\n") == 2 })
	c.stop()
	require.Zero(t, c.wait())
	require.Len(t, c.stdout.lines(), 2)
	first := object(t, c.stdout.lines()[0])["id"].(string)

	c = start(t, env, nil, "tail", "--since="+first, "alerts")
	c.stdout.await(t, "one event", func(s string) bool { return strings.Count(s, "\n") == 1 })
	require.NotContains(t, c.stdout.String(), first)
}

func TestEventStream(t *testing.T) {
	t.Parallel()
	s := newStream(strings.NewReader(": hello\nid: 1\n\nretry: 5\ndata: a\ndata: b\nid: 2\n\nevent: control\ndata:x\nretry: no\n\n" +
		"event: none\n\ndata: c\r\n\r\nid: 3\ndata: half"))
	for _, want := range []struct {
		name, data, id string
	}{{"", "a\nb", "2"}, {"control", "x", "2"}, {"", "c", "2"}} {
		b, err := s.next()
		require.NoError(t, err)
		require.Equal(t, want.name, b.name)
		require.Equal(t, want.data, string(b.data))
		require.Equal(t, want.id, s.lastID)
		require.Equal(t, 5*time.Millisecond, s.retry)
	}
	_, err := s.next()
	require.True(t, errors.Is(err, io.EOF))
	require.Equal(t, "2", s.lastID, "half a block does not count")
}
