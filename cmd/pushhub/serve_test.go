package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub/logtest"
)

// sseClient is an EventSource that reads until the stream ends.
type sseClient struct {
	seen  *output
	ended chan struct{} // closed after the last byte
}

// listen opens a stream and waits until it is caught up.
func listenTo(t testing.TB, url, token string) *sseClient {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, answer.StatusCode)
	c := &sseClient{seen: newOutput(), ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		defer answer.Body.Close()
		lines := bufio.NewScanner(answer.Body)
		for lines.Scan() {
			_, _ = c.seen.Write(append(lines.Bytes(), '\n')) // it never fails
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-c.ended
	})
	c.seen.awaitText(t, `"op":"subscribed"`)
	return c
}

func TestServeInMemory(t *testing.T) {
	t.Parallel()
	token := signToken(t, "--tenant=acme", "--user=u7", "--publish=>")
	c, url := startServe(t, nil)
	c.stderr.awaitText(t, "the log is in memory")

	status, body := get(t, url+"/health", "")
	require.Equal(t, http.StatusOK, status)
	health := object(t, body)
	require.Equal(t, "healthy", health["status"])
	require.Equal(t, "none", health["redis"])
	require.Equal(t, buildName(), health["version"])
	status, body = get(t, url+"/metrics", "")
	require.Equal(t, http.StatusOK, status)
	for _, name := range []string{"pushhub_log_up 1", "pushhub_draining 0", "go_goroutines", "process_open_fds"} {
		require.Contains(t, body, "\n"+name)
	}
	status, _ = get(t, url+"/", "")
	require.Equal(t, http.StatusNotFound, status, "the demo page is not served")

	client := listenTo(t, url+"/api/v1/stream?topics=alerts&token="+token, token)
	status, stdout, stderr := do(t, map[string]string{"PUSHHUB_TOKEN": token}, "publish", "--url="+url, "alerts", `{"a":1}`)
	require.Zero(t, status, stderr)
	client.seen.awaitText(t, `"id":"`+strings.TrimSpace(stdout)+`"`)
	status, _ = get(t, url+"/api/v1/events?token="+token+"x", "")
	require.Equal(t, http.StatusUnauthorized, status)

	c.stop()
	require.Zero(t, c.wait())
	<-client.ended
	require.Contains(t, client.seen.String(), `"op":"bye","code":1012`)
	require.Empty(t, c.stdout.String())
	for _, line := range c.stderr.lines() {
		require.NotContains(t, line, token)
		require.NotContains(t, line, secret)
		require.NotEmpty(t, object(t, line)["message"])
	}
}

func TestServeTakesPortOnce(t *testing.T) {
	t.Parallel()
	_, url := startServe(t, nil)
	status, _, stderr := do(t, map[string]string{
		"HOST": "127.0.0.1", "PORT": url[strings.LastIndexByte(url, ':')+1:], "JWT_SECRET": secret,
	}, "serve")
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "HOST, PORT: ")
}

func TestServeTLS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, time.Now().Add(time.Hour))
	_, url := startServe(t, map[string]string{"TLS_CERT_FILE": cert, "TLS_KEY_FILE": key})
	url = "https" + strings.TrimPrefix(url, "http")
	pemText, err := os.ReadFile(cert)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(pemText))
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true, ForceAttemptHTTP2: true,
	}}
	answer, err := client.Get(url + "/health")
	require.NoError(t, err)
	defer answer.Body.Close()
	require.Equal(t, http.StatusOK, answer.StatusCode)

	port := url[strings.LastIndexByte(url, ':')+1:]
	env := map[string]string{"HOST": "127.0.0.1", "PORT": port, "TLS_CERT_FILE": cert, "TLS_KEY_FILE": key}
	status, _, stderr := do(t, env, "check", "--live")
	require.Zero(t, status, stderr)
}

// certificate makes one for 127.0.0.1, and gives its files.
func certificate(t testing.TB, until time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return cert, key
}

