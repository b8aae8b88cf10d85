package transport

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// feed answers a page of retained events: the same bytes as in the streams.
func (s *Server) feed(w http.ResponseWriter, r *http.Request) {
	tenant, q, err := s.feedQuery(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	page, err := s.opts.Hub.Feed(r.Context(), tenant, q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	events := make([]json.RawMessage, len(page.Events))
	for i, e := range page.Events {
		events[i] = e.JSON
	}
	s.answer(w, r, http.StatusOK, events, meta{Next: page.Next.String(), Gaps: page.Gaps})
}

func (s *Server) feedQuery(r *http.Request) (tenant string, fq hub.FeedQuery, err error) {
	id, err := s.identify(r)
	if err != nil {
		return "", fq, err
	}
	q, err := parseQuery(r)
	if err != nil {
		return "", fq, err
	}
	var want wish
	if want.patterns, err = q.topics(s.limits.Topics); err != nil {
		return "", fq, err
	}
	if len(want.patterns) == 0 {
		want.patterns = id.Readable()
	}
	if want.since, err = q.cursor("since"); err != nil {
		return "", fq, err
	}
	if want.last, err = q.number("last", 0, 0, protocol.MaxLast); err != nil {
		return "", fq, err
	}
	if !want.since.IsZero() && q.get("last") != "" {
		return "", fq, badQuery("last", protocol.IsConflict, "last and since cannot go together")
	}
	if fq.Limit, err = q.number("limit", 100, 1, 1000); err != nil {
		return "", fq, err
	}
	if fq.Wants, err = want.wants(id, protocol.InQuery); err != nil {
		return "", fq, err
	}
	fq.Keep, err = filter(q)
	return id.Tenant, fq, err
}

// filter makes the test that an event of the feed has to pass; nil for none.
func filter(q query) (func(*protocol.Event) bool, error) {
	kind, source := q.get("type"), q.get("source")
	if kind != "" && !protocol.CheckLabel(kind) {
		return nil, badQuery("type", protocol.Malformed, "type is not 1 to 128 bytes without control characters")
	}
	if source != "" && !protocol.CheckLabel(source) {
		return nil, badQuery("source", protocol.Malformed, "source is not 1 to 128 bytes without control characters")
	}
	from, err := q.time("from")
	if err != nil {
		return nil, err
	}
	to, err := q.time("to")
	if err != nil {
		return nil, err
	}
	if !from.IsZero() && !to.IsZero() && to.Before(from) {
		return nil, badQuery("to", protocol.Invalid, "to is before from")
	}
	if kind == "" && source == "" && from.IsZero() && to.IsZero() {
		return nil, nil
	}
	return func(e *protocol.Event) bool {
		if kind != "" && e.Type != kind {
			return false
		}
		if source == "" && from.IsZero() && to.IsZero() {
			return true
		}
		at, by := e.Meta()
		return (source == "" || by == source) && (from.IsZero() || !at.Before(from)) && (to.IsZero() || !at.After(to))
	}, nil
}

func (q query) time(name string) (time.Time, error) {
	v := q.get(name)
	if v == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		return t, badQuery(name, protocol.Malformed, "%s is not a time as in RFC 3339, with a zone", name)
	}
	return t, nil
}
