package redislog

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Hear subscribes to channel patterns of Redis, as PSUBSCRIBE has them, on a
// connection of its own, and hands over each message, in the order in which
// Redis sent them. It calls ready when all patterns are subscribed, and returns,
// always with an error, when the connection has ended: messages may be missing
// from then on. The payload is the callee's to keep; of one larger than max
// bytes there is nil.
func (l *Log) Hear(ctx context.Context, patterns []string, max int, ready func(), message func(pattern, channel string, payload []byte)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	at, err := l.servers.endpoint(ctx, leaseKey)
	if err != nil {
		return err
	}
	dial, stop := context.WithTimeout(ctx, dialTime)
	defer stop()
	nc, err := at.Dialer(dial, at.Network, at.Addr)
	if err != nil {
		return err
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel(nil)
	work.Go(func() {
		<-ctx.Done()
		nc.Close()
	})
	r := newReader(nc)
	if err := handshake(ctx, at, nc, r, "pushhub-ingest", l.live.pace.answer); err != nil {
		return err
	}
	request := appendCommand(nil, append([]string{"PSUBSCRIBE"}, patterns...)...)
	if _, err := nc.Write(request); err != nil {
		return err
	}
	work.Go(func() { keepAlive(ctx, nc, cancel, l.live.pace) })
	h := hearing{nc: nc, r: r, max: max, wanted: len(patterns), patience: 2*l.live.pace.quiet + l.live.pace.answer, ready: ready, message: message}
	for {
		if err := h.read(); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return err
		}
	}
}

// keepAlive pings, so that a connection which brings nothing is known to live.
func keepAlive(ctx context.Context, nc net.Conn, cancel context.CancelCauseFunc, p pace) {
	tick := time.NewTicker(p.quiet)
	defer tick.Stop()
	ping := appendCommand(nil, "PING")
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := nc.SetWriteDeadline(time.Now().Add(p.answer))
		if err == nil {
			_, err = nc.Write(ping)
		}
		if err != nil {
			cancel(err)
			return
		}
	}
}

// hearing is the reading half of Hear.
type hearing struct {
	// fixed after construction
	nc       net.Conn
	r        *reader
	max      int
	wanted   int
	patience time.Duration // a ping is answered within it
	ready    func()
	message  func(pattern, channel string, payload []byte)

	confirmed int
}

func (h *hearing) read() error {
	if h.r.buf.Buffered() == 0 {
		if err := h.nc.SetReadDeadline(time.Now().Add(h.patience)); err != nil {
			return err
		}
	}
	kind, rest, err := h.r.line()
	if err != nil {
		return err
	}
	if kind == '-' {
		return fmt.Errorf("%w: %s", errRefused, rest)
	}
	if kind != '*' {
		return errNotRESP
	}
	name, err := h.r.short()
	if err != nil {
		return err
	}
	switch string(name) {
	case "pmessage":
		return h.hand()
	case "psubscribe":
		if _, err := h.r.short(); err != nil {
			return err
		}
		if _, _, err := h.r.line(); err != nil {
			return err
		}
		if h.confirmed++; h.confirmed == h.wanted {
			h.ready()
		}
		return nil
	case "pong":
		_, err := h.r.short()
		return err
	}
	return fmt.Errorf("%w: %.40q", errUnrequested, name)
}

func (h *hearing) hand() error {
	p, err := h.r.short()
	if err != nil {
		return err
	}
	pattern := string(p)
	channel, err := h.r.bulk()
	if err != nil {
		return err
	}
	payload, err := h.r.upTo(h.max)
	if err != nil {
		return err
	}
	if h.confirmed < h.wanted {
		return nil // not all is heard yet: as if it had come before
	}
	h.message(pattern, string(channel), payload)
	return nil
}
