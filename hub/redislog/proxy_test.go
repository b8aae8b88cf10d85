package redislog

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands between a log and its Redis, and does what networks do.
type proxy struct {
	// fixed after construction
	ln   net.Listener
	work sync.WaitGroup // accept and the copying

	mu     sync.Mutex
	target string                // guarded by mu
	fate   fate                  // guarded by mu
	conns  map[net.Conn]struct{} // guarded by mu
}

// fate is what happens to bytes that come to the proxy.
type fate int

const (
	pass         fate = iota
	loseRequests      // what the client sends is lost, with the connection
	loseReplies       // what the server sends is lost, with the connection
	stall             // all is lost, and the connections stay
)

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{target: target, ln: ln, conns: map[net.Conn]struct{}{}}
	p.work.Go(p.accept)
	t.Cleanup(func() {
		ln.Close()
		p.mu.Lock()
		for c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.work.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.ln.Addr().String() }

func (p *proxy) set(f fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fate = f
}

// turn cuts all connections, and sends new ones to another server.
func (p *proxy) turn(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) accept() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = struct{}{}, struct{}{}
		p.mu.Unlock()
		p.work.Go(func() { p.copy(server, client, loseRequests) })
		p.work.Go(func() { p.copy(client, server, loseReplies) })
	}
}

// copy copies until an end, or until it is to lose what it has read.
func (p *proxy) copy(to, from net.Conn, lose fate) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		f := p.fate
		p.mu.Unlock()
		switch f {
		case lose:
			return
		case stall:
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
