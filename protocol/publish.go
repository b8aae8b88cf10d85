package protocol

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// MaxBatch bounds the events of one publish.
const MaxBatch = 1000

// ParsePublish reads the body of POST /api/v1/events: one event, or
// {"events":[…]} with 1 to MaxBatch. maxData bounds the data of each, in bytes
// after compaction. Nothing is given unless all of it is right; the details of
// the error name the field, in a batch as events[3].topic.
func ParsePublish(body []byte, maxData int) ([]Publication, *Error) {
	o, ok := ParseObject(body)
	if !ok {
		return nil, inBody("body", Malformed, "the body is not one JSON object in UTF-8")
	}
	raw := o.Get("events")
	if raw == nil {
		p, err := o.publication("", maxData)
		if err != nil {
			return nil, err
		}
		return []Publication{p}, nil
	}
	return parseBatch(raw, maxData, Object.publication)
}

// parseBatch reads an array of events, each with one.
func parseBatch(raw []byte, maxData int, one func(Object, string, int) (Publication, *Error)) ([]Publication, *Error) {
	list, ok := ParseArray(raw)
	if !ok {
		return nil, inBody("events", Malformed, "events is not an array")
	}
	if len(list) == 0 {
		return nil, inBody("events", Required, "events is empty")
	}
	if len(list) > MaxBatch {
		return nil, inBody("events", Invalid, "events has more than %d entries", MaxBatch)
	}
	all := make([]Publication, len(list))
	for i, raw := range list {
		at := "events[" + strconv.Itoa(i) + "]"
		o, ok := ParseObject(raw)
		if !ok {
			return nil, inBody(at, Malformed, "%s is not an object", at)
		}
		p, err := one(o, at+".", maxData)
		if err != nil {
			return nil, err
		}
		all[i] = p
	}
	return all, nil
}

func inBody(field string, reason Reason, format string, args ...any) *Error {
	return Errorf(BadRequest, InBody, field, reason, format, args...)
}

// publication reads one event; at is the prefix of its fields in errors.
func (o Object) publication(at string, maxData int) (Publication, *Error) {
	var p Publication
	var err *Error
	p.field = at + "topic"
	if p.Topic, err = o.topic(at, "topic"); err != nil {
		return p, err
	}
	if p.Type, err = o.label(at, "type", true); err != nil {
		return p, err
	}
	if p.Time, err = o.time(at); err != nil {
		return p, err
	}
	if p.Source, err = o.label(at, "source", false); err != nil {
		return p, err
	}
	if p.Key, err = o.label(at, "key", false); err != nil {
		return p, err
	}
	if p.Dedupe, err = o.label(at, "dedupe", false); err != nil {
		return p, err
	}
	if raw := o.Get("final"); !isNull(raw) && json.Unmarshal(raw, &p.Final) != nil {
		return p, inBody(at+"final", Malformed, "%sfinal is not a boolean", at)
	}
	if o.Get("data") == nil {
		return p, inBody(at+"data", Required, "%sdata is missing", at)
	}
	p.Data, err = o.data(at, maxData)
	return p, err
}

func (o Object) topic(at, name string) (string, *Error) {
	s, found, ok := o.Text(name)
	if !found {
		return "", inBody(at+name, Required, "%s%s is missing", at, name)
	}
	if !ok {
		return "", inBody(at+name, Malformed, "%s%s is not a string", at, name)
	}
	if err := CheckTopic(s); err != nil {
		return "", inBody(at+name, Malformed, "%s%s: %v", at, name, err)
	}
	return s, nil
}

func (o Object) label(at, name string, required bool) (string, *Error) {
	s, found, ok := o.Text(name)
	if !found {
		if required {
			return "", inBody(at+name, Required, "%s%s is missing", at, name)
		}
		return "", nil
	}
	if !ok || !CheckLabel(s) {
		return "", inBody(at+name, Malformed, "%s%s is not a string of 1 to %d bytes without control characters", at, name, MaxLabelBytes)
	}
	return s, nil
}

