//go:build linux

package main

import (
	"context"

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
