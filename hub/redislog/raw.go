package redislog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Ear is what Hear tells. One goroutine calls it.
type Ear interface {
	// Begins is called just before the subscription. With that, at one and the same
	// place among the messages, a mark is set and the Claim made that it gives: before it,
	// where Redis allows no transactions.
	Begins() Claim
	// Unmarked: where it allows none messages come from now on, but Message is called
	// only after the next mark, which somebody has to ask for.
	Unmarked()
	// Marked: a mark came, µs since 1970, about, by the clock of Redis.
	Marked(mark int64)
	// Message is one message. The payload is the callee's to keep; nil stands for
	// one that is too large.
	Message(name RawName, channel string, payload []byte)
}

// Hear subscribes to channel patterns of Redis, as PSUBSCRIBE has them, on a
// connection of its own, and tells ear of each message, in the order in which
// Redis sent them, from the first mark on: see Lease, which sets them. Payloads
// have at most max bytes. It returns, always with an error, when the connection
// has ended or has come to be of another server than the marks: messages may be
// missing from then on. A connection that lives but brings nothing it does not
// notice: who asks for marks and hears none ends ctx.
func (l *Log) Hear(ctx context.Context, patterns []string, max int, ear Ear) error {
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
	h := hearing{r: newReader(nc), max: max, patterns: len(patterns), ear: ear, counts: map[string]int64{}}
	err = h.begin(ctx, at, nc, patterns, l.live.pace.answer)
	for err == nil {
		err = h.read()
	}
	if errors.Is(err, errElsewhere) {
		l.servers.mapIsOld()
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return err
}

// errElsewhere: the marks come by way of the bus of the Cluster, which keeps no
// order with what others send.
var errElsewhere = errors.New("raw connection: " + leaseKey + " is on another server now")

// errAnew: Redis has lost the last mark, and names begin anew.
var errAnew = errors.New("raw connection: the marks of " + leaseKey + " began anew")

// hearing is one raw connection. It is owned by the goroutine of Hear.
type hearing struct {
	// fixed after begin
	r        *reader
	max      int
	patterns int
	ear      Ear
	server   string // run_id; "" if it does not say

	confirmed int
	unmarked  bool             // see Ear
	claimed   bool             // a Standing is yet to come
	mark      int64            // the last; 0: none came yet
	counts    map[string]int64 // pattern → messages since the mark
}

func (h *hearing) begin(ctx context.Context, at endpoint, nc net.Conn, patterns []string, within time.Duration) error {
	if err := handshake(ctx, at, nc, h.r, "pushhub-ingest", within); err != nil {
		return err
	}
	if err := nc.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := nc.Write(appendCommand(nil, "INFO", "server")); err != nil {
		return err
	}
	if err := h.identify(); err != nil {
		return err
	}
	if err := h.subscribe(nc, patterns); err != nil {
		return err
	}
	return nc.SetDeadline(time.Time{})
}

// subscribe subscribes, has a mark set, and makes the ear's Claim, in one transaction: so
// all that is heard has a name, and all others are told from where on. Were the mark to
// come later, what is published before it would be heard by this one in vain, and by
// nobody if all have just lost their connections. Where Redis cannot set one, because it
// is loading, full or a replica, it is not listened to: PUBLISH should say so. Only where
// transactions are forbidden the mark is left to whoever sets the next.
func (h *hearing) subscribe(nc net.Conn, patterns []string) error {
	var request []byte
	for _, p := range patterns {
		request = appendCommand(request, "PSUBSCRIBE", p) // each with an answer of its own
	}
	request = appendCommand(request, "SUBSCRIBE", leaseKey)
	if _, err := nc.Write(appendCommand(nil, "MULTI")); err != nil {
		return err
	}
	kind, _, err := h.r.line()
	if err != nil {
		return err
	}
	claim := h.ear.Begins()
	claim.Mark = 0
	mark := append([]string{"EVAL", leaseScript.text, "1", leaseKey}, claim.args()...)
	if kind == '-' {
		h.unmarked, h.claimed = true, true
		_, err = nc.Write(append(appendCommand(nil, mark...), request...))
		return err
	}
	if _, err := nc.Write(appendCommand(appendCommand(request, mark...), "EXEC")); err != nil {
		return err
	}
	for range len(patterns) + 3 { // those, the channel, the script, and the header of what EXEC answers
		kind, rest, err := h.r.line()
		switch {
		case err != nil:
			return err
		case bytes.HasPrefix(rest, []byte("MOVED ")):
			return errElsewhere
		case kind == '-':
			return fmt.Errorf("%w: %s", errRefused, rest)
		}
	}
	h.claimed = true // what follows is as if they had been sent one by one
	return nil
}

// identify reads the answer to INFO server, which may be forbidden.
func (h *hearing) identify() error {
	next, err := h.r.buf.Peek(1)
	if err != nil {
		return err
	}
	if next[0] == '-' {
		_, _, err := h.r.line()
		return err
	}
	info, err := h.r.upTo(maxBulk)
	if err != nil {
		return err
	}
	if _, after, ok := strings.Cut(string(info), "\nrun_id:"); ok {
		h.server, _, _ = strings.Cut(after, "\r")
	}
	return nil
}

func (h *hearing) read() error {
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
	next, err := h.r.buf.Peek(1)
	if err != nil {
		return err
	}
	if next[0] == ':' && h.claimed {
		h.claimed = false
		return h.standing()
	}
	name, err := h.r.short()
	if err != nil {
		return err
	}
	switch string(name) {
	case "pmessage":
		return h.message()
	case "message":
		return h.marked()
	case "psubscribe", "subscribe":
		if _, err := h.r.short(); err != nil {
			return err
		}
		if _, _, err := h.r.line(); err != nil {
			return err
		}
		if h.confirmed++; h.confirmed == h.patterns+1 && h.unmarked {
			h.ear.Unmarked()
		}
		return nil
	}
	return fmt.Errorf("%w: %.40q", errUnrequested, name)
}

// standing reads the answer to the Claim, of which nothing is wanted: it is asked again
// when the mark has come.
func (h *hearing) standing() error {
	for range 3 {
		if kind, _, err := h.r.line(); err != nil || kind != ':' {
			return cmp.Or(err, errNotRESP)
		}
	}
	return nil
}

func (h *hearing) message() error {
	p, err := h.r.short()
	if err != nil {
		return err
	}
	pattern := string(p)
	channel, err := h.r.upTo(maxShort)
	if err != nil {
		return err
	}
	payload, err := h.r.upTo(h.max)
	if err != nil {
		return err
	}
	if h.mark == 0 {
		return nil // it has no name: as if it had come before
	}
	h.counts[pattern]++
	h.ear.Message(RawName{Mark: h.mark, Pattern: pattern, N: h.counts[pattern]}, string(channel), payload)
	return nil
}

// marked reads a mark: a number and the run_id of its server.
func (h *hearing) marked() error {
	if _, err := h.r.short(); err != nil {
		return err
	}
	text, err := h.r.short()
	if err != nil {
		return err
	}
	number, server, _ := bytes.Cut(text, []byte(" "))
	mark, err := strconv.ParseInt(string(number), 10, 64)
	if err == nil && mark < h.mark && string(server) == h.server && h.server != "" {
		return errAnew
	}
	if err != nil || mark <= h.mark {
		return nil // somebody else said it
	}
	if h.confirmed <= h.patterns {
		return nil // some patterns may not have been heard at this place
	}
	if len(server) > 0 && h.server != "" && string(server) != h.server {
		return errElsewhere
	}
	h.mark = mark
	clear(h.counts)
	h.ear.Marked(mark)
	return nil
}
