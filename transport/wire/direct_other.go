//go:build !linux

package wire

import (
	"errors"
	"net"
)

// errFull is never returned here.
var errFull = errors.New("socket is full")

// direct is not to be had on this system: every Conn is written by a goroutine.
type direct struct{}

func newDirect(*net.TCPConn) direct       { return direct{} }
func (direct) ok() bool                   { return false }
func (direct) try([][]byte) (int, error)  { return 0, errFull }
func (direct) wait([][]byte) (int, error) { return 0, errFull }
