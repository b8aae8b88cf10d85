//go:build linux

package main

import (
	"context"
	"time"

	"github.com/pushhub/pushhub/loadtest"
)

type broadcastCommand struct {
	measured `embed:""`
}

func (c *broadcastCommand) Run(ctx context.Context, out output) error {
	return c.measure(ctx, out, "broadcast", loadtest.Stream)
}

type idleCommand struct {
	measured `embed:""`
}

func (c *idleCommand) Run(ctx context.Context, out output) error {
	return c.measure(ctx, out, "idle", loadtest.Idle)
}

type jobsCommand struct {
	measured `embed:""`
}

func (c *jobsCommand) Run(ctx context.Context, out output) error {
	return c.measure(ctx, out, "jobs", loadtest.Stream)
}

type stormCommand struct {
	measured `embed:""`
}

func (c *stormCommand) Run(ctx context.Context, out output) error {
	return c.measure(ctx, out, "storm", loadtest.Storm)
}

type saturateCommand struct {
	measured `embed:""`
	Limit    time.Duration `default:"500ms" help:"p99 up to which a rate holds."`
}

func (c *saturateCommand) Run(ctx context.Context, out output) error {
	return c.measure(ctx, out, "saturate", loadtest.Saturate(c.Limit))
}

type reconnectCommand struct {
	measured `embed:""`
	Away     time.Duration `default:"1s" help:"How long the clients stay away."`
	Kill     bool          `help:"Kill their instance instead of their sockets: they resume at another. With --log redis."`
}

func (c *reconnectCommand) Run(ctx context.Context, out output) error {
	if c.Kill && (c.URL != "" || c.Log != "redis") {
		return usageError("--kill needs --log redis, and no --url")
	}
	c.doomed = c.Kill
	return c.measure(ctx, out, "reconnect", loadtest.Reconnect(c.Away))
}

type slowCommand struct {
	measured `embed:""`
	Stall    float64 `default:"0.1" help:"Share of the clients that stops reading."`
}

func (c *slowCommand) Run(ctx context.Context, out output) error {
	return c.measure(ctx, out, "slow", loadtest.Slow(c.Stall))
}

type soakCommand struct {
	measured `embed:""`
	Churn    float64 `default:"0.01" help:"Share of the clients that leaves and resumes each second."`
}

func (c *soakCommand) Run(ctx context.Context, out output) error {
	return c.measure(ctx, out, "soak", loadtest.Soak(c.Churn))
}
