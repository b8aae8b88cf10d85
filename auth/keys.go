package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	minRSABits     = 2048
	minSecretBytes = 32
)

// Config says which tokens are good. Just one of PublicKey, Secret and JWKSURL
// is set.
type Config struct {
	// PublicKey (JWT_PUBLIC_KEY) is an RSA key of 2048 bits or more, an EC or an
	// Ed25519 key, or a certificate that holds one: PEM text, in which \n may
	// stand for a line break, or the name of a PEM file.
	PublicKey string
	// Secret (JWT_SECRET) is an HMAC secret of 32 bytes or more, taken as it is.
	Secret string
	// JWKSURL (JWT_JWKS_URL) is where a JWK set is fetched from: when the
	// Verifier is made, then every 15 minutes, and at most every 10 seconds for
	// a token that names an unknown key. While it cannot be fetched, the keys of
	// the last good fetch stay in use.
	JWKSURL string
	// Algorithm (JWT_ALGORITHM) is the only one accepted: RS256, RS384, RS512,
	// PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, HS256, HS384 or HS512.
	// Empty means RS256, or HS256 where a Secret is set. An EC or Ed25519 key
	// needs it set.
	Algorithm string
	// Issuer (JWT_ISSUER), when set, must be the token's iss.
	Issuer string
	// Audience (JWT_AUDIENCE), when set, must be the token's aud, or one of them.
	Audience string
	// Grace (SUBSCRIPTION_GRACE_SECONDS) is added to the valid_until of
	// subscriptions.
	Grace time.Duration
	// OnError, when set, gets the error of each fetch of the JWK set that fails.
	// It is called by one goroutine, one error at a time.
	OnError func(error)
}

var algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
	"ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512",
}

// load checks the configuration and gives the algorithm and the key, which is
// nil where a JWK set is used. Errors name the setting and hold no key material.
func (cfg Config) load() (alg string, key any, err error) {
	var source string
	for _, s := range []struct{ name, value string }{
		{"JWT_PUBLIC_KEY", cfg.PublicKey}, {"JWT_SECRET", cfg.Secret}, {"JWT_JWKS_URL", cfg.JWKSURL},
	} {
		switch {
		case s.value == "":
		case source != "":
			return "", nil, fmt.Errorf("%s and %s are both set: set one", source, s.name)
		default:
			source = s.name
		}
	}
	if source == "" {
		return "", nil, errors.New("no key to verify tokens with: set JWT_PUBLIC_KEY, JWT_SECRET or JWT_JWKS_URL")
	}
	if cfg.Grace < 0 {
		return "", nil, errors.New("SUBSCRIPTION_GRACE_SECONDS: it is negative")
	}
	alg = cfg.Algorithm
	switch {
	case alg == "" && cfg.Secret != "":
		alg = "HS256"
	case alg == "":
		alg = "RS256"
	case !slices.Contains(algorithms, alg):
		return "", nil, fmt.Errorf("JWT_ALGORITHM: %q is none of %s", alg, strings.Join(algorithms, ", "))
	}
	switch source {
	case "JWT_PUBLIC_KEY":
		if key, err = publicKey(cfg.PublicKey); err != nil {
			return "", nil, fmt.Errorf("JWT_PUBLIC_KEY: %w", err)
		}
	case "JWT_SECRET":
		if isPEM(cfg.Secret) {
			return "", nil, errors.New("JWT_SECRET: it is a PEM key; a public key belongs in JWT_PUBLIC_KEY")
		}
		key = []byte(cfg.Secret)
	case "JWT_JWKS_URL":
		u, err := url.Parse(cfg.JWKSURL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return "", nil, errors.New("JWT_JWKS_URL: it is not an http or https URL")
		}
		if strings.HasPrefix(alg, "HS") {
			return "", nil, fmt.Errorf("JWT_ALGORITHM: %s needs JWT_SECRET, not JWT_JWKS_URL", alg)
		}
		return alg, nil, nil
	}
	if err := strong(key); err != nil {
		return "", nil, fmt.Errorf("%s: %w", source, err)
	}
	if native, kind := nature(key); !fits(alg, key) {
		return "", nil, fmt.Errorf("JWT_ALGORITHM: %s does not fit %s, which holds %s: set %s", alg, source, kind, native)
	}
	return alg, key, nil
}

// publicKey reads a public key or a certificate.
func publicKey(text string) (any, error) {
	block, err := pemBlock(text)
	if err != nil {
		return nil, err
	}
	var key any
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = cert.PublicKey
		}
	default:
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil, errors.New("it is a private key; the hub needs the public key only")
		}
		return nil, errors.New("its PEM block is neither a public key nor a certificate")
	}
	if err != nil {
		return nil, errors.New("its PEM block cannot be read as a public key")
	}
	if native, _ := nature(key); native == "" {
		return nil, errors.New("it is none of RSA, EC on P-256, P-384 or P-521, and Ed25519")
	}
	return key, nil
}

// pemBlock gives the only PEM block of text, or of the file that text names. EC
// PARAMETERS, which OpenSSL writes before a key, do not count.
func pemBlock(text string) (*pem.Block, error) {
	if !isPEM(text) {
		file, err := os.ReadFile(text)
		if err != nil {
			// What was given is left out of the error: it may be a key whose
			// first line was lost.
			var path *os.PathError
			if errors.As(err, &path) {
				err = path.Err
			}
			return nil, fmt.Errorf("it is neither PEM text nor the name of a file that can be read: %w", err)
		}
		text = string(file)
	} else if !strings.Contains(text, "\n") {
		text = strings.ReplaceAll(text, `\n`, "\n")
	}
	var found *pem.Block
	for rest := []byte(text); ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && found == nil:
			return nil, errors.New("it holds no PEM block")
		case block == nil:
			return found, nil
		case block.Type == "EC PARAMETERS":
		case found != nil:
			return nil, errors.New("it holds more than one PEM block")
		default:
			found = block
		}
	}
}

func isPEM(text string) bool { return strings.Contains(text, "-----BEGIN") }

// nature gives the algorithm that goes with a public key or secret, and words
// for the kind of key; "" for one that no algorithm takes.
func nature(key any) (native, kind string) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return "RS256", "an RSA key"
	case *ecdsa.PublicKey:
		switch name := k.Params().Name; name {
		case "P-256":
			return "ES256", "an EC key on " + name
		case "P-384":
			return "ES384", "an EC key on " + name
		case "P-521":
			return "ES512", "an EC key on " + name
		}
	case ed25519.PublicKey:
		return "EdDSA", "an Ed25519 key"
	case []byte:
		return "HS256", "a secret"
	}
	return "", ""
}

// fits says whether the algorithm takes a key of this kind: an RSA key and a
// secret serve their whole family, any other key one algorithm. It is what stops
// a public key from being used as a secret.
func fits(alg string, key any) bool {
	native, _ := nature(key)
	switch native {
	case "RS256":
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case "HS256":
		return strings.HasPrefix(alg, "HS")
	}
	return native != "" && native == alg
}

// strong refuses keys that can be guessed or factored.
func strong(key any) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits {
			return fmt.Errorf("the RSA key has %d bits: at least %d are needed", bits, minRSABits)
		}
	case []byte:
		if len(k) < minSecretBytes {
			return fmt.Errorf("the secret has %d bytes: at least %d are needed", len(k), minSecretBytes)
		}
	}
	return nil
}
