package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/auth"
)

func verify(t *testing.T, cfg auth.Config, token string) *auth.Identity {
	t.Helper()
	v, err := auth.New(t.Context(), cfg)
	require.NoError(t, err)
	id, err := v.Verify(t.Context(), token)
	require.NoError(t, err)
	return id
}

func TestToken(t *testing.T) {
	t.Parallel()
	token := signToken(t, "--tenant=acme", "--user=u7", "--topics=alerts,jobs.>", "--topics=nodes.*", "--publish=jobs.>",
		"--role=owner", "--expires=5m", "--jwt-issuer=me", "--jwt-audience=hub")
	require.Equal(t, 2, strings.Count(token, "."))
	require.NotContains(t, token, "\n")
	id := verify(t, auth.Config{Secret: secret, Issuer: "me", Audience: "hub"}, token)
	require.Equal(t, "acme", id.Tenant)
	require.Equal(t, "u7", id.User)
	require.Equal(t, "owner", id.Role)
	require.WithinDuration(t, time.Now().Add(5*time.Minute), id.ExpiresAt(), time.Minute)
	require.WithinDuration(t, time.Now(), id.IssuedAt(), time.Minute)
	require.True(t, id.MaySee("nodes.1"))
	require.False(t, id.MaySee("other"))
	require.True(t, id.MayPublish("jobs.1"))
	require.False(t, id.MayPublish("alerts"))

	id = verify(t, auth.Config{Secret: secret}, signToken(t, "--tenant=acme", "--subject=s1", "--job=j1"))
	require.Equal(t, "s1", id.User)
	require.Equal(t, "j1", id.Job)
	require.WithinDuration(t, time.Now().Add(time.Hour), id.ExpiresAt(), time.Minute)

	id = verify(t, auth.Config{Secret: secret}, signToken(t, "--tenant=*", "--service=render-api", "--publish=>"))
	require.Equal(t, "*", id.Tenant)
	require.Equal(t, "render-api", id.Service)
	require.True(t, id.MayPublishAll())
}

func TestTokenOfPrivateKey(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	file := filepath.Join(t.TempDir(), "key.pem")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	cfg := auth.Config{PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})), Algorithm: "ES256"}

	status, stdout, stderr := do(t, map[string]string{"JWT_PRIVATE_KEY": text}, "token", "--tenant=acme", "--key-id=k1")
	require.Zero(t, status, stderr)
	require.Equal(t, "acme", verify(t, cfg, strings.TrimSpace(stdout)).Tenant)
	status, stdout, stderr = do(t, nil, "token", "--tenant=acme", "--key", file, "--jwt-algorithm=ES256")
	require.Zero(t, status, stderr)
	require.Equal(t, "acme", verify(t, cfg, strings.TrimSpace(stdout)).Tenant)
}

func TestTokenRefusals(t *testing.T) {
	t.Parallel()
	withSecret := map[string]string{"JWT_SECRET": secret}
	for _, c := range []struct {
		want string
		env  map[string]string
		args string
	}{
		{"set JWT_PRIVATE_KEY (--key) or JWT_SECRET", nil, "--tenant=acme"},
		{"both set", withSecret, "--tenant=acme --key=/k.pem"},
		{"32", map[string]string{"JWT_SECRET": "short"}, "--tenant=acme"},
		{"does not fit", withSecret, "--tenant=acme --jwt-algorithm=RS256"},
		{"no such file", nil, "--tenant=acme --key=/no/such/key.pem"},
		{"--tenant", withSecret, ""},
		{"--tenant: ", withSecret, "--tenant=a.b"},
		{"--tenant: * needs --service", withSecret, "--tenant=*"},
		{"--job: ", withSecret, "--tenant=acme --job=a.>"},
		{"--topics: ", withSecret, "--tenant=acme --topics=a..b"},
		{"--publish: ", withSecret, "--tenant=acme --publish=>.a"},
		{"--expires: ", withSecret, "--tenant=acme --expires=0s"},
		{"--expires: ", withSecret, "--tenant=acme --expires=tomorrow"},
	} {
		status, stdout, stderr := do(t, c.env, append([]string{"token"}, strings.Fields(c.args)...)...)
		require.Equal(t, 1, status)
		require.Empty(t, stdout)
		require.Contains(t, stderr, c.want)
		require.NotContains(t, stderr, secret)
	}
}
