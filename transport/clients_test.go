package transport

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A client that was not taken, because another was quicker, takes nobody's place.
func TestClients(t *testing.T) {
	s := &Server{limits: Limits{Connections: 2}, empty: make(chan struct{})}
	a, b, late := &client{}, &client{}, &client{}
	s.remove(late) // of none
	require.Zero(t, s.add(a))
	require.Zero(t, s.add(b))
	require.NotZero(t, s.add(late))
	s.remove(late)
	require.Equal(t, []*client{a, b}, s.clients)
	s.remove(a)
	require.Equal(t, []*client{b}, s.clients)
	s.draining.Store(true)
	s.remove(b)
	require.Empty(t, s.clients)
	<-s.empty
}

// A Conn asks how long it was served, under its lock, while the server may abort it
// under its own.
func TestServedTakesNoLock(t *testing.T) {
	s := &Server{empty: make(chan struct{})}
	s.beginDrain()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.True(t, s.draining.Load())
	require.GreaterOrEqual(t, s.served(), time.Duration(0))
}
