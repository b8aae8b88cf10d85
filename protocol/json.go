package protocol

import (
	"bytes"
	"encoding/json"
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"
)

// object is a JSON object with its members as they came, found by their exact
// names (encoding/json would fold their case). A name given twice counts last.
type object map[string]json.RawMessage

// parseObject reads one JSON object that fills b.
func parseObject(b []byte) (object, bool) {
	var o object
	if !utf8.Valid(b) || json.Unmarshal(b, &o) != nil || o == nil {
		return nil, false
	}
	return o, true
}

// parseArray reads one JSON array that fills b.
func parseArray(b []byte) ([]json.RawMessage, bool) {
	var a []json.RawMessage
	if !utf8.Valid(b) || json.Unmarshal(b, &a) != nil || a == nil {
		return nil, false
	}
	return a, true
}

// text reads a member that must be a string. found is false where it is absent
// or null, ok is false where it is of another type.
func (o object) text(name string) (s string, found, ok bool) {
	raw := o[name]
	if isNull(raw) {
		return "", false, true
	}
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", true, false
	}
	return s, true, true
}

func isNull(raw json.RawMessage) bool {
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
	if !utf8.Valid(b) || depth(b) > maxDepth {
		return nil, false
	}
	var out bytes.Buffer
	out.Grow(len(b))
	if json.Compact(&out, b) != nil {
		return nil, false
	}
	return out.Bytes(), true
}

// depth gives how deep the arrays and objects of a JSON text lie in one another.
func depth(b []byte) (deepest int) {
	if bytes.Count(b, []byte{'['})+bytes.Count(b, []byte{'{'}) <= maxDepth {
		return 0 // not too deep, whatever it is: so for nearly all
	}
	level, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			level++
			deepest = max(deepest, level)
		case c == ']' || c == '}':
			level--
		}
	}
	return deepest
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
