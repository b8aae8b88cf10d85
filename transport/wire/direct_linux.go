package wire

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// errFull: the socket takes no more bytes now.
var errFull = errors.New("socket is full")

// direct writes to a plain TCP socket without a copy and without blocking.
type direct struct{ raw syscall.RawConn }

func newDirect(tcp *net.TCPConn) direct {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return direct{} // closed already: the first write will say so
	}
	return direct{raw}
}

func (d direct) ok() bool { return d.raw != nil }

// try writes what the socket takes at once; errFull if that is not all.
func (d direct) try(frames [][]byte) (n int, err error) {
	want := 0
	for _, f := range frames {
		want += len(f)
	}
	callErr := d.raw.Write(func(fd uintptr) bool {
		n, err = writev(fd, frames)
		return true
	})
	switch {
	case callErr != nil:
		return 0, callErr
	case err == unix.EAGAIN:
		return 0, errFull
	case err == nil && n < want:
		return n, errFull
	}
	return max(n, 0), err
}

// wait writes some of frames, waiting until the socket takes some.
func (d direct) wait(frames [][]byte) (n int, err error) {
	callErr := d.raw.Write(func(fd uintptr) bool {
		n, err = writev(fd, frames)
		return err != unix.EAGAIN
	})
	if callErr != nil {
		return 0, callErr
	}
	return max(n, 0), err
}

func writev(fd uintptr, frames [][]byte) (int, error) {
	for {
		var n int
		var err error
		if len(frames) == 1 {
			n, err = unix.Write(int(fd), frames[0])
		} else {
			n, err = unix.Writev(int(fd), frames)
		}
		if err != unix.EINTR {
			return n, err
		}
	}
}