// TestServeWithoutItsRedis starts before Redis is there, and sees it go and come.
func TestServeWithoutItsRedis(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	server.Stop()
	c, url := startServe(t, map[string]string{"REDIS_URL": server.URL()})
	c.stderr.awaitText(t, "Redis cannot be reached yet")
	status, body := get(t, url+"/health", "")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, "unhealthy", object(t, body)["status"])
	require.Equal(t, "disconnected", object(t, body)["redis"])
	status, _ = get(t, url+"/health/live", "")
	require.Equal(t, http.StatusOK, status)

	server.Start()
	c.stderr.awaitText(t, "Redis is connected")
	eventually(t, "healthy", func() bool {
		status, body := get(t, url+"/health", "")
		return status == http.StatusOK && object(t, body)["status"] == "healthy" && object(t, body)["redis"] == "connected"
	})

	server.Stop()
	c.stderr.awaitText(t, "Redis is away")
	token := signToken(t, "--tenant=acme", "--publish=>")
	begin := time.Now()
	status, _, stderr := do(t, map[string]string{"PUSHHUB_TOKEN": token}, "publish", "--url="+url, "alerts", "1")
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "unavailable")
	require.Less(t, time.Since(begin), 5500*time.Millisecond)
	eventually(t, "degraded", func() bool {
		status, body := get(t, url+"/health", "")
		require.Equal(t, http.StatusOK, status, "clients must not be sent away")
		return object(t, body)["status"] == "degraded" && object(t, body)["redis"] == "disconnected"
	})
	_, body = get(t, url+"/metrics", "")
	require.Contains(t, body, "\npushhub_log_up 0")

	server.Start()
	c.stderr.awaitText(t, "Redis is back")
	eventually(t, "healthy", func() bool {
		_, body := get(t, url+"/health", "")
		return object(t, body)["status"] == "healthy"
	})
	_, body = get(t, url+"/metrics", "")
	require.Contains(t, body, "\npushhub_log_reconnects_total 1")
	c.stop()
	require.Zero(t, c.wait())
	for _, line := range c.stderr.lines() {
		object(t, line) // what go-redis says too is JSON
	}
}

// TestHealthOfUselessRedis: one that answers nothing, or refuses to be written to, is
// told of after some seconds, and so is that it is well again.
func TestHealthOfUselessRedis(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t, "--enable-debug-command", "yes", "--loading-process-events-interval-bytes", "1024")
	c, url := startServe(t, map[string]string{"REDIS_URL": server.URL()})
	is := func(status, state string) {
		eventually(t, status, func() bool {
			_, body := get(t, url+"/health", "")
			o := object(t, body)
			return o["status"] == status && o["redis"] == state
		})
	}
	is("healthy", "connected")
	server.Pause()
	is("degraded", "disconnected")
	server.Continue()
	is("healthy", "connected")
	admin := redis.NewClient(&redis.Options{Addr: server.Addr(), ReadTimeout: time.Minute})
	t.Cleanup(func() { _ = admin.Close() })
	say := func(args ...any) { require.NoError(t, admin.Do(t.Context(), args...).Err(), args) }

	say("CONFIG", "SET", "maxmemory", 1)
	is("degraded", "connected")
	say("CONFIG", "SET", "maxmemory", 0)
	is("healthy", "connected")

	say("REPLICAOF", "127.0.0.1", 1) // READONLY
	is("degraded", "connected")
	say("REPLICAOF", "NO", "ONE")
	is("healthy", "connected")

	for n := range 200 {
		say("SET", fmt.Sprint("key", n), strings.Repeat("x", 1000))
	}
	say("CONFIG", "SET", "key-load-delay", 60_000) // µs
	loaded := make(chan error, 1)
	go func() { loaded <- admin.Do(context.Background(), "DEBUG", "RELOAD").Err() }() // LOADING
	is("degraded", "connected")
	require.NoError(t, <-loaded)
	is("healthy", "connected")
	c.stop()
	require.Zero(t, c.wait())
}

