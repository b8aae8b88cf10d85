package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"unicode/utf8"

	"github.com/pushhub/pushhub/protocol"
)

// Opcodes of WebSocket frames (RFC 6455, section 5.2).
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// Statuses with which a connection ends that breaks the protocol (section 7.4.1).
const (
	statusNone     = 0 // none was given
	statusProtocol = violation(protocol.ProtocolError)
	statusPayload  = violation(protocol.NotUTF8)
	statusTooBig   = violation(protocol.MessageTooBig)
)

// errWhole: the bytes end before the frame does.
var errWhole = errors.New("the frame is not whole")

// violation is what a client did wrong: the status to close with.
type violation protocol.CloseCode

func (v violation) Error() string { return "the client broke the WebSocket protocol" }

// head is what stands before the payload of a frame.
type head struct {
	op     byte
	fin    bool
	mask   [4]byte
	size   int // bytes of the head itself
	length int // bytes of the payload
}

// parseHead reads the head of a client's frame. The declared length is bounded
// before a byte of the payload is waited for.
func parseHead(p []byte, max int) (h head, err error) {
	if len(p) < 2 {
		return h, errWhole
	}
	h.fin, h.op = p[0]&0x80 != 0, p[0]&0x0f
	control := h.op >= opClose
	switch {
	case p[0]&0x70 != 0, // an extension that nobody agreed on
		h.op > opBinary && h.op < opClose, h.op > opPong,
		p[1]&0x80 == 0, // clients have to mask
		control && (!h.fin || p[1]&0x7f > 125):
		return h, statusProtocol
	}
	length := uint64(p[1] & 0x7f)
	h.size = 2
	switch length {
	case 126:
		h.size = 4
		if len(p) < h.size {
			return h, errWhole
		}
		length = uint64(binary.BigEndian.Uint16(p[2:]))
	case 127:
		h.size = 10
		if len(p) < h.size {
			return h, errWhole
		}
		length = binary.BigEndian.Uint64(p[2:])
		if length>>63 != 0 {
			return h, statusProtocol
		}
	}
	if !control && length > uint64(max) {
		return h, statusTooBig
	}
	h.length = int(length)
	h.size += 4
	if len(p) < h.size {
		return h, errWhole
	}
	h.mask = [4]byte(p[h.size-4:])
	return h, nil
}

// input puts together what a client sends: control frames, and messages of one or
// more frames. It has bytes of its own only in the midst of one. One goroutine at
// a time uses it.
type input struct {
	rest    []byte // the beginning of a frame
	message []byte // whole frames of a message that goes on
	payload int    // bytes of their payloads
	kind    byte   // text or binary while a message goes on
}

// empty says whether it has nothing to remember.
func (in *input) empty() bool { return len(in.rest) == 0 && in.kind == 0 }

// said is one thing that a client sends: a control frame with its payload, or a
// message with all its frames as they came.
type said struct {
	op   byte
	data []byte // void after the next call
}

// next gives the first thing that is whole in what is left from before and p, and
// what comes after it; errWhole when nothing is. The payloads of a message have at
// most max bytes together. Another error is a violation.
func (in *input) next(p []byte, max int) (s said, rest []byte, err error) {
	own := len(in.rest) > 0 // then it grows in place: a frame may come in very many pieces
	if own {
		p = append(in.rest, p...)
		in.rest = nil
	}
	for ; ; own = false {
		h, err := parseHead(p, max-in.payload)
		if err == nil && len(p) < h.size+h.length {
			err = errWhole
		}
		if err == errWhole {
			if in.rest = p; !own {
				in.rest = bytes.Clone(p)
			}
			return said{}, nil, err
		}
		if err != nil {
			return said{}, nil, err
		}
		frame := p[:h.size+h.length]
		p = p[len(frame):]
		switch {
		case h.op >= opClose:
			data := append([]byte(nil), frame[h.size:]...)
			for i := range data {
				data[i] ^= h.mask[i%4]
			}
			return said{h.op, data}, p, nil
		case (h.op == opContinuation) != (in.kind != 0):
			return said{}, nil, statusProtocol
		case h.fin && in.kind == 0:
			return said{h.op, frame}, p, nil
		}
		if in.kind == 0 {
			in.kind = h.op
		}
		in.payload += h.length
		if in.message = append(in.message, frame...); len(in.message) > 8*max+1024 { // of very many very small frames
			return said{}, nil, statusTooBig
		}
		if h.fin {
			s := said{in.kind, in.message}
			in.message, in.payload, in.kind = nil, 0, 0
			return s, p, nil
		}
	}
}

// parseClose gives the status of a client's close frame; a violation if it must
// not be sent so (section 7.4, 5.5.1).
func parseClose(payload []byte) (status uint16, err error) {
	if len(payload) == 0 {
		return statusNone, nil
	}
	if len(payload) == 1 {
		return 0, statusProtocol
	}
	status = binary.BigEndian.Uint16(payload)
	switch {
	case status >= 1000 && status <= 1014 && status != 1004 && status != 1005 && status != 1006:
	case status >= 3000 && status <= 4999:
	default:
		return 0, statusProtocol
	}
	if !utf8.Valid(payload[2:]) {
		return 0, statusPayload
	}
	return status, nil
}

// appendClose appends a close frame without a reason.
func appendClose(b []byte, status uint16) []byte {
	if status == statusNone {
		return append(b, 0x80|opClose, 0)
	}
	return binary.BigEndian.AppendUint16(append(b, 0x80|opClose, 2), status)
}

// appendPong appends the answer to a ping.
func appendPong(b, payload []byte) []byte {
	return append(append(b, 0x80|opPong, byte(len(payload))), payload...)
}
