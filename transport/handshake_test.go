package transport_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport"
)

// What is no WebSocket handshake is refused in the envelope, with what the client
// should have sent.
func TestHandshakeShape(t *testing.T) {
	i := start(t, nil)
	tok := token(t, nil)
	bad := func(header string, reason protocol.Reason) refusal {
		return refuses(400, protocol.BadRequest, protocol.InHeaders, header, reason)
	}
	for name, c := range map[string]struct {
		change map[string]string // of the headers in upgrade; "" takes one away
		want   refusal
	}{
		"no upgrade":         {map[string]string{"Upgrade": ""}, bad("Upgrade", protocol.Required)},
		"another upgrade":    {map[string]string{"Upgrade": "h2c"}, bad("Upgrade", protocol.Required)},
		"no connection":      {map[string]string{"Connection": "keep-alive"}, bad("Upgrade", protocol.Required)},
		"no version":         {map[string]string{"Sec-WebSocket-Version": ""}, bad("Sec-WebSocket-Version", protocol.NotSupported)},
		"old version":        {map[string]string{"Sec-WebSocket-Version": "8"}, bad("Sec-WebSocket-Version", protocol.NotSupported)},
		"no key":             {map[string]string{"Sec-WebSocket-Key": ""}, bad("Sec-WebSocket-Key", protocol.Required)},
		"short key":          {map[string]string{"Sec-WebSocket-Key": "AAAA"}, bad("Sec-WebSocket-Key", protocol.Malformed)},
		"no base64":          {map[string]string{"Sec-WebSocket-Key": "????????????????????????"}, bad("Sec-WebSocket-Key", protocol.Malformed)},
		"other subprotocol":  {map[string]string{"Sec-WebSocket-Protocol": "graphql-ws"}, bad("Sec-WebSocket-Protocol", protocol.NotSupported)},
		"next version":       {map[string]string{"Sec-WebSocket-Protocol": "pushhub.v2, pushhub.bearer." + tok}, bad("Sec-WebSocket-Protocol", protocol.NotSupported)},
		"subprotocol's case": {map[string]string{"Sec-WebSocket-Protocol": "PUSHHUB.V1"}, bad("Sec-WebSocket-Protocol", protocol.NotSupported)},
	} {
		t.Run(name, func(t *testing.T) {
			i, headers := i.in(t), []string{"X-Request-Id", "r"}
			if offered := c.change["Sec-WebSocket-Protocol"]; offered != "" {
				headers = append(headers, "Sec-WebSocket-Protocol", offered)
			}
			for n := 0; n < len(upgrade); n += 2 {
				value, changed := c.change[upgrade[n]]
				if !changed {
					value = upgrade[n+1]
				}
				if value != "" {
					headers = append(headers, upgrade[n], value)
				}
			}
			for _, origin := range []string{"", i.base} { // allowed: this cannot be told by a close code
				got := i.do("GET", "/api/v1/ws", tok, "", append(headers, "Origin", origin)...)
				requireRefusal(t, c.want, got, "r")
				if c.want.details["Upgrade"] != "" {
					require.Equal(t, "websocket", got.header.Get("Upgrade"))
				}
				if c.want.details["Sec-WebSocket-Version"] != "" {
					require.Equal(t, "13", got.header.Get("Sec-WebSocket-Version"))
				}
			}
		})
	}
	t.Run("HEAD", func(t *testing.T) {
		require.Equal(t, 400, i.in(t).do("HEAD", "/api/v1/ws", tok, "", upgrade...).status)
	})
	t.Run("HTTP/1.0", func(t *testing.T) {
		c := i.in(t).raw(0)
		c.handshake("/api/v1/ws?token="+tok, "HTTP/1.0")
		res, err := http.ReadResponse(c.in, nil)
		require.NoError(t, err)
		defer func() { _ = res.Body.Close() }()
		require.Equal(t, 400, res.StatusCode)
		require.Equal(t, "application/json; charset=utf-8", res.Header.Get("Content-Type"))
	})
	t.Run("HTTP/2", func(t *testing.T) {
		j := start(t, nil)
		j.speak((*http.Protocols).SetUnencryptedHTTP2)
		require.Equal(t, map[string]protocol.Reason{"Upgrade": protocol.Required}, j.do("GET", "/api/v1/ws", tok, "").Error.Details)
	})
}