func (o Object) time(at string) (string, *Error) {
	s, found, ok := o.Text("time")
	if !found {
		return "", nil
	}
	if !ok || !CheckTime(s) {
		return "", inBody(at+"time", Malformed, "%stime is not a time as in RFC 3339, with a zone", at)
	}
	return s, nil
}

// MaxTimeBytes bounds the time of an event: RFC 3339 allows any number of digits
// of a second.
const MaxTimeBytes = 64

// CheckTime says whether s is a time as in RFC 3339, with a zone, of at most
// MaxTimeBytes. Go's own reading would also take an hour of one digit, a comma
// before the fraction, and a zone of 24 hours.
func CheckTime(s string) bool {
	if _, err := time.Parse(time.RFC3339Nano, s); err != nil || len(s) > MaxTimeBytes {
		return false
	}
	zone := s[max(0, len(s)-len("+00:00")):]
	return s[len("2006-01-02T15")] == ':' && !strings.Contains(s, ",") &&
		(s[len(s)-1] == 'Z' || zone[1:3] <= "23" && zone[4:] <= "59")
}

func (o Object) data(at string, maxData int) ([]byte, *Error) {
	data, ok := Compact(o.Get("data"))
	if !ok {
		return nil, inBody(at+"data", Invalid, "%sdata is nested more than %d deep", at, maxDepth)
	}
	if len(data) > maxData {
		return nil, Errorf(PayloadTooLarge, InBody, at+"data", Invalid, "%sdata is larger than %d bytes", at, maxData)
	}
	return data, nil
}

// ParseCloudEvent reads one CloudEvent 1.0 in its JSON format: subject is the
// topic, source + space + id the dedupe. Data must be JSON.
func ParseCloudEvent(body []byte, maxData int) ([]Publication, *Error) {
	o, ok := ParseObject(body)
	if !ok {
		return nil, inBody("body", Malformed, "the body is not one JSON object in UTF-8")
	}
	p, err := o.cloudEvent("", maxData)
	if err != nil {
		return nil, err
	}
	return []Publication{p}, nil
}

// ParseCloudEvents reads the batch format of CloudEvents 1.0: an array.
func ParseCloudEvents(body []byte, maxData int) ([]Publication, *Error) {
	return parseBatch(body, maxData, Object.cloudEvent)
}

func (o Object) cloudEvent(at string, maxData int) (Publication, *Error) {
	var p Publication
	version, err := o.label(at, "specversion", true)
	if err != nil {
		return p, err
	}
	if version != "1.0" {
		return p, inBody(at+"specversion", NotSupported, "%sspecversion is not 1.0", at)
	}
	id, err := o.label(at, "id", true)
	if err != nil {
		return p, err
	}
	if p.Source, err = o.label(at, "source", true); err != nil {
		return p, err
	}
	if p.Type, err = o.label(at, "type", true); err != nil {
		return p, err
	}
	p.field = at + "subject"
	if p.Topic, err = o.topic(at, "subject"); err != nil {
		return p, err
	}
	if p.Time, err = o.time(at); err != nil {
		return p, err
	}
	if p.Dedupe = p.Source + " " + id; !CheckLabel(p.Dedupe) {
		return p, inBody(at+"id", Invalid, "%ssource and id are longer than %d bytes together", at, MaxLabelBytes)
	}
	if kind, err := o.label(at, "datacontenttype", false); err != nil {
		return p, err
	} else if kind != "" && !isJSONType(kind) {
		return p, inBody(at+"datacontenttype", NotSupported, "%sdatacontenttype is not JSON", at)
	}
	if !isNull(o.Get("data_base64")) {
		return p, inBody(at+"data_base64", NotSupported, "%sdata must be JSON", at)
	}
	if o.Get("data") == nil {
		p.Data = []byte("null")
		return p, nil
	}
	p.Data, err = o.data(at, maxData)
	return p, err
}
