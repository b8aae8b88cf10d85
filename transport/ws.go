package transport

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/quiet"
)

// subprotocol is the version of the WebSocket protocol that the hub speaks.
const subprotocol = "pushhub.v1"

// maxBadMessages is how many malformed messages in a row close a connection.
const maxBadMessages = 10

// serveWS takes a WebSocket. What is refused is refused before the upgrade, as
// HTTP; only a page of an allowed origin, which could not see that, is upgraded
// and told by the close code.
func (s *Server) serveWS(w http.ResponseWriter, r *http.Request) {
	if err := s.checkOrigin(r); err != nil {
		s.refuse(w, r, "websocket", err)
		return
	}
	id, wish, err := s.admitWS(r)
	if shape := checkUpgrade(w, r); shape != nil {
		if err == nil || r.Header.Get("Origin") != "" {
			err = shape
		}
		s.refuse(w, r, "websocket", err)
		return
	}
	if err != nil && r.Header.Get("Origin") == "" {
		s.refuse(w, r, "websocket", err)
		return
	}
	if err != nil {
		id = auth.Nobody()
	}
	take := &takeover{ResponseWriter: w}
	_, _ = websocket.Accept(take, r, &websocket.AcceptOptions{ // an error, always: see takeover
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // checkOrigin did it
	})
	if take.socket == nil {
		return
	}
	c := s.newClient(r, id)
	about(r).accepted(http.StatusSwitchingProtocols)
	c.conn = s.engine.New(take.socket, quiet.TCP(take.socket), s.options[protocol.WebSocket], c, take.head)
	defer c.conn.Run(take.early)
	if err != nil {
		e := s.public(err, c.about())
		s.metrics.connects.WithLabelValues("websocket", string(e.Code)).Inc()
		code := s.full()
		if code == 0 || e.Code != protocol.Unavailable {
			code = e.Code.CloseCode()
		}
		c.conn.Close(code, errorFrame("", e))
		return
	}
	if !c.start(protocol.Cursor{}) {
		return
	}
	if len(wish.patterns) > 0 {
		wants, _ := wish.wants(id, protocol.InQuery) // admitWS checked it
		if err := c.session.Subscribe("", wants, s.limits.Topics); err != nil {
			c.refuse("", err)
		}
	}
	c.conn.Flush()
}

// admitWS says who connects and what is wanted, or why not.
func (s *Server) admitWS(r *http.Request) (*auth.Identity, wish, error) {
	id, err := s.identify(r)
	if err != nil {
		return nil, wish{}, err
	}
	q, err := parseQuery(r)
	if err != nil {
		return nil, wish{}, err
	}
	w, err := s.wishOf(r, q, id, false)
	if err != nil {
		return nil, w, err
	}
	if _, err := w.wants(id, protocol.InQuery); err != nil {
		return nil, w, err
	}
	if code := s.full(); code != 0 {
		return nil, w, protocol.Errorf(protocol.Unavailable, protocol.InInternal, "", "", "no more connections here: %s", code.Reason())
	}
	return id, w, nil
}

// refuse answers a handshake that is not taken.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, transport string, err error) {
	s.metrics.connects.WithLabelValues(transport, string(s.public(err, about(r)).Code)).Inc()
	s.fail(w, r, err)
}

