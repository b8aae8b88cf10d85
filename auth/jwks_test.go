package auth

import (
	"context"
	"crypto"
	"crypto/rsa"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

// keyServer serves a JWK set that the test changes.
type keyServer struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	body   string
	served atomic.Int64
	each   chan int // the status of each answer
}

func serveKeys(t *testing.T, body string) *keyServer {
	s := &keyServer{status: http.StatusOK, body: body, each: make(chan int, 10_000)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		status, body := s.status, s.body
		s.mu.Unlock()
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
		s.served.Add(1)
		s.each <- status
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *keyServer) set(status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body = status, body
}

// await waits for an answer of that status.
func (s *keyServer) await(t *testing.T, status int) {
	t.Helper()
	for {
		select {
		case got := <-s.each:
			if got == status {
				return
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no answer %d", status)
		}
	}
}

// jwk is a key of a set.
type jwk struct {
	kid string
	key any
	alg jwkset.ALG
	use jwkset.USE
}

func jwks(t *testing.T, keys ...jwk) string {
	t.Helper()
	store := jwkset.NewMemoryStorage()
	for _, k := range keys {
		if signer, ok := k.key.(crypto.Signer); ok {
			k.key = signer.Public()
		}
		key, err := jwkset.NewJWKFromKey(k.key, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: k.kid, ALG: k.alg, USE: k.use}})
		require.NoError(t, err)
		require.NoError(t, store.KeyWrite(t.Context(), key))
	}
	return string(must(store.JSONPublic(t.Context())))
}

// collect gives an OnError and the channel of what it got.
func collect() (func(error), chan error) {
	errs := make(chan error, 10_000)
	return func(err error) { errs <- err }, errs
}

func awaitError(t *testing.T, errs chan error) error {
	t.Helper()
	select {
	case err := <-errs:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("no error was reported")
		return nil
	}
}

// kidToken is signed by a key that it names; serial makes it differ from others.
func kidToken(t *testing.T, kid string, key crypto.Signer, serial int) string {
	t.Helper()
	return mint(t, "RS256", key, object{"kid": kid}, minimal().with(object{"jti": fmt.Sprint(serial)}))
}

// The paces of the tests: nothing by itself, but at once when asked (eager) or
// never (patient); restless fetches all the time.
var (
	eager    = pace{interval: time.Hour, retry: time.Hour, maxRetry: time.Hour}
	patient  = pace{interval: time.Hour, retry: time.Hour, maxRetry: time.Hour, gap: time.Hour}
	restless = pace{interval: time.Millisecond, retry: time.Millisecond, maxRetry: 2 * time.Millisecond, gap: time.Hour}
)

func TestJWKSVerifiesByKeyID(t *testing.T) {
	set := jwks(t, jwk{kid: "r", key: rsaKey(), use: jwkset.UseSig}, jwk{kid: "e", key: ecKey()}, jwk{kid: "d", key: edKey(), alg: jwkset.AlgEdDSA})
	for _, c := range []struct {
		alg, kid string
		key      crypto.Signer
	}{{"RS256", "r", rsaKey()}, {"ES256", "e", ecKey()}, {"EdDSA", "d", edKey()}} {
		t.Run(c.alg, func(t *testing.T) {
			v := pacedVerifier(t, Config{JWKSURL: serveKeys(t, set).URL, Algorithm: c.alg}, patient)
			_, err := v.Verify(t.Context(), mint(t, c.alg, c.key, object{"kid": c.kid}, minimal()))
			require.NoError(t, err)
		})
	}
}

func TestJWKSRefusals(t *testing.T) {
	weak := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	s := serveKeys(t, jwks(t,
		jwk{kid: "sig", key: rsaKey()}, jwk{kid: "enc", key: rsaKey(), use: jwkset.UseEnc},
		jwk{kid: "ps", key: rsaKey(), alg: jwkset.AlgPS256}, jwk{kid: "ec", key: ecKey()}, jwk{kid: "weak", key: weak},
	))
	v := pacedVerifier(t, Config{JWKSURL: s.URL}, patient)
	for name, c := range map[string]struct{ token, message string }{
		"no kid":              {mint(t, "RS256", rsaKey(), nil, minimal()), "(kid)"},
		"empty kid":           {kidToken(t, "", rsaKey(), 1), "(kid)"},
		"kid is a number":     {mint(t, "RS256", rsaKey(), object{"kid": 7}, minimal()), "(kid)"},
		"unknown kid":         {kidToken(t, "a-kid-that-nobody-knows", rsaKey(), 1), "unknown"},
		"key for encryption":  {kidToken(t, "enc", rsaKey(), 1), "not for this use"},
		"key for PS256":       {kidToken(t, "ps", rsaKey(), 1), "not for this use"},
		"key of another kind": {kidToken(t, "ec", rsaKey(), 1), "another kind"},
		"weak key":            {kidToken(t, "weak", rsaKey(), 1), "weak"},
		"signed by another":   {kidToken(t, "sig", otherRSA(), 1), "signature"},
		"other algorithm":     {mint(t, "PS256", rsaKey(), object{"kid": "sig"}, minimal()), "algorithm"},
	} {
		t.Run(name, func(t *testing.T) {
			e := refuse(t, v, c.token, protocol.Unauthorized, "token", protocol.Invalid)
			require.Contains(t, e.Message, c.message)
			require.NotContains(t, e.Message, "nobody-knows")
		})
	}
	require.EqualValues(t, 1, s.served.Load())
}

