package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/ingest"
	"github.com/pushhub/pushhub/transport"
)

// parse reads the settings of serve.
func parse(t *testing.T, env map[string]string, args ...string) (*settings, error) {
	t.Helper()
	var all commands
	parser, err := kong.New(&all,
		kong.Vars{"retention": hub.DefaultRetention, "ingest": ingest.DefaultMapping, "url": defaultURL},
		kong.Exit(func(int) { t.Fatal("help") }),
		kong.Resolvers(environment(func(name string) string { return env[name] })),
	)
	require.NoError(t, err)
	_, err = parser.Parse(append([]string{"serve"}, args...))
	return &all.Serve.settings, err
}

// names gives the settings of a command, and their flags.
func names(t *testing.T, command string) map[string]string {
	t.Helper()
	parser, err := kong.New(&commands{}, kong.Vars{"retention": "", "ingest": "", "url": ""})
	require.NoError(t, err)
	found := map[string]string{}
	for _, node := range parser.Model.Children {
		if node.Name == command {
			for _, flag := range node.Flags {
				if name := flag.Tag.Get("setting"); name != "" {
					found[name] = flag.Name
				}
			}
		}
	}
	return found
}

func TestSettingsOfTheContract(t *testing.T) {
	t.Parallel()
	found := names(t, "serve")
	for name, flag := range found {
		require.Equal(t, strings.ToLower(strings.ReplaceAll(name, "_", "-")), flag)
	}
	want := strings.Fields(`
		HOST PORT ENVIRONMENT LOG_LEVEL LOG_FORMAT REDIS_URL REDIS_HOST REDIS_PORT REDIS_DB REDIS_PASSWORD REDIS_SENTINEL_MASTER
		JWT_PUBLIC_KEY JWT_SECRET JWT_JWKS_URL JWT_ALGORITHM JWT_ISSUER JWT_AUDIENCE
		CORS_ORIGINS CORS_ALLOW_CREDENTIALS TRUSTED_PROXIES TLS_CERT_FILE TLS_KEY_FILE SUBSCRIPTION_GRACE_SECONDS
		MAX_MESSAGE_BYTES MAX_EVENT_BYTES MAX_BODY_BYTES MAX_TOPICS OUTBOX_EVENTS OUTBOX_BYTES MAX_CONNECTIONS
		HANDSHAKE_SECONDS HEARTBEAT_SECONDS PONG_SECONDS DRAIN_SECONDS RETENTION INGEST`)
	for _, name := range want {
		require.Contains(t, found, name)
	}
	require.Len(t, found, len(want))
	require.Equal(t, found, names(t, "check"))
}

func TestDefaultSettings(t *testing.T) {
	t.Parallel()
	empty := map[string]string{}
	for name := range names(t, "serve") {
		empty[name] = ""
	}
	for _, env := range []map[string]string{nil, empty} {
		s, err := parse(t, env)
		require.NoError(t, err)
		require.Equal(t, listenSettings{"0.0.0.0", 5080}, s.listenSettings)
		require.Equal(t, logSettings{"info", "json", ""}, s.logSettings)
		require.Equal(t, transport.Limits{
			MessageBytes: 16 << 10, EventBytes: 64 << 10, BodyBytes: 1 << 20, Topics: 100,
			OutboxEvents: 256, OutboxBytes: 1 << 20, Connections: 0,
			Handshake: 10 * time.Second, Heartbeat: 20 * time.Second, Pong: 10 * time.Second, Drain: 30 * time.Second,
		}, s.limits())
		want, err := hub.ParseRetention("jobs.>:100/1h,>:1000/24h")
		require.NoError(t, err)
		require.Equal(t, want, s.limitSettings.retention())
		require.Len(t, s.Ingest, 3)
		options, err := s.place()
		require.NoError(t, err)
		require.Nil(t, options)
	}
}

func TestFlagWinsOverVariable(t *testing.T) {
	t.Parallel()
	s, err := parse(t, map[string]string{"PORT": "1", "CORS_ALLOW_CREDENTIALS": "true", "HEARTBEAT_SECONDS": "3"},
		"--port=2", "--cors-allow-credentials=false", "--cors-origins", "https://App.example.com/, http://localhost:3000",
		"--trusted-proxies=10.0.0.1/8,::1")
	require.NoError(t, err)
	require.Equal(t, number(2), s.Port)
	require.False(t, bool(s.CORSAllowCredentials))
	require.Equal(t, 3*time.Second, s.limits().Heartbeat)
	require.Equal(t, origins{"https://app.example.com", "http://localhost:3000"}, s.CORSOrigins)
	require.Equal(t, "10.0.0.0/8", s.TrustedProxies[0].String())
	require.Equal(t, "::1/128", s.TrustedProxies[1].String())

	s, err = parse(t, map[string]string{"CORS_ALLOW_CREDENTIALS": "1"})
	require.NoError(t, err)
	require.True(t, bool(s.CORSAllowCredentials))
	s, err = parse(t, nil, "--cors-allow-credentials")
	require.NoError(t, err)
	require.True(t, bool(s.CORSAllowCredentials))
}

