package main

import (
	"context"
	"os"
	"runtime/debug"

	"github.com/rs/zerolog"

	"github.com/pushhub/pushhub/hub/ingest"
)

type serveCommand struct {
	settings `embed:""`
}

// Run serves until ctx ends. What it writes is its log, also when it fails.
func (c *serveCommand) Run(ctx context.Context, p process) error {
	logger := newLogger(p.stderr, c.logSettings)
	adopt(logger)
	if err := c.serve(ctx, logger); err != nil {
		logger.Error().Msg(err.Error())
		return reported{err}
	}
	logger.Info().Msg("ended")
	return nil
}

// gcPercent stands for GOGC where the environment does not set it. Idle connections
// are nearly all of the memory and deliveries make no garbage, so the collector runs
// only while clients come or publish: to have it run a little more often costs a
// percent of a handshake, and brings a tenth of the memory.
const gcPercent = 80

func (c *serveCommand) serve(ctx context.Context, logger zerolog.Logger) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	s, err := c.setup()
	if err != nil {
		return err
	}
	i, err := newInstance(ctx, logger, s)
	if err != nil {
		return err
	}
	defer i.close()
	logger.Info().Stringer("address", i.listener.Addr()).Bool("tls", s.tls != nil).Msg("listening")
	return i.serve(ctx)
}

// setup judges the settings as a whole.
func (c *settings) setup() (setup, error) {
	s := setup{
		listen: c.listenSettings, limits: c.limitSettings, ingest: ingest.Mapping(c.Ingest),
		auth: c.jwtSettings.config(), origins: c.originSettings,
	}
	var err error
	if err = c.originSettings.check(); err != nil {
		return setup{}, err
	}
	if s.tls, err = c.tlsSettings.config(); err != nil {
		return setup{}, err
	}
	if s.redis, err = c.redisSettings.place(); err != nil {
		return setup{}, err
	}
	return s, nil
}
