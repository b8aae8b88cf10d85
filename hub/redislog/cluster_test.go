package redislog

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/protocol"
)

// cluster is a Redis Cluster of two primaries, each with half of the slots.
type cluster struct {
	nodes   []*logtest.Redis
	clients []*redis.Client
	ids     []string
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{}
	for i := range 2 {
		node := logtest.StartRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "3000")
		client := redis.NewClient(&redis.Options{Addr: node.Addr()})
		t.Cleanup(func() { client.Close() })
		c.nodes, c.clients = append(c.nodes, node), append(c.clients, client)
		c.ids = append(c.ids, client.Do(t.Context(), "CLUSTER", "MYID").Val().(string))
		c.do(t, i, "CLUSTER", "SET-CONFIG-EPOCH", i+1)
		c.do(t, i, "CLUSTER", "ADDSLOTSRANGE", i*8192, i*8192+8191)
	}
	host, port, err := net.SplitHostPort(c.nodes[1].Addr())
	require.NoError(t, err)
	c.do(t, 0, "CLUSTER", "MEET", host, port)
	c.awaitOK(t)
	return c
}

func (c *cluster) do(t *testing.T, node int, args ...any) {
	t.Helper()
	require.NoError(t, c.clients[node].Do(t.Context(), args...).Err(), "%v", args)
}

// awaitOK waits until every node knows of every slot.
func (c *cluster) awaitOK(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, client := range c.clients {
			if info, err := client.ClusterInfo(t.Context()).Result(); err != nil || !strings.Contains(info, "cluster_state:ok") {
				return false
			}
		}
		return true
	}, 20*time.Second, 10*time.Millisecond)
}

func (c *cluster) open(t *testing.T, retention hub.Retention, onState func(bool, error)) *Log {
	t.Helper()
	opt := &redis.ClusterOptions{Addrs: []string{c.nodes[0].Addr(), c.nodes[1].Addr()}}
	return openLog(t, Options{Cluster: opt, Retention: retention, OnState: onState}, quick)
}

// slot gives the slot of a tenant and the node that has it at first.
func (c *cluster) slot(t *testing.T, tenant string) (slot int64, node int) {
	t.Helper()
	slot, err := c.clients[0].ClusterKeySlot(t.Context(), keysOf(tenant).channel()).Result()
	require.NoError(t, err)
	return slot, int(slot / 8192)
}

// tenantOn gives a tenant of a node.
func (c *cluster) tenantOn(t *testing.T, node int) string {
	t.Helper()
	for n := 0; ; n++ {
		tenant := fmt.Sprintf("t%d", n)
		if _, at := c.slot(t, tenant); at == node {
			return tenant
		}
	}
}

func TestLogInACluster(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	logtest.Run(t, func(t *testing.T, retention hub.Retention) (a, b hub.Log) {
		return c.open(t, retention, nil), c.open(t, retention, nil)
	})
}

// TestSlotMoves moves a tenant to the other primary while it is published to:
// that is a new life, announced as an epoch, and what was kept came along.
func TestSlotMoves(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	l := c.open(t, nil, nil)
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	moving, staying := c.tenantOn(t, 0), c.tenantOn(t, 1)
	l.Watch(moving)
	l.Watch(staying)
	rec.AwaitCount(t, moving, logtest.Covered, 1)
	rec.AwaitCount(t, staying, logtest.Covered, 1)
	old := publish(t, l, moving, events(4, "a", "b")...)

	slot, _ := c.slot(t, moving)
	c.do(t, 1, "CLUSTER", "SETSLOT", slot, "IMPORTING", c.ids[0])
	c.do(t, 0, "CLUSTER", "SETSLOT", slot, "MIGRATING", c.ids[1])
	// With some keys here and some there nothing runs, and nothing is done in part.
	host, port, err := net.SplitHostPort(c.nodes[1].Addr())
	require.NoError(t, err)
	move := func(key string) { c.do(t, 0, "MIGRATE", host, port, key, 0, 5000) }
	k := keysOf(moving)
	move(k.stream("a"))
	_, err = l.Publish(t.Context(), moving, events(2, "a", "b"))
	require.ErrorIs(t, err, hub.ErrUnavailable)
	for _, key := range []string{"m", "i", "a", "s:b"} {
		move(k.prefix + key)
	}
	_, err = l.Publish(t.Context(), moving, events(2, "a", "b"))
	require.ErrorIs(t, err, hub.ErrUnavailable)

	for _, node := range []int{1, 0} {
		c.do(t, node, "CLUSTER", "SETSLOT", slot, "NODE", c.ids[1])
	}
	rec.AwaitCount(t, moving, logtest.Lost, 1)
	rec.AwaitCount(t, moving, logtest.Covered, 2)
	next := publish(t, l, moving, event("a", 5))[0]
	rec.AwaitEvent(t, moving, next)
	v := look(t, l, moving, hub.Query{Topics: []hub.TopicQuery{{Topic: "a"}, {Topic: "b"}}})
	require.Equal(t, []protocol.Cursor{{Epoch: old[0].Epoch, Seq: 4}}, v.Past)
	require.Equal(t, protocol.Cursor{Epoch: v.Epoch, Seq: 5}, next)
	require.Equal(t, []uint64{1, 3, 5}, seqs(v.Topics[0]))
	require.Equal(t, []uint64{2, 4}, seqs(v.Topics[1]))

	require.Zero(t, rec.Count(staying, logtest.Lost))
	rec.AwaitEvent(t, staying, publish(t, l, staying, event("a", 1))[0])
	requireWhole(t, rec.Calls(moving))
	requireTidy(t, l.live, []string{moving, staying})
}

