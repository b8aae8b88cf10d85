package loadtest

import (
	"bytes"
	"errors"
)

var errChunk = errors.New("malformed chunked encoding")

// chunks takes the chunked encoding off a body that comes in pieces. The zero
// value is at the start of a body.
type chunks struct {
	left  int32 // bytes of the current chunk still to come
	stage uint8
	any   bool // a digit of the size was seen
}

const (
	chunkSize  = iota // in the size line, at its digits
	chunkExt          // in the size line, after its digits
	chunkData         // in the data
	chunkTail         // at the line end after the data
	chunkEnded        // the last chunk was seen; trailers are ignored
)

// decode moves the body's bytes in p to its front and returns them.
func (c *chunks) decode(p []byte) ([]byte, error) {
	out := 0
	for i := 0; i < len(p); {
		switch c.stage {
		case chunkSize, chunkExt:
			b := p[i]
			i++
			digit := digitOf(b)
			switch {
			case b == '\n' && !c.any:
				return nil, errChunk
			case b == '\n' && c.left == 0:
				c.stage = chunkEnded
			case b == '\n':
				c.stage = chunkData
			case c.stage == chunkExt || b == '\r':
			case b == ';' || b == ' ':
				c.stage = chunkExt
			case digit < 0 || c.left > maxMessage:
				return nil, errChunk
			default:
				c.left, c.any = c.left<<4|int32(digit), true
			}
		case chunkData:
			n := copy(p[out:], p[i:min(len(p), i+int(c.left))])
			out, i, c.left = out+n, i+n, c.left-int32(n)
			if c.left == 0 {
				c.stage = chunkTail
			}
		case chunkTail:
			switch p[i] {
			case '\r':
			case '\n':
				*c = chunks{}
			default:
				return nil, errChunk
			}
			i++
		default:
			return p[:out], nil
		}
	}
	return p[:out], nil
}

func digitOf(b byte) int {
	switch {
	case b-'0' <= 9:
		return int(b - '0')
	case b|0x20 >= 'a' && b|0x20 <= 'f':
		return int(b|0x20-'a') + 10
	}
	return -1
}

// A block is one event of a stream. Its fields are borrowed.
type block struct {
	id    []byte
	hasID bool
	data  []byte
}

// nextBlock reads the block at the start of b, as far as the empty line that ends
// it, and its whole length; that is 0 while bytes of it are missing. Lines may end
// in LF or CRLF.
func nextBlock(b []byte) (ev block, size int) {
	lines := 0
	for at := 0; ; {
		n := bytes.IndexByte(b[at:], '\n')
		if n < 0 {
			return block{}, 0
		}
		line := b[at : at+n]
		at += n + 1
		if n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		if len(line) == 0 {
			return ev, at
		}
		if v, ok := field(line, "data:"); ok {
			if lines++; lines == 1 {
				ev.data = v
			} else { // rare: only here a copy is made
				ev.data = bytes.Join([][]byte{ev.data, v}, []byte{'\n'})
			}
		} else if v, ok := field(line, "id:"); ok {
			ev.id, ev.hasID = v, true
		}
	}
}

func field(line []byte, name string) ([]byte, bool) {
	if len(line) < len(name) || string(line[:len(name)]) != name {
		return nil, false
	}
	v := line[len(name):]
	if len(v) > 0 && v[0] == ' ' {
		v = v[1:]
	}
	return v, true
}
