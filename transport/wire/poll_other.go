//go:build !linux

package wire

import (
	"errors"
	"net"
)

// poller is not to be had on this system: every Conn has goroutines of its own.
type poller struct{}

type vector struct{}

var errNoPoller = errors.New("no sockets of the engine's own on this system")

func newPoller() *poller                                    { return nil }
func (*poller) run()                                        {}
func (*poller) close() []*Conn                              { return nil }
func (*poller) add(*Conn) error                             { return errNoPoller }
func (*poller) forget(*Conn)                                {}
func takeOver(*net.TCPConn) (int, error)                    { return -1, errNoPoller }
func closeSocket(int)                                       {}
func shutSocket(int)                                        {}
func closeWrite(int) error                                  { return errNoPoller }
func readSocket(int, []byte) (n int, again bool, err error) { return 0, false, errNoPoller }
func writeSocket(int, [][]byte, *vector) (int, error)       { return 0, errNoPoller }