// TestMalformedSettings starts serve with each setting gone wrong: it must not
// start, and say which.
func TestMalformedSettings(t *testing.T) {
	t.Parallel()
	notPEM := filepath.Join(t.TempDir(), "key.pem")
	require.NoError(t, os.WriteFile(notPEM, []byte("no key"), 0o600))
	const password = "hunter2"
	for _, c := range []struct{ name, value, want string }{
		{"PORT", "http", `"http" is not a whole number from 0 to 65535`},
		{"PORT", "65536", "from 0 to 65535"},
		{"PORT", "-1", "from 0 to 65535"},
		{"HOST", "no such host", "listen"},
		{"LOG_LEVEL", "loud", `"loud" is none of trace, debug, info, warn, error`},
		{"LOG_FORMAT", "xml", "none of json, console"},
		{"REDIS_URL", "http://:" + password + "@x", "not redis://"},
		{"REDIS_URL", "redis://:" + password + "/@x:6379", "not redis://"},
		{"REDIS_URL", "redis://:" + password + "@x/zero", "not redis://"},
		{"REDIS_URL", "redis://:" + password + "@x?" + password + "=1", "not redis://"},
		{"REDIS_URL", "redis://:" + password + "@a:1,b:2/1", "only database 0"},
		{"REDIS_URL", "redis://:" + password + "@a:1,", "not redis://"},
		{"REDIS_URL", "redis://:" + password + "@,b:2", "not redis://"},
		{"REDIS_URL", "redis://:" + password + "@x:99999999", "not redis://"},
		{"REDIS_URL", "redis://:" + password + "@x:0", "not redis://"},
		{"REDIS_HOST", "a,,b", "not host[:port]"},
		{"REDIS_HOST", "a,b:0", "not host[:port]"},
		{"REDIS_HOST", "redis://a", "not host[:port]"},
		{"REDIS_SENTINEL_MASTER", "main", "needs REDIS_HOST"},
		{"REDIS_PORT", "tcp://10.0.0.1:6379", "from 1 to 65535"},
		{"REDIS_PORT", "6380", "needs REDIS_HOST"},
		{"REDIS_DB", "-1", "whole number"},
		{"REDIS_DB", "1", "needs REDIS_HOST"},
		{"REDIS_PASSWORD", password, "needs REDIS_HOST"},
		{"JWT_PUBLIC_KEY", notPEM, "PEM"},
		{"JWT_PUBLIC_KEY", notPEM + ".not", "no such file"},
		{"JWT_SECRET", "short", "32"},
		{"JWT_JWKS_URL", "keys", "not an http or https URL"},
		{"JWT_ALGORITHM", "none", "none of"},
		{"JWT_ALGORITHM", "RS256", "does not fit JWT_SECRET"},
		{"CORS_ORIGINS", "app.example.com", "not an origin"},
		{"CORS_ORIGINS", "https://a.example.com/path", "not an origin"},
		{"CORS_ORIGINS", "https://a.example.com,", "not an origin"},
		{"CORS_ALLOW_CREDENTIALS", "maybe", "neither true nor false"},
		{"TRUSTED_PROXIES", "proxy", "not an address or a network"},
		{"TRUSTED_PROXIES", "10.0.0.0/64", "not an address or a network"},
		{"TLS_CERT_FILE", notPEM, "TLS_KEY_FILE: it is required"},
		{"TLS_KEY_FILE", notPEM, "TLS_CERT_FILE: it is required"},
		{"SUBSCRIPTION_GRACE_SECONDS", "1h", "whole number"},
		{"MAX_MESSAGE_BYTES", "16KiB", "whole number"},
		{"MAX_MESSAGE_BYTES", "10", "from 1024"},
		{"MAX_EVENT_BYTES", "0", "from 1 to"},
		{"MAX_BODY_BYTES", "1e6", "whole number"},
		{"MAX_TOPICS", "0", "from 1 to"},
		{"OUTBOX_EVENTS", "many", "whole number"},
		{"OUTBOX_BYTES", "99999999999", "from 1 to"},
		{"OUTBOX_BYTES", "1073741825", "from 1 to 1073741824"},
		{"MAX_CONNECTIONS", "-5", "whole number"},
		{"HANDSHAKE_SECONDS", "0", "from 1 to"},
		{"HEARTBEAT_SECONDS", "20s", "from 1 to 3600"},
		{"PONG_SECONDS", "0.5", "whole number"},
		{"DRAIN_SECONDS", "0", "from 1 to"},
		{"RETENTION", "x", `retention rule "x": want pattern:events/age`},
		{"INGEST", "alerts", "->"},
		{"RETENTION", "jobs.>:100/1h", "the last rule is not for >"},
	} {
		t.Run(c.name+"="+filepath.Base(c.value), func(t *testing.T) {
			t.Parallel()
			given := map[string]string{"HOST": "127.0.0.1", "PORT": "0"}
			if !strings.HasPrefix(c.name, "JWT_PUBLIC") && !strings.HasPrefix(c.name, "JWT_JWKS") {
				given["JWT_SECRET"] = secret
			}
			given[c.name] = c.value
			status, stdout, stderr := do(t, given, "serve")
			require.Equal(t, 1, status)
			require.Empty(t, stdout)
			_, last, _ := cutLast(strings.TrimSuffix(stderr, "\n"), "\n")
			message, ok := object(t, last)["message"].(string)
			require.True(t, ok, stderr)
			require.Contains(t, message, c.name)
			require.Contains(t, message, c.want)
			require.NotContains(t, stderr, password)
			require.NotContains(t, stderr, secret)

			delete(given, c.name)
			status, _, stderr = do(t, given, "serve", "--log-format=console", "--"+names(t, "serve")[c.name]+"="+c.value)
			require.Equal(t, 1, status)
			require.Contains(t, stderr, c.name)
			require.NotContains(t, stderr, password)
		})
	}
}

