package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/pushhub/pushhub/protocol"
)

type publishCommand struct {
	clientFlags `embed:""`
	Topic       string  `arg:"" help:"Topic to publish to."`
	Data        *string `arg:"" optional:"" name:"json" help:"Data of the event, JSON. Without it each line of standard input is one event's data."`
	Type        string  `default:"event.v1" help:"Type of the event."`
	Key         string  `placeholder:"TEXT" help:"Conflation key."`
	Final       bool    `help:"The event is never superseded."`
	Dedupe      string  `placeholder:"ID" help:"Own id of the event: published again it is not delivered twice."`
	Source      string  `placeholder:"NAME" help:"Who sends it."`
}

// publication is an event as POST /api/v1/events takes it.
type publication struct {
	Topic  string          `json:"topic"`
	Type   string          `json:"type"`
	Data   json.RawMessage `json:"data"`
	Source string          `json:"source,omitempty"`
	Key    string          `json:"key,omitempty"`
	Final  bool            `json:"final,omitempty"`
	Dedupe string          `json:"dedupe,omitempty"`
}

// maxBatchBytes keeps a batch well below MAX_BODY_BYTES, if that is the default.
const maxBatchBytes = 512 << 10

// Run publishes, and prints the id of each event.
func (c *publishCommand) Run(ctx context.Context, p process) error {
	if err := protocol.CheckTopic(c.Topic); err != nil {
		return err
	}
	hub, err := c.client()
	if err != nil {
		return err
	}
	defer hub.close()
	if c.Data != nil {
		one, err := c.publication([]byte(*c.Data))
		if err != nil {
			return err
		}
		return post(ctx, hub, p.stdout, []publication{one})
	}
	if c.Dedupe != "" {
		return errors.New("--dedupe: it names one event, and standard input holds many")
	}
	return c.publishLines(ctx, hub, p)
}

func (c *publishCommand) publication(data []byte) (publication, error) {
	compact, ok := protocol.Compact(data)
	if !ok {
		return publication{}, errors.New("the data is not one JSON value in UTF-8")
	}
	return publication{c.Topic, c.Type, compact, c.Source, c.Key, c.Final, c.Dedupe}, nil
}

// publishLines publishes standard input, as many lines in one request as are
// there when it begins. It stops at the first line that fails.
func (c *publishCommand) publishLines(ctx context.Context, hub *client, p process) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The goroutine ends with the input or, while nobody wants a line, with ctx.
	// Blocked in a read it ends with the process.
	lines := make(chan line, protocol.MaxBatch)
	go readLines(ctx, p.stdin, lines)
	for number := 0; ; {
		batch, err := c.gather(ctx, lines, &number)
		if len(batch) > 0 {
			if err := post(ctx, hub, p.stdout, batch); err != nil {
				return fmt.Errorf("up to line %d: %w", number, err)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// gather waits for a line, and takes what else is there, as much as goes into
// one request. An error, io.EOF at the end, is about what comes after the batch.
func (c *publishCommand) gather(ctx context.Context, lines <-chan line, number *int) (batch []publication, err error) {
	for size := 0; len(batch) < protocol.MaxBatch && size < maxBatchBytes; {
		l, err := next(ctx, lines, len(batch) == 0)
		if errors.Is(err, errIdle) {
			return batch, nil
		}
		if err != nil {
			return batch, err
		}
		*number++
		if len(bytes.TrimSpace(l.text)) == 0 {
			continue
		}
		one, err := c.publication(l.text)
		if err != nil {
			return batch, fmt.Errorf("line %d: %w", *number, err)
		}
		batch = append(batch, one)
		size += len(one.Data)
	}
	return batch, nil
}

var errIdle = errors.New("no line is there")

// next gives a line, or io.EOF. Unless it is to wait it gives errIdle when there
// is none now.
func next(ctx context.Context, lines <-chan line, wait bool) (line, error) {
	if !wait && len(lines) == 0 {
		return line{}, errIdle
	}
	select {
	case l, ok := <-lines:
		if !ok {
			return line{}, io.EOF
		}
		return l, l.err
	case <-ctx.Done():
		return line{}, ctx.Err()
	}
}

type line struct {
	text []byte
	err  error // of reading: nothing comes after it
}

// readLines sends the lines of r, and closes the channel after the last.
func readLines(ctx context.Context, r io.Reader, lines chan<- line) {
	defer close(lines)
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 16<<20)
	send := func(l line) bool {
		select {
		case lines <- l:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for scanner.Scan() {
		if !send(line{text: bytes.Clone(scanner.Bytes())}) {
			return
		}
	}
	if err := scanner.Err(); err != nil {
		send(line{err: fmt.Errorf("standard input: %w", err)})
	}
}

// post publishes a batch and prints the ids.
func post(ctx context.Context, hub *client, w io.Writer, batch []publication) error {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false) // data is published to the byte
	if err := encoder.Encode(map[string][]publication{"events": batch}); err != nil {
		return err
	}
	header := http.Header{"Content-Type": {"application/json"}}
	answer, err := hub.do(ctx, http.MethodPost, "/api/v1/events", nil, header, body.Bytes())
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		return refused(answer)
	}
	var envelope struct {
		Data struct {
			IDs []string `json:"ids"`
		} `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(&envelope); err != nil {
		return fmt.Errorf("the hub's answer: %w", err)
	}
	out := bufio.NewWriter(w)
	for _, id := range envelope.Data.IDs {
		fmt.Fprintln(out, id)
	}
	return out.Flush()
}