// raw is a client without any library, which sees and sends every byte.
type raw struct {
	t   testing.TB
	net net.Conn
	in  *bufio.Reader
}

// raw connects; with window, the kernel keeps about so many bytes that were not
// read, at both ends.
func (i *instance) raw(window int) *raw {
	i.t.Helper()
	c, err := (&net.Dialer{Control: buffer(unix.SO_RCVBUF, window)}).DialContext(i.t.Context(), "tcp", i.addr)
	require.NoError(i.t, err)
	i.t.Cleanup(func() { _ = c.Close() })
	require.NoError(i.t, c.SetReadDeadline(time.Now().Add(i.patience)))
	return &raw{i.t, c, newReader(c)}
}

// newReader reads hardly anything ahead: what is not asked for stays in the kernel.
func newReader(c net.Conn) *bufio.Reader { return bufio.NewReaderSize(c, 16) }

func (c *raw) write(b string) {
	c.t.Helper()
	_, err := c.net.Write([]byte(b))
	require.NoError(c.t, err)
}

func (c *raw) handshake(path, version string, more ...string) {
	c.t.Helper()
	var b strings.Builder
	b.WriteString("GET " + path + " " + version + "\r\nHost: hub\r\n")
	for n := 0; n < len(upgrade); n += 2 {
		b.WriteString(upgrade[n] + ": " + upgrade[n+1] + "\r\n")
	}
	c.write(b.String() + strings.Join(append(more, ""), "\r\n") + "\r\n")
}

// accepted reads the answer to a handshake.
func (c *raw) accepted() http.Header {
	c.t.Helper()
	res, err := http.ReadResponse(c.in, nil)
	require.NoError(c.t, err)
	require.Equal(c.t, http.StatusSwitchingProtocols, res.StatusCode)
	return res.Header
}

// Where the token may be, and that of the subprotocols pushhub.v1 alone is
// selected, if it was offered.
func TestHandshake(t *testing.T) {
	i := start(t, nil)
	tok := token(t, nil)
	other := token(t, func(c *auth.Claims) { c.User = "u2" })
	for name, c := range map[string]struct {
		path     string
		headers  []string
		selected string
		user     string
	}{
		"query":                 {"/api/v1/ws?token=" + tok, nil, "", "u1"},
		"header":                {"/api/v1/ws", []string{"Authorization: bearer  " + tok}, "", "u1"},
		"subprotocol":           {"/api/v1/ws", []string{"Sec-WebSocket-Protocol: pushhub.v1, pushhub.bearer." + tok}, "pushhub.v1", "u1"},
		"subprotocol first":     {"/api/v1/ws", []string{"Sec-WebSocket-Protocol: pushhub.bearer." + tok, "Sec-WebSocket-Protocol: pushhub.v1"}, "pushhub.v1", "u1"},
		"bearer alone":          {"/api/v1/ws", []string{"Sec-WebSocket-Protocol: pushhub.bearer." + tok}, "", "u1"},
		"v1 and others":         {"/api/v1/ws?token=" + tok, []string{"Sec-WebSocket-Protocol: pushhub.v2, pushhub.v1"}, "pushhub.v1", "u1"},
		"query before header":   {"/api/v1/ws?token=" + other, []string{"Authorization: Bearer " + tok}, "", "u2"},
		"header before the sub": {"/api/v1/ws", []string{"Authorization: Bearer " + other, "Sec-WebSocket-Protocol: pushhub.v1, pushhub.bearer." + tok}, "pushhub.v1", "u2"},
	} {
		t.Run(name, func(t *testing.T) {
			ws := i.in(t).raw(0)
			ws.handshake(c.path, "HTTP/1.1", append(c.headers, "X-Request-Id: r-7")...)
			h := ws.accepted()
			require.Equal(t, c.selected, h.Get("Sec-WebSocket-Protocol"))
			require.Equal(t, "r-7", h.Get("X-Request-Id"))
			require.NotContains(t, fmt.Sprint(h), "eyJ")
			opcode, welcome := ws.frame()
			require.EqualValues(t, 1, opcode)
			require.Regexp(t, `^{"op":"welcome","connection_id":"[0-9a-f-]{36}","tenant_id":"acme","user_id":"`+c.user+`","expires_at":"[0-9TZ:-]{20}","heartbeat":20}$`, welcome)
		})
	}
	requireNoTokens(t, i)
}

