//go:build unix

package logtest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// ask sends one inline command and gives the first line of the answer.
func ask(t *testing.T, r *Redis, command string) string {
	t.Helper()
	conn, err := net.Dial("tcp", r.Addr())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, command+"\r\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	return line
}

func TestRedis(t *testing.T) {
	t.Parallel()
	r := StartRedis(t)
	require.Equal(t, "redis://"+r.Addr(), r.URL())
	require.Equal(t, "+OK\r\n", ask(t, r, "SET a 1"))

	addr := r.Addr()
	r.Stop()
	_, err := net.Dial("tcp", addr)
	require.Error(t, err)
	r.Start()
	require.Equal(t, addr, r.Addr())
	require.Equal(t, ":0\r\n", ask(t, r, "EXISTS a"), "nothing is on disk")

	r.Pause()
	require.ErrorIs(t, r.ping(), os.ErrDeadlineExceeded)
	r.Continue()
	require.NoError(t, r.ping())
	r.Pause() // the clean-up ends a paused server too
}

func TestRedisArgs(t *testing.T) {
	t.Parallel()
	r := StartRedis(t, "--appendonly", "yes", "--appendfsync", "always", "--cluster-enabled", "yes")
	require.Equal(t, "+OK\r\n", ask(t, r, "CLUSTER ADDSLOTSRANGE 0 16383"))
	r.Stop()
	r.Start()
	require.FileExists(t, filepath.Join(r.dir, "nodes.conf"))
	require.DirExists(t, filepath.Join(r.dir, "appendonlydir"))

	r = StartRedis(t, "--requirepass", "secret")
	require.Contains(t, ask(t, r, "GET a"), "-NOAUTH")
}

func TestRedisSentinel(t *testing.T) {
	t.Parallel()
	primary := StartRedis(t)
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 1\n", primary.port)
	require.NoError(t, os.WriteFile(conf, []byte(text), 0o600))
	r := StartRedis(t, conf, "--sentinel")
	require.Equal(t, "*2\r\n", ask(t, r, "SENTINEL GET-MASTER-ADDR-BY-NAME main"))
}

// TestRedisOnTakenPort has another server answer where ours could not start.
func TestRedisOnTakenPort(t *testing.T) {
	t.Parallel()
	first := StartRedis(t)
	second := StartRedis(t)
	second.Stop()
	second.port = first.port
	require.ErrorContains(t, second.start(), "in use")
}

func TestNoRedis(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	require.PanicsWithValue(t, "there is no redis-server on the PATH: run `make test`, which brings one", func() {
		StartRedis(&witness{TB: t})
	})
}
