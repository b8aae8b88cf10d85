package torture

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A process is one that was started here. It dies with this process. Its methods
// are for one goroutine at a time.
type process struct {
	name  string
	path  string
	args  []string
	env   []string
	log   io.Writer
	cmd   *exec.Cmd     // nil before the first start
	ended chan struct{} // closed when it has ended
}

// start starts it, again after its end.
func (p *process) start() error {
	cmd := exec.Command(p.path, p.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	ended, started := make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread() // it dies with the thread that started it
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in ProcessState
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	p.cmd, p.ended = cmd, ended
	return nil
}

// signal sends it a signal. That it has ended is no error.
func (p *process) signal(s syscall.Signal) {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(s)
	}
}

// kill ends it at once, also while it is stopped.
func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// wait waits for its end and gives its exit status, -1 of a signal.
func (p *process) wait(within time.Duration) (int, error) {
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(within):
		return 0, fmt.Errorf("%s has not ended within %v", p.name, within)
	}
}

// ports hands out ports that are free, and below those from which connections are
// made, so that none of these takes the port of a server that is down. The Cluster
// bus of a port is 10,000 above it.
type ports struct {
	mu   sync.Mutex
	next int
}

func newPorts(seed uint64) *ports { return &ports{next: 10_000 + int(seed%11_000)} }

func (p *ports) take() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 12_000 {
		if p.next++; p.next >= 22_000 {
			p.next = 10_000
		}
		if isFree(p.next) && isFree(p.next+10_000) {
			return p.next, nil
		}
	}
	return 0, errors.New("no free port from 10000 to 21999")
}

func isFree(port int) bool {
	l, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}
