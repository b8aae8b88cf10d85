//go:build unix

package logtest

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// redisAttr is how a Redis is started; nil = plainly. Fixed after init.
var redisAttr *syscall.SysProcAttr

// errEnded: the server ended before it answered.
var errEnded = errors.New("it ended")

// Redis is a redis-server of one test, on a port of its own. Its methods are for
// one goroutine at a time, and fail the test when they cannot do their work.
type Redis struct {
	// Fixed after construction.
	t    testing.TB
	bin  string
	args []string // those of StartRedis
	dir  string
	port int

	// Owned by the caller's goroutine.
	cmd    *exec.Cmd     // nil while stopped
	out    *bytes.Buffer // what cmd wrote; read after exited
	exited chan struct{} // closed when cmd has ended
}

// StartRedis starts a redis-server on a free loopback port and waits until it
// answers. It keeps nothing on disk unless args say otherwise; args come last on
// its command line, but for a leading path of a configuration file, which comes
// first. It is killed when t ends.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("there is no redis-server on the PATH: run `make test`, which brings one")
	}
	r := &Redis{t: t, bin: bin, args: args, dir: t.TempDir()}
	t.Cleanup(r.kill)
	for range 10 {
		r.port = freePort(t)
		err = r.start()
		if err == nil {
			return r
		}
		if !errors.Is(err, errEnded) {
			break
		}
		r.kill() // another process may have taken the port in between
	}
	t.Fatalf("redis-server: %v", err)
	return nil
}

// StartReplica starts a server that replicates this one, with args as StartRedis has
// them. It follows at once; when it has caught up is for the caller to await.
func (r *Redis) StartReplica(args ...string) *Redis {
	r.t.Helper()
	of := []string{"--replicaof", "127.0.0.1 " + strconv.Itoa(r.port), "--repl-diskless-sync-delay", "0"}
	return StartRedis(r.t, append(of, args...)...)
}

// Addr is the host and port.
func (r *Redis) Addr() string { return "127.0.0.1:" + strconv.Itoa(r.port) }

// URL is the address as REDIS_URL has it.
func (r *Redis) URL() string { return "redis://" + r.Addr() }

// Stop ends the server and waits for that, as a crash does: what is not on disk
// is gone.
func (r *Redis) Stop() {
	r.t.Helper()
	if r.cmd == nil {
		r.t.Fatal("redis-server is not running")
	}
	r.kill()
}

// Start starts the server again after Stop, on the same port and directory.
func (r *Redis) Start() {
	r.t.Helper()
	if r.cmd != nil {
		r.t.Fatal("redis-server is running")
	}
	if err := r.start(); err != nil {
		r.t.Fatalf("redis-server: %v", err)
	}
}

// Pause stops the server in its tracks: its connections stay open and silent.
func (r *Redis) Pause() {
	r.t.Helper()
	r.signal(syscall.SIGSTOP)
}

// Continue ends Pause.
func (r *Redis) Continue() {
	r.t.Helper()
	r.signal(syscall.SIGCONT)
}

func (r *Redis) signal(s os.Signal) {
	r.t.Helper()
	if r.cmd == nil {
		r.t.Fatal("redis-server is not running")
	}
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatalf("redis-server: %v", err)
	}
}

// kill ends the process, if there is one, and waits for that. A paused process
// dies of it too.
func (r *Redis) kill() {
	if r.cmd == nil {
		return
	}
	// The error says that it has ended already.
	_ = r.cmd.Process.Kill()
	<-r.exited
	r.cmd = nil
}

func (r *Redis) start() error {
	args := []string{
		"--port", strconv.Itoa(r.port), "--bind", "127.0.0.1", "--dir", r.dir,
		"--save", "", "--appendonly", "no",
	}
	own := r.args
	if len(own) > 0 && !strings.HasPrefix(own[0], "-") {
		args, own = append([]string{own[0]}, args...), own[1:]
	}
	cmd := exec.Command(r.bin, append(args, own...)...)
	cmd.SysProcAttr = redisAttr
	out, exited := new(bytes.Buffer), make(chan struct{})
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = cmd.Wait() // how it ended does not matter; that it did is seen in exited
		close(exited)
	}()
	r.cmd, r.out, r.exited = cmd, out, exited
	return r.awaitPong()
}

// awaitPong asks until the server answers, or is seen to have ended.
func (r *Redis) awaitPong() error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for {
		err := r.ping()
		if err == nil {
			return nil
		}
		select {
		case <-r.exited:
			return fmt.Errorf("%w: %s", errEnded, bytes.TrimSpace(r.out.Bytes()))
		case <-deadline.C:
			return fmt.Errorf("no answer within %v: %w", patience, err)
		case <-pause.C:
		}
	}
}

// ping says whether the server takes commands. Whoever answers must be our own
// process: on a port that was taken in between it is somebody else's. A server
// that wants a password tells nobody, and is believed.
func (r *Redis) ping() error {
	conn, err := net.DialTimeout("tcp", r.Addr(), time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "PING\r\nINFO server\r\n"); err != nil {
		return err
	}
	lines := bufio.NewScanner(conn)
	if lines.Scan() && lines.Text() != "+PONG" {
		if strings.HasPrefix(lines.Text(), "-NOAUTH") {
			return nil
		}
		return fmt.Errorf("PING: %s", lines.Text())
	}
	for lines.Scan() {
		if pid, ok := strings.CutPrefix(lines.Text(), "process_id:"); ok {
			if pid != strconv.Itoa(r.cmd.Process.Pid) {
				return errors.New("another server has the port")
			}
			return nil
		}
	}
	return cmp.Or(lines.Err(), io.ErrUnexpectedEOF)
}

// freePort gives a port that was free a moment ago, as was the one of its cluster
// bus, 10,000 above. Both lie below the ports from which connections are made, so
// that none of those takes the port of a stopped server.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 10_000 + rand.IntN(12_000)
		if isFree(port) && isFree(port+10_000) {
			return port
		}
	}
	t.Fatal("no free port from 10000 to 21999")
	return 0
}

func isFree(port int) bool {
	ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	ln.Close()
	return true
}
