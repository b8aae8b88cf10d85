package loadtest

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMarkIsFoundInWhatItIsWrappedIn(t *testing.T) {
	want := mark{n: 12, k: 3, t: 1 << 60}
	for _, size := range []int{0, 64, 1000} {
		data := appendData(nil, want, size)
		require.True(t, len(data) == size || size == 0, "%d", len(data))
		for _, msg := range []string{string(data), `{"id":"a-1","topic":"n.1","data":` + string(data) + `}`} {
			got, end, ok := scanMark([]byte(msg), []byte(findData))
			require.True(t, ok)
			require.Equal(t, want, got)
			require.True(t, strings.HasPrefix(msg[end:], `,"pad"`))
		}
	}
	escaped := strings.ReplaceAll(string(appendData(nil, want, 0)), `"`, `\"`)
	got, _, ok := scanMark([]byte(`{"data":"`+escaped+`"}`), []byte(`{\"n\":`))
	require.True(t, ok)
	require.Equal(t, want, got)
	for _, msg := range []string{"", findData, findData + "1", findData + `1,"k":2`, `{"op":"welcome"}`} {
		_, _, ok := scanMark([]byte(msg), []byte(findData))
		require.False(t, ok, msg)
	}
}

func TestFramesOfEveryLength(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 100000} {
		payload := bytes.Repeat([]byte{'x'}, n)
		b := appendFrame(nil, opText, payload, false)
		for cut := range min(len(b), 20) {
			_, size, err := nextFrame(b[:cut])
			require.NoError(t, err)
			require.Zero(t, size)
		}
		f, size, err := nextFrame(append(b, "next"...))
		require.NoError(t, err)
		require.Equal(t, len(b), size)
		require.True(t, f.fin)
		require.Equal(t, payload, append([]byte{}, f.payload...))
	}
}

func TestFramesThatNoServerMaySend(t *testing.T) {
	for want, b := range map[error]string{
		errMasked:  "\x81\x80\x00\x00\x00\x00",
		errReserve: "\xc1\x00",
		errOpcode:  "\x83\x00",
		errTooBig:  "\x81\x7f\x00\x00\x00\x00\x10\x00\x00\x00",
	} {
		_, _, err := nextFrame([]byte(b))
		require.ErrorIs(t, err, want)
	}
}

func FuzzNextFrame(f *testing.F) {
	f.Add([]byte("\x81\x05hello"))
	f.Add([]byte("\x81\x7e\x00\x01x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, size, err := nextFrame(b)
		if err != nil || size == 0 {
			return
		}
		require.LessOrEqual(t, size, len(b))
		require.LessOrEqual(t, len(got.payload), size-2)
		// What was a whole frame is one too with more behind it, and not with less.
		_, again, err := nextFrame(append(b[:size:size], b...))
		require.NoError(t, err)
		require.Equal(t, size, again)
		_, less, err := nextFrame(b[:size-1])
		require.NoError(t, err)
		require.Zero(t, less)
	})
}

const stream = "retry: 1\n\nid: a-1\ndata: one\n\n: comment\n\nevent: x\r\nid:a-2\r\ndata:two\r\ndata: lines\r\n\r\ndata\n\n"

// blocks reads all whole blocks of a stream.
func blocks(b []byte) (list []string, rest []byte) {
	for {
		ev, size := nextBlock(b)
		if size == 0 {
			return list, b
		}
		b = b[size:]
		list = append(list, string(ev.id)+"|"+string(ev.data))
	}
}

func TestBlocks(t *testing.T) {
	got, rest := blocks([]byte(stream + "data: not whole\n"))
	require.Equal(t, []string{"|", "a-1|one", "|", "a-2|two\nlines", "|"}, got)
	require.Equal(t, "data: not whole\n", string(rest))
}

func FuzzBlocks(f *testing.F) {
	f.Add([]byte(stream), 7)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		if cut < 0 || cut > len(b) {
			return
		}
		// Cut anywhere, the stream has the same blocks.
		whole, end := blocks(b)
		first, rest := blocks(b[:cut])
		second, end2 := blocks(append(rest[:len(rest):len(rest)], b[cut:]...))
		require.Equal(t, whole, append(first, second...))
		require.Equal(t, string(end), string(end2))
	})
}

// unchunk decodes a body that comes in pieces.
func unchunk(pieces ...string) (string, chunks, error) {
	var c chunks
	var body []byte
	for _, p := range pieces {
		out, err := c.decode([]byte(p))
		if err != nil {
			return "", c, err
		}
		body = append(body, out...)
	}
	return string(body), c, nil
}

func TestChunksSplitAtEveryByte(t *testing.T) {
	const body = "5\r\nhello\r\n0A; x=1\r\n, world\r\n.\r\n0\r\n\r\n"
	for cut := range len(body) + 1 {
		got, c, err := unchunk(body[:cut], body[cut:])
		require.NoError(t, err)
		require.Equal(t, "hello, world\r\n.", got)
		require.EqualValues(t, chunkEnded, c.stage)
	}
	for _, bad := range []string{"x\r\n", "\r\n", "1\r\nab", "fffffffff\r\n"} {
		_, _, err := unchunk(bad)
		require.ErrorIs(t, err, errChunk, bad)
	}
}

func FuzzChunks(f *testing.F) {
	f.Add("5\r\nhello\r\n0\r\n\r\n", 4)
	f.Fuzz(func(t *testing.T, body string, cut int) {
		if cut < 0 || cut > len(body) {
			return
		}
		whole, _, err := unchunk(body)
		got, _, err2 := unchunk(body[:cut], body[cut:])
		require.Equal(t, err, err2)
		require.Equal(t, whole, got)
	})
}
