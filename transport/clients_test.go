package transport

import (
	"testing"

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