// checkUpgrade says what is wrong with a request as a WebSocket handshake (RFC
// 6455, section 4.2.1).
func checkUpgrade(w http.ResponseWriter, r *http.Request) error {
	bad := func(header string, reason protocol.Reason, text string) error {
		return protocol.Errorf(protocol.BadRequest, protocol.InHeaders, header, reason, "%s", text)
	}
	if r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor == 0 ||
		!headerHas(r, "Connection", "upgrade") || !headerHas(r, "Upgrade", "websocket") {
		w.Header().Set("Upgrade", "websocket")
		return bad("Upgrade", protocol.Required, "this path is for WebSockets")
	}
	if r.Header.Get("Sec-WebSocket-Version") != "13" {
		w.Header().Set("Sec-WebSocket-Version", "13")
		return bad("Sec-WebSocket-Version", protocol.NotSupported, "only version 13 is supported")
	}
	keys := r.Header.Values("Sec-WebSocket-Key")
	if len(keys) != 1 {
		return bad("Sec-WebSocket-Key", protocol.Required, "one Sec-WebSocket-Key is needed")
	}
	if key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(keys[0])); err != nil || len(key) != 16 {
		return bad("Sec-WebSocket-Key", protocol.Malformed, "Sec-WebSocket-Key is not 16 bytes in base64")
	}
	offered := slices.DeleteFunc(headerTokens(r, "Sec-WebSocket-Protocol"), func(p string) bool {
		return strings.HasPrefix(p, auth.BearerProtocol)
	})
	if len(offered) > 0 && !slices.Contains(offered, subprotocol) {
		return bad("Sec-WebSocket-Protocol", protocol.NotSupported, "the hub speaks "+subprotocol)
	}
	return nil
}

func headerTokens(r *http.Request, name string) []string {
	var all []string
	for _, v := range r.Header.Values(name) {
		for t := range strings.SplitSeq(v, ",") {
			if t = strings.TrimSpace(t); t != "" {
				all = append(all, t)
			}
		}
	}
	return all
}

func headerHas(r *http.Request, name, token string) bool {
	return slices.ContainsFunc(headerTokens(r, name), func(t string) bool { return strings.EqualFold(t, token) })
}

// Message implements wire.Peer.
func (c *client) Message(frames []byte) (ok bool) {
	defer c.survive()
	kind, message, err := parseFrames(frames)
	if err != nil || kind == websocket.MessageText && !utf8.Valid(message) {
		return false
	}
	ref, e := c.obey(kind, message)
	switch {
	case e == nil:
		c.bad = 0
	case c.bad < maxBadMessages-1:
		c.bad++
		c.refuse(ref, e)
	default:
		c.conn.Close(protocol.CloseBadRequest, errorFrame(ref, c.s.public(e, c.about())))
	}
	return true
}

// obey does what a message asks for, and answers it. The error is given for a
// malformed one, with its ref; that is for the caller to answer.
func (c *client) obey(kind websocket.MessageType, message []byte) (ref string, e *protocol.Error) {
	var cmd protocol.Command
	if kind != websocket.MessageText {
		return "", protocol.Errorf(protocol.BadRequest, protocol.InMessage, "message", protocol.NotSupported, "binary messages are not supported")
	}
	if cmd, e = protocol.ParseCommand(message); e != nil {
		return cmd.Ref, e
	}
	switch cmd.Op {
	case protocol.OpPing:
		c.conn.Control(protocol.Pong{Ref: cmd.Ref}.Encode(), protocol.Cursor{})
		c.conn.Flush()
	case protocol.OpSubscribe:
		if err := c.subscribe(cmd); err != nil {
			c.refuse(cmd.Ref, err)
		}
	case protocol.OpUnsubscribe:
		names := make([]string, len(cmd.Topics))
		for i, t := range cmd.Topics {
			names[i] = t.Topic
		}
		c.session.Unsubscribe(cmd.Ref, names)
	case protocol.OpAuth:
		if err := c.authenticate(cmd); err != nil {
			c.refuse(cmd.Ref, err)
		}
	}
	return "", nil
}

func (c *client) refuse(ref string, err error) {
	c.conn.Control(protocol.ErrorMessage{Ref: ref, Error: c.s.public(err, c.about())}.Encode(), protocol.Cursor{})
	c.conn.Flush()
}

func (c *client) subscribe(cmd protocol.Command) error {
	if len(cmd.Topics) > c.s.limits.Topics { // also of repeated ones: the hub compares each with each
		return hub.ErrTooMany
	}
	id := c.who()
	wants := make([]hub.Want, len(cmd.Topics))
	for i, t := range cmd.Topics {
		var err error
		if wants[i], err = grant(id, t, protocol.InMessage); err != nil {
			return err
		}
	}
	return c.session.Subscribe(cmd.Ref, wants, c.s.limits.Topics)
}

