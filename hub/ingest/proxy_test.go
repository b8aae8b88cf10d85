package ingest_test

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands between one instance and Redis, and does what networks do: to the
// connection that hears the raw channels, or to all others.
type proxy struct {
	// fixed after construction
	target string
	ln     net.Listener
	work   sync.WaitGroup // accept and the copying

	mu    sync.Mutex
	lift  *sync.Cond        // fates changed, or it ended
	fates map[kind]fate     // guarded by mu
	conns map[net.Conn]kind // guarded by mu
	ended bool              // guarded by mu
}

// kind tells the connections of an instance apart.
type kind string

const (
	raw      kind = "raw"
	commands kind = "commands"
)

// fate is what happens to what is said on connections of a kind.
type fate int

const (
	pass        fate = iota
	hold             // it waits until the fate is another
	loseReplies      // what Redis says is lost, with the connection
	cut              // all is lost, with the connections
)

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{target: target, ln: ln, fates: map[kind]fate{}, conns: map[net.Conn]kind{}}
	p.lift = sync.NewCond(&p.mu)
	p.work.Go(p.accept)
	t.Cleanup(func() {
		ln.Close()
		p.mu.Lock()
		p.ended = true
		for c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.lift.Broadcast()
		p.work.Wait()
	})
	return p
}

func (p *proxy) url() string { return "redis://" + p.ln.Addr().String() }

// set gives connections of some kinds a fate, those that are there too.
func (p *proxy) set(f fate, kinds ...kind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range kinds {
		p.fates[k] = f
		for c, is := range p.conns {
			if f == cut && is == k {
				c.Close()
			}
		}
	}
	p.lift.Broadcast()
}

// fate gives what is to happen now, after a hold.
func (p *proxy) fate(k kind) fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.fates[k] == hold && !p.ended {
		p.lift.Wait()
	}
	if p.ended {
		return cut
	}
	return p.fates[k]
}

func (p *proxy) accept() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.work.Go(func() { p.serve(client) })
	}
}

// serve copies. The first thing that a connection says is its name.
func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	defer p.forget(client, server)
	if !p.know("", client, server) {
		return
	}
	hello := make([]byte, 64<<10)
	n, err := client.Read(hello)
	if err != nil {
		return
	}
	k := commands
	if bytes.Contains(hello[:n], []byte("pushhub-ingest")) {
		k = raw
	}
	if !p.know(k, client, server) || p.fate(k) == cut {
		return
	}
	if _, err := server.Write(hello[:n]); err != nil {
		return
	}
	p.work.Go(func() { p.copy(k, client, server, loseReplies) })
	p.copy(k, server, client, cut)
}

func (p *proxy) know(k kind, conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = k
	}
	return !p.ended
}

func (p *proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// copy copies until an end, or until it is to lose what it has read.
func (p *proxy) copy(k kind, to, from net.Conn, lose fate) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if f := p.fate(k); f == cut || f == lose {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// idsOf gives the ids of those of Redis' connections that have a name.
func idsOf(list, name string) (ids []string) {
	for line := range strings.Lines(list) {
		if strings.Contains(line, " name="+name+" ") {
			id, _, _ := strings.Cut(strings.TrimPrefix(line, "id="), " ")
			ids = append(ids, id)
		}
	}
	return ids
}
