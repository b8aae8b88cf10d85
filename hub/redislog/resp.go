package redislog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// errNotRESP is what a reader gives for anything but the part of RESP 2 that a
// live connection hears.
var errNotRESP = errors.New("live connection: not the protocol of Redis")

// Bounds of what a reader takes.
const (
	readBuffer = 64 << 10
	maxShort   = 4 << 10 // names and numbers; fits into the buffer
	maxBulk    = 64 << 20
)

// reader reads RESP 2 without allocating but for what it gives to keep.
type reader struct{ buf *bufio.Reader }

func newReader(r io.Reader) *reader { return &reader{bufio.NewReaderSize(r, readBuffer)} }

// line reads a line: the type of what it begins, and the rest, which is void
// after the next read.
func (r *reader) line() (kind byte, rest []byte, err error) {
	line, err := r.buf.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return 0, nil, errNotRESP
	}
	return line[0], line[1 : len(line)-2], nil
}

// length reads the line before a bulk string and gives its length.
func (r *reader) length() (int, error) {
	kind, digits, err := r.line()
	if err != nil {
		return 0, err
	}
	if kind != '$' || len(digits) > 9 {
		return 0, errNotRESP
	}
	n := 0
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, errNotRESP
		}
		n = 10*n + int(d-'0')
	}
	return n, nil
}

// short reads a short string. It is void after the next read.
func (r *reader) short() ([]byte, error) {
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	if n > maxShort {
		return nil, errNotRESP
	}
	s, err := r.buf.Peek(n + 2)
	if err != nil {
		return nil, err
	}
	if s[n] != '\r' || s[n+1] != '\n' {
		return nil, errNotRESP
	}
	_, err = r.buf.Discard(n + 2)
	return s[:n], err
}

// bulk reads a string to keep.
func (r *reader) bulk() ([]byte, error) {
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	if n > maxBulk {
		return nil, errNotRESP
	}
	return r.body(n)
}

// upTo reads a string to keep; one of more than max bytes it skips and gives nil.
func (r *reader) upTo(max int) ([]byte, error) {
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	if n > max {
		_, err := r.buf.Discard(n + 2)
		return nil, err
	}
	return r.body(n)
}

func (r *reader) body(n int) ([]byte, error) {
	s := make([]byte, n)
	if _, err := io.ReadFull(r.buf, s); err != nil {
		return nil, err
	}
	end, err := r.buf.Peek(2)
	if err != nil {
		return nil, err
	}
	if end[0] != '\r' || end[1] != '\n' {
		return nil, errNotRESP
	}
	_, err = r.buf.Discard(2)
	return s, err
}

// flatMap reads the answer to HELLO, a list of names and values, and gives those
// that are strings.
func (r *reader) flatMap() (map[string]string, error) {
	kind, rest, err := r.line()
	if err != nil {
		return nil, err
	}
	if kind == '-' {
		return nil, fmt.Errorf("%w: %s", errRefused, rest)
	}
	n, err := strconv.Atoi(string(rest))
	if kind != '*' || err != nil || n < 0 || n > 100 {
		return nil, errNotRESP
	}
	facts := map[string]string{}
	for range n / 2 {
		name, err := r.value(0)
		if err != nil {
			return nil, err
		}
		value, err := r.value(0)
		if err != nil {
			return nil, err
		}
		facts[name] = value
	}
	return facts, nil
}

// value reads a value of any type, and gives it if it is a string or a number.
func (r *reader) value(depth int) (string, error) {
	if next, err := r.buf.Peek(1); err != nil {
		return "", err
	} else if next[0] == '$' {
		s, err := r.short()
		return string(s), err
	}
	kind, rest, err := r.line()
	if err != nil {
		return "", err
	}
	switch kind {
	case '+', ':':
		return string(rest), nil
	case '*':
		n, err := strconv.Atoi(string(rest))
		if err != nil || n > 100 || depth > 3 {
			return "", errNotRESP
		}
		for range n {
			if _, err := r.value(depth + 1); err != nil {
				return "", err
			}
		}
		return "", nil
	}
	return "", errNotRESP
}

// appendCommand appends a command.
func appendCommand(b []byte, args ...string) []byte {
	b = append(b, '*')
	b = strconv.AppendInt(b, int64(len(args)), 10)
	b = append(b, "\r\n"...)
	for _, a := range args {
		b = append(b, '$')
		b = strconv.AppendInt(b, int64(len(a)), 10)
		b = append(b, "\r\n"...)
		b = append(b, a...)
		b = append(b, "\r\n"...)
	}
	return b
}
