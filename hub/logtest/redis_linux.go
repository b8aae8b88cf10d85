package logtest

import "syscall"

// A test binary that is killed or panics runs no clean-up: its Redis dies with it.
func init() { redisAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