func TestSettingsThatExcludeEachOther(t *testing.T) {
	t.Parallel()
	for want, env := range map[string]map[string]string{
		"REDIS_URL: REDIS_HOST is set too":                       {"REDIS_URL": "redis://a", "REDIS_HOST": "b"},
		"REDIS_URL: REDIS_DB is set too":                         {"REDIS_URL": "redis://a", "REDIS_DB": "1"},
		"REDIS_HOST: several addresses are a Redis Cluster":      {"REDIS_HOST": "a,b", "REDIS_DB": "1"},
		"REDIS_URL: Sentinel has no unix socket":                 {"REDIS_URL": "unix:///run/redis", "REDIS_SENTINEL_MASTER": "main"},
		"REDIS_URL: REDIS_PASSWORD is set too":                   {"REDIS_URL": "redis://a", "REDIS_PASSWORD": "b"},
		"JWT_SECRET and JWT_JWKS_URL are both set":               {"JWT_JWKS_URL": "https://a"},
		"CORS_ALLOW_CREDENTIALS: it needs CORS_ORIGINS":          {"CORS_ORIGINS": "*", "CORS_ALLOW_CREDENTIALS": "true"},
		"set JWT_PUBLIC_KEY, JWT_SECRET or JWT_JWKS_URL":         {"JWT_SECRET": ""},
		"TLS_CERT_FILE, TLS_KEY_FILE: open /no/such/certificate": {"TLS_CERT_FILE": "/no/such/certificate", "TLS_KEY_FILE": "/no/such/key"},
	} {
		all := map[string]string{"HOST": "127.0.0.1", "PORT": "0", "JWT_SECRET": secret}
		maps.Copy(all, env)
		status, _, stderr := do(t, all, "serve")
		require.Equal(t, 1, status)
		require.Contains(t, object(t, stderr)["message"], want)
	}
}

