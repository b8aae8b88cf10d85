package auth

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

func TestGoodTokensAreRemembered(t *testing.T) {
	v := verifier(t, Config{Secret: secret})
	token := hmacToken(t, minimal())
	first := must(v.Verify(t.Context(), token))
	require.Same(t, first, must(v.Verify(t.Context(), token)))
	require.NotSame(t, first, must(v.Verify(t.Context(), hmacToken(t, minimal().with(object{"jti": "2"})))))
}

func TestRememberedTokenExpires(t *testing.T) {
	v := verifier(t, Config{Secret: secret})
	token := hmacToken(t, minimal())
	now := start
	v.now = func() time.Time { return now }
	_, err := v.Verify(t.Context(), token)
	require.NoError(t, err)
	now = start.Add(time.Hour + Leeway - 1)
	_, err = v.Verify(t.Context(), token)
	require.NoError(t, err)
	now = start.Add(time.Hour + Leeway)
	refuse(t, v, token, protocol.Unauthorized, "token", protocol.Expired)
}

func TestRefusedTokensAreNotRemembered(t *testing.T) {
	v := verifier(t, Config{Secret: secret})
	now := start
	v.now = func() time.Time { return now }
	early := hmacToken(t, minimal().with(object{"nbf": start.Add(10 * time.Minute).Unix()}))
	refuse(t, v, early, protocol.Unauthorized, "nbf", protocol.Invalid)
	refuse(t, v, hmacToken(t, minimal().with(object{"exp": 1})), protocol.Unauthorized, "token", protocol.Expired)
	require.Empty(t, v.known.ids)

	now = start.Add(10 * time.Minute)
	_, err := v.Verify(t.Context(), early)
	require.NoError(t, err)
	require.Len(t, v.known.ids, 1)
}

func number(i int) (sum digest) {
	binary.BigEndian.PutUint64(sum[:], uint64(i))
	return sum
}

func TestMemoryIsBounded(t *testing.T) {
	var m memory
	id := &Identity{expires: start.Add(time.Hour).Unix()}
	for i := range maxRemembered + 1000 {
		m.put(number(i), id, start)
	}
	require.Len(t, m.ids, maxRemembered)
	require.Same(t, id, m.get(number(maxRemembered+999)))
}

func TestMemoryDropsWhatHasExpired(t *testing.T) {
	var m memory
	old, young := &Identity{expires: start.Unix()}, &Identity{expires: start.Add(time.Hour).Unix()}
	for i := range 1000 {
		m.put(number(i), old, start.Add(-time.Hour))
	}
	require.Len(t, m.ids, 1000)
	for i := range 1000 {
		m.put(number(1000+i), young, start.Add(time.Minute))
	}
	expired := 0
	for _, id := range m.ids {
		if id == old {
			expired++
		}
	}
	// Each of 1,000 additions looks at 8 entries: that one in ten of the old ones
	// escapes them all is beyond chance.
	require.Less(t, expired, 100)
	for i := range 1000 {
		require.Same(t, young, m.get(number(1000+i)))
	}
}

// The storm: good and bad tokens from many goroutines. In the end the memory
// holds the good ones only, each with its own identity.
func TestVerifyStorm(t *testing.T) {
	v := verifier(t, Config{Secret: secret})
	const tokens, workers = 40, 8
	good, bad := make([]string, tokens), make([]string, tokens)
	for i := range tokens {
		claims := minimal().with(object{"user_id": fmt.Sprint("u", i), "tenant_access": []object{{"id": "beta"}}})
		good[i] = hmacToken(t, claims)
		bad[i] = hmacToken(t, claims.with(object{"topics": i}))
	}
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := range 500 {
				n := (i*7 + w) % tokens
				id, err := v.Verify(context.Background(), good[n])
				if err != nil || id.User != fmt.Sprint("u", n) {
					errs <- fmt.Errorf("token %d: %v, %v", n, id, err)
					return
				}
				if beta, err := id.For("beta"); err != nil || beta.Tenant != "beta" || !beta.MaySee("users."+id.User) {
					errs <- fmt.Errorf("token %d in beta: %v, %v", n, beta, err)
					return
				}
				if _, err := v.Verify(context.Background(), bad[n]); err == nil {
					errs <- errors.New("a bad token passed")
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.Len(t, v.known.ids, tokens)
	for i, token := range good {
		require.Equal(t, fmt.Sprint("u", i), v.known.get(digestOf(token)).User)
	}
}

// The one allocation is the copy of the token that is hashed.
func TestRememberedTokenIsCheap(t *testing.T) {
	v := verifier(t, Config{Secret: secret})
	token := hmacToken(t, minimal())
	_, err := v.Verify(t.Context(), token)
	require.NoError(t, err)
	ctx := t.Context()
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = v.Verify(ctx, token) }), 1.0)
}

