package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/pushhub/pushhub/protocol"
)

type tailCommand struct {
	clientFlags `embed:""`
	Patterns    []string `arg:"" help:"Topics and patterns to follow, such as alerts or jobs.>"`
	Since       string   `placeholder:"CURSOR" help:"Begin after this cursor."`
	Last        *int     `placeholder:"N" help:"Begin with the newest N retained events of each topic."`
}

const (
	firstWait = time.Second      // before a new attempt, unless the hub says otherwise
	maxWait   = 30 * time.Second // the longest
)

// Run follows until ctx ends, the hub refuses, or nothing more can come.
func (c *tailCommand) Run(ctx context.Context, p process) error {
	for _, pattern := range c.Patterns {
		if err := protocol.CheckPattern(pattern); err != nil {
			return err
		}
	}
	hub, err := c.client()
	if err != nil {
		return err
	}
	defer hub.close()
	query := url.Values{"topics": {strings.Join(c.Patterns, ",")}}
	if c.Since != "" {
		query.Set("since", c.Since)
	}
	if c.Last != nil {
		query.Set("last", strconv.Itoa(*c.Last))
	}
	t := &tail{hub: hub, query: query, out: p.stdout, notes: p.stderr, retry: firstWait}
	err = t.run(ctx)
	if ctx.Err() != nil {
		return nil // it was told to stop
	}
	return err
}

// tail is one client that follows topics over any number of connections. It is
// used by one goroutine.
type tail struct {
	hub        *client
	query      url.Values
	out, notes io.Writer

	lastID string        // where to resume; "" before anything is known
	retry  time.Duration // how long the hub wants us to wait
	failed int           // attempts in a row that gave no stream
}

// errOver says that nothing more can come.
var errOver = errors.New("the stream is over")

// run connects again and again. Its error is one that no new attempt can mend.
func (t *tail) run(ctx context.Context) error {
	for {
		err := t.follow(ctx)
		var no *refusal
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errOver):
			return nil
		case errors.As(err, new(writeError)):
			return err
		case errors.As(err, &no) && no.status < 500 && no.status != http.StatusTooManyRequests:
			return err
		}
		wait := t.wait()
		t.note("%v: connecting again in %v", err, wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wait gives the pause before the next attempt: what the hub said, which spreads
// its clients by itself; doubled with each attempt that failed.
func (t *tail) wait() time.Duration {
	if t.failed == 0 {
		return t.retry
	}
	wait := max(t.retry, firstWait) << min(t.failed-1, 5)
	return min(wait, maxWait) * time.Duration(75+rand.IntN(50)) / 100
}

// follow takes one connection from its beginning to its end. It never gives nil.
func (t *tail) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	header := http.Header{"Accept": {"text/event-stream"}}
	if t.lastID != "" {
		header.Set("Last-Event-ID", t.lastID)
	}
	t.failed++
	// A hub that does not begin to answer is given up like one that went silent.
	quiet := time.AfterFunc(maxWait, func() { cancel(errSilent) })
	defer quiet.Stop()
	answer, err := t.hub.do(ctx, http.MethodGet, "/api/v1/stream", t.query, header, nil)
	if err != nil {
		return cause(ctx, err)
	}
	defer answer.Body.Close()
	switch {
	case answer.StatusCode == http.StatusNoContent:
		return errOver
	case answer.StatusCode != http.StatusOK:
		return refused(answer)
	}
	err = t.read(answer.Body, quiet)
	return cause(ctx, err)
}

var errSilent = errors.New("the hub went silent")

// cause gives the reason for which follow has ended ctx itself, else err.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// read prints a stream until it ends.
func (t *tail) read(body io.Reader, quiet *time.Timer) error {
	s, patience := newStream(body), maxWait
	s.lastID = t.lastID
	for {
		b, err := s.next()
		t.lastID = s.lastID
		if s.retry > 0 {
			t.retry = s.retry
		}
		if errors.Is(err, io.EOF) {
			err = errors.New("the connection was closed")
		}
		if err != nil {
			return err
		}
		if b.name == protocol.ControlName {
			heartbeat, err := t.control(b.data)
			if err != nil {
				return err
			}
			if heartbeat > 0 {
				patience = 3 * heartbeat
			}
		} else if err := t.print(b.data); err != nil {
			return err
		}
		quiet.Reset(patience)
	}
}

// writeError wraps errors of standard output: to go on would lose events.
type writeError struct{ error }

func (t *tail) print(event []byte) error {
	if _, err := t.out.Write(append(bytes.Clone(event), '\n')); err != nil {
		return writeError{err}
	}
	return nil
}

// control takes in a message that is no event. It gives the interval of the
// hub's heartbeats where the message says it.
func (t *tail) control(data []byte) (heartbeat time.Duration, err error) {
	var m struct {
		Op        string
		Topic     string
		Since     string
		Code      protocol.CloseCode
		Reason    string
		Retry     int64 // ms
		Heartbeat int64 // s
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return 0, fmt.Errorf("a control message: %w", err)
	}
	switch m.Op {
	case "welcome":
		return time.Duration(m.Heartbeat) * time.Second, nil
	case "subscribed":
		t.failed = 0
	case "gap":
		t.note("gap: events of %s after %s are gone (%s)", m.Topic, m.Since, m.Reason)
	case "expiring":
		t.note("the token expires within a minute")
	case "bye":
		if m.Retry > 0 {
			t.retry = time.Duration(m.Retry) * time.Millisecond
		}
		text := fmt.Sprintf("the hub said bye: %s (%d)", m.Reason, m.Code)
		if m.Code == protocol.CloseUnauthorized || m.Code == protocol.CloseForbidden {
			return 0, &refusal{http.StatusForbidden, text} // the next answer would say so
		}
		return 0, errors.New(text)
	}
	return 0, nil
}

func (t *tail) note(format string, args ...any) {
	fmt.Fprintf(t.notes, "pushhub: "+format+"\n", args...)
}
