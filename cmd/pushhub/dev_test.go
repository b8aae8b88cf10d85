package main

import (
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub/logtest"
)

var opens = regexp.MustCompile(`^Open (http://localhost:(\d+)/) in a browser. Ctrl-C ends it.\n$`)

// startDev starts pushhub dev and gives the address that it prints.
func startDev(t testing.TB, env map[string]string, args ...string) (c *command, url string) {
	t.Helper()
	c = start(t, env, nil, append([]string{"dev"}, args...)...)
	c.stdout.await(t, "the address", func(s string) bool { return strings.HasSuffix(s, "\n") })
	found := opens.FindStringSubmatch(c.stdout.String())
	require.NotNil(t, found, "one line: %s", c.stdout)
	return c, found[1]
}

func TestDev(t *testing.T) {
	t.Parallel()
	c, url := startDev(t, map[string]string{"PORT": "0"}, "--seed=1")
	status, page := get(t, url, "")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, page, "<!doctype html>")
	status, body := get(t, url+"dev/config.json", "")
	require.Equal(t, http.StatusOK, status)
	config := object(t, body)
	require.Equal(t, "demo", config["tenant"])
	require.Equal(t, []any{">"}, config["topics"])
	token := config["token"].(string)
	require.Empty(t, c.stderr.String(), "one line, and nothing else")

	env := map[string]string{"PUSHHUB_TOKEN": token, "PUSHHUB_URL": url}
	follower := start(t, env, nil, "tail", "--last=1", ">")
	for _, what := range []string{`"stage":"rendering"`, `"type":"render.progress.v1"`, `"type":"alert.v1"`} {
		follower.stdout.awaitText(t, what)
	}
	status, _, stderr := do(t, env, "publish", "alerts", `{"title":"by hand"}`)
	require.Zero(t, status, stderr)
	follower.stdout.awaitText(t, "by hand")
	c.stop()
	require.Zero(t, c.wait())
	require.NotContains(t, c.stderr.String(), token)
}

func TestDevTakesTheNextPort(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	_, url := startDev(t, map[string]string{"PORT": port})
	require.NotContains(t, url, ":"+port+"/")
	status, _ := get(t, url, "")
	require.Equal(t, http.StatusOK, status)
}

// TestDevIsForThisMachine asks by a name of the world that was turned to 127.0.0.1.
func TestDevIsForThisMachine(t *testing.T) {
	t.Parallel()
	_, url := startDev(t, map[string]string{"PORT": "0"})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for host, want := range map[string]int{
		"evil.example.com": http.StatusForbidden, "evil.example.com:5080": http.StatusForbidden, "10.0.0.1": http.StatusForbidden,
		"localhost": http.StatusOK, "127.0.0.1:5080": http.StatusOK, "[::1]:5080": http.StatusOK, "[::1]": http.StatusOK,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"dev/config.json", nil)
		require.NoError(t, err)
		r.Host = host
		answer, err := client.Do(r)
		require.NoError(t, err)
		answer.Body.Close()
		require.Equal(t, want, answer.StatusCode, host)
	}
}

// TestDevOnRedis has two of them share their events.
func TestDevOnRedis(t *testing.T) {
	t.Parallel()
	redis := logtest.StartRedis(t)
	env := map[string]string{"PORT": "0", "JWT_SECRET": secret}
	_, urlA := startDev(t, env, "--redis-url="+redis.URL())
	_, urlB := startDev(t, env, "--redis-url="+redis.URL())
	token := map[string]string{"PUSHHUB_TOKEN": signToken(t, "--tenant=demo", "--publish=>")}
	follower := start(t, token, nil, "tail", "--url="+urlA, "--last=1", "nodes.>")
	eventually(t, "an id", func() bool {
		status, _, _ := do(t, token, "publish", "--url="+urlB, "nodes.1", `"hello"`)
		return status == 0
	})
	follower.stdout.awaitText(t, `"hello"`)
}

func TestDevRefusals(t *testing.T) {
	t.Parallel()
	for want, env := range map[string]map[string]string{
		"JWT_SECRET: ": {"PORT": "0", "JWT_SECRET": "short"},
		"REDIS_URL: ":  {"PORT": "0", "REDIS_URL": "redis://a,b/1"},
		"HOST, PORT: ": {"PORT": "0", "HOST": "no such host"},
		"RETENTION: ":  {"RETENTION": "x"},
	} {
		status, stdout, stderr := do(t, env, "dev")
		require.Equal(t, 1, status)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "pushhub: "+want)
	}
}
