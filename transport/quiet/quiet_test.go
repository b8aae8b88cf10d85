//go:build linux

package quiet_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/pushhub/pushhub/transport/quiet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair gives the two ends of a TCP connection: a quiet one and another.
func pair(t testing.TB) (q net.Conn, other *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	accepted, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = c.Close(), accepted.Close() })
	return quiet.Conn(accepted), c.(*net.TCPConn)
}

// It does what every net.Conn does.
func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (q, other net.Conn, stop func(), err error) {
		q, other = pair(t)
		return q, quiet.Conn(other), func() { _, _ = q.Close(), other.Close() }, nil
	})
}

func TestLargeWrites(t *testing.T) {
	q, other := pair(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	failed := make(chan error, 1)
	go func() {
		n, err := q.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		failed <- err
	}()
	got := make([]byte, len(sent))
	_, err := io.ReadFull(other, got)
	require.NoError(t, err)
	require.NoError(t, <-failed)
	require.True(t, bytes.Equal(sent, got))
}

// Errors are those of package net: net/http and go-redis look at them.
func TestErrors(t *testing.T) {
	buf := make([]byte, 10)

	q, other := pair(t)
	n, err := q.Read(nil) // does not wait
	require.NoError(t, err)
	require.Zero(t, n)
	require.NoError(t, other.CloseWrite())
	_, err = q.Read(buf)
	require.Equal(t, io.EOF, err)

	require.NoError(t, q.SetReadDeadline(time.Now().Add(-time.Second)))
	_, err = q.Read(buf)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())

	q, other = pair(t)
	require.NoError(t, other.SetLinger(0))
	require.NoError(t, other.Close()) // by RST
	_, err = q.Read(buf)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, "read", op.Op)
	_, err = q.Write(buf)
	require.ErrorIs(t, err, syscall.EPIPE)

	require.NoError(t, q.Close())
	_, err = q.Read(buf)
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = q.Write(buf)
	require.ErrorIs(t, err, net.ErrClosed)
}

// A pool is told that something has come, or that the other side has gone; not of nothing.
func TestPooled(t *testing.T) {
	q, other := pair(t)
	p := quiet.Pooled(quiet.TCP(q))
	peek := func() (calls, n int, errno error) {
		raw, err := p.(syscall.Conn).SyscallConn()
		require.NoError(t, err)
		err = raw.Read(func(fd uintptr) bool {
			calls++
			n, _, errno = syscall.Recvfrom(int(fd), make([]byte, 10), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			return true
		})
		require.NoError(t, err)
		return calls, n, errno
	}
	calls, _, _ := peek()
	require.Zero(t, calls)

	_, err := other.Write([]byte("abc"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { calls, _, _ = peek(); return calls == 1 }, 10*time.Second, time.Millisecond)
	_, n, err := peek()
	require.NoError(t, err)
	require.Equal(t, 3, n)
	got, err := io.ReadAtLeast(p, make([]byte, 10), 3)
	require.NoError(t, err)
	require.Equal(t, 3, got)

	require.NoError(t, other.Close())
	require.Eventually(t, func() bool { calls, _, _ = peek(); return calls == 1 }, 10*time.Second, time.Millisecond)
	_, n, err = peek()
	require.NoError(t, err)
	require.Zero(t, n)

	require.Same(t, quiet.TCP(q), quiet.TCP(p))
	secure := tls.Client(other, nil)
	require.Equal(t, net.Conn(secure), quiet.Pooled(secure), "only plain TCP")
}

func TestTCP(t *testing.T) {
	q, other := pair(t)
	require.NotNil(t, quiet.TCP(q))
	require.Equal(t, q.LocalAddr(), quiet.TCP(q).LocalAddr())
	require.Same(t, other, quiet.TCP(other))
	require.Nil(t, quiet.TCP(tls.Server(q, nil)))
	secure := tls.Server(q, nil)
	require.Equal(t, net.Conn(secure), quiet.Conn(secure), "only plain TCP")
	_, ok := q.(syscall.Conn)
	require.True(t, ok, "go-redis looks whether the other side has gone")
}
