package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		removeBinary()
		os.Exit(status)
	}))
}

const (
	secret   = "only-a-secret-for-tests-of-48-bytes-xxxxxxxxxxxx"
	patience = 20 * time.Second
)

// output keeps what a command writes, and can be waited on.
type output struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{} // closed and made anew with each write
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// lines gives what was written so far, without the last line if it is not whole.
func (o *output) lines() []string {
	whole, _, _ := cutLast(o.String(), "\n")
	if whole == "" {
		return nil
	}
	return strings.Split(whole, "\n")
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// await waits until done says yes to the output.
func (o *output) await(t testing.TB, what string, done func(string) bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		o.mu.Lock()
		text, changed := o.b.String(), o.changed
		o.mu.Unlock()
		if done(text) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("waited too long for %s; there is:\n%s", what, text)
		}
	}
}

func (o *output) awaitText(t testing.TB, text string) {
	t.Helper()
	o.await(t, text, func(s string) bool { return strings.Contains(s, text) })
}

// command is one that runs in this process.
type command struct {
	t              testing.TB
	stdout, stderr *output
	stop           context.CancelFunc
	ended          chan struct{} // closed when status is set
	status         int
}

// start runs a command. It is stopped when t ends.
func start(t testing.TB, env map[string]string, stdin io.Reader, args ...string) *command {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := &command{t: t, stdout: newOutput(), stderr: newOutput(), stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		c.status = run(ctx, process{
			args: args, getenv: func(name string) string { return env[name] },
			stdin: stdin, stdout: c.stdout, stderr: c.stderr,
		})
	}()
	t.Cleanup(func() {
		stop()
		<-c.ended
	})
	return c
}

// wait waits for the end of the command and gives its status.
func (c *command) wait() int {
	c.t.Helper()
	select {
	case <-c.ended:
		return c.status
	case <-time.After(patience):
		c.t.Fatalf("the command does not end; it wrote:\n%s%s", c.stdout, c.stderr)
		return 0
	}
}

// do runs a command to its end.
func do(t testing.TB, env map[string]string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	c := start(t, env, strings.NewReader(""), args...)
	status = c.wait()
	return status, c.stdout.String(), c.stderr.String()
}

var listening = regexp.MustCompile(`"address":"([^"]+)"`)

// startServe starts pushhub serve on a free port, and gives its address.
func startServe(t testing.TB, env map[string]string, args ...string) (c *command, url string) {
	t.Helper()
	all := map[string]string{"HOST": "127.0.0.1", "PORT": "0", "JWT_SECRET": secret, "DRAIN_SECONDS": "5"}
	maps.Copy(all, env)
	c = start(t, all, nil, append([]string{"serve"}, args...)...)
	c.stderr.await(t, "the address", func(s string) bool {
		found := listening.FindStringSubmatch(s)
		if found != nil {
			url = "http://" + found[1]
		}
		return found != nil
	})
	return c, url
}

// signToken has pushhub token sign.
func signToken(t testing.TB, args ...string) string {
	t.Helper()
	status, stdout, stderr := do(t, map[string]string{"JWT_SECRET": secret}, append([]string{"token"}, args...)...)
	require.Zero(t, status, stderr)
	return strings.TrimSpace(stdout)
}

// get asks for a page, with a token unless it is empty.
func get(t testing.TB, url, token string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	answer, err := client.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(b)
}

// eventually asks until the answer is yes, for what cannot be waited on.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	require.Eventually(t, done, patience, 20*time.Millisecond, what)
}

// object reads one JSON object.
func object(t testing.TB, text string) map[string]any {
	t.Helper()
	var o map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &o), text)
	return o
}
