package redislog

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/protocol"
)

// A restart is a new life of the primary: nobody can know that nothing was lost.
func TestRestart(t *testing.T) {
	t.Parallel()
	for name, disk := range map[string]bool{"with disk": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			var args []string
			if disk {
				args = []string{"--appendonly", "yes", "--appendfsync", "always"}
			}
			server := logtest.StartRedis(t, args...)
			l := openAt(t, server.Addr())
			rec := logtest.NewRecorder(t)
			l.Listen(rec)
			l.Watch("t")
			rec.AwaitCount(t, "t", logtest.Covered, 1)
			old := publish(t, l, "t", events(4, "a", "b")...)
			known := old[3]

			server.Stop()
			rec.AwaitCount(t, "t", logtest.Lost, 1)
			server.Start()
			rec.AwaitCount(t, "t", logtest.Covered, 2)

			// Whoever comes first begins the epoch, a Look or a Publish.
			first := publish(t, l, "t", event("a", 5))[0]
			rec.AwaitEvent(t, "t", first)
			v := look(t, l, "t", hub.Query{Known: known, Index: true, Topics: []hub.TopicQuery{{Topic: "a"}, {Topic: "b"}}})
			require.Equal(t, first, protocol.Cursor{Epoch: v.Epoch, Seq: v.Head})
			require.NotEqual(t, known.Epoch, v.Epoch)
			if disk {
				require.Equal(t, []protocol.Cursor{known}, v.Past)
				require.EqualValues(t, 5, v.Head)
				require.Zero(t, v.Floor)
				require.Equal(t, []uint64{1, 3, 5}, seqs(v.Topics[0]))
				require.Equal(t, old[0], v.Topics[0].Events[0].Cursor, "an event keeps its cursor")
				require.EqualValues(t, 3, v.Topics[0].Events[2].Prev)
				require.Equal(t, []uint64{2, 4}, seqs(v.Topics[1]))
			} else {
				require.Equal(t, hub.View{Epoch: v.Epoch, Head: 1, Index: v.Index, Topics: v.Topics}, v)
				require.Equal(t, []uint64{1}, seqs(v.Topics[0]))
				require.Zero(t, v.Topics[1].Last)
			}

			// The next restart is seen by a Look.
			server.Stop()
			server.Start()
			rec.AwaitCount(t, "t", logtest.Covered, 3)
			again := look(t, l, "t", hub.Query{})
			require.NotEqual(t, v.Epoch, again.Epoch)
			if disk {
				require.Equal(t, []protocol.Cursor{first, known}, again.Past)
			}
			require.Equal(t, again, look(t, l, "t", hub.Query{}), "once is enough")
		})
	}
}

// A primary that was demoted keeps its connections. What it has may be old, and
// nothing of the epoch shows that: it must not be asked.
func TestDemotedPrimaryIsNotAsked(t *testing.T) {
	t.Parallel()
	old, next := logtest.StartRedis(t), logtest.StartRedis(t)
	l, there := openAt(t, old.Addr()), openAt(t, next.Addr())
	publish(t, l, "t", event("a", 1))
	follow := func(server, primary *logtest.Redis) {
		client := redis.NewClient(&redis.Options{Addr: server.Addr()})
		defer client.Close()
		if primary == nil {
			require.NoError(t, client.ReplicaOf(t.Context(), "NO", "ONE").Err())
			return
		}
		host, port, err := net.SplitHostPort(primary.Addr())
		require.NoError(t, err)
		require.NoError(t, client.ReplicaOf(t.Context(), host, port).Err())
		require.Eventually(t, func() bool {
			return strings.Contains(client.Info(t.Context(), "replication").Val(), "master_link_status:up")
		}, 20*time.Second, 10*time.Millisecond)
	}
	follow(next, old)
	follow(next, nil)
	publish(t, there, "t", event("a", 2)) // the epoch is of the new primary
	follow(old, next)

	_, err := l.Look(t.Context(), "t", hub.Query{})
	require.ErrorIs(t, err, hub.ErrUnavailable)
	require.ErrorContains(t, err, "READONLY")
	require.ErrorIs(t, tryPublish(t, l, event("a", 3)), hub.ErrUnavailable)
}

func TestFlushAll(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	l.Watch("t")
	rec.AwaitCount(t, "t", logtest.Covered, 1)
	old := publish(t, l, "t", events(5, "a", "b")...)
	require.NoError(t, l.Client().FlushAll(t.Context()).Err())

	v := look(t, l, "t", hub.Query{Known: old[4], Topics: []hub.TopicQuery{{Topic: "a"}}})
	require.NotEqual(t, old[0].Epoch, v.Epoch)
	require.Equal(t, hub.View{Epoch: v.Epoch, Topics: []hub.TopicView{{}}}, v)
	c := publish(t, l, "t", event("a", 1))[0]
	require.Equal(t, protocol.Cursor{Epoch: v.Epoch, Seq: 1}, c)
	rec.AwaitEvent(t, "t", c)
	require.Zero(t, rec.Count("t", logtest.Lost), "the connection never broke")
}

