package torture

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A proxy is the network between two processes: it passes connections on to one
// address, and does to them what networks do. Its methods may be called by several
// goroutines at once.
type proxy struct {
	listener net.Listener
	target   string
	redis    bool // what the server sends is Redis's

	mu      sync.Mutex
	conns   map[*pair]struct{} // guarded by mu
	weather weather            // guarded by mu; of new connections
	closed  bool
}

// weather is what happens to bytes.
type weather struct {
	refuse bool          // connections are reset at once
	delay  time.Duration // each way
	deaf   string        // what Redis publishes on a channel that contains it is swallowed
	hold   bool          // nothing goes through, either way, and nobody is told
	ended  bool          // the connection was reset here
}

// pair is one connection through a proxy.
type pair struct {
	client, server *net.TCPConn

	ws  atomic.Bool // it is a WebSocket
	raw atomic.Bool // a hub hears the raw channels on it

	mu      sync.Mutex
	weather weather       // guarded by mu
	changed chan struct{} // closed when weather changes; guarded by mu
}

// newProxy listens on a port of its own.
func newProxy(target string, redis bool) (*proxy, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, redis: redis, conns: map[*pair]struct{}{}}
	go p.run()
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) run() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.serve(conn.(*net.TCPConn))
	}
}

func (p *proxy) serve(client *net.TCPConn) {
	p.mu.Lock()
	refuse := p.weather.refuse || p.closed
	p.mu.Unlock()
	if refuse {
		reset(client)
		return
	}
	conn, err := net.DialTimeout("tcp4", p.target, 5*time.Second)
	if err != nil {
		reset(client)
		return
	}
	c := &pair{client: client, server: conn.(*net.TCPConn), changed: make(chan struct{})}
	p.mu.Lock()
	c.weather = p.weather
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { c.pass(c.server, c.client, nil) })
	var r *replies
	if p.redis {
		r = &replies{in: bufio.NewReaderSize(c.server, 64<<10)}
	}
	both.Go(func() { c.pass(c.client, c.server, r) })
	both.Wait()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// set changes the weather, for new connections and those that there are.
func (p *proxy) set(change func(*weather)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.weather)
	for c := range p.conns {
		c.set(change)
	}
}

func (c *pair) set(change func(*weather)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.weather)
	close(c.changed)
	c.changed = make(chan struct{})
}

// reset resets every connection.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.reset()
	}
}

// vanish takes the clients away without a word to the server: their side is reset,
// and the server's stays open and silent. Only WebSockets: an event stream says
// nothing, and a kernel that goes on to acknowledge for it cannot be told from it. It
// gives how many.
func (p *proxy) vanish() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if !c.ws.Load() {
			c.reset()
			continue
		}
		c.set(func(w *weather) { w.hold = true })
		reset(c.client)
		n++
	}
	return n
}

func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.reset()
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func (c *pair) reset() {
	c.set(func(w *weather) { w.ended = true })
	reset(c.client)
	reset(c.server)
}

// now gives the weather, and a channel that tells when it changes.
func (c *pair) now() (weather, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.weather, c.changed
}

// pass passes bytes on one way until one side ends; those of a Redis reply by
// reply.
func (c *pair) pass(to, from *net.TCPConn, r *replies) {
	buffer := make([]byte, 64<<10)
	// Neither Redis nor TCP leaves something out and goes on. The hub finds such a hole
	// in what the log publishes, by its seqs; what is raw has none, and there a
	// connection that is deaf once stays so.
	stays := ""
	for {
		var b []byte
		var err error
		if r == nil {
			var n int
			n, err = from.Read(buffer)
			b = buffer[:n]
			switch {
			case bytes.HasPrefix(b, []byte("GET /api/v1/ws")):
				c.ws.Store(true)
			case bytes.Contains(b, []byte("pushhub-ingest")):
				c.raw.Store(true)
			}
		} else {
			b, err = r.next(func() string {
				w, _ := c.now()
				if c.raw.Load() {
					stays = cmp.Or(stays, w.deaf)
					return stays
				}
				return w.deaf
			})
		}
		w, changed := c.now()
		if w.delay > 0 {
			time.Sleep(w.delay)
		}
		for ; w.hold && !w.ended; w, changed = c.now() {
			<-changed
		}
		if len(b) > 0 && !w.ended {
			if _, werr := to.Write(b); werr != nil {
				c.reset()
				return
			}
		}
		switch {
		case err == io.EOF:
			_ = to.CloseWrite()
			return
		case err != nil || w.ended:
			c.reset()
			return
		}
	}
}

// replies reads what a Redis sends.
type replies struct {
	in    *bufio.Reader
	reply bytes.Buffer
}

// next gives one reply or more, without messages on channels that contain what
// deaf says, unless it says nothing.
func (r *replies) next(deaf func() string) ([]byte, error) {
	r.reply.Reset()
	for {
		start := r.reply.Len()
		channel, err := r.read()
		if err != nil {
			return r.reply.Bytes()[:start], err
		}
		if part := deaf(); part != "" && strings.Contains(channel, part) {
			r.reply.Truncate(start)
		}
		if r.in.Buffered() == 0 || r.reply.Len() > 32<<10 {
			return r.reply.Bytes(), nil
		}
	}
}

// read appends one reply. Of a message it gives the channel.
func (r *replies) read() (channel string, err error) {
	line, err := r.in.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	r.reply.Write(line)
	if len(line) < 3 {
		return "", fmt.Errorf("redis: %q", line)
	}
	kind := line[0]
	n := 0
	if kind == '$' || kind == '*' || kind == '>' {
		if n, err = strconv.Atoi(string(bytes.TrimSpace(line[1:]))); err != nil {
			return "", err
		}
	}
	switch {
	case kind == '$' && n >= 0:
		_, err = io.CopyN(&r.reply, r.in, int64(n)+2)
		return "", err
	case kind == '*' || kind == '>':
		var first, second string
		for i := range n {
			from := r.reply.Len()
			if _, err := r.read(); err != nil {
				return "", err
			}
			switch text := bulk(r.reply.Bytes()[from:]); i {
			case 0:
				first = text
			case 1:
				second = text
			}
		}
		if first == "smessage" || first == "message" || first == "pmessage" {
			return second, nil
		}
	}
	return "", nil
}

// bulk gives the text of a bulk string.
func bulk(b []byte) string {
	if len(b) == 0 || b[0] != '$' {
		return ""
	}
	_, text, _ := bytes.Cut(b, []byte("\r\n"))
	return string(bytes.TrimSuffix(text, []byte("\r\n")))
}