func (c *client) authenticate(cmd protocol.Command) error {
	id, err := c.s.opts.Verifier.Verify(context.Background(), cmd.Token)
	c.s.metrics.authenticated(err)
	if err == nil && !id.ExpiresAt().After(time.Now()) { // the leeway is for connecting
		err = protocol.Errorf(protocol.Unauthorized, protocol.InMessage, "token", protocol.Expired, "the token has expired")
	}
	if err == nil {
		id, err = id.For(c.who().Tenant)
	}
	if err != nil {
		return auth.WithOrigin(err, protocol.InMessage)
	}
	if err := c.renew(id); err != nil {
		return err
	}
	c.conn.Control(protocol.Authenticated{Ref: cmd.Ref, ExpiresAt: id.ExpiresAt()}.Encode(), protocol.Cursor{})
	c.conn.Flush()
	return nil
}

// pingFrame is a WebSocket ping without payload.
var pingFrame = []byte{0x89, 0}

func errorFrame(ref string, e *protocol.Error) []byte {
	return protocol.AppendTextFrame(nil, protocol.ErrorMessage{Ref: ref, Error: e}.Encode())
}

// byeFrames gives bye and the close frame after it.
func byeFrames(m protocol.Bye) []byte {
	b := protocol.AppendTextFrame(nil, m.Encode())
	return protocol.AppendCloseFrame(b, m.Code)
}

// takeover gives the socket of a request to us when coder/websocket, which only makes
// the handshake, asks for it. It gets an error then, and so makes no connection that
// nobody would use. The answer is ours to send: it goes out with the first messages.
type takeover struct {
	http.ResponseWriter
	head   []byte // the answer
	socket net.Conn
	early  []byte // what the client sent already
}

// WriteHeader implements http.ResponseWriter.
func (t *takeover) WriteHeader(status int) {
	switch {
	case t.socket != nil: // coder's words about the error
	case status == http.StatusSwitchingProtocols:
		t.head = answerHead(status, t.Header())
	default:
		t.ResponseWriter.WriteHeader(status)
	}
}

func (t *takeover) Write(p []byte) (int, error) {
	if t.socket != nil {
		return len(p), nil
	}
	return t.ResponseWriter.Write(p)
}

var errTaken = errors.New("the socket is ours")

// Hijack implements http.Hijacker.
func (t *takeover) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	socket, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		return nil, nil, errors.Join(err, socket.Close())
	}
	t.socket, t.early = socket, bytes.Clone(early)
	return nil, nil, errTaken
}

// parseFrames has coder/websocket read a message of which all frames are there. It
// does so on a connection of the message's own: no byte of one client can come to
// another, nor of one message to the next.
func parseFrames(frames []byte) (websocket.MessageType, []byte, error) {
	conn := silence{reads: bytes.NewReader(frames)}
	ws, err := websocket.Accept(&accepted{conn: conn, header: http.Header{}}, handshake, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = ws.CloseNow() }() // frees what coder keeps
	ws.SetReadLimit(-1)                  // wire has bounded it
	return ws.Read(context.Background())
}

// handshake is one that coder/websocket accepts.
var handshake = &http.Request{
	Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: "localhost",
	Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	},
}

// accepted is the answer to handshake, which nobody reads.
type accepted struct {
	conn   silence
	header http.Header
}

func (a *accepted) Header() http.Header         { return a.header }
func (a *accepted) WriteHeader(int)             {}
func (a *accepted) Write(p []byte) (int, error) { return len(p), nil }

// Hijack implements http.Hijacker.
func (a *accepted) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return a.conn, buffered(a.conn), nil
}

// silence is a connection that takes everything, and brings what is given or the end.
type silence struct {
	net.Conn // nil
	reads    *bytes.Reader
}

func (s silence) Read(p []byte) (int, error) {
	if s.reads == nil {
		return 0, io.EOF
	}
	return s.reads.Read(p)
}
func (s silence) Write(p []byte) (int, error) { return len(p), nil }
func (s silence) Close() error                { return nil }

func buffered(s silence) *bufio.ReadWriter {
	return bufio.NewReadWriter(bufio.NewReaderSize(s, 512), bufio.NewWriterSize(s, 16))
}