// TestKeysGone takes away some of a tenant's keys, as eviction and operators do.
// Whatever is gone, no seq may come again in its epoch, nothing that is retained
// may lie beyond the head, and what is gone must show: in the epoch, the floor,
// the index or the chain.
func TestKeysGone(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	client := l.Client()
	for _, c := range []struct {
		name     string
		gone     []string
		newEpoch bool
		head     uint64
		floor    uint64
		a, b     []uint64 // retained then
		after    []uint64 // retained of a after another event
	}{
		{"meta", []string{"m"}, true, 6, 6, []uint64{1, 3, 5}, []uint64{2, 4, 6}, []uint64{1, 3, 5, 7}},
		{"index", []string{"i"}, false, 6, 6, []uint64{}, []uint64{}, []uint64{7}},
		{"ages", []string{"a"}, false, 6, 0, []uint64{1, 3, 5}, []uint64{2, 4, 6}, []uint64{1, 3, 5, 7}},
		{"meta and index", []string{"m", "i"}, true, 0, 0, []uint64{}, []uint64{}, []uint64{1}},
		{"all but streams", []string{"m", "i", "a"}, true, 0, 0, []uint64{}, []uint64{}, []uint64{1}},
		{"a stream", []string{"s:a"}, false, 6, 0, []uint64{}, []uint64{2, 4, 6}, []uint64{7}},
		{"streams", []string{"s:a", "s:b"}, false, 6, 0, []uint64{}, []uint64{}, []uint64{7}},
		{"meta and a stream", []string{"m", "s:a"}, true, 6, 6, []uint64{}, []uint64{2, 4, 6}, []uint64{7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tenant := "gone-" + strconv.Itoa(int(time.Now().UnixNano()))
			old := publish(t, l, tenant, events(6, "a", "b")...)
			for _, key := range c.gone {
				require.EqualValues(t, 1, client.Del(t.Context(), keysOf(tenant).prefix+key).Val(), key)
			}
			v := look(t, l, tenant, hub.Query{Known: old[5], Topics: []hub.TopicQuery{{Topic: "a"}, {Topic: "b"}, {Topic: "a", Newest: 9}}})
			require.Equal(t, c.newEpoch, v.Epoch != old[0].Epoch)
			require.Equal(t, c.head, v.Head)
			require.Equal(t, c.floor, v.Floor)
			require.Equal(t, c.a, seqs(v.Topics[0]))
			require.Equal(t, c.b, seqs(v.Topics[1]))
			require.Equal(t, c.a, seqs(v.Topics[2]))

			next := publish(t, l, tenant, event("a", 7))[0]
			require.Equal(t, protocol.Cursor{Epoch: v.Epoch, Seq: c.head + 1}, next)
			require.NotContains(t, old, next)
			a := retained(t, l, tenant, "a")[0]
			require.Equal(t, c.after, seqs(a))
			newest := a.Events[len(a.Events)-1]
			if len(c.after) == 1 && c.head > 0 {
				require.GreaterOrEqual(t, newest.Prev, uint64(5), "the chain names what is gone")
			}
			// And again, over the ends of all streams.
			for range 12 {
				publish(t, l, tenant, events(2, "a", "b")...)
			}
			for _, top := range retained(t, l, tenant, "a", "b") {
				prev := top.Events[0].Cursor.Seq
				for _, e := range top.Events[1:] {
					require.Equal(t, prev, e.Prev)
					prev = e.Cursor.Seq
				}
				require.Equal(t, prev, top.Last)
			}
		})
	}
}

// TestStreamAhead has a stream that is ahead of the seqs, though the index knows
// its topic: Redis refuses to append to it.
func TestStreamAhead(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	k := keysOf("t")
	publish(t, l, "t", events(9, "a")...)
	ctx := t.Context()
	require.NoError(t, l.Client().Del(ctx, k.prefix+"m").Err())
	require.NoError(t, l.Client().ZAdd(ctx, k.prefix+"i", redis.Z{Score: 3, Member: "a"}).Err())

	c := publish(t, l, "t", event("a", 10))[0]
	require.EqualValues(t, 4, c.Seq)
	require.Equal(t, []uint64{4}, seqs(retained(t, l, "t", "a")[0]))
	require.Greater(t, l.Client().PTTL(ctx, k.stream("a")).Val(), 23*time.Hour)
}

// TestAnotherType puts keys of other types where the log's are: that is refused
// before anything is written.
func TestAnotherType(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	for _, key := range []string{"m", "i", "d:a:x"} {
		k := keysOf("t-" + key[:1])
		require.NoError(t, l.Client().LPush(t.Context(), k.prefix+key, "x").Err())
		p := event("a", 2)
		p.Dedupe = "x"
		_, err := l.Publish(t.Context(), "t-"+key[:1], []protocol.Publication{event("a", 1), p})
		require.ErrorIs(t, err, hub.ErrUnknown)
		require.ErrorContains(t, err, "WRONGTYPE")
		require.Equal(t, []string{k.prefix + key}, l.Client().Keys(t.Context(), k.prefix+"*").Val())
	}
}

