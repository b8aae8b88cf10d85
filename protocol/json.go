package protocol

import (
	"bytes"
	"encoding/json"
	"mime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Object is a JSON object with its members as they came, found by their exact
// names (encoding/json would fold their case). A name given twice counts last.
type Object []part

// ParseObject reads one JSON object that fills b, which has to be UTF-8. The Object
// holds on to b.
func ParseObject(b []byte) (Object, bool) {
	if !utf8.Valid(b) {
		return nil, false
	}
	return split(b, '{')
}

// ParseArray reads one JSON array that fills b, which has to be UTF-8, and gives its
// elements, parts of b.
func ParseArray(b []byte) ([][]byte, bool) {
	if !utf8.Valid(b) {
		return nil, false
	}
	parts, ok := split(b, '[')
	list := make([][]byte, len(parts))
	for i := range parts {
		list[i] = parts[i].value
	}
	return list, ok
}

// Get gives the JSON of a member, nil if there is none.
func (o Object) Get(name string) []byte {
	for _, m := range slices.Backward(o) {
		if string(m.name) == name {
			return m.value
		}
	}
	return nil
}

// Text reads a member that must be a string. found is false where it is absent
// or null, ok is false where it is of another type.
func (o Object) Text(name string) (s string, found, ok bool) {
	raw := o.Get(name)
	if isNull(raw) {
		return "", false, true
	}
	s, ok = ParseText(raw)
	return s, true, ok
}

func isNull(raw []byte) bool {
	return len(raw) == 0 || string(raw) == "null"
}

// maxDepth bounds how deep arrays and objects can lie in one another. Go reads
// 10,000, and an event is wrapped a few times before somebody reads it: what is
// taken in must come out again.
const maxDepth = 9000

// Compact gives one JSON value without the white space between its tokens, and
// otherwise to the byte: numbers, escapes, order and repetition of keys. It is
// false for what is no JSON or no UTF-8, or nested more than 9,000 deep.
func Compact(b []byte) ([]byte, bool) {
	s := scanner{b: b}
	if !utf8.Valid(b) || !s.whole() || s.deepest > maxDepth {
		return nil, false
	}
	if !s.spaced {
		return bytes.Clone(b), true
	}
	var out bytes.Buffer
	out.Grow(len(b))
	if json.Compact(&out, b) != nil {
		return nil, false
	}
	return out.Bytes(), true
}

// MaxLabelBytes bounds type, source, key and dedupe.
const MaxLabelBytes = 128

// CheckLabel says whether s can be a type, source, key or dedupe: 1–128 bytes of
// UTF-8 without control characters.
func CheckLabel(s string) bool {
	if s == "" || len(s) > MaxLabelBytes || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}

// isJSONType says whether a media type is JSON: application/json, text/json or
// any with the suffix +json (RFC 6839).
func isJSONType(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json"))
}
