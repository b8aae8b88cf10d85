package auth

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Claims is what a token says, for Sign. Zero values are left out, but for lists:
// a list that is empty and not nil is written, and grants nothing.
type Claims struct {
	Tenant       string         `json:"tenant_id,omitempty"`
	Access       []TenantAccess `json:"tenant_access,omitzero"`
	User         string         `json:"user_id,omitempty"`
	Subject      string         `json:"sub,omitempty"`
	Job          string         `json:"job_id,omitempty"`
	Topics       []string       `json:"topics,omitzero"`
	Publish      []string       `json:"publish,omitzero"`
	Service      string         `json:"service_name,omitempty"`
	Role         string         `json:"tenant_role,omitempty"`
	Subscription *Subscription  `json:"subscription,omitempty"`
	Issuer       string         `json:"iss,omitempty"`
	Audience     string         `json:"aud,omitempty"`
	ExpiresAt    int64          `json:"exp,omitempty"` // unix seconds, as the two below
	NotBefore    int64          `json:"nbf,omitempty"`
	IssuedAt     int64          `json:"iat,omitempty"`
}

// TenantAccess is one more tenant that the holder of a token may choose.
type TenantAccess struct {
	ID   string `json:"id"`
	Role string `json:"role,omitempty"`
	Tier string `json:"tier,omitempty"`
}

// Subscription says what the tenant has paid for.
type Subscription struct {
	Tier       string `json:"tier,omitempty"`
	Status     string `json:"status"`                // active or trialing
	ValidUntil string `json:"valid_until,omitempty"` // RFC 3339; empty = without end
}

// Sign makes a token. The key is a crypto.Signer of RSA, EC or Ed25519; a string,
// which is a private key as PEM text or the name of a PEM file, or the secret
// where alg is HS256, HS384 or HS512; or a secret as []byte. An alg of "" stands
// for the one that goes with the key: RS256, ES256, ES384, ES512 or EdDSA, and
// HS256 for []byte. A kid of "" is left out. Errors hold no key material.
func Sign(alg string, key any, kid string, c Claims) (string, error) {
	if alg != "" && !slices.Contains(algorithms, alg) {
		return "", fmt.Errorf("algorithm %q is none of %s", alg, strings.Join(algorithms, ", "))
	}
	if text, ok := key.(string); ok {
		if strings.HasPrefix(alg, "HS") && !isPEM(text) {
			key = []byte(text)
		} else {
			signer, err := PrivateKey(text)
			if err != nil {
				return "", fmt.Errorf("private key: %w", err)
			}
			key = signer
		}
	}
	check := key
	if signer, ok := key.(crypto.Signer); ok {
		check = signer.Public()
	}
	native, kind := nature(check)
	if alg == "" {
		alg = native
	}
	if native == "" {
		return "", errors.New("no algorithm takes a key of this kind")
	}
	if !fits(alg, check) {
		return "", fmt.Errorf("algorithm %s does not fit %s: use %s", alg, kind, native)
	}
	if err := strong(check); err != nil {
		return "", err
	}

	header, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		Type      string `json:"typ"`
		Key       string `json:"kid,omitempty"`
	}{alg, "JWT", kid})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	signature, err := jwt.GetSigningMethod(alg).Sign(text, key)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// PrivateKey reads a private key of RSA, EC or Ed25519, not encrypted: PEM text,
// in which \n may stand for a line break, or the name of a PEM file. Errors hold
// no key material.
func PrivateKey(text string) (crypto.Signer, error) {
	block, err := pemBlock(text)
	if err != nil {
		return nil, err
	}
	var key any
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, errors.New("its PEM block is not a private key, or an encrypted one")
	}
	if err != nil {
		return nil, errors.New("its PEM block cannot be read as a private key")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("it is none of RSA, EC and Ed25519")
	}
	return signer, nil
}