// The raw channels are heard from the primary that sets the marks, wherever it is.
func TestMarksMove(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	l := c.open(t, nil, nil)
	e := listenTo(t, l, 100, "a:*")
	e.begin()
	say := func(want string) {
		for node := range c.nodes { // from wherever it is said
			c.do(t, node, "PUBLISH", "a:b", "x")
			require.Equal(t, fmt.Sprintf(want, node+1), <-e.came)
		}
	}
	say(`a:* %d a:b "x" false`)

	slot, err := c.clients[0].ClusterKeySlot(t.Context(), leaseKey).Result()
	require.NoError(t, err)
	from := int(slot / 8192)
	to := 1 - from
	c.do(t, to, "CLUSTER", "SETSLOT", slot, "IMPORTING", c.ids[from])
	c.do(t, from, "CLUSTER", "SETSLOT", slot, "MIGRATING", c.ids[to])
	host, port, err := net.SplitHostPort(c.nodes[to].Addr())
	require.NoError(t, err)
	c.do(t, from, "MIGRATE", host, port, leaseKey, 0, 5000)
	for _, node := range []int{to, from} {
		c.do(t, node, "CLUSTER", "SETSLOT", slot, "NODE", c.ids[to])
	}
	setMark(t, l)
	require.ErrorIs(t, <-e.ended, errElsewhere)
	e = listenTo(t, l, 100, "a:*")
	e.begin()
	say(`a:* %d a:b "x" false`)
	e.end(t)
}

// A primary that is gone takes only its own tenants along.
func TestOnePrimaryGone(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	states := make(chan error, 10)
	l := c.open(t, nil, func(_ bool, err error) { states <- err })
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	require.NoError(t, <-states)
	_, home := c.slot(t, probe) // the probe's stays
	gone, staying := c.tenantOn(t, 1-home), c.tenantOn(t, home)
	l.Watch(gone)
	l.Watch(staying)
	rec.AwaitCount(t, gone, logtest.Covered, 1)
	rec.AwaitCount(t, staying, logtest.Covered, 1)
	c.do(t, home, "CONFIG", "SET", "cluster-require-full-coverage", "no")

	c.nodes[1-home].Stop()
	rec.AwaitCount(t, gone, logtest.Lost, 1)
	require.Error(t, <-states)
	require.Positive(t, l.Down())
	_, err := l.Publish(t.Context(), gone, events(1, "a"))
	require.ErrorIs(t, err, hub.ErrUnavailable)
	rec.AwaitEvent(t, staying, publish(t, l, staying, event("a", 1))[0])

	c.nodes[1-home].Start()
	require.NoError(t, <-states)
	rec.AwaitCount(t, gone, logtest.Covered, 2)
	c.awaitOK(t)
	rec.AwaitEvent(t, gone, publish(t, l, gone, event("a", 2))[0])
	require.Zero(t, rec.Count(staying, logtest.Lost))
}

// A Cluster that cannot be reached is away, and may come later.
func TestClusterComesLater(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	for _, n := range c.nodes {
		n.Stop()
	}
	states := make(chan error, 10)
	l := c.open(t, nil, func(_ bool, err error) { states <- err })
	require.Error(t, <-states)
	_, err := l.Publish(t.Context(), "t", events(1, "a"))
	require.ErrorIs(t, err, hub.ErrUnavailable)
	for _, n := range c.nodes {
		n.Start()
	}
	require.NoError(t, <-states)
	c.awaitOK(t)
	require.Eventually(t, func() bool {
		_, err := l.Publish(t.Context(), "t", events(1, "a"))
		return err == nil
	}, 20*time.Second, 50*time.Millisecond)
}
