package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pushhub/pushhub/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The keys of the tests are made when first used: no private key is in the
// repository.
var (
	rsaKey   = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherRSA = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey    = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	ec384Key = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	edKey    = sync.OnceValue(func() crypto.Signer {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return must(key, err)
	})
)

const secret = "only-a-secret-for-tests-of-48-bytes-xxxxxxxxxxxx"

// start is the time that verifiers of the tests see.
var start = time.Date(2026, 5, 27, 10, 15, 0, 0, time.UTC)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func publicPEM(key crypto.Signer) string {
	return publicPEMOf(key.Public())
}

func publicPEMOf(key any) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(key))}))
}

func privatePEM(key crypto.Signer) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))}))
}

func file(t *testing.T, text string) string {
	name := filepath.Join(t.TempDir(), "key.pem")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// verifier gives one whose time stands still at start.
func verifier(t testing.TB, cfg Config) *Verifier {
	t.Helper()
	return pacedVerifier(t, cfg, usualPace)
}

func pacedVerifier(t testing.TB, cfg Config, p pace) *Verifier {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	v, err := newVerifier(ctx, cfg, p)
	if err != nil {
		cancel()
		require.NoError(t, err)
	}
	t.Cleanup(v.Wait)
	t.Cleanup(cancel)
	v.now = func() time.Time { return start }
	return v
}

// object is a JSON object: the claims or the header of a token.
type object map[string]any

// with gives a copy of o changed by further members; a nil value takes one away.
func (o object) with(more object) object {
	c := maps.Clone(o)
	for name, value := range more {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
	return c
}

// minimal is what every token needs.
func minimal() object {
	return object{"tenant_id": "acme", "user_id": "u7", "exp": start.Add(time.Hour).Unix()}
}

// mint signs any claims, also such as Sign cannot express.
func mint(t testing.TB, alg string, key any, header object, claims any) string {
	t.Helper()
	h := object{"alg": alg, "typ": "JWT"}.with(header)
	payload, ok := claims.(string)
	if !ok {
		payload = string(must(json.Marshal(claims)))
	}
	text := segment(must(json.Marshal(h))) + "." + segment([]byte(payload))
	signature, err := jwt.GetSigningMethod(alg).Sign(text, key)
	require.NoError(t, err)
	return text + "." + segment(signature)
}

func segment(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// hmacToken signs claims with the secret of the tests.
func hmacToken(t testing.TB, claims any) string {
	t.Helper()
	return mint(t, "HS256", []byte(secret), nil, claims)
}

// identify verifies claims that are good.
func identify(t testing.TB, claims object) *Identity {
	t.Helper()
	id, err := verifier(t, Config{Secret: secret}).Verify(t.Context(), hmacToken(t, claims))
	require.NoError(t, err)
	return id
}

// refuse verifies a token that is not good, checks what the client is told, and
// that no part of the token is in it. It gives the error.
func refuse(t testing.TB, v *Verifier, token string, code protocol.Code, field string, reason protocol.Reason) *protocol.Error {
	t.Helper()
	id, err := v.Verify(t.Context(), token)
	require.Error(t, err)
	require.Nil(t, id)
	return checkError(t, err, token, code, field, reason)
}

func checkError(t testing.TB, err error, token string, code protocol.Code, field string, reason protocol.Reason) *protocol.Error {
	t.Helper()
	var e *protocol.Error
	require.True(t, errors.As(err, &e), "%T", err)
	require.Equal(t, code, e.Code, e.Message)
	details := map[string]protocol.Reason{}
	if field != "" {
		details[field] = reason
	}
	require.Equal(t, details, e.Details, e.Message)
	require.NotEmpty(t, e.Message)
	noLeak(t, e, token)
	return e
}

// noLeak checks that neither the token nor a part of it is in an error.
func noLeak(t testing.TB, e *protocol.Error, token string) {
	t.Helper()
	parts := append(strings.Split(token, "."), token)
	for part := range strings.SplitSeq(token, ".") {
		if plain, err := base64.RawURLEncoding.DecodeString(part); err == nil {
			parts = append(parts, string(plain))
		}
	}
	text := e.Error() + string(must(json.Marshal(e)))
	for _, part := range parts {
		if len(part) >= 16 && bytes.Contains([]byte(text), []byte(part)) {
			t.Fatalf("the error holds a part of the token: %s", text)
		}
	}
}
