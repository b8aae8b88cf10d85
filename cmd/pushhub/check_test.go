package main

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub/logtest"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	env := map[string]string{"JWT_SECRET": secret, "REDIS_URL": server.URL()}
	status, stdout, stderr := do(t, env, "check")
	require.Zero(t, status, stdout+stderr)
	for _, want := range []string{
		"serves HTTP on 0.0.0.0:5080", "verified with a secret", "Redis at 127.0.0.1:", "answers in", "it is Redis 7.",
		"maxmemory is not set", "AOF is off", "scripts may ask INFO", "scripts may write and publish",
		"the live channel is heard", "no tenant has a log there yet", "its clock agrees", "No errors, warnings: 1.",
	} {
		require.Contains(t, stdout, want)
	}

	c, url := startServe(t, env)
	c.stderr.awaitText(t, "Redis is connected")
	token := signToken(t, "--tenant=acme", "--publish=>")
	status, _, stderr = do(t, map[string]string{"PUSHHUB_TOKEN": token}, "publish", "--url="+url, "alerts", "1")
	require.Zero(t, status, stderr)
	status, stdout, _ = do(t, env, "check")
	require.Zero(t, status)
	require.Contains(t, stdout, "tenants with a log there: 1")
}

func TestCheckTellsWhatIsWrongWithRedis(t *testing.T) {
	t.Parallel()
	locked := logtest.StartRedis(t, "--requirepass", "sesame", "--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru", "--appendonly", "yes")
	env := map[string]string{"JWT_SECRET": secret, "REDIS_URL": "redis://:sesame@" + locked.Addr()}
	status, stdout, _ := do(t, env, "check")
	require.Zero(t, status, stdout)
	require.Contains(t, stdout, "warning  maxmemory-policy is allkeys-lru")
	require.Contains(t, stdout, "persisted (AOF)")
	require.NotContains(t, stdout, "sesame")

	env["REDIS_URL"] = "redis://:open@" + locked.Addr()
	status, stdout, stderr := do(t, env, "check")
	require.Equal(t, 1, status)
	require.Contains(t, stdout, "error    Redis at "+locked.Addr()+" cannot be used: WRONGPASS")
	require.Contains(t, stderr, "errors: 1")
	require.NotContains(t, stdout, "open")

	gone := logtest.StartRedis(t)
	gone.Stop()
	status, stdout, stderr = do(t, map[string]string{"JWT_SECRET": secret, "REDIS_URL": gone.URL()}, "check")
	require.Equal(t, 1, status)
	require.Contains(t, stdout, "connection refused")
	require.NotContains(t, stderr, "redis:", "go-redis does not write on its own")
}

func TestCheckTellsWhatIsForbidden(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	admin := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer admin.Close()
	for _, user := range []string{
		"noinfo on >p ~* &* +@all -info",
		"nowrite on >p ~other:* &* +@all",
		"nochannel on >p ~* resetchannels +@all",
	} {
		rule := []any{"ACL", "SETUSER"}
		for word := range strings.FieldsSeq(user) {
			rule = append(rule, word)
		}
		require.NoError(t, admin.Do(t.Context(), rule...).Err())
	}
	check := func(user string) (int, string) {
		status, stdout, _ := do(t, map[string]string{"JWT_SECRET": secret, "REDIS_URL": "redis://" + user + ":p@" + server.Addr()}, "check")
		return status, stdout
	}
	status, stdout := check("noinfo")
	require.Equal(t, 0, status, stdout)
	require.Contains(t, stdout, "warning  scripts may not ask INFO")
	require.Contains(t, stdout, "the live channel is heard")
	status, stdout = check("nowrite")
	require.Equal(t, 1, status)
	require.Contains(t, stdout, "error    scripts may not write and publish")
	status, stdout = check("nochannel")
	require.Equal(t, 1, status)
	require.Contains(t, stdout, "error    the live channel cannot be subscribed")
}

func TestCheckReplica(t *testing.T) {
	t.Parallel()
	primary := logtest.StartRedis(t)
	replica := primary.StartReplica()
	status, stdout, _ := do(t, map[string]string{"JWT_SECRET": secret, "REDIS_URL": replica.URL()}, "check")
	require.Equal(t, 1, status)
	require.Contains(t, stdout, "this is a replica")
}

func TestCheckSettings(t *testing.T) {
	t.Parallel()
	status, stdout, _ := do(t, map[string]string{"JWT_SECRET": secret}, "check")
	require.Zero(t, status)
	require.Contains(t, stdout, "no Redis is configured")

	status, stdout, _ = do(t, map[string]string{
		"JWT_SECRET": "short", "TLS_CERT_FILE": "x", "REDIS_URL": "redis://a,b/1", "CORS_ORIGINS": "*", "CORS_ALLOW_CREDENTIALS": "true",
		"OUTBOX_BYTES": "100", "MAX_BODY_BYTES": "100",
	}, "check")
	require.Equal(t, 1, status)
	for _, name := range []string{"JWT_SECRET", "TLS_KEY_FILE", "REDIS_URL", "CORS_ALLOW_CREDENTIALS"} {
		require.Contains(t, stdout, "error    "+name)
	}
	require.Contains(t, stdout, "warning  OUTBOX_BYTES")
	require.Contains(t, stdout, "warning  MAX_BODY_BYTES")

	status, stdout, _ = do(t, nil, "check")
	require.Equal(t, 1, status)
	require.Contains(t, stdout, "set JWT_PUBLIC_KEY, JWT_SECRET or JWT_JWKS_URL")

	for until, want := range map[time.Duration]string{
		-time.Hour:       "error    TLS_CERT_FILE: the certificate has expired",
		time.Hour:        "warning  serves HTTPS on 0.0.0.0:5080; the certificate expires",
		9000 * time.Hour: "ok       serves HTTPS on 0.0.0.0:5080; the certificate is good until",
	} {
		cert, key := certificate(t, time.Now().Add(until))
		_, stdout, _ = do(t, map[string]string{"JWT_SECRET": secret, "TLS_CERT_FILE": cert, "TLS_KEY_FILE": key}, "check")
		require.Contains(t, stdout, want)
	}
}

func TestCheckFetchesJWKS(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		`{"keys":[{"kty":"OKP","kid":"a","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","alg":"EdDSA"}]}`: "ok       the JWK set has 1 keys",
		`{"keys":[]}`: "error    JWT_JWKS_URL: the set has no keys",
		`hello`:       "error    JWT_JWKS_URL: the answer is no JWK set",
	} {
		url := fakeHub(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) })
		_, stdout, _ := do(t, map[string]string{"JWT_JWKS_URL": url, "JWT_ALGORITHM": "EdDSA"}, "check")
		require.Contains(t, stdout, want)
	}
}

func TestCheckLive(t *testing.T) {
	t.Parallel()
	_, url := startServe(t, nil)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	status, stdout, stderr := do(t, map[string]string{"PORT": port}, "check", "--live")
	require.Zero(t, status, stderr)
	require.Empty(t, stdout)
	status, _, stderr = do(t, map[string]string{"PORT": "1"}, "check", "--live")
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "connection refused")
}
