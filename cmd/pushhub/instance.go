package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/ingest"
	"github.com/pushhub/pushhub/transport"
	"github.com/pushhub/pushhub/transport/wire"
)

// setup says what an instance is made of.
type setup struct {
	listen  listenSettings
	spare   int         // ports to try after the one in listen, when it is taken
	tls     *tls.Config // nil: none
	redis   *redisPlace // nil: the log is in memory
	ingest  ingest.Mapping
	limits  limitSettings
	auth    auth.Config
	origins originSettings
	pages   http.Handler // nil: none
}

// instance is one hub: a log, the hub on it, and the server before it. It is used
// by one goroutine.
type instance struct {
	logger   zerolog.Logger
	limits   limitSettings
	hub      *hub.Hub
	server   *transport.Server
	listener net.Listener
	tls      *tls.Config
	clean    cleanups
}

// cleanupTime bounds each step of an instance's end after its drain.
const cleanupTime = 5 * time.Second

// newInstance makes an instance, which listens and does not serve yet. The
// caller closes it.
func newInstance(ctx context.Context, logger zerolog.Logger, s setup) (made *instance, err error) {
	i := &instance{logger: logger, limits: s.limits, tls: s.tls, clean: cleanups{log: logger}}
	defer func() {
		if err != nil {
			i.close()
		}
	}()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	verifier, err := i.newVerifier(ctx, s.auth)
	if err != nil {
		return nil, err
	}
	store, err := openStore(logger, &i.clean, s.redis, s.limits, s.ingest)
	if err != nil {
		return nil, err
	}
	store.register(registry)
	i.hub = hub.New(store.log, hub.Options{Logger: logger, Verify: time.Duration(s.limits.HeartbeatSeconds)})
	i.clean.add("hub", func() error { i.hub.Close(); return nil })

	i.server, err = transport.New(transport.Options{
		Hub:              i.hub,
		Verifier:         verifier,
		Logger:           logger,
		Version:          buildName(),
		Limits:           s.limits.limits(),
		Origins:          s.origins.CORSOrigins,
		AllowCredentials: bool(s.origins.CORSAllowCredentials),
		TrustedProxies:   s.origins.TrustedProxies,
		Registry:         registry,
		State:            store.state,
		Pages:            s.pages,
	})
	if err != nil {
		return nil, err
	}
	i.clean.add("server", i.server.Close)
	store.ingest(ctx, &i.clean, registry, i.server.Published)
	i.listener, err = listen(ctx, s.listen, time.Duration(s.limits.HeartbeatSeconds+s.limits.PongSeconds), s.spare)
	if err != nil {
		return nil, err
	}
	i.clean.add("listener", func() error { // unless serve has closed it
		if err := i.listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return i, nil
}

// newVerifier makes the Verifier. It lives until the instance is closed, longer
// than ctx: clients that are there while the instance drains are still served.
func (i *instance) newVerifier(ctx context.Context, cfg auth.Config) (*auth.Verifier, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cfg.OnError = func(err error) { i.logger.Warn().Err(err).Msg("the JWK set could not be fetched") }
	verifier, err := auth.New(ctx, cfg)
	if err != nil {
		cancel()
		return nil, err
	}
	i.clean.add("verifier", func() error {
		cancel()
		verifier.Wait()
		return nil
	})
	return verifier, nil
}

// listen takes the port, or one of those after it.
func listen(ctx context.Context, s listenSettings, dead time.Duration, spare int) (net.Listener, error) {
	var first error
	for port := int(s.Port); port <= int(s.Port)+spare; port++ {
		l, err := wire.Listen(ctx, "tcp", net.JoinHostPort(s.Host, strconv.Itoa(port)), dead)
		if err == nil {
			return l, nil
		}
		if first == nil {
			first = wrong("HOST, PORT", "%w", err)
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, first
}

// serve serves until ctx ends, and drains then.
func (i *instance) serve(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- i.server.Serve(i.listener, i.tls) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	within := time.Duration(i.limits.DrainSeconds)
	i.logger.Info().Stringer("within", within).Msg("draining")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within-within/10) // the rest is for the end itself
	defer cancel()
	if err := i.server.Drain(ctx); err != nil {
		i.logger.Warn().Err(err).Msg("drain: what was left is closed")
		if err := i.server.Close(); err != nil {
			i.logger.Warn().Err(err).Msg("close")
		}
	}
	return <-served
}

// close undoes everything. It may be called again.
func (i *instance) close() { i.clean.run(cleanupTime) }
