package transport_test

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/transport"
)

// The cases of the Autobahn TestSuite, by their numbers. The hub is no echo server:
// what comes back of a text is the pong of a ping command, and of a binary message
// an error.

// rfcCase is a conversation on a connection of its own, to its last byte.
type rfcCase struct {
	name  string
	steps []rfcStep
	ends  bool  // with a close frame of the client, which is else added
	late  bool  // as ends, but the client says something after it
	fails int   // the code with which the hub ends it, else 0
	chops []int // nil: usualChops
}

// rfcStep is what the client says, usually one frame, and the hub's answers.
type rfcStep struct {
	say  string
	hear []heard
}

// heard is a frame of the hub: one payload, or what fits a pattern.
type heard struct {
	opcode  byte
	payload string
	pattern *regexp.Regexp
}

// How what the client says is cut: in pieces of so many bytes, each a segment (Go's
// sockets have TCP_NODELAY), or in one of these ways.
const (
	stepwise = -1 // step by step, each answered before the next
	whole    = 0  // in one write
)

var (
	usualChops = []int{stepwise, whole, 1, 7}
	largeChops = []int{stepwise, whole, 997} // of what is large
	fewChops   = []int{whole, 1}             // where there are many cases of one kind
)

// On Linux the engine reads plain TCP by itself, and TLS by a goroutine.
func TestRFC6455(t *testing.T) {
	const limit = 64 << 10 // the sizes of sections 1, 9 and 10
	cases := framing()
	for _, more := range [][]rfcCase{pings(), reserved(), fragmentation(), utf8Cases(), closing(), sizes(limit)} {
		cases = append(cases, more...)
	}
	onTCPAndTLS(t, 10*time.Second, func(o *transport.Options) { o.Limits.MessageBytes = limit }, cases)
}

// TestRFC6455Limits is section 9, where messages of megabytes are let in: some take more
// than ten seconds under the race detector, beside other tests.
func TestRFC6455Limits(t *testing.T) {
	onTCPAndTLS(t, time.Minute, func(o *transport.Options) { o.Limits.MessageBytes = 16 << 20 }, limits())
}

// MAX_MESSAGE_BYTES by default, to the byte, however a message is cut.
func TestRFC6455DefaultLimit(t *testing.T) {
	const limit = 16 << 10
	fits, pong := command(limit)
	over, _ := command(limit + 1)
	onTCPAndTLS(t, 10*time.Second, nil, []rfcCase{
		{name: "a frame", steps: asks(fits, pong), chops: largeChops},
		{name: "a frame beyond", steps: says(text(over), ping("after")), fails: 1009, chops: largeChops},
		{name: "binary", steps: asksWith(opBinary, fits, notSupported), chops: largeChops},
		{name: "binary beyond", steps: says(framed(opBinary, over)), fails: 1009, chops: largeChops},
		{name: "octets", steps: answered(fragments(opText, fits, 1), pong), chops: []int{whole, 997}},
		{name: "fragments", steps: answered(fragments(opText, fits, 1000), pong), chops: largeChops},
		{name: "fragments beyond", steps: says(fragments(opText, over, 1000)...), fails: 1009, chops: largeChops},
		{name: "fragments again", steps: then(answered(fragments(opText, fits, 1000), pong), answered(fragments(opText, fits, 1000), pong)), chops: largeChops},
		{name: "an empty fragment after all", steps: answered([]string{part(opText, fits), framed(opContinuation, "")}, pong), chops: largeChops},
		{name: "an octet after all", steps: says(part(opText, fits), framed(opContinuation, " ")), fails: 1009, chops: largeChops},
	})
}

// A client that ends its side right after its close frame still gets what it asked
// for, and the answer to the close (section 5.5.1).
func TestEndAfterClose(t *testing.T) {
	for name, start := range map[string]func(testing.TB, func(*transport.Options)) *instance{"TCP": start, "TLS": secure} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := start(t, nil)
			for range 20 {
				ws := i.rawSocket("/api/v1/ws?token="+token(t, nil), nil)
				ws.send(text(refers("r"))+goodbye(1000, ""), false)
				require.NoError(t, ws.net.(interface{ CloseWrite() error }).CloseWrite())
				ws.hears(echo("r"))
				ws.hears(closed(1000))
				_, err := ws.in.Peek(1)
				require.ErrorIs(t, err, io.EOF)
				require.NoError(t, ws.net.Close())
			}
		})
	}
}