// FuzzVerify holds that no bytes but the tokens that were signed pass, and that
// a refusal quotes nothing.
func FuzzVerify(f *testing.F) {
	v := verifier(f, Config{Secret: secret})
	good := hmacToken(f, minimal())
	for _, token := range []string{
		"", ".", "..", "...", good, good + ".", good + "\n", good[:len(good)-1],
		mint(f, "HS256", []byte(secret+"x"), nil, minimal()),
		mint(f, "HS384", []byte(secret), nil, minimal()),
		mint(f, "HS256", []byte(secret), object{"crit": []string{"x"}}, minimal()),
		segment([]byte(`{"alg":"none"}`)) + "." + segment([]byte(`{"tenant_id":"acme","exp":9e9}`)) + ".",
	} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		id, err := v.Verify(t.Context(), token)
		if token == good {
			require.NoError(t, err)
			return
		}
		require.Nil(t, id)
		var e *protocol.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, protocol.Unauthorized, e.Code)
		require.Contains(t, e.Details, "token")
		noLeak(t, e, token)
	})
}

// FuzzClaims signs any JSON, and holds that what passes is whole and grants
// nothing that it must not.
func FuzzClaims(f *testing.F) {
	v := verifier(f, Config{Secret: secret})
	for _, claims := range []string{
		`{}`, `null`, `[]`, `{"exp":1779880000}`, `{"tenant_id":"acme","exp":1779880000}`,
		`{"tenant_id":"*","service_name":"s","exp":1779880000.5,"publish":[">"]}`,
		`{"tenant_id":"a","exp":1779880000,"topics":[">","users.u8"],"user_id":"u7","job_id":"j"}`,
		`{"tenant_id":"a","exp":1779880000,"tenant_access":[{"id":"b","role":"r","tier":"t"}],"sub":"*"}`,
		`{"tenant_id":"a","exp":1779880000,"subscription":{"status":"active","valid_until":"2027-01-01T00:00:00Z"}}`,
		`{"tenant_id":"a","tenant_id":"b","exp":1779880000,"aud":["x"],"iss":"i","nbf":0,"iat":0}`,
	} {
		f.Add(claims)
	}
	f.Fuzz(func(t *testing.T, claims string) {
		token := hmacToken(t, claims)
		id, err := v.Verify(t.Context(), token)
		if err != nil {
			var e *protocol.Error
			require.ErrorAs(t, err, &e)
			require.Contains(t, []protocol.Code{protocol.Unauthorized, protocol.Forbidden}, e.Code)
			require.Len(t, e.Details, 1)
			return
		}
		require.True(t, id.Tenant == "*" && id.Service != "" || protocol.CheckTenant(id.Tenant) == nil)
		require.True(t, id.ExpiresAt().After(start.Add(-Leeway)))
		for _, p := range append(id.topics, id.publish...) {
			require.NoError(t, protocol.CheckPattern(p))
		}
		for _, pattern := range []string{"users.*", "users.>", "users.nobody-else.inbox"} {
			if _, ok := id.MayRead(pattern); ok {
				require.True(t, id.limited || id.User == "nobody-else", pattern)
			}
		}
		if hide, ok := id.MayRead(">"); ok {
			require.True(t, hide)
		}
		if id.Job != "" {
			require.False(t, id.MaySee("alerts"))
			require.False(t, id.MayPublishAll())
		}
		for _, a := range id.access {
			require.Equal(t, a.tenant, must(id.For(a.tenant)).Tenant)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	claims := minimal().with(object{"tenant_role": "admin", "subscription": object{"status": "active", "tier": "professional"}, "topics": []string{"alerts", "jobs.>"}})
	for name, v := range map[string]*Verifier{
		"HS256": verifier(b, Config{Secret: secret}), "RS256": verifier(b, Config{PublicKey: publicPEM(rsaKey())}),
	} {
		var key any = rsaKey()
		if name == "HS256" {
			key = []byte(secret)
		}
		token := mint(b, name, key, nil, claims)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				clear(v.known.ids)
				if _, err := v.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+" remembered", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
