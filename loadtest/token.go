package loadtest

import (
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// NewSecret makes an HMAC secret for the servers of one run.
func NewSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// sign signs claims for a user with HS256, valid for a day.
func sign(secret string, claims map[string]any, places ...string) (string, error) {
	filled := jwt.MapClaims{}
	if c, ok := fillClaims(claims, places...).(map[string]any); ok {
		filled = c
	}
	now := time.Now()
	filled["iat"] = now.Unix()
	filled["exp"] = now.Add(24 * time.Hour).Unix()
	return jwt.NewWithClaims(jwt.SigningMethodHS256, filled).SignedString([]byte(secret))
}
