package auth

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

func TestEveryKindOfKeyVerifiesItsTokens(t *testing.T) {
	for _, c := range []struct {
		alg string
		key crypto.Signer
	}{
		{"RS256", rsaKey()}, {"RS384", rsaKey()}, {"RS512", rsaKey()},
		{"PS256", rsaKey()}, {"PS384", rsaKey()}, {"PS512", rsaKey()},
		{"ES256", ecKey()}, {"ES384", ec384Key()}, {"EdDSA", edKey()},
	} {
		t.Run(c.alg, func(t *testing.T) {
			v := verifier(t, Config{PublicKey: publicPEM(c.key), Algorithm: c.alg})
			id, err := v.Verify(t.Context(), mint(t, c.alg, c.key, nil, minimal()))
			require.NoError(t, err)
			require.Equal(t, "acme", id.Tenant)
		})
	}
	for _, alg := range []string{"HS256", "HS384", "HS512"} {
		t.Run(alg, func(t *testing.T) {
			v := verifier(t, Config{Secret: secret, Algorithm: alg})
			_, err := v.Verify(t.Context(), mint(t, alg, []byte(secret), nil, minimal()))
			require.NoError(t, err)
		})
	}
}

func TestPublicKeyMayBeTextOrFile(t *testing.T) {
	text := publicPEM(rsaKey())
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: start.Add(time.Hour)}
	cert := must(x509.CreateCertificate(rand.Reader, template, template, rsaKey().Public(), rsaKey()))
	pkcs1 := x509.MarshalPKCS1PublicKey(rsaKey().Public().(*rsa.PublicKey))
	for name, setting := range map[string]string{
		"text":                     text,
		"text with escaped breaks": strings.ReplaceAll(strings.TrimSpace(text), "\n", `\n`),
		"file":                     file(t, text),
		"PKCS 1":                   string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1})),
		"certificate":              string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verifier(t, Config{PublicKey: setting}).Verify(t.Context(), mint(t, "RS256", rsaKey(), nil, minimal()))
			require.NoError(t, err)
		})
	}
}

