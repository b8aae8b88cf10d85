package loadtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// A Peer describes how a server is spoken to. In its texts {topic} is the first
// topic of a client or that of an event, {topics} all of a client's, joined by
// commas, {number} the number of the first, {token} the token, {user} the user,
// {cursor} where to resume, empty for a new client, {key} the conflation key, and
// {data} the data of an event.
type Peer struct {
	Name      string       `json:"name"`
	WebSocket *Endpoint    `json:"websocket,omitempty"`
	SSE       *Endpoint    `json:"sse,omitempty"`
	Publish   *PublishForm `json:"publish,omitempty"`
	// Claims are those of the HS256 tokens, texts in them filled in; exp is added.
	Claims map[string]any `json:"claims,omitempty"`
	// PublisherClaims are those of publishers' tokens.
	PublisherClaims map[string]any `json:"publisher_claims,omitempty"`
	// Find is how an event's data begins in a message; `{"n":` unless given.
	Find string `json:"find,omitempty"`
	// Lines says that one message may hold several, one a line.
	Lines bool `json:"lines,omitempty"`
	// Echo is a message that is answered with itself (a ping of the application); over
	// SSE it is only skipped.
	Echo string `json:"echo,omitempty"`
	// Topics is how topics are named, {run} and {number} filled in; unless given,
	// what the scenario names.
	Topics string `json:"topics,omitempty"`
}

// An Endpoint is where clients of one transport connect.
type Endpoint struct {
	Path    string            `json:"path"` // with its query
	Headers map[string]string `json:"headers,omitempty"`
	Send    []string          `json:"send,omitempty"`  // WebSocket messages after the handshake
	Ready   string            `json:"ready,omitempty"` // part of the message that says "subscribed"; without it the handshake does
}

// A PublishForm is how an event is published over HTTP.
type PublishForm struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body"`
	Keyed   string            `json:"keyed,omitempty"` // the body with a conflation key
	Batch   [3]string         `json:"batch,omitempty"` // before, between and after the bodies of a batch
}

// Pushhub is the wire contract as a description.
func Pushhub() *Peer {
	bearer := map[string]string{"Authorization": "Bearer {token}"}
	return &Peer{
		Name: "pushhub",
		WebSocket: &Endpoint{
			Path:    "/api/v1/ws?topics={topics}&since={cursor}",
			Headers: map[string]string{"Authorization": "Bearer {token}", "Sec-WebSocket-Protocol": "pushhub.v1"},
			Ready:   `"op":"subscribed"`,
		},
		SSE: &Endpoint{
			Path:    "/api/v1/stream?topics={topics}&since={cursor}",
			Headers: bearer,
			Ready:   `"op":"subscribed"`,
		},
		Publish: &PublishForm{
			Method: "POST", Path: "/api/v1/events",
			Headers: map[string]string{"Authorization": "Bearer {token}", "Content-Type": "application/json"},
			Body:    `{"topic":"{topic}","type":"load.v1","data":{data}}`,
			Keyed:   `{"topic":"{topic}","type":"load.v1","key":"{key}","data":{data}}`,
			Batch:   [3]string{`{"events":[`, `,`, `]}`},
		},
		Claims:          map[string]any{"tenant_id": tenant, "user_id": "{user}"},
		PublisherClaims: map[string]any{"tenant_id": tenant, "user_id": "{user}", "service_name": "loadtest", "publish": []any{">"}},
	}
}

// tenant is the one that all clients of a run belong to.
const tenant = "loadtest"

// yardstick describes the servers of this package.
func yardstick(name string) *Peer {
	return &Peer{Name: name, Topics: "{number}", WebSocket: &Endpoint{Path: "/ws?topics={topics}"}, SSE: &Endpoint{Path: "/sse?topics={topics}"}}
}

// ReadPeer reads a description from a JSON file.
func ReadPeer(file string) (*Peer, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	p := &Peer{}
	if err := dec.Decode(p); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if p.WebSocket == nil && p.SSE == nil {
		return nil, fmt.Errorf("%s: %w", file, errors.New("neither websocket nor sse is described"))
	}
	return p, nil
}

// find is how data begins.
func (p *Peer) find() []byte {
	if p.Find != "" {
		return []byte(p.Find)
	}
	return []byte(findData)
}

// fill fills in the places of a text: name, value, name, value …
func fill(text string, places ...string) string {
	if !strings.Contains(text, "{") {
		return text
	}
	return strings.NewReplacer(places...).Replace(text)
}

// fillClaims fills in the texts of claims, at any depth.
func fillClaims(v any, places ...string) any {
	switch v := v.(type) {
	case string:
		return fill(v, places...)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = fillClaims(v[i], places...)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			out[k] = fillClaims(v[k], places...)
		}
		return out
	}
	return v
}
