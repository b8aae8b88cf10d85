package transport

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/quiet"
)

// serveSSE takes an EventSource. It gives up for ever on any status but 200, so
// only what a person or a new token must mend is refused with one; what passes
// by itself is a stream that says bye.
func (s *Server) serveSSE(w http.ResponseWriter, r *http.Request) {
	id, wish, enc, err := s.admitSSE(r)
	if err != nil {
		if e := s.public(err, about(r)); e.Code != protocol.Unavailable && e.Code != protocol.TooManyRequests {
			s.refuse(w, r, "sse", err)
			return
		}
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store, no-transform")
	if err == nil && s.finished(r, id, wish) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("X-Accel-Buffering", "no")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	if r.Method == http.MethodHead {
		return
	}
	if id == nil {
		id = auth.Nobody()
	}
	c := s.newClient(r, id)
	leave, hijackErr := s.openStream(w, r, c, enc)
	if hijackErr != nil {
		s.fail(w, r, hijackErr)
		return
	}
	about(r).accepted(http.StatusOK)
	defer leave()
	defer c.conn.Run(nil)
	if code := s.full(); err != nil || code != 0 {
		if code == 0 {
			code = s.public(err, c.about()).Code.CloseCode()
		}
		s.metrics.connects.WithLabelValues("sse", code.Reason()).Inc()
		c.conn.Close(code)
		return
	}
	c.conn.Raw(protocol.AppendRetry(nil, 1500*time.Millisecond+rand.N(2*time.Second)))
	if !c.start(wish.since) {
		return
	}
	wants, _ := wish.wants(id, protocol.InQuery) // admitSSE checked it
	if err := c.session.Subscribe("", wants, s.limits.Topics); err != nil {
		c.conn.Close(protocol.CloseBadRequest) // cannot be: wishOf bounds the topics
	}
	c.conn.Flush()
}

// admitSSE says who connects and what is wanted, or why not.
func (s *Server) admitSSE(r *http.Request) (*auth.Identity, wish, protocol.Encoding, error) {
	id, err := s.identify(r)
	if err != nil {
		return nil, wish{}, protocol.SSE, err
	}
	q, err := parseQuery(r)
	if err != nil {
		return nil, wish{}, protocol.SSE, err
	}
	w, err := s.wishOf(r, q, id, true)
	if err != nil {
		return nil, w, protocol.SSE, err
	}
	if len(w.patterns) == 0 {
		return nil, w, protocol.SSE, badQuery("topics", protocol.Required, "topics is missing")
	}
	enc := protocol.SSE
	if named, err := q.flag("named"); err != nil {
		return nil, w, protocol.SSE, err
	} else if named {
		enc = protocol.SSENamed
	}
	_, err = w.wants(id, protocol.InQuery)
	return id, w, enc, err
}

// finished says whether the client can stop: it asks for one job, whose last
// event is final and not after the client's cursor.
func (s *Server) finished(r *http.Request, id *auth.Identity, w wish) bool {
	if w.since.IsZero() || len(w.patterns) != 1 || protocol.IsPattern(w.patterns[0]) || !strings.HasPrefix(w.patterns[0], protocol.JobsPrefix) {
		return false
	}
	done, err := s.opts.Hub.Finished(r.Context(), id.Tenant, w.patterns[0], w.since)
	return err == nil && done // when in doubt the stream tells
}

// byeBlocks gives a fresh retry and bye. Its id is the client's position.
func byeBlocks(m protocol.Bye) []byte {
	b := protocol.AppendRetry(nil, m.Retry)
	return protocol.AppendSSE(b, m.Cursor.String(), protocol.ControlName, m.Encode())
}

// openStream takes over the connection of r for c and begins the answer. leave is
// to be called before the handler returns.
func (s *Server) openStream(w http.ResponseWriter, r *http.Request, c *client, enc protocol.Encoding) (leave func(), err error) {
	if r.ProtoMajor != 1 {
		w.WriteHeader(http.StatusOK)
		stream := &h2stream{w: w, rc: http.NewResponseController(w), gone: r.Context().Done(), closed: make(chan struct{})}
		c.conn = s.engine.New(stream, nil, s.options[enc], c, nil)
		return stream.leave, nil
	}
	socket, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	w.Header().Set("Connection", "close")
	head := answerHead(http.StatusOK, w.Header())
	c.conn = s.engine.New(socket, quiet.TCP(socket), s.options[enc], c, head)
	return func() {}, nil
}

// answerHead gives an answer up to its body, for a connection that is taken over.
func answerHead(status int, h http.Header) []byte {
	b := fmt.Appendf(make([]byte, 0, 384), "HTTP/1.1 %d %s\r\nDate: ", status, http.StatusText(status))
	b = append(time.Now().UTC().AppendFormat(b, http.TimeFormat), "\r\n"...)
	buf := bytes.NewBuffer(b)
	_ = h.Write(buf) // into memory
	buf.WriteString("\r\n")
	return buf.Bytes()
}

// h2stream is an HTTP/2 stream as a wire.Socket. It must not be used once its
// handler has left.
type h2stream struct {
	// fixed after construction
	w      http.ResponseWriter
	rc     *http.ResponseController
	gone   <-chan struct{} // closed when the client is
	closed chan struct{}   // closed by Close

	mu   sync.Mutex // held while writing
	left bool       // guarded by mu
}

// Read waits for the end: the client of an event stream says nothing.
func (h *h2stream) Read([]byte) (int, error) {
	select {
	case <-h.gone:
	case <-h.closed:
	}
	return 0, io.EOF
}

func (h *h2stream) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left {
		return 0, io.ErrClosedPipe
	}
	n, err := h.w.Write(p)
	if err == nil {
		err = h.rc.Flush()
	}
	return n, err
}

// SetWriteDeadline implements wire.Socket: net/http panics when it is asked for
// a stream whose handler has left.
func (h *h2stream) SetWriteDeadline(t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left {
		return io.ErrClosedPipe
	}
	return h.rc.SetWriteDeadline(t)
}

// Close implements wire.Socket. It is called once; the handler ends the stream by
// leaving.
func (h *h2stream) Close() error {
	close(h.closed)
	return nil
}

// leave ends all writes. One that is under way is cut short, which resets the
// stream: without one it ends in order.
func (h *h2stream) leave() {
	if !h.mu.TryLock() {
		_ = h.rc.SetWriteDeadline(time.Now()) // fails only when the stream is gone, and then a write does too
		h.mu.Lock()
	}
	h.left = true
	h.mu.Unlock()
}