func TestJWKSRotation(t *testing.T) {
	s := serveKeys(t, jwks(t, jwk{kid: "old", key: rsaKey()}))
	v := pacedVerifier(t, Config{JWKSURL: s.URL}, eager)
	known := kidToken(t, "old", rsaKey(), 1)
	_, err := v.Verify(t.Context(), known)
	require.NoError(t, err)

	s.set(http.StatusOK, jwks(t, jwk{kid: "new", key: otherRSA()}))
	_, err = v.Verify(t.Context(), kidToken(t, "new", otherRSA(), 1))
	require.NoError(t, err, "a new key is found when a token names it")
	refuse(t, v, kidToken(t, "old", rsaKey(), 2), protocol.Unauthorized, "token", protocol.Invalid)
	_, err = v.Verify(t.Context(), known)
	require.NoError(t, err, "a remembered token outlives its key")
}

func TestJWKSUnknownKeyIDsDoNotFlood(t *testing.T) {
	s := serveKeys(t, jwks(t, jwk{kid: "k", key: rsaKey()}))
	v := pacedVerifier(t, Config{JWKSURL: s.URL}, patient)
	for i := range 20 {
		refuse(t, v, kidToken(t, fmt.Sprint("k", i), otherRSA(), i), protocol.Unauthorized, "token", protocol.Invalid)
	}
	require.EqualValues(t, 1, s.served.Load())

	v.set.mu.Lock()
	v.set.begun = time.Now().Add(-2 * time.Hour)
	v.set.mu.Unlock()
	for i := range 20 {
		refuse(t, v, kidToken(t, fmt.Sprint("k", i), otherRSA(), i), protocol.Unauthorized, "token", protocol.Invalid)
	}
	require.EqualValues(t, 2, s.served.Load())
}

// After a rotation all clients come at once: one fetch must serve them all.
func TestJWKSOneFetchServesAll(t *testing.T) {
	s := serveKeys(t, jwks(t, jwk{kid: "old", key: rsaKey()}))
	v := pacedVerifier(t, Config{JWKSURL: s.URL}, patient)
	_, err := v.Verify(t.Context(), kidToken(t, "old", rsaKey(), 0))
	require.NoError(t, err)

	s.set(http.StatusOK, jwks(t, jwk{kid: "new", key: otherRSA()}))
	v.set.mu.Lock()
	v.set.begun = time.Now().Add(-2 * time.Hour)
	v.set.mu.Unlock()
	tokens := make([]string, 50)
	for i := range tokens {
		tokens[i] = kidToken(t, "new", otherRSA(), i)
	}
	errs := make(chan error, len(tokens))
	for _, token := range tokens {
		go func() {
			_, err := v.Verify(context.Background(), token)
			errs <- err
		}()
	}
	for range tokens {
		require.NoError(t, <-errs)
	}
	require.EqualValues(t, 2, s.served.Load())
}

func TestJWKSOutageAfterTheFirstFetch(t *testing.T) {
	set := jwks(t, jwk{kid: "k", key: rsaKey()})
	for name, outage := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"error":     {http.StatusInternalServerError, "", "500"},
		"no JSON":   {http.StatusOK, "<html>", "decode"},
		"empty set": {http.StatusOK, `{"keys":[]}`, "no key"},
		"no set":    {http.StatusOK, `{}`, "no key"},
		"too big":   {http.StatusOK, `{"pad":"` + strings.Repeat("a", maxJWKSBytes) + `",` + set[1:], "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveKeys(t, set)
			onError, errs := collect()
			v := pacedVerifier(t, Config{JWKSURL: s.URL, OnError: onError}, restless)
			_, err := v.Verify(t.Context(), kidToken(t, "k", rsaKey(), 1))
			require.NoError(t, err)

			s.set(outage.status, outage.body)
			for range 3 {
				require.ErrorContains(t, awaitError(t, errs), outage.want)
			}
			_, err = v.Verify(t.Context(), kidToken(t, "k", rsaKey(), 2))
			require.NoError(t, err, "the keys are kept")
			e := refuse(t, v, kidToken(t, "other", otherRSA(), 1), protocol.Unavailable, "", "")
			require.Equal(t, protocol.InInternal, e.Origin)

			s.set(http.StatusOK, jwks(t, jwk{kid: "other", key: otherRSA()}))
			for len(s.each) > 0 {
				<-s.each
			}
			s.await(t, http.StatusOK) // may still be of the outage
			s.await(t, http.StatusOK)
			s.await(t, http.StatusOK)
			_, err = v.Verify(t.Context(), kidToken(t, "other", otherRSA(), 2))
			require.NoError(t, err, "it recovers by itself")
		})
	}
}

