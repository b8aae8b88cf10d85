package wire_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/quiet"
	"github.com/pushhub/pushhub/transport/wire"
)

// inside is set where this program is run in a network of its own.
const inside = "PUSHHUB_TEST_NETWORK"

func init() {
	if os.Getenv(inside) == "" {
		return
	}
	if err := halfOpen(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// TestHalfOpen: a client is gone without a word, as when its cable is pulled: what
// was sent to it is never acknowledged. The kernel ends the connection in time, and the
// engine hears of that. It runs in a network of its own, of which the loopback interface
// is taken down.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if os.Getuid() != 0 { // root of a namespace of users may do that, too
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func halfOpen() error {
	if err := loopback(true); err != nil {
		return err
	}
	const dead = 500 * time.Millisecond
	l, err := wire.Listen(context.Background(), "tcp4", "127.0.0.1:0", dead)
	if err != nil {
		return err
	}
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		return err
	}
	server, err := l.Accept()
	if err != nil {
		return err
	}
	e := wire.NewEngine()
	defer e.Close()
	o := options(new(counts))
	ended := make(chan struct{})
	o.ended = func() { close(ended) }
	c := e.New(server, quiet.TCP(server), &o.Options, &o, nil)
	c.Run(nil)
	c.Event(event("a", 1, 10), true)
	if _, err := client.Read(make([]byte, 1)); err != nil {
		return err
	}
	if err := loopback(false); err != nil {
		return err
	}
	c.Event(event("a", 2, 10), true)
	select {
	case <-ended:
		return nil
	case <-time.After(8 * dead):
		return errors.New("the connection did not end")
	}
}

// Accepted sockets have the bounds of the kernel's memory and patience.
func TestListenIsInherited(t *testing.T) {
	l, err := wire.Listen(t.Context(), "tcp4", "127.0.0.1:0", 1234*time.Millisecond)
	require.NoError(t, err)
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	server, err := l.Accept()
	require.NoError(t, err)
	defer server.Close()
	tcp := quiet.TCP(server)
	multipath, err := tcp.MultipathTCP()
	require.NoError(t, err)
	require.False(t, multipath, "its sockets inherit nothing")
	raw, err := tcp.SyscallConn()
	require.NoError(t, err)
	for _, want := range []struct{ option, value int }{{unix.TCP_NOTSENT_LOWAT, 16 << 10}, {unix.TCP_USER_TIMEOUT, 1234}} {
		require.NoError(t, raw.Control(func(fd uintptr) {
			value, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, want.option)
			require.NoError(t, err)
			require.Equal(t, want.value, value)
		}))
	}
	require.NoError(t, raw.Control(func(fd uintptr) {
		value, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		require.NoError(t, err)
		require.Zero(t, value, "heartbeats do its work")
	}))
}

// A reader that stalls holds what its outbox may, and 64 KiB in the kernel: not the
// megabytes that it would take.
func TestStalledReaderIsBounded(t *testing.T) {
	const bound, kernel, size = 1 << 20, 64 << 10, 8 << 10
	l, err := wire.Listen(t.Context(), "tcp4", "127.0.0.1:0", time.Minute)
	require.NoError(t, err)
	defer l.Close()
	far, err := net.Dial("tcp4", l.Addr().String())
	require.NoError(t, err)
	defer far.Close()
	near, err := l.Accept()
	require.NoError(t, err)
	socket, err := quiet.TCP(near).File() // another descriptor of it
	require.NoError(t, err)
	defer socket.Close()
	raw, err := socket.SyscallConn()
	require.NoError(t, err)
	e := wire.NewEngine()
	defer e.Close()
	o := options(new(counts))
	o.MaxBytes = bound
	var slow atomic.Bool
	o.bye = func(protocol.CloseCode, protocol.Cursor) []byte { slow.Store(true); return nil }
	c := e.New(near, quiet.TCP(near), &o.Options, &o, nil)
	c.Run(nil)
	defer c.Abort()
	unacknowledged := func() (n int) {
		require.NoError(t, raw.Control(func(fd uintptr) {
			n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
			require.NoError(t, err)
		}))
		return n
	}
	most := 0
	for seq := uint64(1); !slow.Load(); seq++ {
		require.Less(t, seq, uint64(10_000), "the reader is never found to be too slow")
		if waits := c.Waiting(); waits > bound/2 {
			if most == 0 { // what was on its way to the reader's own buffer has arrived
				require.Eventually(t, func() bool { return unacknowledged() <= kernel }, 10*time.Second, time.Millisecond)
			}
			most = max(most, waits+unacknowledged())
		}
		c.Event(event("a", seq, size), true)
		time.Sleep(50 * time.Microsecond) // the shard writes meanwhile
	}
	require.Less(t, bound-2*size, most)
	require.LessOrEqual(t, most, bound+kernel)
}

// loopback takes the interface up or down.
func loopback(up bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if up {
		lo.SetUint16(unix.IFF_UP)
	}
	return os.NewSyscallError("loopback", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo))
}
