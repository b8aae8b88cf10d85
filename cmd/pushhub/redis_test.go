package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub/logtest"
)

// TestOtherPlaces serves with a Redis Cluster, of one server, and with one that
// Sentinel names, and checks both.
func TestOtherPlaces(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		start func(*testing.T) map[string]string
		check string
	}{
		"Cluster":  {startCluster, "ok       primary at "},
		"Sentinel": {startSentinel, "ok       Redis main behind Sentinel at 127.0.0.1:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := c.start(t)
			env["DRAIN_SECONDS"] = "1"
			s, url := startServe(t, env)
			s.stderr.awaitText(t, "Redis is connected")
			token := signToken(t, "--tenant=acme", "--publish=>")
			client := listenTo(t, url+"/api/v1/stream?topics=alerts", token)
			status, stdout, stderr := do(t, map[string]string{"PUSHHUB_TOKEN": token}, "publish", "--url="+url, "alerts", "1")
			require.Zero(t, status, stderr)
			client.seen.awaitText(t, "id: "+stdout)

			env["JWT_SECRET"] = secret
			status, stdout, _ = do(t, env, "check")
			require.Zero(t, status, stdout)
			require.Contains(t, stdout, c.check)
			require.Contains(t, stdout, "the live channel is heard")
			require.Contains(t, stdout, "tenants with a log there: 1")
		})
	}
}

// startCluster gives the settings for a Cluster. Its one server is named twice:
// one address alone would be a server without a Cluster, which check refuses.
func startCluster(t *testing.T) map[string]string {
	t.Helper()
	node := logtest.StartRedis(t, "--cluster-enabled", "yes")
	admin := redis.NewClient(&redis.Options{Addr: node.Addr()})
	defer admin.Close()
	require.NoError(t, admin.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err())
	eventually(t, "the Cluster is there", func() bool {
		return admin.ClusterInfo(t.Context()).Val()[:16] == "cluster_state:ok"
	})
	status, stdout, _ := do(t, map[string]string{"JWT_SECRET": secret, "REDIS_HOST": node.Addr()}, "check")
	require.Equal(t, 1, status)
	require.Contains(t, stdout, "this is a node of a Redis Cluster")
	return map[string]string{"REDIS_HOST": node.Addr() + "," + node.Addr()}
}

func startSentinel(t *testing.T) map[string]string {
	t.Helper()
	primary := logtest.StartRedis(t)
	host, port, err := net.SplitHostPort(primary.Addr())
	require.NoError(t, err)
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, "sentinel monitor main %s %s 1\n", host, port), 0o600))
	sentinel := logtest.StartRedis(t, conf, "--sentinel")
	return map[string]string{"REDIS_URL": "redis://" + sentinel.Addr(), "REDIS_SENTINEL_MASTER": "main"}
}