func TestConfigurationIsRefused(t *testing.T) {
	weak := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).Public()
	x25519 := must(ecdh.X25519().GenerateKey(rand.Reader)).Public()
	body := strings.Split(publicPEM(rsaKey()), "\n")[1]
	for name, c := range map[string]struct {
		cfg  Config
		want []string
	}{
		"no key":               {Config{}, []string{"JWT_PUBLIC_KEY", "JWT_SECRET", "JWT_JWKS_URL"}},
		"key and secret":       {Config{PublicKey: publicPEM(rsaKey()), Secret: secret}, []string{"JWT_PUBLIC_KEY", "JWT_SECRET"}},
		"secret and URL":       {Config{Secret: secret, JWKSURL: "https://idp/"}, []string{"JWT_SECRET", "JWT_JWKS_URL"}},
		"key and URL":          {Config{PublicKey: publicPEM(rsaKey()), JWKSURL: "https://idp/"}, []string{"JWT_PUBLIC_KEY", "JWT_JWKS_URL"}},
		"unknown algorithm":    {Config{Secret: secret, Algorithm: "HS257"}, []string{"JWT_ALGORITHM", "HS257"}},
		"none":                 {Config{Secret: secret, Algorithm: "none"}, []string{"JWT_ALGORITHM"}},
		"lower case":           {Config{Secret: secret, Algorithm: "hs256"}, []string{"JWT_ALGORITHM"}},
		"RS256 with a secret":  {Config{Secret: secret, Algorithm: "RS256"}, []string{"JWT_ALGORITHM", "JWT_SECRET", "HS256"}},
		"HS256 with RSA":       {Config{PublicKey: publicPEM(rsaKey()), Algorithm: "HS256"}, []string{"JWT_ALGORITHM", "JWT_PUBLIC_KEY"}},
		"HS256 with JWKS":      {Config{JWKSURL: "https://idp/", Algorithm: "HS256"}, []string{"JWT_ALGORITHM", "JWT_SECRET"}},
		"EC without algorithm": {Config{PublicKey: publicPEM(ecKey())}, []string{"JWT_ALGORITHM", "P-256", "set ES256"}},
		"Ed25519 without":      {Config{PublicKey: publicPEM(edKey())}, []string{"JWT_ALGORITHM", "Ed25519", "set EdDSA"}},
		"wrong curve":          {Config{PublicKey: publicPEM(ec384Key()), Algorithm: "ES256"}, []string{"JWT_ALGORITHM", "P-384", "set ES384"}},
		"P-224":                {Config{PublicKey: publicPEMOf(p224), Algorithm: "ES256"}, []string{"JWT_PUBLIC_KEY", "P-256"}},
		"X25519":               {Config{PublicKey: publicPEMOf(x25519), Algorithm: "EdDSA"}, []string{"JWT_PUBLIC_KEY", "Ed25519"}},
		"short secret":         {Config{Secret: secret[:31]}, []string{"JWT_SECRET", "31", "32"}},
		"PEM as secret":        {Config{Secret: publicPEM(rsaKey())}, []string{"JWT_SECRET", "JWT_PUBLIC_KEY"}},
		"weak RSA":             {Config{PublicKey: publicPEMOf(weak)}, []string{"JWT_PUBLIC_KEY", "1024", "2048"}},
		"private key":          {Config{PublicKey: privatePEM(rsaKey())}, []string{"JWT_PUBLIC_KEY", "private"}},
		"two keys":             {Config{PublicKey: publicPEM(rsaKey()) + publicPEM(otherRSA())}, []string{"JWT_PUBLIC_KEY", "more than one"}},
		"broken PEM":           {Config{PublicKey: "-----BEGIN PUBLIC KEY-----\nxx"}, []string{"JWT_PUBLIC_KEY", "no PEM block"}},
		"broken key":           {Config{PublicKey: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}, []string{"JWT_PUBLIC_KEY"}},
		"other PEM":            {Config{PublicKey: "-----BEGIN PARTY-----\nAAAA\n-----END PARTY-----\n"}, []string{"JWT_PUBLIC_KEY"}},
		"no such file":         {Config{PublicKey: "/nowhere/key.pem"}, []string{"JWT_PUBLIC_KEY", "no such file"}},
		"key without armour":   {Config{PublicKey: body}, []string{"JWT_PUBLIC_KEY", "neither PEM text nor the name"}},
		"no URL":               {Config{JWKSURL: "idp.example/keys"}, []string{"JWT_JWKS_URL"}},
		"other scheme":         {Config{JWKSURL: "file:///etc/keys"}, []string{"JWT_JWKS_URL"}},
		"negative grace":       {Config{Secret: secret, Grace: -1}, []string{"SUBSCRIPTION_GRACE_SECONDS"}},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := New(t.Context(), c.cfg)
			require.Error(t, err)
			require.Nil(t, v)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			for _, material := range []string{secret[:31], body} {
				require.NotContains(t, err.Error(), material)
			}
		})
	}
}

