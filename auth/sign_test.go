package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSignedTokensAreGood(t *testing.T) {
	ec := ecKey().(*ecdsa.PrivateKey)
	ecText := "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" +
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: must(x509.MarshalECPrivateKey(ec))}))
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey().(*rsa.PrivateKey))}))
	for name, c := range map[string]struct {
		alg string
		key any
		cfg Config
	}{
		"secret as text":  {"HS512", secret, Config{Secret: secret, Algorithm: "HS512"}},
		"secret as bytes": {"", []byte(secret), Config{Secret: secret}},
		"RSA text":        {"", privatePEM(rsaKey()), Config{PublicKey: publicPEM(rsaKey())}},
		"RSA file":        {"RS256", file(t, privatePEM(rsaKey())), Config{PublicKey: publicPEM(rsaKey())}},
		"RSA, PKCS 1":     {"PS512", pkcs1, Config{PublicKey: publicPEM(rsaKey()), Algorithm: "PS512"}},
		"RSA key":         {"", rsaKey(), Config{PublicKey: publicPEM(rsaKey())}},
		"EC, by OpenSSL":  {"", ecText, Config{PublicKey: publicPEM(ecKey()), Algorithm: "ES256"}},
		"EC, P-384":       {"", ec384Key(), Config{PublicKey: publicPEM(ec384Key()), Algorithm: "ES384"}},
		"Ed25519":         {"", privatePEM(edKey()), Config{PublicKey: publicPEM(edKey()), Algorithm: "EdDSA"}},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := Sign(c.alg, c.key, "", Claims{Tenant: "acme", User: "u7", ExpiresAt: start.Add(time.Hour).Unix()})
			require.NoError(t, err)
			id, err := verifier(t, c.cfg).Verify(t.Context(), token)
			require.NoError(t, err)
			require.Equal(t, &Identity{Grants: &Grants{Tenant: "acme"}, User: "u7", expires: start.Add(time.Hour).Unix()}, id)
		})
	}
}

func TestSignWritesEveryClaim(t *testing.T) {
	token, err := Sign("HS256", secret, "", Claims{
		Tenant: "acme", Access: []TenantAccess{{ID: "beta", Role: "guest", Tier: "free"}}, Subject: "u7", Job: "j1",
		Topics: []string{}, Publish: []string{"jobs.>"}, Service: "render", Role: "admin",
		Subscription: &Subscription{Tier: "professional", Status: "trialing", ValidUntil: "2027-01-01T00:00:00Z"},
		Issuer:       "idp", Audience: "pushhub",
		ExpiresAt: start.Add(time.Hour).Unix(), NotBefore: start.Add(-time.Minute).Unix(), IssuedAt: start.Unix(),
	})
	require.NoError(t, err)
	id, err := verifier(t, Config{Secret: secret, Issuer: "idp", Audience: "pushhub"}).Verify(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, &Identity{
		Grants: &Grants{
			Tenant: "acme", Service: "render", Role: "admin", Tier: "professional",
			Job: "j1", topics: []string{}, limited: true, publish: []string{"jobs.>"}, access: []access{{"beta", "guest", "free"}},
		},
		User: "u7", issued: start.Unix(), expires: start.Add(time.Hour).Unix(),
		paid: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC).Unix(),
	}, id)

	require.JSONEq(t, `{}`, string(must(json.Marshal(Claims{}))))
}

func TestSignNamesTheKey(t *testing.T) {
	v := pacedVerifier(t, Config{JWKSURL: serveKeys(t, jwks(t, jwk{kid: "k", key: rsaKey()})).URL}, patient)
	token, err := Sign("", rsaKey(), "k", Claims{Tenant: "acme", ExpiresAt: start.Add(time.Hour).Unix()})
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), token)
	require.NoError(t, err)
}

func TestSignRefuses(t *testing.T) {
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	for name, c := range map[string]struct {
		alg  string
		key  any
		want string
	}{
		"unknown algorithm":  {"none", rsaKey(), "none"},
		"short secret":       {"HS256", secret[:31], "32"},
		"wrong family":       {"RS256", []byte(secret), "use HS256"},
		"PEM as secret":      {"HS256", privatePEM(rsaKey()), "use RS256"},
		"wrong curve":        {"ES256", ec384Key(), "use ES384"},
		"P-224":              {"", p224, "no algorithm"},
		"public key":         {"", publicPEM(rsaKey()), "not a private key"},
		"public key, parsed": {"RS256", rsaKey().Public(), "sign"},
		"broken key":         {"", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read"},
		"no such file":       {"", "/nowhere/key.pem", "no such file"},
		"secret, no alg":     {"", secret, "neither PEM text nor the name"},
		"nil":                {"", nil, "no algorithm"},
		"other kind":         {"", 7, "no algorithm"},
		"foreign signer":     {"", struct{ crypto.Signer }{rsaKey()}, "sign"},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := Sign(c.alg, c.key, "", Claims{Tenant: "acme"})
			require.ErrorContains(t, err, c.want)
			require.Empty(t, token)
			require.NotContains(t, err.Error(), secret[:31])
		})
	}
}
