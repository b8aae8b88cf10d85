package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// masked gives a client's frame.
func masked(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

// thing is what a client said, unmasked.
type thing struct {
	op   byte
	data string
}

// unmasked gives the payload of a message's frames.
func unmasked(t testing.TB, frames []byte) string {
	var all strings.Builder
	for len(frames) > 0 {
		h, err := parseHead(frames, 1<<30)
		require.NoError(t, err)
		for i := range h.length {
			all.WriteByte(frames[h.size+i] ^ h.mask[i%4])
		}
		frames = frames[h.size+h.length:]
	}
	return all.String()
}

// scan takes pieces, and gives what was said until the end or an error.
func scan(t testing.TB, max int, pieces ...[]byte) (all []thing, err error) {
	var in input
	for _, p := range pieces {
		for {
			s, rest, err := in.next(p, max)
			if err == errWhole {
				break
			}
			if err != nil {
				return all, err
			}
			data := string(s.data)
			if s.op < opClose {
				data = unmasked(t, s.data)
			}
			all = append(all, thing{s.op, data})
			p = rest
		}
	}
	return all, nil
}

func TestScan(t *testing.T) {
	long, longer := strings.Repeat("x", 126), strings.Repeat("y", 1<<16)
	said := bytes.Join([][]byte{
		masked(0x81, "hello"), masked(0x81, ""), masked(0x82, long), masked(0x89, "ping"),
		masked(0x01, "he"), masked(0x8a, ""), masked(0x00, "l"), masked(0x00, ""), masked(0x89, "!"), masked(0x80, "lo"),
		masked(0x81, longer), masked(0x88, "\x03\xe8bye"),
	}, nil)
	want := []thing{
		{opText, "hello"}, {opText, ""}, {opBinary, long}, {opPing, "ping"},
		{opPong, ""}, {opPing, "!"}, {opText, "hello"}, {opText, longer}, {opClose, "\x03\xe8bye"},
	}
	for at := 0; at <= len(said); at += 1 + at/200 {
		got, err := scan(t, 1<<16, said[:at], said[at:])
		require.NoError(t, err)
		require.Equal(t, want, got, "cut at %d", at)
	}
	short := said[:200]
	whole, err := scan(t, 1<<16, short)
	require.NoError(t, err)
	var bytewise [][]byte
	for i := range short {
		bytewise = append(bytewise, short[i:i+1])
	}
	got, err := scan(t, 1<<16, bytewise...)
	require.NoError(t, err)
	require.Equal(t, whole, got)
}

// What breaks the protocol is found out by the head alone.
func TestViolations(t *testing.T) {
	const max = 1000
	for name, c := range map[string]struct {
		said   []byte
		status violation
	}{
		"an extension":                     {[]byte{0xc1, 0x80}, statusProtocol},
		"opcode 3":                         {[]byte{0x83, 0x80}, statusProtocol},
		"opcode 11":                        {[]byte{0x8b, 0x80}, statusProtocol},
		"no mask":                          {[]byte{0x81, 0x05}, statusProtocol},
		"a control frame in parts":         {[]byte{0x09, 0x80}, statusProtocol},
		"a long control frame":             {[]byte{0x89, 0x80 | 126}, statusProtocol},
		"a negative length":                {[]byte{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0}, statusProtocol},
		"too large":                        {[]byte{0x81, 0xfe, 0x03, 0xe9}, statusTooBig},
		"much too large":                   {[]byte{0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, statusTooBig},
		"too large in parts":               {append(masked(0x01, strings.Repeat("x", 900)), 0x80, 0x80|101), statusTooBig},
		"continues nothing":                {masked(0x80, "x"), statusProtocol},
		"a message in the midst of one":    {append(masked(0x01, "x"), masked(0x81, "y")...), statusProtocol},
		"continues nothing after a whole":  {append(masked(0x81, "x"), masked(0x80, "y")...), statusProtocol},
		"very many frames without payload": {append(masked(0x01, ""), bytes.Repeat(masked(0x00, ""), 2000)...), statusTooBig},
	} {
		all, err := scan(t, max, c.said)
		require.Equal(t, c.status, err, name)
		require.LessOrEqual(t, len(all), 1, name)
		for at := range min(len(c.said), 20) { // however it comes
			_, err := scan(t, max, c.said[:at], c.said[at:])
			require.Equal(t, c.status, err, name)
		}
	}
	for payload, want := range map[string]error{
		"": nil, "\x03\xe8": nil, "\x0f\xa0bye": nil, "\x0b\xb8": nil, "\x03\xf6": nil,
		"\x03": statusProtocol, "\x03\xed": statusProtocol, "\x03\xee": statusProtocol, "\x03\xec": statusProtocol,
		"\x03\xf7": statusProtocol, "\x03\xe7": statusProtocol, "\x13\x88": statusProtocol, "\x00\x00": statusProtocol,
		"\x07\xd0": statusProtocol, "\x03\xe8\xff": statusPayload,
	} {
		_, err := parseClose([]byte(payload))
		require.Equal(t, want, err, "%q", payload)
	}
}

// FuzzScan has coder/websocket read the same bytes: both have to understand the
// same.
func FuzzScan(f *testing.F) {
	f.Add(append(masked(0x81, "hello"), masked(0x89, "ping")...), uint16(3))
	f.Add(append(masked(0x01, "he"), append(masked(0x89, "!"), masked(0x80, "llo")...)...), uint16(7))
	f.Add(masked(0x82, strings.Repeat("x", 300)), uint16(4))
	f.Add([]byte{0x81, 0x05, 'h'}, uint16(0))
	f.Add(masked(0x88, "\x03\xe8"), uint16(0))
	f.Fuzz(func(t *testing.T, p []byte, cut uint16) {
		const max = 1 << 20
		at := min(int(cut), len(p))
		got, err := scan(t, max, p[:at], p[at:])
		var messages, pongs []thing
		closed := false
		for _, s := range got {
			switch {
			case closed:
			case s.op < opClose:
				messages = append(messages, s)
			case s.op == opPing:
				pongs = append(pongs, thing{opPong, s.data})
			}
			closed = closed || s.op == opClose
		}
		want, answers, theirs := read(p)
		if len(messages) > len(want) {
			t.Fatalf("%v; coder/websocket reads %v and then %v", messages, want, theirs)
		}
		for i, m := range messages {
			if m != want[i] {
				t.Fatalf("message %d is %v; coder/websocket reads %v", i, m, want[i])
			}
		}
		// Also if it breaks the protocol then, and not only our bound.
		if err != statusTooBig && !closed && len(messages) < len(want) {
			t.Fatalf("%v, then %v; coder/websocket reads %v", messages, err, want)
		}
		if err == nil && !closed && !slices.Equal(pongs, answers) {
			t.Fatalf("answers %v; coder/websocket answers %v, then %v", pongs, answers, theirs)
		}
	})
}

// read has coder/websocket read what a client sent, and gives what it answers to pings.
func read(p []byte) (all, pongs []thing, err error) {
	var wrote bytes.Buffer
	defer func() {
		for b := wrote.Bytes(); len(b) > 1 && b[1] < 126 && len(b) >= 2+int(b[1]); b = b[2+int(b[1]):] {
			if b[0]&0x0f == opPong {
				pongs = append(pongs, thing{opPong, string(b[2 : 2+int(b[1])])})
			}
		}
	}()
	w := &answer{wrote: &wrote, reads: io.MultiReader(bytes.NewReader(p), iotest.ErrReader(io.ErrUnexpectedEOF))} // io.EOF would pass for the end of a message
	r := &http.Request{Method: "GET", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return nil, nil, err
	}
	wrote.Reset() // what Accept said
	defer func() { _ = ws.CloseNow() }()
	ws.SetReadLimit(-1)
	for {
		kind, data, err := ws.Read(context.Background())
		if err != nil {
			return all, nil, err
		}
		op := byte(opText)
		if kind == websocket.MessageBinary {
			op = opBinary
		}
		all = append(all, thing{op, string(data)})
	}
}

type answer struct {
	http.ResponseWriter // nil
	reads               io.Reader
	wrote               *bytes.Buffer
	head                http.Header
}

func (a *answer) Header() http.Header {
	if a.head == nil {
		a.head = http.Header{}
	}
	return a.head
}
func (a *answer) WriteHeader(int) {}
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c := prepared{reads: a.reads, wrote: a.wrote}
	return c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), nil
}

// prepared is a connection that brings what is given, and takes everything.
type prepared struct {
	net.Conn // nil
	reads    io.Reader
	wrote    *bytes.Buffer
}

func (p prepared) Write(b []byte) (int, error) { return p.wrote.Write(b) }
func (p prepared) Close() error                { return nil }

func (p prepared) Read(b []byte) (int, error) { return p.reads.Read(b) }
