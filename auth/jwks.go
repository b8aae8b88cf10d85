package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
)

const (
	jwksTimeout  = 10 * time.Second // of one fetch
	maxJWKSBytes = 1 << 20
)

// pace says how often a JWK set is fetched.
type pace struct {
	interval time.Duration // after a fetch that succeeded
	retry    time.Duration // after the first that failed; doubled with each further one
	maxRetry time.Duration
	gap      time.Duration // least time from one fetch to one that an unknown key asks for
}

var usualPace = pace{interval: 15 * time.Minute, retry: time.Second, maxRetry: time.Minute, gap: 10 * time.Second}

// wait gives the time from one fetch to the next, after so many failures in a row.
func (p pace) wait(failures int) time.Duration {
	if failures == 0 {
		return p.interval
	}
	d := p.retry
	for i := 1; i < failures && d < p.maxRetry; i++ {
		d *= 2
	}
	return min(d, p.maxRetry)
}

// errNoKeys means that a key is unknown and that it cannot be found out now
// whether it is good.
var errNoKeys = errors.New("the JWK set cannot be fetched")

// keySet is a jwkset.Storage of the keys at a URL. One goroutine fetches them:
// at once, at its pace, and when KeyRead asks. A fetch that fails, or brings no
// key, changes nothing. Safe for concurrent use.
//
// The refresh that comes with jwkset is not used: it does not retry sooner when
// it has no key yet, and makes each request for an unknown key wait in a queue.
type keySet struct {
	jwkset.Storage // the keys of the last good fetch

	// Fixed after construction.
	url     string
	client  *http.Client
	pace    pace
	onError func(error)
	wake    chan struct{} // of one place: asks run for a fetch; never closed
	done    chan struct{} // closed when run has ended

	mu sync.Mutex
	// Guarded by mu.
	underWay chan struct{} // closed when the fetch that is due or under way ends; nil while there is none
	begun    time.Time     // when underWay was last set
	err      error         // of the last fetch
}

// newKeySet gives a set whose first fetch is due. The caller starts run.
func newKeySet(cfg Config, p pace) *keySet {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // a fetch is rare, and leaves no goroutine behind
	return &keySet{
		Storage:  jwkset.NewMemoryStorage(),
		url:      cfg.JWKSURL,
		client:   &http.Client{Transport: bounded{transport}},
		pace:     p,
		onError:  cfg.OnError,
		wake:     make(chan struct{}, 1),
		done:     make(chan struct{}),
		underWay: make(chan struct{}),
		begun:    time.Now(),
	}
}

// KeyRead gives the key of that id. For an unknown one it waits for the fetch
// under way, or for a new one if the last is old enough. The error is
// jwkset.ErrKeyNotFound, or errNoKeys where that fetch failed.
func (s *keySet) KeyRead(ctx context.Context, kid string) (jwkset.JWK, error) {
	if key, err := s.Storage.KeyRead(ctx, kid); err == nil {
		return key, nil
	}
	if err := s.refresh(ctx); err != nil {
		return jwkset.JWK{}, err
	}
	return s.Storage.KeyRead(ctx, kid)
}

func (s *keySet) refresh(ctx context.Context) error {
	s.mu.Lock()
	if s.underWay == nil && time.Since(s.begun) >= s.pace.gap {
		s.begin()
		s.wake <- struct{}{} // has room: begin has emptied it, and only the holder of mu fills it
	}
	ended := s.underWay
	s.mu.Unlock()

	if ended != nil {
		select {
		case <-ended:
		case <-ctx.Done():
			return errNoKeys
		case <-s.done:
			return errNoKeys
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return errNoKeys
	}
	return nil
}

// begin notes that a fetch is due. The caller holds mu.
func (s *keySet) begin() {
	select {
	case <-s.wake:
	default:
	}
	if s.underWay == nil {
		s.underWay, s.begun = make(chan struct{}), time.Now()
	}
}

// run fetches until ctx ends.
func (s *keySet) run(ctx context.Context) {
	defer close(s.done)
	failures := 0
	for {
		s.mu.Lock()
		s.begin()
		s.mu.Unlock()

		err := s.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.err = err
		close(s.underWay)
		s.underWay = nil
		s.mu.Unlock()

		if err == nil {
			failures = 0
		} else if failures++; s.onError != nil {
			s.onError(err)
		}
		timer := time.NewTimer(s.pace.wait(failures))
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// fetch replaces the keys by those at the URL. The URL is left out of its
// errors, since it may hold a password.
func (s *keySet) fetch(ctx context.Context) error {
	fresh := jwkset.NewMemoryStorage()
	// Without a RefreshInterval this is one fetch, and starts no goroutine.
	_, err := jwkset.NewStorageFromHTTP(s.url, jwkset.HTTPClientStorageOptions{
		Client: s.client, Ctx: ctx, HTTPTimeout: jwksTimeout, Storage: fresh,
	})
	if err != nil {
		var request *url.Error
		if errors.As(err, &request) {
			err = request.Err
		}
		return fmt.Errorf("JWT_JWKS_URL: %w", err)
	}
	keys, err := fresh.KeyReadAll(ctx)
	if err != nil {
		return fmt.Errorf("JWT_JWKS_URL: %w", err)
	}
	if len(keys) == 0 {
		return errors.New("JWT_JWKS_URL: the set holds no key that can be used")
	}
	return s.KeyReplaceAll(ctx, keys)
}

// bounded is a transport that ends a body after maxJWKSBytes.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxJWKSBytes), resp.Body}
	}
	return resp, err
}
