package loadtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/pushhub/pushhub/loadtest/port"
)

// A Target is a server under test.
type Target struct {
	Name    string
	Addr    string   // IPv4 address and port
	Peer    *Peer    // how it is spoken to
	Secret  string   // signs tokens; empty: none
	Token   string   // for everybody, instead of signed ones
	Redis   string   // URL of its Redis; empty: none
	Process *Process // nil where its pid is not known

	orders *orderPublisher // of a yardstick, nil for others
	doomed *instance       // where clients connect first, and which is killed; nil: at Addr
	stop   []func()
}

// instance is a process that serves.
type instance struct {
	addr string
	kill func() // ends it at once
}

// Stop ends what was started for it, last things first.
func (t *Target) Stop() {
	for i := len(t.stop) - 1; i >= 0; i-- {
		t.stop[i]()
	}
	t.stop = nil
}

// Start says how a server is started.
type Start struct {
	Binary string   // of the hub; empty: built from ./cmd/pushhub
	Env    []string // NAME=value, for the hub
	Redis  bool     // keep the log in a redis-server that is started too
	Doomed bool     // start another instance, for Reconnect to kill; with Redis
	Core   int      // to run on; -1: any
	Stderr io.Writer
}

// StartHub starts `pushhub serve` on a free port and waits until it is healthy.
func StartHub(ctx context.Context, s Start) (t *Target, err error) {
	t = &Target{Name: "pushhub", Peer: Pushhub(), Secret: NewSecret()}
	defer func() {
		if err != nil {
			t.Stop()
		}
	}()
	if s.Binary == "" {
		if s.Binary, err = t.build(ctx); err != nil {
			return nil, err
		}
	}
	if s.Redis {
		if err := t.startRedis(ctx, s); err != nil {
			return nil, err
		}
	}
	if s.Doomed {
		if t.doomed, err = t.startInstance(ctx, s); err != nil {
			return nil, err
		}
	}
	i, err := t.startInstance(ctx, s)
	if err != nil {
		return nil, err
	}
	t.Addr = i.addr
	return t, nil
}

// startInstance starts the hub and waits until it is healthy. It is the process
// that is measured.
func (t *Target) startInstance(ctx context.Context, s Start) (*instance, error) {
	port, err := t.takePort()
	if err != nil {
		return nil, err
	}
	i := &instance{addr: "127.0.0.1:" + strconv.Itoa(port)}
	cmd := exec.Command(s.Binary, "serve")
	cmd.Env = append(os.Environ(), "HOST=127.0.0.1", "PORT="+strconv.Itoa(port), "JWT_SECRET="+t.Secret, "LOG_LEVEL=warn", "LOG_FORMAT=json", "REDIS_URL="+t.Redis, "REDIS_HOST=")
	cmd.Env = append(cmd.Env, s.Env...)
	cmd.Stderr, cmd.Stdout = s.Stderr, s.Stderr
	ended, err := t.start(cmd, s.Core)
	if err != nil {
		return nil, err
	}
	i.kill = func() {
		_ = cmd.Process.Kill()
		<-ended
	}
	for {
		res, err := http.Get("http://" + i.addr + "/health")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return i, nil
			}
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("the server ended before it was healthy: %w", err)
		case <-ctx.Done():
			return nil, fmt.Errorf("the server is not healthy: %w", context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (t *Target) build(ctx context.Context) (string, error) {
	if _, err := os.Stat("cmd/pushhub"); err != nil {
		return "", errors.New("no server given (--server, --url), and no ./cmd/pushhub to build")
	}
	dir, err := os.MkdirTemp("", "loadtest-")
	if err != nil {
		return "", err
	}
	t.stop = append(t.stop, func() { _ = os.RemoveAll(dir) })
	bin := filepath.Join(dir, "pushhub")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/pushhub").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/pushhub: %w\n%s", err, out)
	}
	return bin, nil
}

