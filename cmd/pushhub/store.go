package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/ingest"
	"github.com/pushhub/pushhub/hub/memlog"
	"github.com/pushhub/pushhub/hub/redislog"
	"github.com/pushhub/pushhub/transport"
	"github.com/pushhub/pushhub/transport/quiet"
)

// store is the log of an instance with what belongs to it: in Redis its state and
// the ingest of raw channels, in memory neither.
type store struct {
	log hub.Log

	// in Redis only
	redis    *redislog.Log
	mapping  ingest.Mapping
	maxBytes int
	ingester atomic.Pointer[ingest.Ingester]
	logger   zerolog.Logger
	seen     atomic.Bool // Redis was there once
	ready    atomic.Bool // so was everything that a start waits for
}

// awayFor is how long Redis may be away before /health says so.
const awayFor = 5 * time.Second

// openStore opens the log, in Redis or, without a place, in memory.
func openStore(logger zerolog.Logger, clean *cleanups, place *redisPlace, limits limitSettings, mapping ingest.Mapping) (*store, error) {
	s := &store{logger: logger}
	if place == nil {
		log := memlog.New(memlog.Options{Retention: limits.retention()})
		clean.add("log", func() error { log.Close(); return nil })
		logger.Info().Msg("no Redis is configured: the log is in memory, for this one instance, and ends with it")
		s.log = log
		return s, nil
	}
	options := place.log()
	options.Wrap, options.Retention, options.OnState = quiet.Pooled, limits.retention(), s.changed
	log, err := redislog.Open(options)
	if err != nil {
		return nil, wrong("REDIS_URL", "%w", err)
	}
	clean.add("log", log.Close)
	logger.Info().Msg("the log is in " + place.String())
	s.log, s.redis = log, log
	s.mapping, s.maxBytes = mapping, int(limits.MaxEventBytes)
	return s, nil
}

// ingest begins to take in raw channels, until clean ends it. published counts
// what came in.
func (s *store) ingest(ctx context.Context, clean *cleanups, registry *prometheus.Registry, published func(string, int, error, time.Duration)) {
	if s.redis == nil {
		return
	}
	ingester := ingest.New(ingest.Options{
		Log: s.redis, Mapping: s.mapping, MaxBytes: s.maxBytes, Logger: s.logger,
		OnIngest: func(events int, err error, took time.Duration) { published("redis", events, err, took) },
	})
	s.ingester.Store(ingester)
	gauge(registry, "pushhub_ingesting", "1 while this instance brings raw channels into the log.", ingester.Stats().Leading.Load)
	counter(registry, "pushhub_ingest_dropped_total", "Raw messages that are no JSON, too large, or on a channel that maps to no topic.",
		ingester.Stats().Dropped.Load)
	counter(registry, "pushhub_ingest_lost_total", "Raw messages that were given up: too many waited, or they came so late that nobody knows whether they are in the log.",
		ingester.Stats().Lost.Load)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ingester.Run(ctx)
	}()
	clean.add("ingest", func() error {
		cancel()
		<-ended
		return nil
	})
}

// changed is redislog's OnState.
func (s *store) changed(up bool, err error) {
	switch {
	case up && s.seen.Swap(true):
		s.logger.Info().Msg("Redis is back")
	case up:
		s.logger.Info().Msg("Redis is connected")
	case s.seen.Load():
		s.logger.Error().Err(err).Msg("Redis is away: what is published is refused, and clients wait")
	default:
		s.logger.Error().Err(err).Msg("Redis cannot be reached yet")
	}
}

// state gives what /health says. An instance is ready once everything was there,
// and stays so: what it can do without Redis, it does.
func (s *store) state() transport.State {
	if s.redis == nil {
		return transport.State{Ready: true, Redis: "none"}
	}
	ingester := s.ingester.Load()
	hears, refused, why := false, time.Duration(0), error(nil)
	if ingester != nil {
		hears = ingester.Stats().Ready.Load()
		refused, why = ingester.Refused()
	}
	if s.seen.Load() && hears {
		s.ready.Store(true)
	}
	state := transport.State{
		Ready: s.ready.Load(), Redis: "connected",
		Services: map[string]string{"log": "healthy", "ingest": "healthy"},
	}
	var said redis.Error
	answers := refused < awayFor || errors.As(why, &said)
	if !s.seen.Load() || s.redis.Down() >= awayFor || !answers {
		state.Redis, state.Degraded, state.Services["log"] = "disconnected", true, "unhealthy"
	}
	if refused >= awayFor { // it may answer all the same: out of memory, a replica
		state.Degraded, state.Services["log"] = true, "unhealthy"
	}
	if !hears || refused >= awayFor {
		state.Services["ingest"] = "unhealthy"
	}
	return state
}

// register has the log's metrics served.
func (s *store) register(registry *prometheus.Registry) {
	if s.redis == nil {
		gauge(registry, "pushhub_log_up", "1 while the log can be reached.", func() bool { return true })
		return
	}
	gauge(registry, "pushhub_log_up", "1 while the log can be reached.", s.redis.Up)
	counter(registry, "pushhub_log_reconnects_total", "Live connections to the log that were lost.",
		func() int64 { return int64(s.redis.Stats().Reconnects) })
}

func counter(registry *prometheus.Registry, name, help string, value func() int64) {
	registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) }))
}

func gauge(registry *prometheus.Registry, name, help string, is func() bool) {
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
		if is() {
			return 1
		}
		return 0
	}))
}
