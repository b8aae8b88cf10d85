package torture

import (
	"bufio"
	"bytes"
	"cmp"
	"io"
	"net"
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
	ports    map[string]string // to a Redis: ports of its servers, and of their proxies; else nil

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
	hold   way           // what goes that way waits, and nobody is told
	lose   way           // what goes that way is taken, and goes nowhere
	ended  bool          // the connection was reset here
}

// way is a direction through a proxy.
type way uint8

const (
	toServer way = 1 << iota
	toClient
	bothWays = toServer | toClient
)

// only gives a direction, or none.
func only(is bool, w way) way {
	if is {
		return w
	}
	return 0
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

// newProxy has a port of its own. It passes nothing on before start.
func newProxy(target string) (*proxy, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &proxy{listener: l, target: target, conns: map[*pair]struct{}{}}, nil
}

func (p *proxy) start() { go p.run() }

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

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
	conn, err := net.DialTimeout("tcp4", p.target, 5*time.Second)
	if err != nil {
		reset(client)
		return
	}
	c := &pair{client: client, server: conn.(*net.TCPConn), changed: make(chan struct{})}
	p.mu.Lock()
	c.weather = p.weather
	refuse := p.weather.refuse || p.closed
	if !refuse {
		p.conns[c] = struct{}{}
	}
	p.mu.Unlock()
	if refuse {
		c.reset()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { c.pass(toServer, nil) })
	var r *replies
	if p.ports != nil {
		r = &replies{in: bufio.NewReaderSize(c.server, 64<<10), ports: p.ports}
	}
	both.Go(func() { c.pass(toClient, r) })
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
// and the server's stays open and silent. What it writes is acknowledged on, if taken,
// or fills its socket. Only WebSockets: an event stream says nothing, and a kernel that
// goes on to acknowledge for it cannot be told from it. It gives how many.
func (p *proxy) vanish(taken bool) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if !c.ws.Load() {
			c.reset()
			continue
		}
		c.set(func(w *weather) {
			w.hold = bothWays
			if taken {
				w.hold, w.lose = toServer, toClient
			}
		})
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
func (c *pair) pass(way way, r *replies) {
	from, to := c.client, c.server
	if way == toClient {
		from, to = to, from
	}
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
		for ; w.hold&way != 0 && !w.ended; w, changed = c.now() {
			<-changed
		}
		if len(b) > 0 && !w.ended && w.lose&way == 0 {
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
