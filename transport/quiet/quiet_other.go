//go:build !linux

package quiet

import "net"

// Conn gives conn as it is: this system has no quiet ones.
func Conn(conn net.Conn) net.Conn { return conn }

// Pooled gives conn as it is, too.
func Pooled(conn net.Conn) net.Conn { return conn }

// TCP gives the TCP connection if conn is one, and nothing else.
func TCP(conn net.Conn) *net.TCPConn {
	tcp, _ := conn.(*net.TCPConn)
	return tcp
}