func TestRedisSettings(t *testing.T) {
	t.Parallel()
	for want, env := range map[redisTarget]map[string]string{
		{addr: "h:6379"}:                       {"REDIS_HOST": "h"},
		{addr: "h:1", db: 2, password: "p:@/"}: {"REDIS_HOST": "h", "REDIS_PORT": "1", "REDIS_DB": "2", "REDIS_PASSWORD": "p:@/"},
		{addr: "h:7"}:                          {"REDIS_HOST": "h:7", "REDIS_PORT": "1"},
		{addr: "[::1]:6379"}:                   {"REDIS_HOST": "::1"},
		{addr: "[::2]:6379"}:                   {"REDIS_HOST": "[::2]"},
		{addr: "h:6379", db: 3, user: "u", password: "p@", tls: "h"}: {"REDIS_URL": "rediss://u:p%40@h/3"},
		{addr: "/run/redis", db: 1}:                                  {"REDIS_URL": "unix:///run/redis?db=1"},
		{addr: "x:7", password: "a,b"}:                               {"REDIS_URL": "redis://:a,b@x:7"},
		{addr: "localhost:6379"}:                                     {"REDIS_URL": "redis://"},

		{addr: "cluster a:1 b:5 [::1]:5"}:                        {"REDIS_HOST": "a:1, b,::1", "REDIS_PORT": "5"},
		{addr: "cluster a:1 [::1]:2", user: "u", password: "p@"}: {"REDIS_URL": "redis://u:p%40@a:1,[::1]:2"},
		{addr: "cluster a:6379 b:2", tls: "-", pool: 7}:          {"REDIS_URL": "rediss://a,b:2?pool_size=7"},

		{addr: "main a:26379"}:                           {"REDIS_HOST": "a", "REDIS_SENTINEL_MASTER": "main"},
		{addr: "main a:5 b:1", db: 2, password: "p"}:     {"REDIS_HOST": "a,b:1", "REDIS_PORT": "5", "REDIS_DB": "2", "REDIS_PASSWORD": "p", "REDIS_SENTINEL_MASTER": "main"},
		{addr: "main a:1 b:26379", db: 3, password: "p"}: {"REDIS_URL": "redis://:p@a:1,b/3", "REDIS_SENTINEL_MASTER": "main"},
		{addr: "main [::1]:26379"}:                       {"REDIS_URL": "redis://[::1]", "REDIS_SENTINEL_MASTER": "main"},
	} {
		s, err := parse(t, env)
		require.NoError(t, err)
		place, err := s.place()
		require.NoError(t, err, env)
		require.Equal(t, want, target(place))
	}
}

type redisTarget struct {
	addr           string
	db             int
	user, password string
	tls            string // the server's name, - for each its own
	pool           int
}

func target(p *redisPlace) redisTarget {
	secured := func(c *tls.Config) string {
		if c == nil {
			return ""
		}
		return cmp.Or(c.ServerName, "-")
	}
	switch {
	case p.sentinel != nil:
		o := p.sentinel
		return redisTarget{o.MasterName + " " + strings.Join(o.SentinelAddrs, " "), o.DB, o.Username, o.Password, secured(o.TLSConfig), o.PoolSize}
	case p.cluster != nil:
		o := p.cluster
		return redisTarget{"cluster " + strings.Join(o.Addrs, " "), 0, o.Username, o.Password, secured(o.TLSConfig), o.PoolSize}
	}
	o := p.one
	return redisTarget{o.Addr, o.DB, o.Username, o.Password, secured(o.TLSConfig), o.PoolSize}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := do(t, nil)
	require.Zero(t, status)
	require.Empty(t, stderr)
	for _, name := range []string{"serve", "dev", "token", "publish", "tail", "check", "version"} {
		require.Contains(t, stdout, "\n  "+name)
	}
	// Settings in the environment, right or wrong, are not in the help.
	status, stdout, stderr = do(t, map[string]string{"PORT": "x", "JWT_SECRET": secret}, "serve", "--help")
	require.Zero(t, status)
	require.Empty(t, stderr)
	require.NotContains(t, stdout, secret)
	for name, flag := range names(t, "serve") {
		require.Contains(t, stdout, "$"+name)
		require.Contains(t, stdout, "--"+flag)
	}
	for _, value := range []string{"5080", "16384", "1048576", hub.DefaultRetention} {
		require.Contains(t, stdout, "="+value)
	}
}

func TestUnknownCommandsAndFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"sevre"}, {"serve", "--prot=1"}, {"token"}, {"publish"}, {"tail"}, {"serve", "extra"}, {"token", "--port=1"}} {
		status, stdout, stderr := do(t, nil, args...)
		require.Equal(t, 1, status, args)
		require.Empty(t, stdout)
		require.Len(t, slices.Collect(strings.Lines(stderr)), 1, stderr)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.Zero(t, run(context.Background(), process{args: []string{"version"}, getenv: os.Getenv, stdout: &out, stderr: &out}))
	require.Regexp(t, `^pushhub \S+ \(go1\.\S+, \w+/\w+\)\n$`, out.String())
}
