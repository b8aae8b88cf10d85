package loadtest

import (
	"encoding/binary"
	"errors"
)

const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// maxMessage bounds what a server may send in one piece.
const maxMessage = 1 << 20

var (
	errMasked  = errors.New("the server masked a frame")
	errTooBig  = errors.New("a message of more than 1 MiB")
	errOpcode  = errors.New("an unknown WebSocket opcode")
	errReserve = errors.New("a WebSocket frame with reserved bits")
)

// A frame is one WebSocket frame of the server. Its payload is borrowed.
type frame struct {
	fin     bool
	op      byte
	payload []byte
}

// nextFrame reads the frame at the start of b and its whole length; that is 0
// while bytes of it are missing.
func nextFrame(b []byte) (f frame, size int, err error) {
	if len(b) < 2 {
		return frame{}, 0, nil
	}
	f = frame{fin: b[0]&0x80 != 0, op: b[0] & 0x0f}
	head, length := 2, uint64(b[1]&0x7f)
	switch {
	case b[0]&0x70 != 0:
		return frame{}, 0, errReserve
	case f.op > opBinary && f.op < opClose, f.op > opPong:
		return frame{}, 0, errOpcode
	case b[1]&0x80 != 0:
		return frame{}, 0, errMasked
	case length == 126:
		if len(b) < 4 {
			return frame{}, 0, nil
		}
		head, length = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case length == 127:
		if len(b) < 10 {
			return frame{}, 0, nil
		}
		head, length = 10, binary.BigEndian.Uint64(b[2:])
	}
	if length > maxMessage {
		return frame{}, 0, errTooBig
	}
	size = head + int(length)
	if len(b) < size {
		return frame{}, 0, nil
	}
	f.payload = b[head:size]
	return f, size, nil
}

// appendFrame appends a whole frame; masked, as clients must, with a mask of
// zeroes: nothing here reads what it protects.
func appendFrame(b []byte, op byte, payload []byte, masked bool) []byte {
	b = append(b, 0x80|op)
	var bit byte
	if masked {
		bit = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, bit|byte(n))
	case n < 1<<16:
		b = append(b, bit|126, byte(n>>8), byte(n))
	default:
		b = append(b, bit|127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if masked {
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, payload...)
}
