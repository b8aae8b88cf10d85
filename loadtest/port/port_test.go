//go:build linux

package port_test

import (
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/loadtest/port"
)

// TestHold: a server listens at a port that is held, and again after its end; nobody
// else gets it meanwhile.
func TestHold(t *testing.T) {
	t.Parallel()
	held, err := port.Hold()
	require.NoError(t, err)
	defer held.Release()
	addr := "127.0.0.1:" + strconv.Itoa(held.Number)
	for range 3 {
		require.Equal(t, syscall.EADDRINUSE, bind(t, held.Number), "while no server listens")
		l, err := net.Listen("tcp4", addr)
		require.NoError(t, err)
		accepted := make(chan net.Conn, 1)
		go func() {
			c, _ := l.Accept()
			accepted <- c
		}()
		client, err := net.Dial("tcp4", addr)
		require.NoError(t, err)
		server := <-accepted
		require.NotNil(t, server)
		require.Equal(t, syscall.EADDRINUSE, bind(t, held.Number), "while one listens")
		require.NoError(t, server.Close()) // its side of the connection stays for a while
		require.NoError(t, client.Close())
		require.NoError(t, l.Close())
	}
}

// TestRelease: what is given back is free.
func TestRelease(t *testing.T) {
	t.Parallel()
	require.Eventually(t, func() bool { // the kernel may give it to somebody at once
		held, err := port.Hold()
		require.NoError(t, err)
		held.Release()
		return bind(t, held.Number) == nil
	}, 10*time.Second, time.Millisecond)
}

// bind binds a socket as Hold does.
func bind(t *testing.T, number int) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer syscall.Close(fd)
	return syscall.Bind(fd, &syscall.SockaddrInet4{Port: number, Addr: [4]byte{127, 0, 0, 1}})
}
