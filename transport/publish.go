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
	s.answer(w, r, http.StatusCreated, struct {
		IDs []string `json:"ids"`
	}{ids}, meta{})
}

func (s *Server) publishAll(w http.ResponseWriter, r *http.Request) (ids []string, n int, err error) {
	id, err := s.identify(r)
	if err != nil {
		return nil, 0, err
	}
	parse, err := parserOf(r)
	if err != nil {
		return nil, 0, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.limits.BodyBytes)))
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
	cursors, err := s.opts.Hub.Publish(ctx, id.Tenant, events)
	if err != nil {
		return nil, len(events), err
	}
	ids = make([]string, len(cursors))
	for i, c := range cursors {
		ids[i] = c.String()
	}
	return ids, len(events), nil
}

type parser func(body []byte, maxData int) ([]protocol.Publication, *protocol.Error)

// parserOf chooses the format by the media type; one that is not given is JSON.
func parserOf(r *http.Request) (parser, error) {
	given := r.Header.Get("Content-Type")
	if given == "" {
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
