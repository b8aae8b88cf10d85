//go:build linux

// Package port holds ports for servers that come and go.
package port

import (
	"fmt"
	"os"
	"syscall"
)

// Held is a port of 127.0.0.1 that only who knows its number listens at, also while
// no server does: the kernel gives it to nobody, and makes no connection from it.
type Held struct {
	Number int
	socket int
}

// Hold takes a port that is free. Release gives it back.
//
// It is bound to a socket that never listens. Without SO_REUSEADDR nobody else has the
// port when this succeeds; with it, set afterwards, a server may listen there that sets
// it too, as Go's and Redis do (inet_csk_get_port in the kernel).
func Hold() (h Held, err error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return Held{}, fmt.Errorf("a port: %w", os.NewSyscallError("socket", err))
	}
	defer func() {
		if err != nil {
			_ = syscall.Close(fd)
		}
	}()
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return Held{}, fmt.Errorf("a port: %w", os.NewSyscallError("bind", err))
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return Held{}, fmt.Errorf("a port: %w", os.NewSyscallError("setsockopt", err))
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return Held{}, fmt.Errorf("a port: %w", os.NewSyscallError("getsockname", err))
	}
	return Held{Number: name.(*syscall.SockaddrInet4).Port, socket: fd}, nil
}

// Release gives the port back. It is called once.
func (h Held) Release() { _ = syscall.Close(h.socket) }
