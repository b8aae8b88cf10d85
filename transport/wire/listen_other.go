//go:build !linux

package wire

import (
	"context"
	"net"
	"time"
)

// Listen listens for TCP connections. What the kernel holds for a client that does
// not read is for this system to bound.
func Listen(ctx context.Context, network, address string, _ time.Duration) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, network, address)
}