// onTCPAndTLS has the conversations of all cases, with so much patience for each.
func onTCPAndTLS(t *testing.T, patience time.Duration, change func(*transport.Options), cases []rfcCase) {
	for name, start := range map[string]func(testing.TB, func(*transport.Options)) *instance{"TCP": start, "TLS": secure} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := start(t, func(o *transport.Options) {
				o.Limits.Heartbeat = 2 * patience // none comes in between
				if change != nil {
					change(o)
				}
			})
			i.patience = patience
			path := "/api/v1/ws?token=" + token(t, nil)
			sessions := tls.NewLRUClientSessionCache(0)
			for _, c := range cases {
				chops := c.chops
				if chops == nil {
					chops = usualChops
				}
				for _, chop := range chops {
					if name == "TLS" && chop == 7 {
						continue // each piece is a record, as each byte is elsewhere
					}
					t.Run(c.name+"/"+chopName(chop), func(t *testing.T) {
						ws := i.in(t).rawSocket(path, sessions)
						ws.converse(c, chop)
						_ = ws.net.Close() // the hub may have done so already
					})
				}
			}
		})
	}
}

func chopName(chop int) string {
	switch chop {
	case stepwise:
		return "step by step"
	case whole:
		return "in one"
	}
	return fmt.Sprint("by ", chop)
}

// rawSocket is a WebSocket without any library, of which the welcome is read. What
// TLS hides is what TCP carries: its frames are as raw.
func (i *instance) rawSocket(path string, sessions tls.ClientSessionCache) *raw {
	i.t.Helper()
	ws := i.raw(0)
	require.NoError(i.t, ws.net.SetWriteDeadline(time.Now().Add(i.patience)))
	if config := i.client().TLSClientConfig; config != nil {
		config.ServerName, config.ClientSessionCache = "127.0.0.1", sessions
		config.CurvePreferences = []tls.CurveID{tls.CurveP256} // the cheapest
		ws.net = tls.Client(ws.net, config)
		ws.in = newReader(ws.net)
	}
	ws.handshake(path, "HTTP/1.1", "Sec-WebSocket-Extensions: permessage-deflate")
	require.Empty(i.t, ws.accepted().Values("Sec-WebSocket-Extensions"), "no reserved bit gets a meaning")
	ws.hears(heard{opcode: opText, pattern: regexp.MustCompile(`^{"op":"welcome",`)})
	return ws
}

// converse has a conversation. It ends as it should, and nothing else is said.
func (c *raw) converse(said rfcCase, chop int) {
	c.t.Helper()
	steps := said.steps
	if said.fails == 0 && !said.ends && !said.late {
		steps = append(steps[:len(steps):len(steps)], rfcStep{goodbye(1000, ""), []heard{closed(1000)}})
	}
	var all strings.Builder
	var want []heard
	for _, s := range steps {
		if chop == stepwise {
			c.send(s.say, said.late)
			for _, h := range s.hear {
				c.hears(h)
			}
			continue
		}
		all.WriteString(s.say)
		want = append(want, s.hear...)
	}
	if chop < 1 {
		chop = all.Len()
	}
	for rest := all.String(); rest != ""; rest = rest[min(chop, len(rest)):] {
		c.send(rest[:min(chop, len(rest))], said.late)
	}
	if said.fails != 0 {
		c.fails(said.fails, want)
	} else {
		for _, h := range want {
			c.hears(h)
		}
	}
	_, err := c.in.Peek(1)
	if !said.late || !gone(err) {
		require.ErrorIs(c.t, err, io.EOF, "nothing more is said")
	}
}

// gone says whether the hub closed before it had read everything.
func gone(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func (c *raw) send(p string, late bool) {
	c.t.Helper()
	if _, err := c.net.Write([]byte(p)); !late || !gone(err) {
		require.NoError(c.t, err)
	}
}

// listen reads one frame of the hub. All of its frames are whole messages, without
// reserved bits and without a mask.
func (c *raw) listen() (opcode byte, payload string) {
	c.t.Helper()
	head, err := c.in.Peek(2)
	require.NoError(c.t, err)
	require.EqualValues(c.t, 0x80, head[0]&0xf0)
	require.Zero(c.t, head[1]&0x80)
	return c.frame()
}

func (c *raw) hears(want heard) {
	c.t.Helper()
	opcode, payload := c.listen()
	want.is(c.t, opcode, payload)
}

func (h heard) is(t testing.TB, opcode byte, payload string) {
	t.Helper()
	require.Equal(t, h.opcode, opcode, "%q", payload)
	if h.pattern != nil {
		require.Regexp(t, h.pattern, payload)
		return
	}
	require.Equal(t, h.payload, payload)
}

// fails expects bye and the close frame. The hub drops what waits, so that of the
// answers that nobody has awaited the first ones come, or none.
func (c *raw) fails(code int, answers []heard) {
	c.t.Helper()
	reason := "bad_request"
	if code == 1009 {
		reason = "message_too_big"
	}
	opcode, payload := c.listen()
	for ; len(answers) > 0 && !strings.HasPrefix(payload, `{"op":"bye"`); opcode, payload = c.listen() {
		answers[0].is(c.t, opcode, payload)
		answers = answers[1:]
	}
	bye := heard{opText, "", regexp.MustCompile(fmt.Sprintf(`^{"op":"bye","code":%d,"reason":"%s","retry":[0-9]+(,"cursor":"[^"]+")?}$`, code, reason))}
	bye.is(c.t, opcode, payload)
	c.hears(heard{opcode: opClose, payload: status(code) + reason})
}

const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
	fin            = 0x80
)

