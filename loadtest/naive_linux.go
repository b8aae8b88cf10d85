package loadtest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Naive is the hub that one writes in an afternoon: a goroutine and a channel for
// each connection, each event written by each. It runs until its control
// connection ends. A client that is 256 events behind is closed.
func Naive(y Yardstick) error {
	h := &naive{topics: map[uint32]map[chan []byte]context.CancelFunc{}}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(y.Listener) }()
	control, err := y.Control.Accept()
	if err != nil {
		return err
	}
	defer control.Close()
	in := bufio.NewReader(control)
	var order [orderSize]byte
	for {
		if _, err := io.ReadFull(in, order[:]); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		m := parseOrder(order[:])
		h.publish(m.k, appendEvent(nil, m, y.Size))
	}
	_ = server.Close()
	<-served
	return nil
}

type naive struct {
	mu     sync.Mutex
	topics map[uint32]map[chan []byte]context.CancelFunc // guarded by mu
}

func (h *naive) publish(topic uint32, event []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch, end := range h.topics[topic] {
		select {
		case ch <- event:
		default: // it is too slow
			end()
		}
	}
}

func (h *naive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ch := make(chan []byte, 256)
	write, ctx, err := h.open(w, r)
	if err != nil {
		return // the answer has been given
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	for name := range strings.SplitSeq(r.FormValue("topics"), ",") {
		k, _ := strconv.ParseUint(name, 10, 32) // 0 if none
		h.subscribe(uint32(k), ch, end)
		defer h.unsubscribe(uint32(k), ch)
	}
	for {
		select {
		case event := <-ch:
			if write(event) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (h *naive) subscribe(topic uint32, ch chan []byte, end context.CancelFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.topics[topic] == nil {
		h.topics[topic] = map[chan []byte]context.CancelFunc{}
	}
	h.topics[topic][ch] = end
}

func (h *naive) unsubscribe(topic uint32, ch chan []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.topics[topic], ch)
}

// open answers the handshake, and gives how to write an event and what ends with
// the connection.
func (h *naive) open(w http.ResponseWriter, r *http.Request) (func([]byte) error, context.Context, error) {
	if r.URL.Path == "/ws" {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return nil, nil, err
		}
		ctx := c.CloseRead(context.Background())
		return func(b []byte) error { return c.Write(ctx, websocket.MessageText, b) }, ctx, nil
	}
	w.Header().Set("Content-Type", "text/event-stream")
	flusher := http.NewResponseController(w)
	if err := flusher.Flush(); err != nil {
		return nil, nil, err
	}
	return func(b []byte) error {
		if _, err := w.Write(append(append([]byte("data: "), b...), "\n\n"...)); err != nil {
			return err
		}
		return flusher.Flush()
	}, r.Context(), nil
}

// Upgrade is what a handshake costs in Go: net/http reads the request, the
// connection is hijacked and answered, and nothing is done with it. It runs until
// the listener is closed.
func Upgrade(l net.Listener) error {
	var conns []net.Conn // kept, or the collector would close them
	var mu sync.Mutex
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		mu.Lock()
		conns = append(conns, conn)
		mu.Unlock()
		_, _ = conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + "\r\n\r\n"))
	})}
	return server.Serve(l)
}