// TestTwoInstances publishes at one and tails at the other, which then dies; tail
// goes on at the first, where both stand behind one address.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	env := map[string]string{"REDIS_URL": server.URL(), "DRAIN_SECONDS": "1"}
	a, urlA := startServe(t, env)
	b, urlB := startServe(t, env)
	a.stderr.awaitText(t, "Redis is connected")
	b.stderr.awaitText(t, "Redis is connected")
	token := map[string]string{"PUSHHUB_TOKEN": signToken(t, "--tenant=acme", "--publish=>")}
	balancer := newBalancer(t, urlB)

	follower := start(t, token, nil, "tail", "--url="+balancer.url, "jobs.>", "alerts")
	balancer.await(t, 1)
	var ids []string
	publish := func(topic, data string) {
		status, stdout, stderr := do(t, token, "publish", "--url="+urlA, topic, data)
		require.Zero(t, status, stderr)
		ids = append(ids, strings.TrimSpace(stdout))
		follower.stdout.awaitText(t, `"id":"`+ids[len(ids)-1]+`"`)
	}
	eventually(t, "subscribed", func() bool {
		_, body := get(t, urlB+"/metrics", "")
		return strings.Contains(body, "\npushhub_subscriptions 2")
	})
	publish("jobs.1", `{"n":1}`)
	publish("alerts", `{"n":2}`)

	balancer.to(urlA)
	b.stop()
	require.Zero(t, b.wait())
	publish("jobs.2", `{"n":3}`)
	publish("jobs.1", `{"n":4}`)

	var seen []string
	for _, line := range follower.stdout.lines() {
		seen = append(seen, object(t, line)["id"].(string))
	}
	require.Equal(t, ids, seen, "everything once, in order")
	require.Contains(t, follower.stderr.String(), "the hub said bye: drain (1012)")
	require.NotContains(t, follower.stderr.String(), "gap")
	follower.stop()
	require.Zero(t, follower.wait())
}

// TestRawPublish has a backend that knows nothing of the hub.
func TestRawPublish(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	env := map[string]string{"REDIS_URL": server.URL()}
	_, urlA := startServe(t, env)
	_, urlB := startServe(t, env)
	token := signToken(t, "--tenant=acme")
	a := listenTo(t, urlA+"/api/v1/stream?topics=jobs.>", token)
	b := listenTo(t, urlB+"/api/v1/stream?topics=jobs.j1", token)
	for _, url := range []string{urlA, urlB} {
		eventually(t, "its raw channels", func() bool {
			status, _ := get(t, url+"/health", "")
			return status == http.StatusOK
		})
	}
	backend := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer backend.Close()
	const text = `{"progress":42,"status":"running"}`
	require.NoError(t, backend.Publish(t.Context(), "render:tenant:acme:job:j1", text).Err())
	for _, client := range []*sseClient{a, b} {
		client.seen.awaitText(t, `"topic":"jobs.j1","type":"render.progress.v1"`)
		client.seen.awaitText(t, `"data":`+text+`}`)
	}
	leading := 0
	for _, url := range []string{urlA, urlB} {
		if _, body := get(t, url+"/metrics", ""); strings.Contains(body, "\npushhub_ingesting 1") {
			leading++
		}
	}
	require.Equal(t, 1, leading)
}

func TestServeKeepsWhatRestartsLeave(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	env := map[string]string{"REDIS_HOST": "127.0.0.1", "REDIS_PORT": server.Addr()[strings.LastIndexByte(server.Addr(), ':')+1:]}
	token := signToken(t, "--tenant=acme", "--publish=>")
	c, url := startServe(t, env)
	c.stderr.awaitText(t, "Redis is connected")
	status, stdout, stderr := do(t, map[string]string{"PUSHHUB_TOKEN": token}, "publish", "--url="+url, "alerts", `"kept"`)
	require.Zero(t, status, stderr)
	c.stop()
	require.Zero(t, c.wait())

	c, url = startServe(t, env)
	c.stderr.awaitText(t, "Redis is connected")
	_, body := get(t, url+"/api/v1/events?topics=alerts", token)
	var answer struct{ Data []struct{ ID string } }
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	require.Len(t, answer.Data, 1)
	require.Equal(t, strings.TrimSpace(stdout), answer.Data[0].ID)
}
