package redislog

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/protocol"
)

// TestFailover has Sentinel promote a replica: the seqs go on, in a new epoch.
func TestFailover(t *testing.T) {
	t.Parallel()
	primary := logtest.StartRedis(t)
	host, port, err := net.SplitHostPort(primary.Addr())
	require.NoError(t, err)
	replica := primary.StartReplica()
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, `sentinel monitor main %s %s 1
sentinel down-after-milliseconds main 300
sentinel failover-timeout main 5000
`, host, port), 0o600))
	sentinel := logtest.StartRedis(t, conf, "--sentinel")
	require.Eventually(t, func() bool {
		client := redis.NewSentinelClient(&redis.Options{Addr: sentinel.Addr()})
		defer client.Close()
		replicas, err := client.Replicas(t.Context(), "main").Result()
		return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
	}, 30*time.Second, 50*time.Millisecond)

	opt := &redis.FailoverOptions{MasterName: "main", SentinelAddrs: []string{sentinel.Addr()}}
	l := openLog(t, Options{Sentinel: opt}, quick)
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	l.Watch("t")
	rec.AwaitCount(t, "t", logtest.Covered, 1)
	old := publish(t, l, "t", events(3, "a", "b")...)
	rec.AwaitEvent(t, "t", old[2])
	require.EqualValues(t, 1, admin(t, primary, "WAIT", 1, 20_000))

	primary.Stop()
	rec.AwaitCount(t, "t", logtest.Lost, 1)
	rec.Await(t, "Covered by the new primary", "t", func(calls []logtest.Call) bool {
		return logtest.Count(calls, logtest.Covered) == logtest.Count(calls, logtest.Lost)+1
	})
	var next []protocol.Cursor
	require.Eventually(t, func() bool {
		next, err = l.Publish(t.Context(), "t", events(1, "a"))
		return err == nil
	}, 30*time.Second, 50*time.Millisecond)
	rec.AwaitEvent(t, "t", next[0])
	v := look(t, l, "t", hub.Query{Known: old[2], Topics: []hub.TopicQuery{{Topic: "a"}}})
	require.Equal(t, hub.View{Epoch: next[0].Epoch, Past: old[2:], Head: 4, Topics: v.Topics}, v)
	require.Equal(t, []uint64{1, 3, 4}, seqs(v.Topics[0]))
	require.Equal(t, "role:master", admin(t, replica, "INFO", "replication").(string)[15:26])
	requireWhole(t, rec.Calls("t"))
}
