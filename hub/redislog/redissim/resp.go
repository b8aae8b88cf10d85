package redissim

import (
	"errors"
	"strconv"
)

// What a command can answer, besides string, int64, nil and []any.
type (
	status  string
	failure string
	noList  struct{}
)

func (f failure) Error() string { return string(f) }

var errProtocol = errors.New("not a command in RESP")

// parseCommand takes the first command off in; nil if it is not whole.
func parseCommand(in []byte) (command []string, rest []byte, err error) {
	n, rest, err := number(in, '*')
	if err != nil || rest == nil {
		return nil, in, err
	}
	command = make([]string, n)
	for i := range command {
		var size int
		if size, rest, err = number(rest, '$'); err != nil || len(rest) < size+2 {
			return nil, in, err
		}
		command[i] = string(rest[:size])
		rest = rest[size+2:]
	}
	return command, rest, nil
}

// number reads a line that begins with kind; rest is nil if it is not whole.
func number(in []byte, kind byte) (n int, rest []byte, err error) {
	for i := range in {
		if in[i] == '\n' {
			if in[0] != kind || i < 3 {
				return 0, nil, errProtocol
			}
			if n, err = strconv.Atoi(string(in[1 : i-1])); err != nil || n < 0 {
				return 0, nil, errProtocol
			}
			return n, in[i+1:], nil
		}
	}
	return 0, nil, nil
}

// appendAnswer appends an answer in RESP 2.
func appendAnswer(b []byte, answer any) []byte {
	switch a := answer.(type) {
	case nil:
		return append(b, "$-1\r\n"...)
	case noList:
		return append(b, "*-1\r\n"...)
	case status:
		return append(append(append(b, '+'), a...), "\r\n"...)
	case failure:
		return append(append(append(b, '-'), a...), "\r\n"...)
	case int64:
		return append(strconv.AppendInt(append(b, ':'), a, 10), "\r\n"...)
	case string:
		b = append(strconv.AppendInt(append(b, '$'), int64(len(a)), 10), "\r\n"...)
		return append(append(b, a...), "\r\n"...)
	case []any:
		b = append(strconv.AppendInt(append(b, '*'), int64(len(a)), 10), "\r\n"...)
		for _, one := range a {
			b = appendAnswer(b, one)
		}
		return b
	}
	panic("no answer of Redis")
}
