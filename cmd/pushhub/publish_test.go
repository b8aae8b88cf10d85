package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// feed gives the events of a topic.
func feed(t *testing.T, url, token, topic string) []map[string]any {
	t.Helper()
	_, body := get(t, url+"/api/v1/events?limit=1000&topics="+topic, token)
	var answer struct{ Data []map[string]any }
	require.NoError(t, json.Unmarshal([]byte(body), &answer), body)
	return answer.Data
}

func TestPublish(t *testing.T) {
	t.Parallel()
	_, url := startServe(t, nil)
	token := signToken(t, "--tenant=acme", "--publish=jobs.>,alerts")
	env := map[string]string{"PUSHHUB_TOKEN": token, "PUSHHUB_URL": url}

	status, first, stderr := do(t, env, "publish", "jobs.1", `{"a": "<&>", "n": 1.0}`, "--type=render.progress.v1",
		"--key=progress", "--final", "--source=node-1", "--dedupe=d1")
	require.Zero(t, status, stderr)
	require.Regexp(t, `^[a-z0-9]+-1\n$`, first)
	status, again, stderr := do(t, env, "publish", "jobs.1", `{"other":true}`, "--dedupe=d1")
	require.Zero(t, status, stderr)
	require.Equal(t, first, again)

	events := feed(t, url, token, "jobs.1")
	require.Len(t, events, 1)
	require.Equal(t, "render.progress.v1", events[0]["type"])
	require.Equal(t, "node-1", events[0]["source"])
	_, body := get(t, url+"/api/v1/events?topics=jobs.1", token)
	require.Contains(t, body, `"data":{"a":"<&>","n":1.0}`, "to the byte")

	// Several tenants: the token's own is none of them.
	service := signToken(t, "--tenant=*", "--service=api", "--publish=>")
	status, _, stderr = do(t, map[string]string{"PUSHHUB_TOKEN": service}, "publish", "--url="+url, "--tenant=other", "alerts", "1")
	require.Zero(t, status, stderr)
	require.Empty(t, feed(t, url, token, "alerts"))
}

func TestPublishLines(t *testing.T) {
	t.Parallel()
	_, url := startServe(t, nil)
	token := signToken(t, "--tenant=acme", "--publish=>")
	env := map[string]string{"PUSHHUB_TOKEN": token}

	const lines = 2500
	var in strings.Builder
	for i := range lines {
		fmt.Fprintf(&in, "{\"n\": %d}\n", i)
		if i%100 == 0 {
			in.WriteString("  \n")
		}
	}
	c := start(t, env, strings.NewReader(strings.TrimSuffix(in.String(), "\n")), "publish", "--url="+url, "nodes.1")
	require.Zero(t, c.wait(), c.stderr.String())
	ids := c.stdout.lines()
	require.Len(t, ids, lines)
	for i, id := range ids {
		require.True(t, strings.HasSuffix(id, fmt.Sprintf("-%d", i+1)), id)
	}

	// A line is published when it comes, not when the input ends.
	reader, writer := io.Pipe()
	c = start(t, env, reader, "publish", "--url="+url, "nodes.2")
	_, err := io.WriteString(writer, "\"one\"\n")
	require.NoError(t, err)
	c.stdout.await(t, "an id", func(s string) bool { return strings.HasSuffix(s, "\n") })
	_, err = io.WriteString(writer, "\"two\"\nthree\n\"four\"\n")
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	require.Equal(t, 1, c.wait())
	require.Contains(t, c.stderr.String(), "line 3: the data is not one JSON value")
	events := feed(t, url, token, "nodes.2")
	require.Len(t, events, 2)
	require.Equal(t, "two", events[1]["data"])

	// Large lines go in several requests.
	large := `"` + strings.Repeat("x", 60_000) + "\"\n"
	c = start(t, env, strings.NewReader(strings.Repeat(large, 30)), "publish", "--url="+url, "nodes.3")
	require.Zero(t, c.wait(), c.stderr.String())
	require.Len(t, c.stdout.lines(), 30)

	// It can be stopped while it waits.
	reader, writer = io.Pipe()
	c = start(t, env, reader, "publish", "--url="+url, "nodes.4")
	c.stop()
	require.Equal(t, 1, c.wait())
	require.NoError(t, writer.Close())
}

func TestPublishRefusals(t *testing.T) {
	t.Parallel()
	_, url := startServe(t, map[string]string{"MAX_EVENT_BYTES": "100"})
	token := signToken(t, "--tenant=acme", "--publish=jobs.>")
	for _, c := range []struct {
		want  string
		token string
		args  []string
	}{
		{"forbidden: ", token, []string{"alerts", "1"}},
		{"unauthorized: ", token + "x", []string{"jobs.1", "1"}},
		{"payload_too_large: ", token, []string{"jobs.1", `"` + strings.Repeat("x", 100) + `"`}},
		{"PUSHHUB_TOKEN: a token is required", "", []string{"jobs.1", "1"}},
		{"not one JSON value", token, []string{"jobs.1", "{"}},
		{"not one JSON value", token, []string{"jobs.1", "1 2"}},
		{"not one JSON value", token, []string{"jobs.1", ""}},
		{"malformed", token, []string{"jobs..1", "1"}},
		{"type", token, []string{"jobs.1", "1", "--type=\n"}},
		{"--dedupe: it names one event", token, []string{"jobs.1", "--dedupe=d"}},
		{"PUSHHUB_URL: ", token, []string{"jobs.1", "1", "--url=localhost:5080"}},
		{"connection refused", token, []string{"jobs.1", "1", "--url=http://127.0.0.1:1"}},
		{"403", token, []string{"jobs.1", "1", "--tenant=other"}},
	} {
		args := append([]string{"publish", "--url=" + url}, c.args...)
		status, stdout, stderr := do(t, map[string]string{"PUSHHUB_TOKEN": c.token}, args...)
		require.Equal(t, 1, status, stderr)
		require.Empty(t, stdout)
		if c.want != "403" {
			require.Contains(t, stderr, c.want)
		}
		require.NotContains(t, stderr, token)
	}
}

func TestPublishToSomethingElse(t *testing.T) {
	t.Parallel()
	url := fakeHub(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
	})
	status, _, stderr := do(t, map[string]string{"PUSHHUB_TOKEN": "t"}, "publish", "--url="+url, "alerts", "1")
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "418 I'm a teapot: the answer is not that of a hub")
}
