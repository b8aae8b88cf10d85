//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/loadtest"
	"github.com/pushhub/pushhub/loadtest/port"
)

// TestMain makes this program a yardstick when it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "floor" || os.Args[1] == "naive" || os.Args[1] == "upgrade") {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func hub(t *testing.T) string {
	bin := filepath.Join(t.TempDir(), "pushhub")
	out, err := exec.Command("go", "build", "-o", bin, "../pushhub").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return bin
}

// command runs a command and gives its report.
func command(t *testing.T, want int, args ...string) loadtest.Report {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.json")
	page := filepath.Join(t.TempDir(), "report.html")
	// A file: the servers that are started write to it too.
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	require.NoError(t, err)
	defer said.Close()
	got := run(t.Context(), append(args, "--no-pin", "--json", file, "--html", page), said, said)
	words, err := os.ReadFile(said.Name())
	require.NoError(t, err)
	require.Equal(t, want, got, "%s", words)
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	var report loadtest.Report
	require.NoError(t, json.Unmarshal(b, &report))
	html, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Contains(t, string(html), "</html>")
	require.NotContains(t, string(html), "http://")
	require.NotContains(t, string(html), "https://")
	return report
}

// Real servers, small numbers: everything arrives, and is seen to.
func TestScenarios(t *testing.T) {
	server := hub(t)
	small := func(args ...string) []string {
		return append(args, "--server", server, "--clients", "60", "--warmup", "100ms", "--duration", "500ms")
	}
	for _, args := range [][]string{
		{"broadcast", "--rate", "50", "--sse", "0.5", "--naive"},
		{"jobs", "--topics", "12", "--per-client", "3", "--rate", "200", "--naive", "--batch", "4", "--linger", "30ms"},
		{"reconnect", "--away", "20ms", "--sse", "0.5"},
		{"soak", "--topics", "3", "--per-client", "2", "--churn", "0.2", "--duration", "1200ms"},
		{"slow", "--rate", "50", "--duration", "1s"},
	} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			report := command(t, 0, append(small(args[0]), args[1:]...)...)
			require.Empty(t, report.Failures)
			require.Equal(t, "floor", report.Rounds[0][1].Target)
			for i, r := range report.Rounds[0] {
				require.Positive(t, r.Deliveries, r.Target)
				require.Positive(t, r.Latency.Count, r.Target)
				require.Positive(t, r.CPU, r.Target)
				if keeps := i == 0 || args[0] != "reconnect" && args[0] != "soak"; keeps { // the yardsticks keep nothing for who comes back
					require.Zero(t, r.Counts.Faults(), r.Target)
				}
				require.Empty(t, r.Errors, r.Target)
			}
		})
	}
	t.Run("slow, and cut off", func(t *testing.T) {
		t.Parallel()
		r := command(t, 0, append(small("slow"), "--clients", "20", "--size", "60000", "--rate", "100", "--duration", "4s", "--no-floor")...).Rounds[0][0]
		require.Equal(t, 2, r.Stalled)
		require.NotEmpty(t, r.Errors, "who stalled was disconnected")
		require.Zero(t, r.Counts.Faults()+r.Counts.Cut+r.Counts.Gaps, "and came back, and got it all")
		require.EqualValues(t, r.Counts.Delivered%20, 0, "as everybody")
	})
	t.Run("kill", func(t *testing.T) {
		t.Parallel()
		r := command(t, 0, append(small("reconnect"), "--kill", "--log", "redis", "--topics", "5", "--per-client", "5", "--max-reads", "20", "--no-floor")...).Rounds[0][0]
		require.Positive(t, r.LogReads)
		require.Zero(t, r.Counts.Faults())
		require.Equal(t, 60, r.Errors["the server closed the connection"])
		require.Equal(t, 2, run(t.Context(), small("reconnect", "--kill"), io.Discard, io.Discard), "it needs Redis")
	})
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		report := command(t, 0, small("idle")...)
		require.Positive(t, report.Rounds[0][0].Resident)
		require.Positive(t, report.Rounds[0][0].Goroutines)
		require.Equal(t, "floor", report.Rounds[0][1].Target)
	})
	t.Run("storm", func(t *testing.T) {
		t.Parallel()
		report := command(t, 0, append(small("storm"), "--rounds", "2")...)
		require.Len(t, report.Rounds, 2)
		require.Equal(t, "upgrade", report.Rounds[1][1].Target)
	})
	t.Run("thresholds", func(t *testing.T) {
		t.Parallel()
		report := command(t, 1, append(small("broadcast"), "--rate", "50", "--max-p99", "1ns", "--max-cpu-ratio", "0.0001", "--min-rate", "1e9", "--max-allocs", "0.0001")...)
		require.Len(t, report.Failures, 4)
	})
}

