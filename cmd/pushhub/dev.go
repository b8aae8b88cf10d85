package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/ingest"
	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/web"
)

// devCommand has no settings of tokens, TLS and origins: it is for one person on
// one machine.
type devCommand struct {
	listenSettings `embed:"" group:"Listening"`
	logSettings    `embed:"" group:"Logs"`
	redisSettings  `embed:"" group:"Redis (else the log is kept in memory)"`
	ingestSettings `embed:"" group:"Redis (else the log is kept in memory)"`
	limitSettings  `embed:"" group:"Limits"`
	JWTSecret      string  `setting:"JWT_SECRET" name:"jwt-secret" placeholder:"TEXT" help:"HMAC secret of the demo's tokens, instead of one made at the start."`
	Seed           *uint64 `placeholder:"N" help:"Simulate the same jobs and alerts each time."`
}

const (
	devTenant = "demo"
	// devPorts are tried after PORT when that is taken.
	devPorts = 20
	// devTokenLife is how long a token of the page is good. The page asks for a
	// new one at each connection.
	devTokenLife = time.Hour
)

// Run serves the demo until ctx ends.
func (c *devCommand) Run(ctx context.Context, p process) error {
	logger := newLogger(p.stderr, c.logSettings)
	adopt(logger)
	secret := cmp.Or(c.JWTSecret, rand.Text()+rand.Text())
	pages := web.Handler(func(*http.Request) web.Config { return devConfig(secret) })
	if loopback(c.Host) {
		pages = loopbackOnly(pages)
	}
	s := setup{
		listen: c.listenSettings, spare: devPorts, limits: c.limitSettings, ingest: ingest.Mapping(c.Ingest),
		auth: auth.Config{Secret: secret}, pages: pages,
	}
	if c.Port == 0 {
		s.spare = 0
	}
	var err error
	if s.redis, err = c.redisSettings.place(); err != nil {
		return err
	}
	i, err := newInstance(ctx, logger, s)
	if err != nil {
		return err
	}
	defer i.close()
	if _, err := fmt.Fprintf(p.stdout, "Open %s in a browser. Ctrl-C ends it.\n", i.address()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var simulating sync.WaitGroup
	simulating.Go(func() { c.simulate(ctx, i.hub, logger) })
	defer simulating.Wait()
	defer cancel()
	return i.serve(ctx)
}

// simulate publishes made-up events until ctx ends.
func (c *devCommand) simulate(ctx context.Context, h *hub.Hub, logger zerolog.Logger) {
	seed := uint64(time.Now().UnixNano())
	if c.Seed != nil {
		seed = *c.Seed
	}
	publish := func(events []protocol.Publication) error {
		if len(events) == 0 {
			return nil
		}
		_, err := h.Publish(ctx, devTenant, events)
		return err
	}
	failed := func(err error) { logger.Warn().Err(err).Msg("simulated events were not published") }
	newSimulator(seed).run(ctx, simulatedPace, publish, failed)
}

// devConfig gives the page a token of its own.
func devConfig(secret string) web.Config {
	now := time.Now()
	token, err := auth.Sign("HS256", []byte(secret), "", auth.Claims{
		Tenant: devTenant, User: "dev", Topics: []string{protocol.Everything}, Publish: []string{protocol.Everything},
		IssuedAt: now.Unix(), ExpiresAt: now.Add(devTokenLife).Unix(),
	})
	if err != nil {
		panic(err) // newInstance has accepted the secret
	}
	return web.Config{Tenant: devTenant, Token: token, Topics: []string{protocol.Everything}}
}

// address gives the URL to open for what the instance listens on.
func (i *instance) address() string {
	host, port, err := net.SplitHostPort(i.listener.Addr().String())
	if err != nil {
		panic(err) // it is the address of a TCP listener
	}
	if addr, err := netip.ParseAddr(host); err != nil || addr.IsLoopback() || addr.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port) + "/"
}

// loopback says whether only this machine reaches an address.
func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback() || host == "localhost"
}

// loopbackOnly refuses requests that were not meant for this machine by name: a
// page of the world whose name was turned to 127.0.0.1 must not get the token.
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if !loopback(strings.Trim(host, "[]")) {
			http.Error(w, "this demo is for localhost", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