// A topic leaves the index when its events are too old, and takes the floor with it.
func TestTopicsLeaveTheIndex(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	k := keysOf("t")
	ctx := t.Context()
	topics := make([]string, 40)
	for i := range topics {
		topics[i] = "jobs." + strconv.Itoa(i)
	}
	publish(t, l, "t", events(40, topics...)...)
	publish(t, l, "t", event("alerts", 1))
	for _, topic := range topics { // as if their time had come
		require.NoError(t, l.Client().HSet(ctx, k.prefix+"a", topic, "1 1").Err())
	}
	// One of them gets an event in the call that lets them go, and begins anew.
	all := publish(t, l, "t", append(events(15, "alerts"), event("jobs.7", 1))...)
	v := look(t, l, "t", hub.Query{Index: true, Topics: []hub.TopicQuery{{Topic: "jobs.7"}, {Topic: "jobs.8"}}})
	require.EqualValues(t, 40, v.Floor)
	require.Equal(t, []hub.TopicLast{{Topic: "alerts", Last: 56}, {Topic: "jobs.7", Last: 57}}, v.Index)
	require.Equal(t, []uint64{all[15].Seq}, seqs(v.Topics[0]))
	require.EqualValues(t, 40, v.Topics[0].Events[0].Prev)
	require.Equal(t, hub.TopicView{}, v.Topics[1])
	require.EqualValues(t, 2, l.Client().HLen(ctx, k.prefix+"a").Val())
	require.Greater(t, l.Client().PTTL(ctx, k.stream("jobs.8")).Val(), time.Hour-time.Minute, "of itself it goes later")
}

// What nobody publishes to goes by itself, but not before its time.
func TestKeysExpire(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	k := keysOf("t")
	once := event("jobs.1", 1)
	once.Dedupe = "x"
	publish(t, l, "t", event("alerts", 1), once)
	ttl := func(key string) time.Duration { return l.Client().PTTL(t.Context(), key).Val() }
	const slack = time.Minute
	require.Greater(t, ttl(k.stream("jobs.1")), time.Hour)
	require.Less(t, ttl(k.stream("jobs.1")), time.Hour+time.Hour/8+slack)
	require.Greater(t, ttl(k.stream("alerts")), 24*time.Hour)
	require.Greater(t, ttl(k.prefix+"i"), 24*time.Hour)
	require.Greater(t, ttl(k.prefix+"a"), 24*time.Hour)
	require.InDelta(t, 10*time.Minute, ttl(k.dedupe("jobs.1", "x")), float64(slack))
	require.EqualValues(t, -1, ttl(k.prefix+"m"), "a cursor of the tenant may come back at any time")

	// Every event has its whole time, however long before the key's was set.
	near := time.Now().Add(30 * time.Minute)
	for _, key := range []string{k.stream("jobs.1"), k.prefix + "i", k.prefix + "a"} {
		require.True(t, l.Client().PExpireAt(t.Context(), key, near).Val())
	}
	ms := strconv.FormatInt(near.UnixMilli(), 10)
	require.NoError(t, l.Client().HSet(t.Context(), k.prefix+"a", "jobs.1", ms+" "+ms).Err())
	require.NoError(t, l.Client().HSet(t.Context(), k.prefix+"m", "expires", ms).Err())
	publish(t, l, "t", event("jobs.1", 2))
	require.Greater(t, ttl(k.stream("jobs.1")), time.Hour)
	require.Greater(t, ttl(k.prefix+"i"), 24*time.Hour)
	require.Greater(t, ttl(k.prefix+"a"), 24*time.Hour)
}

// Events that are too old go from Redis too while others come, a few each time.
func TestTrimByAge(t *testing.T) {
	t.Parallel()
	retention, err := hub.ParseRetention(">:100/1s")
	require.NoError(t, err)
	server := logtest.StartRedis(t)
	l := openLog(t, Options{Redis: &redis.Options{Addr: server.Addr()}, Retention: retention}, quick)
	publish(t, l, "t", events(12, "a")...)
	key := keysOf("t").stream("a")
	require.True(t, l.Client().Persist(t.Context(), key).Val(), "else it would go as a whole")
	length := func() int64 { return l.Client().XLen(t.Context(), key).Val() }
	require.Eventually(t, func() bool { return len(retained(t, l, "t", "a")[0].Events) == 0 }, 20*time.Second, 10*time.Millisecond)
	publish(t, l, "t", event("a", 13))
	require.EqualValues(t, 13-8, length())
	publish(t, l, "t", event("a", 14))
	require.LessOrEqual(t, length(), int64(2))
}