// clientFrame is a frame as it is, with a mask that is another for another length.
func clientFrame(first byte, payload string) string {
	p := maskedFrame(0, payload)
	b := []byte(p)
	b[0] = first
	mask, body := b[len(b)-len(payload)-4:][:4], b[len(b)-len(payload):]
	copy(mask, []byte{0x37, 0xfa, 0x21 ^ byte(len(payload)), 0x3d})
	for i := range body {
		body[i] ^= mask[i%4]
	}
	return string(b)
}

func framed(opcode byte, payload string) string { return clientFrame(fin|opcode, payload) }
func part(opcode byte, payload string) string   { return clientFrame(opcode, payload) }
func text(payload string) string                { return framed(opText, payload) }
func ping(payload string) string                { return framed(opPing, payload) }
func status(code int) string                    { return string(binary.BigEndian.AppendUint16(nil, uint16(code))) }
func goodbye(code int, reason string) string    { return framed(opClose, status(code)+reason) }

// pieces are the frames of one message with these payloads.
func pieces(opcode byte, payloads ...string) (frames []string) {
	for n, p := range payloads {
		first := opcode
		if n > 0 {
			first = opContinuation
		}
		if n == len(payloads)-1 {
			first |= fin
		}
		frames = append(frames, clientFrame(first, p))
	}
	return frames
}

// fragments are the frames of a message, with so many bytes each.
func fragments(opcode byte, payload string, size int) []string {
	var payloads []string
	for ; len(payload) > size; payload = payload[size:] {
		payloads = append(payloads, payload[:size])
	}
	return pieces(opcode, append(payloads, payload)...)
}

// command is a ping command of so many bytes, with its answer: nothing but its
// white space could be another without that being noticed.
func command(size int) (string, heard) {
	ref := strconv.Itoa(size)
	head, tail := `{"op":"ping",`, `"ref":"`+ref+`"}`
	switch {
	case size == 0:
		return "", malformed
	case size < len(head)+len(tail):
		short := `{"op":"ping"}`
		return short + strings.Repeat(" ", size-len(short)), heard{opcode: opText, payload: `{"op":"pong"}`}
	}
	return head + strings.Repeat(" ", size-len(head)-len(tail)) + tail, echo(ref)
}

func refers(ref string) string { return `{"op":"ping","ref":"` + ref + `"}` }
func echo(ref string) heard {
	return heard{opcode: opText, payload: `{"op":"pong","ref":"` + ref + `"}`}
}
func pong(payload string) heard   { return heard{opcode: opPong, payload: payload} }
func closed(code int) heard       { return heard{opcode: opClose, payload: status(code)} }
func refused(reason string) heard { return heard{opText, "", regexp.MustCompile(badRequest + reason)} }

const badRequest = `^{"op":"error","error":{"code":"bad_request","message":"[^"]+","origin":"message","details":{"message":`

var malformed, notSupported = refused(`"malformed"}`), refused(`"not_supported"}`)

// says is steps without answers.
func says(frames ...string) (steps []rfcStep) {
	for _, f := range frames {
		steps = append(steps, rfcStep{say: f})
	}
	return steps
}

// answered is one step for each frame; the last one is answered.
func answered(frames []string, hear ...heard) []rfcStep {
	steps := says(frames...)
	steps[len(steps)-1].hear = hear
	return steps
}

func asks(message string, hear ...heard) []rfcStep { return asksWith(opText, message, hear...) }
func asksWith(opcode byte, message string, hear ...heard) []rfcStep {
	return answered([]string{framed(opcode, message)}, hear...)
}

// then puts conversations together.
func then(all ...[]rfcStep) (steps []rfcStep) {
	for _, s := range all {
		steps = append(steps, s...)
	}
	return steps
}