// startRedis starts a Redis that keeps nothing on disk. It runs where this
// process does.
func (t *Target) startRedis(ctx context.Context, s Start) error {
	port, err := t.takePort()
	if err != nil {
		return err
	}
	cmd := exec.Command("redis-server", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", os.TempDir())
	ended, err := t.start(cmd, -1)
	if err != nil {
		return err
	}
	t.Redis = "redis://127.0.0.1:" + strconv.Itoa(port)
	for {
		conn, err := net.Dial("tcp4", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			return conn.Close()
		}
		select {
		case err := <-ended:
			return fmt.Errorf("redis-server ended: %w", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// StartYardstick starts this program again as one of the servers for comparison:
// floor, naive or upgrade. program gives the command line before its flags.
func StartYardstick(name string, program []string, size int, s Start) (t *Target, err error) {
	t = &Target{Name: name, Peer: yardstick(name)}
	args := append(program[1:len(program):len(program)], name, "--size", strconv.Itoa(size))
	cmd := exec.Command(program[0], args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = s.Stderr
	if _, err := t.start(cmd, s.Core); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	fields := strings.Fields(line)
	if err != nil || len(fields) != 2 {
		t.Stop()
		return nil, fmt.Errorf("%s did not say where it listens: %q, %w", name, line, err)
	}
	t.Addr = fields[0]
	if fields[1] == "-" {
		return t, nil // it takes no orders
	}
	if t.orders, err = newOrderPublisher(fields[1]); err != nil {
		t.Stop()
		return nil, err
	}
	t.stop = append(t.stop, func() { _ = t.orders.conn.Close() })
	return t, nil
}

// start starts a process on a core, and ends it with the target. What it gives is
// told once the process has ended.
func (t *Target) start(cmd *exec.Cmd, core int) (<-chan error, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		// The process inherits the core from the thread that starts it, and dies with
		// that thread: so the thread stays, and ends with its goroutine.
		runtime.LockOSThread()
		if core >= 0 {
			if err := pin(0, core); err != nil {
				started <- err
				return
			}
		}
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	t.Process = &Process{pid: cmd.Process.Pid}
	t.stop = append(t.stop, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(3 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	return ended, nil
}

// takePort holds a port for a server until Stop.
func (t *Target) takePort() (int, error) {
	held, err := port.Hold()
	if err == nil {
		t.stop = append(t.stop, held.Release)
	}
	return held.Number, err
}

// Attach sets the pid whose usage is measured.
func (t *Target) Attach(pid int) { t.Process = &Process{pid: pid} }

// tokens signs one for each client. Each is a user of its own, as in life; and a
// server that remembers tokens has nothing to remember.
func (t *Target) tokens(n int) ([]string, error) {
	tokens := make([]string, n)
	for i := range tokens {
		var err error
		if tokens[i], err = t.token(t.Peer.Claims, user(i)); err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

func (t *Target) token(claims map[string]any, user string) (string, error) {
	if t.Token != "" || t.Secret == "" || claims == nil {
		return t.Token, nil
	}
	return sign(t.Secret, claims, "{user}", user)
}

// publishers opens connections to publish over: orders for a yardstick, raw Redis
// where asked for, else HTTP.
func (t *Target) publishers(n int, raw, keyed bool, topics []string, size int) (list []Publisher, err error) {
	token, err := t.token(t.Peer.PublisherClaims, "publisher")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			closeAll(list)
		}
	}()
	if t.orders != nil {
		return []Publisher{t.orders}, nil // it takes orders over one connection
	}
	for range n {
		var p Publisher
		switch {
		case raw && t.Redis == "":
			err = errors.New("raw publishing needs a Redis: --log redis, or --redis URL")
		case raw:
			p, err = newRedisPublisher(t.Redis, topics, size)
		case t.Peer.Publish == nil:
			err = fmt.Errorf("the description of %s does not say how to publish", t.Name)
		default:
			p = &httpPublisher{addr: t.Addr, form: t.Peer.Publish, token: token, topics: topics, keyed: keyed, size: size}
		}
		if err != nil {
			return list, err
		}
		list = append(list, p)
	}
	return list, nil
}

func closeAll(list []Publisher) {
	for _, p := range list {
		p.Close()
	}
}

// metric reads one value without labels from the hub's /metrics; ok is false where there
// is none. Others are not asked: they may answer with an endless stream.
func (t *Target) metric(name string) (value float64, ok bool) {
	if t.Peer.Name != Pushhub().Name {
		return 0, false
	}
	client := http.Client{Timeout: 5 * time.Second}
	res, err := client.Get("http://" + t.Addr + "/metrics")
	if err != nil {
		return 0, false
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			value, err = strconv.ParseFloat(strings.TrimSpace(string(rest)), 64)
			return value, err == nil
		}
	}
	return 0, false
}

// reads counts how often the hubs have read the log in Redis.
func (t *Target) reads(ctx context.Context) (n int64, err error) {
	opts, err := redis.ParseURL(t.Redis)
	if err != nil {
		return 0, err
	}
	client := redis.NewClient(opts)
	defer client.Close()
	stats, err := client.InfoMap(ctx, "commandstats").Result()
	if err != nil {
		return 0, err
	}
	for _, name := range []string{"cmdstat_evalsha_ro", "cmdstat_eval_ro"} {
		for field := range strings.SplitSeq(stats["Commandstats"][name], ",") {
			if calls, ok := strings.CutPrefix(field, "calls="); ok {
				k, err := strconv.ParseInt(calls, 10, 64)
				if err != nil {
					return 0, err
				}
				n += k
			}
		}
	}
	return n, nil
}
