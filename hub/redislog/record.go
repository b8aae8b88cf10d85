package redislog

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"github.com/pushhub/pushhub/protocol"
)

// errRecord is what decode gives for anything but a record.
var errRecord = errors.New("not a record of an event")

// decode reads a record (see the package doc; lua/prelude.lua writes it). The
// event keeps rec: its JSON is the part of it after the first line, the names are
// parts of one copy of that line.
func decode(rec []byte) (*protocol.Event, error) {
	before, after, ok := bytes.Cut(rec, []byte{'\n'})
	if !ok {
		return nil, errRecord
	}
	head, json := string(before), after

	version, head, _ := strings.Cut(head, "\t")
	cursor, head, _ := strings.Cut(head, "\t")
	prev, head, _ := strings.Cut(head, "\t")
	at, head, _ := strings.Cut(head, "\t")
	final, head, _ := strings.Cut(head, "\t")
	topic, head, _ := strings.Cut(head, "\t")
	typ, key, whole := strings.Cut(head, "\t")

	if version != "1" || !whole || topic == "" || final != "0" && final != "1" {
		return nil, errRecord
	}
	e := &protocol.Event{Topic: topic, Type: typ, Key: key, Final: final == "1", JSON: json}
	var err error
	if e.Cursor, err = protocol.ParseCursor(cursor); err != nil || e.Cursor.Seq == 0 {
		return nil, errRecord
	}
	if e.Prev, err = strconv.ParseUint(prev, 10, 64); err != nil || e.Prev >= e.Cursor.Seq {
		return nil, errRecord
	}
	if e.At, err = strconv.ParseInt(at, 10, 64); err != nil {
		return nil, errRecord
	}
	if !hasID(json, cursor) {
		return nil, errRecord
	}
	return e, nil
}

// hasID says whether json is an object that begins with this id.
func hasID(json []byte, id string) bool {
	const open = `{"id":"`
	return len(json) > len(open)+len(id)+2 &&
		string(json[:len(open)]) == open &&
		string(json[len(open):len(open)+len(id)]) == id &&
		json[len(open)+len(id)] == '"' &&
		json[len(json)-1] == '}'
}

// appendHead appends the part of a record's first line that the publisher gives.
func appendHead(b []byte, p *protocol.Publication) []byte {
	final := byte('0')
	if p.Final {
		final = '1'
	}
	b = append(b, final, '\t')
	b = append(b, p.Topic...)
	b = append(b, '\t')
	b = append(b, p.Type...)
	b = append(b, '\t')
	return append(b, p.Key...)
}
