package transport_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/transport"
)

// BenchmarkHandshake connects a WebSocket with a token of its own, subscribes it to
// a topic and waits for subscribed: CPU and garbage of both sides, of which the
// client's is little. The sockets stay open until the end.
func BenchmarkHandshake(b *testing.B) {
	i := start(b, func(o *transport.Options) { o.Logger = zerolog.Nop() })
	tokens := make([]string, b.N)
	for n := range tokens {
		tokens[n] = token(b, func(c *auth.Claims) { c.User = fmt.Sprint("user-", n) })
	}
	conns := make([]net.Conn, 0, b.N)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	r := bufio.NewReaderSize(nil, 4<<10)
	b.ReportAllocs()
	b.ResetTimer()
	for _, t := range tokens {
		conn, err := net.Dial("tcp", i.addr)
		require.NoError(b, err)
		conns = append(conns, conn)
		_, err = io.WriteString(conn, "GET /api/v1/ws?topics=load.0&token="+t+" HTTP/1.1\r\nHost: "+i.addr+
			"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		require.NoError(b, err)
		r.Reset(conn)
		for line := ""; !strings.Contains(line, "subscribed"); {
			line, err = r.ReadString('}')
			require.NoError(b, err)
		}
	}
	b.StopTimer()
}