// leaky is a server whose stream leaves out an event.
func leaky(t *testing.T) string {
	var mu sync.Mutex
	var all [][]byte
	more := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /publish", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, b)
		close(more)
		more = make(chan struct{})
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "pushhub_conflated_total 2") })
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for n := 0; ; {
			_ = http.NewResponseController(w).Flush()
			mu.Lock()
			next, wait := all[n:], more
			mu.Unlock()
			for _, e := range next {
				if n++; n != 3 {
					_, _ = fmt.Fprintf(w, "data: %s\n\n", e)
				}
			}
			if len(next) > 0 {
				continue
			}
			select {
			case <-wait:
			case <-r.Context().Done():
				return
			}
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// A server that loses an event in silence fails the run, whatever it was run for.
func TestLossFails(t *testing.T) {
	peer := filepath.Join(t.TempDir(), "peer.json")
	require.NoError(t, os.WriteFile(peer, []byte(`{"name": "leaky", "sse": {"path": "/stream"}, "publish": {"method": "POST", "path": "/publish", "body": "{data}"}}`), 0o600))
	report := command(t, 1, "broadcast", "--url", leaky(t), "--peer", peer, "--sse", "1", "--clients", "5", "--rate", "50", "--warmup", "100ms", "--duration", "500ms",
		"--max-p99", "1h", "--max-allocs", "1000", "--max-cpu", "1e9", "--max-user-cpu", "1e9", "--max-cpu-ratio", "1e9", "--max-bytes", "1e9", "--max-goroutines", "1e9", "--max-reads", "1e9", "--max-stall-ratio", "1e9")
	require.Equal(t, []string{"leaky: 5 events lost silently",
		"--max-stall-ratio 1e+09: it was not measured", "--max-cpu 1e+09: it was not measured", "--max-user-cpu 1e+09: it was not measured",
		"--max-allocs 1000: it was not measured", "--max-cpu-ratio 1e+09: it was not measured", "--max-bytes 1e+09: it was not measured",
		"--max-reads 1e+09: it was not measured", "--max-goroutines 1e+09: it was not measured",
	}, report.Failures, "what is not known does not hold")
	require.Len(t, report.Held, 1)

	// With a key it may have superseded the event, unless it says that it has not.
	for name, want := range map[string][]string{"leaky": {}, "pushhub": {"pushhub: 5 events lost silently"}} {
		require.NoError(t, os.WriteFile(peer, []byte(`{"name": "`+name+`", "sse": {"path": "/stream"}, "publish": {"method": "POST", "path": "/publish", "body": "{data}", "keyed": "{data}"}}`), 0o600))
		report = command(t, len(want), "broadcast", "--url", leaky(t), "--peer", peer, "--sse", "1", "--clients", "5", "--rate", "50", "--warmup", "100ms", "--duration", "500ms", "--no-floor", "--keyed")
		require.Equal(t, want, report.Failures)
	}
}

// A server that runs already is measured as one that was started, and raw messages come
// by way of the Redis that they share.
func TestServerThatRuns(t *testing.T) {
	t.Parallel()
	bin := hub(t)
	with, err := loadtest.StartHub(t.Context(), loadtest.Start{Binary: bin, Redis: true, Core: -1})
	require.NoError(t, err)
	t.Cleanup(with.Stop)
	held, err := port.Hold()
	require.NoError(t, err)
	t.Cleanup(held.Release)
	secret := loadtest.NewSecret()
	cmd := exec.Command(bin, "serve")
	cmd.Env = append(os.Environ(), "HOST=127.0.0.1", fmt.Sprint("PORT=", held.Number), "JWT_SECRET="+secret, "REDIS_URL="+with.Redis, "LOG_LEVEL=warn")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	url := fmt.Sprint("http://127.0.0.1:", held.Number)
	require.Eventually(t, func() bool {
		res, err := http.Get(url + "/health")
		return err == nil && res.Body.Close() == nil && res.StatusCode == http.StatusOK
	}, 30*time.Second, 20*time.Millisecond)

	r := command(t, 0, "broadcast", "--url", url, "--secret", secret, "--redis", with.Redis, "--raw", "--pid", fmt.Sprint(cmd.Process.Pid),
		"--clients", "20", "--sse", "0.5", "--rate", "50", "--warmup", "100ms", "--duration", "1200ms").Rounds[0][0]
	require.Positive(t, r.Counts.Delivered)
	require.Positive(t, r.CPU)
	require.Positive(t, r.Resident)
	require.Zero(t, r.Counts.Faults())
	require.Empty(t, r.Errors)
}

func TestWrongUse(t *testing.T) {
	for _, args := range [][]string{
		{"nothing"},
		{"broadcast", "--clients", "0"},
		{"broadcast", "--sse", "2"},
		{"broadcast", "--topics", "3", "--clients", "2"},
		{"broadcast", "--peer", "x.json"},
		{"broadcast", "--url", "ftp://x"},
	} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, 2, run(t.Context(), append(args, "--no-pin"), &stdout, &stderr), "%v: %s", args, &stderr)
		require.True(t, strings.HasPrefix(stderr.String(), "loadtest: "), &stderr)
	}
}