func TestAlgorithmConfusionIsRefused(t *testing.T) {
	public := publicPEM(rsaKey())
	v := verifier(t, Config{PublicKey: public})
	der := must(x509.MarshalPKIXPublicKey(rsaKey().Public()))
	for name, token := range map[string]string{
		"HS256 with the public PEM":   mint(t, "HS256", []byte(public), nil, minimal()),
		"HS256 with the trimmed PEM":  mint(t, "HS256", []byte(strings.TrimSpace(public)), nil, minimal()),
		"HS256 with the DER":          mint(t, "HS256", der, nil, minimal()),
		"none":                        mint(t, "none", jwt.UnsafeAllowNoneSignatureType, nil, minimal()),
		"None":                        mint(t, "none", jwt.UnsafeAllowNoneSignatureType, object{"alg": "None"}, minimal()),
		"right key, other digest":     mint(t, "RS384", rsaKey(), nil, minimal()),
		"right key, other padding":    mint(t, "PS256", rsaKey(), nil, minimal()),
		"EC":                          mint(t, "ES256", ecKey(), nil, minimal()),
		"other RSA key":               mint(t, "RS256", otherRSA(), nil, minimal()),
		"header says RS256, is HS256": mint(t, "HS256", []byte(public), object{"alg": "RS256"}, minimal()),
		"key in the header":           mint(t, "RS256", otherRSA(), object{"jwk": object{"kty": "RSA"}, "jku": "https://evil"}, minimal()),
		"unknown algorithm":           mint(t, "HS256", []byte(public), object{"alg": "XX"}, minimal()),
		"no algorithm":                mint(t, "RS256", rsaKey(), object{"alg": nil}, minimal()),
		"algorithm is a number":       mint(t, "RS256", rsaKey(), object{"alg": 256}, minimal()),
		"critical extension":          mint(t, "RS256", rsaKey(), object{"crit": []string{"b64"}, "b64": false}, minimal()),
	} {
		t.Run(name, func(t *testing.T) {
			refuse(t, v, token, protocol.Unauthorized, "token", protocol.Invalid)
		})
	}
}

func TestTamperedTokenIsRefused(t *testing.T) {
	v := verifier(t, Config{PublicKey: publicPEM(rsaKey())})
	token := mint(t, "RS256", rsaKey(), nil, minimal())
	_, err := v.Verify(t.Context(), token)
	require.NoError(t, err)

	parts := strings.Split(token, ".")
	for name, bad := range map[string]string{
		"claims of another": parts[0] + "." + segment([]byte(`{"tenant_id":"rival","exp":9999999999}`)) + "." + parts[2],
		"no signature":      parts[0] + "." + parts[1] + ".",
		"signature cut":     parts[0] + "." + parts[1] + "." + parts[2][:200],
	} {
		t.Run(name, func(t *testing.T) {
			refuse(t, v, bad, protocol.Unauthorized, "token", protocol.Invalid)
		})
	}
}

// spareBits sets a bit of the last character that no byte of the signature has:
// the token reads the same but is not.
func spareBits(token string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(token) - 1
	return token[:last] + string(digits[strings.IndexByte(digits, token[last])|1])
}

func TestWhatIsNoJWTIsMalformed(t *testing.T) {
	v := verifier(t, Config{Secret: secret})
	good := hmacToken(t, minimal())
	head, rest, _ := strings.Cut(good, ".")
	for name, token := range map[string]string{
		"word":                  "token",
		"dots":                  "..",
		"two parts":             head + ".e30",
		"four parts":            good + ".e30",
		"header not base64":     "!!!!." + rest,
		"header not JSON":       segment([]byte("no")) + "." + rest,
		"header is an array":    segment([]byte("[]")) + "." + rest,
		"signature not base64":  good + "!",
		"signature padded":      good + "=",
		"signature, spare bits": spareBits(good),
		"claims are a list":     hmacToken(t, `[]`),
		"claims are null":       hmacToken(t, `null`),
		"claims are a string":   hmacToken(t, `"x"`),
		"claims are not JSON":   hmacToken(t, `{"tenant_id":`),
		"line break":            good + "\n",
		"too long":              strings.Repeat("a", MaxTokenBytes+1),
		"too long, signed well": hmacToken(t, minimal().with(object{"pad": strings.Repeat("a", MaxTokenBytes)})),
	} {
		t.Run(name, func(t *testing.T) {
			refuse(t, v, token, protocol.Unauthorized, "token", protocol.Malformed)
		})
	}
	refuse(t, v, "", protocol.Unauthorized, "token", protocol.Required)

	long := hmacToken(t, minimal().with(object{"pad": strings.Repeat("a", MaxTokenBytes/2)}))
	_, err := v.Verify(t.Context(), long)
	require.NoError(t, err)
}