// frame reads one frame of the hub.
func (c *raw) frame() (opcode byte, payload string) {
	c.t.Helper()
	opcode, payload, err := c.tryFrame()
	require.NoError(c.t, err)
	return opcode, payload
}

// maskedFrame is a whole frame of a client, with a mask of zeros.
func maskedFrame(opcode byte, payload string) string {
	b := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return string(append(b, 0, 0, 0, 0)) + payload
}

func (c *raw) tryFrame() (opcode byte, payload string, err error) {
	head := make([]byte, 2)
	if err := readFull(c.in, head); err != nil {
		return 0, "", err
	}
	n := int(head[1])
	for _, extended := range []struct{ mark, bytes int }{{126, 2}, {127, 8}} {
		if int(head[1]) != extended.mark {
			continue
		}
		n = 0
		more := make([]byte, extended.bytes)
		if err := readFull(c.in, more); err != nil {
			return 0, "", err
		}
		for _, b := range more {
			n = n<<8 | int(b)
		}
	}
	body := make([]byte, n)
	err = readFull(c.in, body)
	return head[0] & 0x0f, string(body), err
}

// A page of an allowed origin is upgraded, told what is wrong, and closed with
// the code; any other origin gets the HTTP error, as a client without one does.
func TestOrigins(t *testing.T) {
	full := func(o *transport.Options) { o.Origins, o.Limits.Connections = []string{"https://app.example"}, 1 }
	i := start(t, full)
	holder := i.dial("/api/v1/ws?token=" + token(t, nil))
	require.Contains(t, holder.next(), "welcome")
	for name, c := range map[string]struct {
		query  string
		status int
		code   protocol.CloseCode
		error  string
		field  string
	}{
		"no token":     {"", 401, protocol.CloseUnauthorized, "unauthorized", `{"token":"required"}`},
		"bad token":    {"token=x", 401, protocol.CloseUnauthorized, "unauthorized", `{"token":"malformed"}`},
		"other tenant": {"tenant=other&token=" + token(t, nil), 403, protocol.CloseForbidden, "forbidden", `{"tenant":"forbidden"}`},
		"bad topic":    {"topics=a..b&token=" + token(t, nil), 400, protocol.CloseBadRequest, "bad_request", `{"topics":"malformed"}`},
		"no grant":     {"topics=users.u2&token=" + token(t, nil), 403, protocol.CloseForbidden, "forbidden", `{"topics":"forbidden"}`},
		"full":         {"token=" + token(t, nil), 503, protocol.Overload, "unavailable", `{}`},
	} {
		for _, origin := range []string{"https://app.example", "HTTPS://APP.EXAMPLE", "http://" + i.addr} {
			t.Run(name+" "+origin, func(t *testing.T) {
				ws := i.in(t).dial("/api/v1/ws?"+c.query, "Origin", origin, "X-Request-Id", "r-9")
				require.Regexp(t, `^{"op":"error","error":{"code":"`+c.error+`","message":"[^"]+","origin":"[a-z]+","details":`+c.field+`,"trace_id":"r-9"}}$`, ws.next())
				require.Regexp(t, fmt.Sprintf(`^{"op":"bye","code":%d,"reason":"%s","retry":[0-9]+}$`, c.code, c.code.Reason()), ws.next())
				_, err := ws.read()
				var closed websocket.CloseError
				require.ErrorAs(t, err, &closed)
				require.Equal(t, websocket.CloseError{Code: websocket.StatusCode(c.code), Reason: c.code.Reason()}, closed)
			})
		}
		for _, origin := range []string{"", "https://evil.example", "null", "https://app.example.evil", "http://app.example", "https://app.example:444"} {
			got := i.do("GET", "/api/v1/ws?"+c.query, "", "", append(upgrade, "Origin", origin)...)
			if origin == "" {
				require.Equal(t, c.status, got.status, name)
			} else {
				require.Equal(t, refuses(403, protocol.Forbidden, protocol.InHeaders, "Origin", protocol.IsForbidden),
					refusal{got.status, got.Error.Code, got.Error.Origin, got.Error.Details}, origin)
			}
		}
	}
	holder.say(`{"op":"ping"}`)
	require.Equal(t, `{"op":"pong"}`, holder.next(), "others are not disturbed")
}