func TestJWKSOutageAtTheStart(t *testing.T) {
	s := serveKeys(t, "")
	s.set(http.StatusServiceUnavailable, "")
	onError, errs := collect()
	retries := pace{interval: time.Hour, retry: time.Millisecond, maxRetry: 2 * time.Millisecond, gap: time.Hour}
	v := pacedVerifier(t, Config{JWKSURL: s.URL, OnError: onError}, retries)
	token := kidToken(t, "k", rsaKey(), 1)
	refuse(t, v, token, protocol.Unavailable, "", "")
	require.ErrorContains(t, awaitError(t, errs), "JWT_JWKS_URL")

	s.set(http.StatusOK, jwks(t, jwk{kid: "k", key: rsaKey()}))
	s.await(t, http.StatusOK)
	_, err := v.Verify(t.Context(), token)
	require.NoError(t, err)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// An outage at the start, a long one later: when each fetch happens.
func TestJWKSSchedule(t *testing.T) {
	good := jwks(t, jwk{kid: "k", key: rsaKey()})
	synctest.Test(t, func(t *testing.T) {
		const f, ok = http.StatusBadGateway, http.StatusOK
		answers := []int{f, f, ok, ok, f, f, f, f, f, f, f, f, ok, f, ok}
		var at []string
		began := time.Now()
		s := newKeySet(Config{JWKSURL: "https://idp/keys"}, usualPace)
		s.client = &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			at = append(at, time.Since(began).String())
			return &http.Response{StatusCode: answers[len(at)-1], Body: io.NopCloser(strings.NewReader(good))}, nil
		})}
		ctx, cancel := context.WithCancel(t.Context())
		go s.run(ctx)
		time.Sleep(51 * time.Minute) // of the bubble's clock
		cancel()
		<-s.done
		require.Equal(t, []string{
			"0s", "1s", "3s", "15m3s", "30m3s", "30m4s", "30m6s", "30m10s", "30m18s", "30m34s", "31m6s", "32m6s", "33m6s", "48m6s", "48m7s",
		}, at)
	})
}

func TestJWKSThatHangsHoldsUpNeitherTheStartNorTheEnd(t *testing.T) {
	reached := make(chan bool, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached <- r.Close
		<-r.Context().Done()
	}))
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	onError, errs := collect()
	v, err := New(ctx, Config{JWKSURL: s.URL, OnError: onError})
	require.NoError(t, err)
	require.True(t, <-reached, "no connection is kept open after the fetch")

	token := kidToken(t, "k", rsaKey(), 1)
	impatient, stop := context.WithCancel(context.Background())
	stop()
	_, err = v.Verify(impatient, token)
	checkError(t, err, token, protocol.Unavailable, "", "")

	cancel()
	v.Wait()
	_, err = v.Verify(context.Background(), token)
	checkError(t, err, token, protocol.Unavailable, "", "")
	require.Empty(t, errs, "an end is no error")
}

func TestJWKSKeysStayGoodAfterTheEnd(t *testing.T) {
	s := serveKeys(t, jwks(t, jwk{kid: "k", key: rsaKey()}))
	ctx, cancel := context.WithCancel(context.Background())
	v, err := newVerifier(ctx, Config{JWKSURL: s.URL}, patient)
	require.NoError(t, err)
	v.now = func() time.Time { return start }
	_, err = v.Verify(t.Context(), kidToken(t, "k", rsaKey(), 1))
	require.NoError(t, err)
	cancel()
	v.Wait()
	_, err = v.Verify(t.Context(), kidToken(t, "k", rsaKey(), 2))
	require.NoError(t, err)
}

func TestJWKSErrorsDoNotHoldTheURL(t *testing.T) {
	s := serveKeys(t, "")
	s.Close()
	onError, errs := collect()
	address := strings.Replace(s.URL, "http://", "http://operator:pass-word@", 1) + "/?api_key=pass-key"
	pacedVerifier(t, Config{JWKSURL: address, OnError: onError}, patient)
	err := awaitError(t, errs)
	require.ErrorContains(t, err, "JWT_JWKS_URL: ")
	require.NotContains(t, err.Error(), "pass-")
}
