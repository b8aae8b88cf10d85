package wire

import (
	"context"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pushhub/pushhub/transport/quiet"
)

// What a socket may hold in the kernel of what is not sent yet: with the default a
// client that does not read hides megabytes there before it is found to be behind.
const maxUnsent = 16 << 10

// Listen listens for TCP connections whose kernel buffers are bounded, and which
// end when the other side has not acknowledged anything for dead: accepted sockets
// inherit that. There is no keep-alive, heartbeats do its work; and no Multipath
// TCP, whose sockets inherit nothing.
func Listen(ctx context.Context, network, address string, dead time.Duration) (net.Listener, error) {
	lc := net.ListenConfig{
		KeepAlive: -1,
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			if e := raw.Control(func(fd uintptr) {
				if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent); err == nil {
					err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(dead.Milliseconds()))
				}
			}); e != nil {
				return e
			}
			return os.NewSyscallError("setsockopt", err)
		},
	}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return listener{l}, nil
}

// listener has quiet connections.
type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return quiet.Conn(conn), nil
}
