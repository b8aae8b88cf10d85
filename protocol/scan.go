package protocol

import (
	"bytes"
	"encoding/json"
)

// scanner goes once through JSON that strangers sent (RFC 8259), and takes and
// refuses what encoding/json does. It makes nothing of it: what is asked for later
// is decoded then.
type scanner struct {
	b       []byte
	i       int  // next byte
	deepest int  // how deep arrays and objects lie in one another
	spaced  bool // there is white space between tokens
}

// scanDepth is how deep encoding/json reads.
const scanDepth = 10_000

// whole says whether b is one JSON value and nothing else.
func (s *scanner) whole() bool {
	s.next()
	return s.value(0, nil) && s.next() == 0 && s.i == len(s.b)
}

// next passes over white space and gives the byte after it, 0 at the end.
func (s *scanner) next() byte {
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\r', '\n':
			s.spaced = true
		default:
			return c
		}
	}
	return 0
}

// part is a member of an object, or an element of an array, which has no name.
type part struct {
	name  []byte // decoded
	value []byte
}

// value passes over one value. The parts of it are added to into, unless that is nil.
func (s *scanner) value(depth int, into *[]part) bool {
	switch s.next() {
	case '{':
		return s.parts('}', depth+1, into)
	case '[':
		return s.parts(']', depth+1, into)
	case '"':
		return s.text()
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	}
	return s.number()
}

// parts passes over an object or an array, up to its end.
func (s *scanner) parts(end byte, depth int, into *[]part) bool {
	if s.deepest = max(s.deepest, depth); depth > scanDepth {
		return false
	}
	s.i++
	if s.next() == end {
		s.i++
		return true
	}
	for {
		var p part
		if end == '}' {
			start := s.i
			if s.next() != '"' || !s.text() {
				return false
			}
			if into != nil {
				p.name = s.name(start)
			}
			if s.next() != ':' {
				return false
			}
			s.i++
			s.next()
		}
		start := s.i
		if !s.value(depth, nil) {
			return false
		}
		if into != nil {
			p.value = s.b[start:s.i:s.i]
			*into = append(*into, p)
		}
		switch s.next() {
		case end:
			s.i++
			return true
		case ',':
			s.i++
			s.next()
		default:
			return false
		}
	}
}

// name gives the string that ends here and began at start.
func (s *scanner) name(start int) []byte {
	if name := s.b[start+1 : s.i-1]; bytes.IndexByte(name, '\\') < 0 {
		return name
	}
	decoded, _ := ParseText(s.b[start:s.i]) // text found it well-formed
	return []byte(decoded)
}

// text passes over a string.
func (s *scanner) text() bool {
	s.i++
	for s.i < len(s.b) {
		c := s.b[s.i]
		s.i++
		switch {
		case c == '"':
			return true
		case c < ' ':
			return false
		case c == '\\':
			if !s.escape() {
				return false
			}
		}
	}
	return false
}

func (s *scanner) escape() bool {
	if s.i == len(s.b) {
		return false
	}
	c := s.b[s.i]
	s.i++
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		for end := s.i + 4; s.i < end; s.i++ {
			if s.i >= len(s.b) || !isHex(s.b[s.i]) {
				return false
			}
		}
		return true
	}
	return false
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func (s *scanner) literal(word string) bool {
	if end := s.i + len(word); end <= len(s.b) && string(s.b[s.i:end]) == word {
		s.i = end
		return true
	}
	return false
}

// number passes over a number: -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
func (s *scanner) number() bool {
	s.one("-")
	if !s.one("0") && !s.digits() {
		return false
	}
	if s.one(".") && !s.digits() {
		return false
	}
	if s.one("eE") {
		s.one("+-")
		return s.digits()
	}
	return true
}

// one passes over one byte, if it is of a set.
func (s *scanner) one(set string) bool {
	for i := range len(set) {
		if s.i < len(s.b) && s.b[s.i] == set[i] {
			s.i++
			return true
		}
	}
	return false
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}

// split gives the parts of an object or an array that fills b.
func split(b []byte, open byte) ([]part, bool) {
	s := scanner{b: b}
	if s.next() != open {
		return nil, false
	}
	parts := make([]part, 0, 8)
	if !s.value(0, &parts) || s.next() != 0 || s.i < len(b) {
		return nil, false
	}
	return parts, true
}

// ParseText reads a JSON string that fills b, as Object gives it: without white
// space around it.
func ParseText(b []byte) (string, bool) {
	if len(b) < 2 || b[0] != '"' {
		return "", false
	}
	for _, c := range b[1 : len(b)-1] {
		if c == '\\' || c >= 0x80 || c < ' ' || c == '"' {
			var t string
			err := json.Unmarshal(b, &t)
			return t, err == nil
		}
	}
	if b[len(b)-1] != '"' {
		return "", false
	}
	return string(b[1 : len(b)-1]), true
}
