package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/protocol"
)

const defaultURL = "http://localhost:5080"

// clientFlags say which hub a client command talks to, and as whom.
type clientFlags struct {
	URL    string `setting:"PUSHHUB_URL" name:"url" default:"${url}" help:"Address of the hub."`
	Token  string `setting:"PUSHHUB_TOKEN" placeholder:"JWT" help:"Token, as pushhub token signs them."`
	Tenant string `placeholder:"ID" help:"Tenant, where the token is good for several."`
}

// client speaks to a hub over HTTP.
type client struct {
	base   *url.URL
	token  string
	tenant string
	http   *http.Client
}

// client gives a client. It must be closed.
func (f clientFlags) client() (*client, error) {
	base, err := url.Parse(f.URL)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, wrong("PUSHHUB_URL", "%q is not an http or https address", f.URL)
	}
	if f.Token == "" {
		return nil, wrong("PUSHHUB_TOKEN", "a token is required: set it, or give --token")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	return &client{base: base, token: f.Token, tenant: f.Tenant, http: &http.Client{Transport: transport}}, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// do sends a request. The caller closes the body of the answer.
func (c *client) do(ctx context.Context, method, path string, query url.Values, header http.Header, body []byte) (*http.Response, error) {
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if header != nil {
		r.Header = header
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("User-Agent", "pushhub/"+buildName())
	if c.tenant != "" {
		r.Header.Set(auth.TenantHeader, c.tenant)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		// Its text would begin with the method and the whole URL.
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return nil, fmt.Errorf("%s: %w", c.base, err)
	}
	return answer, nil
}

// maxAnswer bounds what is read of an answer that is no stream: a thousand ids
// and an envelope are far below.
const maxAnswer = 1 << 20

// refusal is an answer of the hub that says no.
type refusal struct {
	status int
	text   string
}

func (e *refusal) Error() string { return e.text }

// refused reads the error out of an answer.
func refused(answer *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s: %w", answer.Status, err)
	}
	var envelope struct {
		Error *protocol.Error `json:"error"`
	}
	if json.Unmarshal(body, &envelope) != nil || envelope.Error == nil {
		return &refusal{answer.StatusCode, answer.Status + ": the answer is not that of a hub"}
	}
	e := envelope.Error
	text := fmt.Sprintf("%s: %s", e.Code, e.Message)
	var details []string
	for field, reason := range e.Details {
		details = append(details, field+" "+string(reason))
	}
	if details != nil {
		text += " (" + strings.Join(details, ", ") + ")"
	}
	return &refusal{answer.StatusCode, text}
}
