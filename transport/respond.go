package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// meta is the third member of every JSON answer.
type meta struct {
	TraceID string   `json:"trace_id"`
	Next    string   `json:"next,omitempty"`
	Gaps    []string `json:"gaps,omitempty"`
}

// answer sends data in the envelope. m gets its trace id here.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, status int, data any, m meta) {
	m.TraceID = about(r).trace
	writeJSON(w, status, struct {
		Data  any             `json:"data"`
		Error *protocol.Error `json:"error"`
		Meta  meta            `json:"meta"`
	}{data, nil, m})
}

// fail sends an error in the envelope, with the status that fits it.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := s.public(err, about(r))
	if e.Code == protocol.TooManyRequests && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", strconv.Itoa(10))
	}
	if e.Code == protocol.Unauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeJSON(w, e.Code.Status(), struct {
		Data  any             `json:"data"`
		Error *protocol.Error `json:"error"`
		Meta  meta            `json:"meta"`
	}{nil, e, meta{TraceID: e.TraceID}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // of our own making, all of it
	}
	writeBody(w, status, bytes.TrimSuffix(b.Bytes(), []byte{'\n'}))
}

// writeBody answers with JSON.
func writeBody(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone, or not
}

// public turns any error into the one that a client may see: the one table of
// the project. What is internal is logged here and nowhere else.
func (s *Server) public(err error, info *requestInfo) *protocol.Error {
	var e *protocol.Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		public := *e
		e = &public
	case errors.As(err, &tooLarge):
		e = protocol.Errorf(protocol.PayloadTooLarge, protocol.InBody, "body", protocol.Invalid, "the body is larger than %d bytes", tooLarge.Limit)
	case errors.Is(err, hub.ErrTooMany):
		e = protocol.Errorf(protocol.BadRequest, protocol.InMessage, "topics", protocol.Invalid, "a connection can have %d subscriptions", s.limits.Topics)
	case errors.Is(err, hub.ErrUnknown), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled): // the last: the client has gone
		e = protocol.Errorf(protocol.Unavailable, protocol.InInternal, "events", protocol.TimedOut, "the log did not answer in time: the events may be in it or not; repeat with dedupe")
	case errors.Is(err, hub.ErrUnavailable):
		e = protocol.Errorf(protocol.Unavailable, protocol.InInternal, "", "", "the log cannot be reached; nothing was changed")
	default:
		s.opts.Logger.Error().Err(err).Str("request_id", info.id).Str("uri_path", info.path).Msg("request failed")
		e = protocol.Errorf(protocol.Internal, protocol.InInternal, "", "", "something went wrong here")
	}
	if e.Details == nil {
		e.Details = map[string]protocol.Reason{}
	}
	e.TraceID = info.trace
	return e
}
