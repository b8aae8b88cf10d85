package torture

import (
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/pushhub/pushhub/loadtest/port"
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

// ports are held for the servers of a run, also while these are down. Its methods are
// for one goroutine at a time.
type ports struct{ held []port.Held }

func (p *ports) take() (int, error) {
	held, err := port.Hold()
	if err == nil {
		p.held = append(p.held, held)
	}
	return held.Number, err
}

func (p *ports) release() {
	for _, held := range p.held {
		held.Release()
	}
}
