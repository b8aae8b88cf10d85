package protocol

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// MaxEpochBytes bounds the name of an epoch.
	MaxEpochBytes = 32
	// MaxSeq is the last seq: one below 2^53, so that every JSON reader and
	// every Redis score holds it exactly.
	MaxSeq = 1<<53 - 1
)

// Cursor is the position of an event in its tenant, "<epoch>-<seq>". Seq 0 stands
// before the first event. The zero Cursor is no position at all. Clients treat
// cursors as opaque.
type Cursor struct {
	Epoch string // names one life of the tenant's sequence: 1–32 of a-z0-9
	Seq   uint64 // 1, 2, 3 … over all events of the tenant
}

// ParseCursor reads a cursor. It accepts just what String writes: no sign, no
// leading zero. The error wraps ErrMalformed.
func ParseCursor(s string) (Cursor, error) {
	epoch, digits, ok := strings.Cut(s, "-")
	if !ok || !isEpoch(epoch) {
		return Cursor{}, fmt.Errorf("%w cursor: it is not <epoch>-<seq>", ErrMalformed)
	}
	seq, err := parseSeq(digits)
	if err != nil {
		return Cursor{}, err
	}
	return Cursor{epoch, seq}, nil
}

func parseSeq(s string) (uint64, error) {
	if s == "" || len(s) > 16 || s[0] == '0' && s != "0" {
		return 0, fmt.Errorf("%w cursor: seq is not a decimal number below 2^53", ErrMalformed)
	}
	seq, err := strconv.ParseUint(s, 10, 64)
	if err != nil || seq > MaxSeq {
		return 0, fmt.Errorf("%w cursor: seq is not a decimal number below 2^53", ErrMalformed)
	}
	return seq, nil
}

func isEpoch(s string) bool {
	if len(s) == 0 || len(s) > MaxEpochBytes {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9') {
			return false
		}
	}
	return true
}

// IsZero says whether c is no position.
func (c Cursor) IsZero() bool { return c.Epoch == "" }

// String gives the form of the wire, "" for the zero Cursor.
func (c Cursor) String() string {
	if c.IsZero() {
		return ""
	}
	return string(c.Append(make([]byte, 0, len(c.Epoch)+17)))
}

// Append appends the form of the wire to b.
func (c Cursor) Append(b []byte) []byte {
	if c.IsZero() {
		return b
	}
	b = append(b, c.Epoch...)
	b = append(b, '-')
	return strconv.AppendUint(b, c.Seq, 10)
}
