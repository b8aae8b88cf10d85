package auth

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"

	"github.com/pushhub/pushhub/protocol"
)

const (
	// Leeway is how far exp, nbf and iat may be off, for clocks that differ.
	Leeway = 30 * time.Second
	// MaxTokenBytes is the length of the longest token that is looked at.
	MaxTokenBytes = 16 << 10
)

// Verifier turns tokens into identities. It is safe for concurrent use.
type Verifier struct {
	// Fixed after construction.
	parser   *jwt.Parser
	alg      string
	key      any             // nil where a JWK set is used
	set      *keySet         // nil where it is not
	lookup   keyfunc.Keyfunc // into set
	issuer   string
	audience string
	grace    time.Duration
	now      func() time.Time

	known  memory // has its own lock, as the next
	grants shared
}

// New gives a Verifier, or an error that names the setting that is wrong. It
// does not wait for a JWK set: until the first fetch succeeds, Verify answers
// unavailable. The goroutine that fetches it ends with ctx (see Wait); the keys
// that it has found stay good.
func New(ctx context.Context, cfg Config) (*Verifier, error) {
	return newVerifier(ctx, cfg, usualPace)
}

func newVerifier(ctx context.Context, cfg Config, p pace) (*Verifier, error) {
	alg, key, err := cfg.load()
	if err != nil {
		return nil, err
	}
	v := &Verifier{
		// The claims are checked here and not by the parser: each refusal names
		// its claim, and some checks are repeated for a token that is known.
		parser:   jwt.NewParser(jwt.WithValidMethods([]string{alg}), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation()),
		alg:      alg,
		key:      key,
		issuer:   cfg.Issuer,
		audience: cfg.Audience,
		grace:    cfg.Grace,
		now:      time.Now,
	}
	if key == nil {
		v.set = newKeySet(cfg, p)
		go v.set.run(ctx)
		v.lookup, err = keyfunc.New(keyfunc.Options{
			Ctx:          ctx,
			Storage:      v.set,
			UseWhitelist: []jwkset.USE{jwkset.UseSig, ""},
		})
	}
	return v, err
}

// Wait returns when the goroutine of the Verifier has ended, which it does with
// the ctx of New.
func (v *Verifier) Wait() {
	if v.set != nil {
		<-v.set.done
	}
}

// Verify gives the identity of a token, or a *protocol.Error of its own:
//
//	unauthorized  {"token": required, malformed, invalid or expired}: no token,
//	              no JWT, signature or key not good, over; or {<claim>: required,
//	              malformed or invalid}
//	forbidden     {"subscription": invalid or expired}: the status is neither
//	              active nor trialing, or valid_until and the grace are past
//	unavailable   the key of the token is unknown and the JWK set cannot be
//	              fetched
//
// The origin of the first two is headers; see WithOrigin. Verify waits, at most
// for ctx, only when a JWK set must be fetched to find the key.
//
// A token that was good is remembered by its SHA-256 until it expires, at most
// 100,000 of them; only its times are checked again. So a token whose key was
// withdrawn from the JWK set stays good until its exp where it is remembered.
// Tokens that are refused are not remembered.
func (v *Verifier) Verify(ctx context.Context, token string) (*Identity, error) {
	switch {
	case token == "":
		return nil, unauthorized("token", protocol.Required, "a token is required")
	case len(token) > MaxTokenBytes:
		return nil, unauthorized("token", protocol.Malformed, "the token is too long")
	case strings.ContainsAny(token, "\r\n"):
		// base64 skips line breaks: one token would have any number of forms.
		return nil, unauthorized("token", protocol.Malformed, "the token holds a line break")
	}
	now := v.now()
	sum := digestOf(token)
	id := v.known.get(sum)
	fresh := id == nil
	if fresh {
		payload, err := v.payload(ctx, token)
		if err != nil {
			return nil, err
		}
		if id, err = v.identity(payload, now); err != nil {
			return nil, err
		}
	}
	if err := id.current(now); err != nil {
		return nil, err
	}
	if fresh {
		v.known.put(sum, id, now)
	}
	return id, nil
}

// payload checks the signature and gives the JSON of the claims.
func (v *Verifier) payload(ctx context.Context, token string) ([]byte, *protocol.Error) {
	var raw rawClaims
	_, err := v.parser.ParseWithClaims(token, &raw, func(t *jwt.Token) (any, error) { return v.keyOf(ctx, t) })
	if err == nil {
		return raw.json, nil
	}
	// The parser's own words may quote the token: they go no further.
	var refused *protocol.Error
	switch {
	case errors.As(err, &refused):
		return nil, refused
	case errors.Is(err, jwt.ErrTokenMalformed):
		return nil, unauthorized("token", protocol.Malformed, "the token is not a JWT")
	}
	return nil, unauthorized("token", protocol.Invalid, "the signature of the token is not valid, or not of the configured algorithm")
}

// keyOf gives the key that the signature of the token must match. The algorithm
// of the token is the configured one here.
func (v *Verifier) keyOf(ctx context.Context, t *jwt.Token) (any, error) {
	if _, ok := t.Header["crit"]; ok {
		return nil, unauthorized("token", protocol.Invalid, "the token asks for an extension (crit) that is not supported")
	}
	if v.set == nil {
		return v.key, nil
	}
	if kid, _ := t.Header[jwkset.HeaderKID].(string); kid == "" {
		return nil, unauthorized("token", protocol.Invalid, "the token does not name its key (kid)")
	}
	key, err := v.lookup.KeyfuncCtx(ctx)(t)
	switch {
	case errors.Is(err, errNoKeys):
		return nil, protocol.Errorf(protocol.Unavailable, protocol.InInternal, "", "", "the keys to verify tokens with cannot be had now")
	case err != nil:
		return nil, unauthorized("token", protocol.Invalid, "the key that the token names is unknown or not for this use")
	case !fits(v.alg, key) || strong(key) != nil:
		return nil, unauthorized("token", protocol.Invalid, "the key that the token names is too weak or of another kind")
	}
	return key, nil
}

// rawClaims keeps the claims unread until the signature is known to be good.
type rawClaims struct {
	jwt.RegisteredClaims // makes it jwt.Claims; stays empty
	json                 []byte
}

func (c *rawClaims) UnmarshalJSON(b []byte) error {
	c.json = bytes.Clone(b)
	return nil
}

// WithOrigin gives err with another origin, if it is a *protocol.Error about the
// request; any other error comes back as it is. err is not changed.
func WithOrigin(err error, origin protocol.Origin) error {
	var e *protocol.Error
	if !errors.As(err, &e) || e.Origin == protocol.InInternal {
		return err
	}
	moved := *e
	moved.Origin = origin
	return &moved
}

func unauthorized(field string, reason protocol.Reason, message string) *protocol.Error {
	return protocol.Errorf(protocol.Unauthorized, protocol.InHeaders, field, reason, "%s", message)
}

func forbidden(field string, reason protocol.Reason, message string) *protocol.Error {
	return protocol.Errorf(protocol.Forbidden, protocol.InHeaders, field, reason, "%s", message)
}

func badRequest(field string, reason protocol.Reason, message string) *protocol.Error {
	return protocol.Errorf(protocol.BadRequest, protocol.InHeaders, field, reason, "%s", message)
}
