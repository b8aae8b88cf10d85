package loadtest

import (
	"bytes"
	"strconv"
)

// findData is how an event's data begins, wherever the server puts it.
const findData = `{"n":`

// A mark is what the data of an event says of it: the n-th publish of topic
// number k, due at t (ns of the clock that now reads).
type mark struct {
	n uint64
	k uint32
	t int64
}

// appendData appends the data of an event: the mark, padded to size bytes where
// that is more than the mark needs.
func appendData(b []byte, m mark, size int) []byte {
	from := len(b)
	b = append(b, findData...)
	b = strconv.AppendUint(b, m.n, 10)
	b = append(b, `,"k":`...)
	b = strconv.AppendUint(b, uint64(m.k), 10)
	b = append(b, `,"t":`...)
	b = strconv.AppendInt(b, m.t, 10)
	b = append(b, `,"pad":"`...)
	for len(b)-from < size-2 {
		b = append(b, 'x')
	}
	return append(b, `"}`...)
}

// scanMark finds the first mark in a message that holds the bytes find, and says
// where it ends. It takes the three numbers in their order and skips what stands
// between, so data that a server escaped is found too.
func scanMark(msg, find []byte) (m mark, end int, ok bool) {
	at := bytes.Index(msg, find)
	if at < 0 {
		return mark{}, 0, false
	}
	i := at + len(find)
	n, i := scanNumber(msg, i)
	k, i := scanNumber(msg, i)
	t, i := scanNumber(msg, i)
	if i < 0 {
		return mark{}, 0, false
	}
	return mark{n: n, k: uint32(k), t: int64(t)}, i, true
}

// scanNumber reads the next decimal number at or after i, and where it ends; -1
// when there is none.
func scanNumber(b []byte, i int) (uint64, int) {
	if i < 0 {
		return 0, -1
	}
	for i < len(b) && b[i]-'0' > 9 {
		i++
	}
	if i == len(b) {
		return 0, -1
	}
	var v uint64
	for i < len(b) && b[i]-'0' <= 9 {
		v = v*10 + uint64(b[i]-'0')
		i++
	}
	return v, i
}

// member gives the string value of the first member of that name in compact JSON,
// as it stands there, nil when there is none. find is `"name":"`.
func member(msg []byte, find string) []byte {
	_, rest, ok := bytes.Cut(msg, []byte(find))
	if !ok {
		return nil
	}
	before, _, ok0 := bytes.Cut(rest, []byte{'"'})
	if !ok0 {
		return nil
	}
	return before
}
