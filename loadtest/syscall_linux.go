package loadtest

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System calls that do not wait, or are a thread's only occupation: they are made
// without telling the scheduler, which costs as much as parsing a message.

// poll gives how many events there are, waiting for the first up to timeout ms
// (-1: without end) and not telling the scheduler. It may return without any.
func poll(epoll int, events []unix.EpollEvent, timeout int) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(timeout), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// receive reads from a non-blocking socket without telling the scheduler: the
// call never waits, and telling costs as much as parsing the message.
func receive(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0, 0)
	return int(n), errno
}

// napTime is how long the loop rests when it has caught up with a server that is
// sending. A loop that waits for each message instead costs half as much again,
// and has the server pay for waking it; latencies are up to this much too long.
// What is left, 4 to 5 µs a delivery while server and clients each have a core, is
// the kernel's: the acknowledgement that a read sends, and the read. The rest is
// 0.3 µs; BenchmarkDelivery has the part of it that is parsing and counting.
const napTime = 200 * time.Microsecond

func nap() {
	t := unix.NsecToTimespec(int64(napTime))
	_, _, _ = syscall.RawSyscall6(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0, 0, 0, 0)
}

// transmit writes without waiting and without telling the scheduler.
func transmit(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}
