package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// binary builds the program once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "pushhub-test-")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	name := filepath.Join(dir, "pushhub")
	build := exec.Command("go", "build", "-ldflags=-X main.version=v9.9.9", "-o", name, ".")
	build.Stderr = os.Stderr
	return name, build.Run()
})

var binaryDir string // "" until binary was asked

// removeBinary leaves nothing behind. It is called after all tests.
func removeBinary() {
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir) // what stays lies in the temporary directory
	}
}

// program is pushhub in a process of its own.
type program struct {
	cmd    *exec.Cmd
	stderr *output
	ended  chan error    // gives how it ended, once
	gone   chan struct{} // closed when it has ended
}

func startProgram(t testing.TB, env []string, args ...string) (p *program, url string) {
	t.Helper()
	name, err := binary()
	require.NoError(t, err)
	p = &program{cmd: exec.Command(name, args...), stderr: newOutput(), ended: make(chan error, 1), gone: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	p.cmd.Stderr = p.stderr
	require.NoError(t, p.cmd.Start())
	go func() {
		p.ended <- p.cmd.Wait()
		close(p.gone)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.gone
	})
	p.stderr.await(t, "the address", func(s string) bool {
		found := listening.FindStringSubmatch(s)
		if found != nil {
			url = "http://" + found[1]
		}
		return found != nil
	})
	return p, url
}

func (p *program) signal(t testing.TB, s os.Signal) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(s))
}

func (p *program) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(patience):
		t.Fatalf("it does not end:\n%s", p.stderr)
		return nil
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	env := []string{"HOST=127.0.0.1", "PORT=0", "JWT_SECRET=" + secret, "DRAIN_SECONDS=600"}
	token := signToken(t, "--tenant=acme")
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		p, url := startProgram(t, env, "serve")
		client := listenTo(t, url+"/api/v1/stream?topics=alerts", token)
		p.signal(t, sig)
		require.NoError(t, p.wait(t), "status 0")
		<-client.ended
		require.Contains(t, client.seen.String(), `"op":"bye","code":1012,"reason":"drain"`)
		lines := p.stderr.lines()
		require.Equal(t, "ended", object(t, lines[len(lines)-1])["message"])
		require.Equal(t, "v9.9.9", object(t, lines[0])["service_version"])
		require.NotContains(t, p.stderr.String(), token)
	}
}

// TestDrainEndsInTime: clients that stay, and do not even read, hold nothing up.
func TestDrainEndsInTime(t *testing.T) {
	t.Parallel()
	const drain = 3 * time.Second
	p, url := startProgram(t, []string{"HOST=127.0.0.1", "PORT=0", "JWT_SECRET=" + secret, "DRAIN_SECONDS=3"}, "serve")
	token := signToken(t, "--tenant=acme")
	for _, request := range []string{
		"GET /api/v1/stream?topics=alerts&token=" + token + " HTTP/1.1\r\nHost: hub\r\n\r\n",
		"GET /api/v1/ws?token=" + token + " HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		require.NoError(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, request)
		require.NoError(t, err)
		_, err = io.ReadFull(conn, make([]byte, 20)) // it is answered
		require.NoError(t, err)
	}
	began := time.Now()
	p.signal(t, syscall.SIGTERM)
	require.NoError(t, p.wait(t), "status 0")
	require.Less(t, time.Since(began), drain+2*time.Second, "with time for a loaded machine")
}

// TestSecondSignal has a request that never ends hold up the drain.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	p, url := startProgram(t, []string{"HOST=127.0.0.1", "PORT=0", "JWT_SECRET=" + secret, "DRAIN_SECONDS=600"}, "serve")
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /api/v1/events HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer "+
		signToken(t, "--tenant=acme", "--publish=>")+"\r\nContent-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))) // the handler reads the body
	require.NoError(t, err)
	p.signal(t, syscall.SIGTERM)
	p.stderr.awaitText(t, "draining")
	p.signal(t, syscall.SIGTERM)
	require.ErrorContains(t, p.wait(t), "exit status 1")
	require.NotContains(t, p.stderr.String(), `"ended"`)
}
