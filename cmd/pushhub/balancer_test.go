package main

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// balancer is one address before several instances: it passes bytes on to the
// one that was named last.
type balancer struct {
	url      string
	listener net.Listener
	work     sync.WaitGroup

	mu     sync.Mutex
	target string            // guarded by mu
	taken  int               // connections so far; guarded by mu
	conns  map[net.Conn]bool // guarded by mu
}

func newBalancer(t testing.TB, url string) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b := &balancer{url: "http://" + l.Addr().String(), listener: l, conns: map[net.Conn]bool{}}
	b.to(url)
	b.work.Go(b.accept)
	t.Cleanup(func() {
		l.Close()
		b.drop()
		b.work.Wait()
	})
	return b
}

// to names the instance for new connections.
func (b *balancer) to(url string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.target = strings.TrimPrefix(url, "http://")
}

// drop breaks all connections.
func (b *balancer) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		c.Close()
	}
}

// await waits for the n-th connection.
func (b *balancer) await(t testing.TB, n int) {
	t.Helper()
	eventually(t, "a connection", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.taken >= n
	})
}

func (b *balancer) accept() {
	for {
		client, err := b.listener.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		target := b.target
		b.taken++
		b.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if err != nil {
			client.Close()
			continue
		}
		b.mu.Lock()
		b.conns[client], b.conns[server] = true, true
		b.mu.Unlock()
		b.work.Go(func() { pass(server, client) })
		b.work.Go(func() { pass(client, server) })
	}
}

// pass copies one direction, and ends both with it.
func pass(to, from net.Conn) {
	_, _ = io.Copy(to, from) // how it ended does not matter
	to.Close()
	from.Close()
}
