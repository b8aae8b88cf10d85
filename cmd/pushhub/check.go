package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"github.com/pushhub/pushhub/auth"
)

type checkCommand struct {
	settings `embed:""`
	Live     bool `help:"Only ask the hub on this machine's PORT whether it lives: a health check for a container without a shell."`
}

// findings are what check has to say, in words. It is used by one goroutine.
type findings struct {
	out            io.Writer
	errors, warned int
}

func (f *findings) ok(format string, args ...any) { f.say("ok", format, args...) }

func (f *findings) warn(format string, args ...any) {
	f.warned++
	f.say("warning", format, args...)
}

func (f *findings) fail(format string, args ...any) {
	f.errors++
	f.say("error", format, args...)
}

func (f *findings) say(word, format string, args ...any) {
	fmt.Fprintf(f.out, "%-8s %s\n", word, fmt.Sprintf(format, args...))
}

// checkTime bounds each question that is asked of another machine.
const checkTime = 5 * time.Second

// Run checks. Malformed settings were found before.
func (c *checkCommand) Run(ctx context.Context, p process) error {
	adopt(zerolog.Nop())
	if c.Live {
		return c.live(ctx)
	}
	f := &findings{out: p.stdout}
	c.checkSettings(ctx, f)
	place, err := c.redisSettings.place()
	switch {
	case err != nil:
		f.fail("%v", err)
	case place == nil:
		f.warn("no Redis is configured: the log is kept in memory, for one instance, and ends with it")
	default:
		checkRedis(ctx, f, place)
	}
	if f.errors > 0 {
		return fmt.Errorf("errors: %d, warnings: %d", f.errors, f.warned)
	}
	fmt.Fprintf(p.stdout, "No errors, warnings: %d.\n", f.warned)
	return nil
}

// checkSettings checks what needs no Redis.
func (c *checkCommand) checkSettings(ctx context.Context, f *findings) {
	switch config, err := c.tlsSettings.config(); {
	case err != nil:
		f.fail("%v", err)
	case config == nil:
		f.ok("serves HTTP on %s", c.listenSettings)
	default:
		leaf := config.Certificates[0].Leaf
		left := time.Until(leaf.NotAfter)
		switch {
		case left < 0:
			f.fail("TLS_CERT_FILE: the certificate has expired on %s", leaf.NotAfter.Format(time.DateOnly))
		case left < 14*24*time.Hour:
			f.warn("serves HTTPS on %s; the certificate expires on %s", c.listenSettings, leaf.NotAfter.Format(time.DateOnly))
		default:
			f.ok("serves HTTPS on %s; the certificate is good until %s", c.listenSettings, leaf.NotAfter.Format(time.DateOnly))
		}
	}
	c.checkKeys(ctx, f)
	if err := c.originSettings.check(); err != nil {
		f.fail("%v", err)
	}
	if c.OutboxBytes < c.MaxEventBytes {
		f.warn("OUTBOX_BYTES is below MAX_EVENT_BYTES: a large event closes the connection of each client that is behind")
	}
	if c.MaxBodyBytes < c.MaxEventBytes {
		f.warn("MAX_BODY_BYTES is below MAX_EVENT_BYTES: the largest events cannot be published over HTTP")
	}
}

// checkKeys checks the key of the tokens; a JWK set is fetched.
func (c *checkCommand) checkKeys(ctx context.Context, f *findings) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	cfg := c.jwtSettings.config()
	if cfg.JWKSURL != "" {
		keys, err := countKeys(ctx, cfg.JWKSURL)
		switch {
		case err != nil:
			f.fail("JWT_JWKS_URL: %v", err)
		case keys == 0:
			f.fail("JWT_JWKS_URL: the set has no keys")
		default:
			f.ok("the JWK set has %d keys", keys)
		}
	}
	verifier, err := auth.New(ctx, cfg)
	if err != nil {
		f.fail("%v", err)
		return
	}
	cancel()
	verifier.Wait()
	switch {
	case cfg.PublicKey != "":
		f.ok("tokens are verified with a public key")
	case cfg.Secret != "":
		f.ok("tokens are verified with a secret")
	}
}

// countKeys fetches a JWK set and counts its keys.
func countKeys(ctx context.Context, url string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, errors.New("it is not an http or https URL")
	}
	client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	defer client.CloseIdleConnections()
	answer, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return 0, errors.New("the answer is " + answer.Status)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(&set); err != nil {
		return 0, fmt.Errorf("the answer is no JWK set: %w", err)
	}
	return len(set.Keys), nil
}

// String gives the address.
func (s listenSettings) String() string { return net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port))) }

// live asks the hub that runs with these settings on this machine.
func (c *checkCommand) live(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	host, scheme := c.Host, "http"
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsUnspecified() {
		host = "127.0.0.1"
		if addr.Is6() {
			host = "::1"
		}
	}
	if c.TLSCertFile != "" {
		scheme = "https"
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	// The certificate is for the name that clients use, not for this machine's own.
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	client := &http.Client{Transport: transport}
	defer client.CloseIdleConnections()
	address := scheme + "://" + net.JoinHostPort(host, strconv.Itoa(int(c.Port))) + "/health/live"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", address, answer.Status)
	}
	return nil
}
