package transport

import (
	"context"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/protocol"
)

// publishWithin bounds how long a publisher waits for the log.
const publishWithin = 4500 * time.Millisecond

// publish puts one event, or a batch, into the log: all or none.
func (s *Server) publish(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	ids, n, err := s.publishAll(w, r)
	s.metrics.publish("http", n, err, time.Since(began))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeBody(w, http.StatusCreated, published(ids, about(r).trace))
}

// published is the answer to a publish, in the envelope. What it holds needs no
// escapes.
func published(cursors []protocol.Cursor, trace string) []byte {
	b := append(make([]byte, 0, 128+32*len(cursors)), `{"data":{"ids":[`...)
	for i, c := range cursors {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(c.Append(append(b, '"')), '"')
	}
	b = append(append(b, `]},"error":null,"meta":{"trace_id":"`...), trace...)
	return append(b, `"}}`...)
}

func (s *Server) publishAll(w http.ResponseWriter, r *http.Request) (ids []protocol.Cursor, n int, err error) {
	id, err := s.identify(r)
	if err != nil {
		return nil, 0, err
	}
	parse, err := parserOf(r)
	if err != nil {
		return nil, 0, err
	}
	body, err := s.readBody(w, r)
	if err != nil {
		return nil, 0, bodyError(err)
	}
	events, bad := parse(body, s.limits.EventBytes)
	if bad != nil {
		return nil, 0, bad
	}
	if err := mayPublish(id, events); err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), publishWithin)
	defer cancel()
	ids, err = s.opts.Hub.Publish(ctx, id.Tenant, events)
	return ids, len(events), err
}

// readBody reads a body of at most the limit, with one buffer where its length is
// known.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	in := http.MaxBytesReader(w, r.Body, int64(s.limits.BodyBytes))
	if r.ContentLength <= 0 || r.ContentLength > int64(s.limits.BodyBytes) {
		return io.ReadAll(in)
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(in, body)
	return body, err
}

type parser func(body []byte, maxData int) ([]protocol.Publication, *protocol.Error)

// parserOf chooses the format by the media type; one that is not given is JSON.
func parserOf(r *http.Request) (parser, error) {
	given := r.Header.Get("Content-Type")
	if given == "" || given == "application/json" {
		return protocol.ParsePublish, nil
	}
	media, _, err := mime.ParseMediaType(given)
	if err != nil {
		return nil, protocol.Errorf(protocol.BadRequest, protocol.InHeaders, "Content-Type", protocol.Malformed, "Content-Type is not a media type")
	}
	switch media {
	case "application/json":
		return protocol.ParsePublish, nil
	case "application/cloudevents+json":
		return protocol.ParseCloudEvent, nil
	case "application/cloudevents-batch+json":
		return protocol.ParseCloudEvents, nil
	}
	return nil, protocol.Errorf(protocol.BadRequest, protocol.InHeaders, "Content-Type", protocol.NotSupported,
		"Content-Type is none of application/json, application/cloudevents+json, application/cloudevents-batch+json")
}

// bodyError: what goes wrong with reading a body is its size, or the client's doing.
func bodyError(err error) error {
	if _, ok := err.(*http.MaxBytesError); ok {
		return err
	}
	return protocol.Errorf(protocol.BadRequest, protocol.InBody, "body", protocol.Malformed, "the body did not arrive whole")
}

func mayPublish(id *auth.Identity, events []protocol.Publication) error {
	for i := range events {
		if id.MayPublish(events[i].Topic) {
			continue
		}
		return protocol.Errorf(protocol.Forbidden, protocol.InBody, events[i].TopicField(), protocol.IsForbidden, "the token does not grant publishing to %s", events[i].Topic)
	}
	return nil
}
