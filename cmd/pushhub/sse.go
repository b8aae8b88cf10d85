package main

import (
	"bufio"
	"bytes"
	"io"
	"strconv"
	"time"
)

// maxBlock bounds the bytes of one line of a stream.
const maxBlock = 16 << 20

// stream reads an event stream (WHATWG HTML, section 9.2). It is used by one
// goroutine.
type stream struct {
	lines *bufio.Scanner
	// What the stream has said so far.
	lastID string
	retry  time.Duration // 0: nothing
}

// block is one dispatched event of a stream.
type block struct {
	name string // "" for an unnamed event
	data []byte // good until the next block
}

func newStream(r io.Reader) *stream {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxBlock)
	return &stream{lines: lines}
}

// next gives the next block that has data. An id counts once its block is whole.
// The error is io.EOF at the end, where half a block is passed over.
func (s *stream) next() (block, error) {
	var b block
	id, hasData := s.lastID, false
	for s.lines.Scan() {
		line := s.lines.Bytes()
		if len(line) == 0 {
			s.lastID = id
			if hasData {
				return b, nil
			}
			b = block{}
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "data":
			if hasData {
				b.data = append(b.data, '\n')
			}
			b.data, hasData = append(b.data, value...), true
		case "event":
			b.name = string(value)
		case "id":
			id = string(value)
		case "retry":
			if ms, err := strconv.ParseUint(string(value), 10, 31); err == nil {
				s.retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
	if err := s.lines.Err(); err != nil {
		return block{}, err
	}
	return block{}, io.EOF
}
