package redislog

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/logtest"
	"github.com/pushhub/pushhub/protocol"
)

const mark = 1_763_630_000_000_000

// raws are the messages first … last that "p" brought after a mark, for topic a.
// Their data are n.
func raws(mark, first, last int) []Raw {
	var all []Raw
	for n := first; n <= last; n++ {
		all = append(all, Raw{Name: RawName{Mark: int64(mark), Pattern: "p", N: int64(n)}, Event: event("a", n)})
	}
	return all
}

func tryAppend(t testing.TB, l *Log, all []Raw) Appended {
	t.Helper()
	a, err := l.Append(t.Context(), "t", all, time.Minute)
	require.NoError(t, err)
	return a
}

// requireData checks what a topic has, in order.
func requireData(t testing.TB, l *Log, topic string, want ...int) {
	t.Helper()
	got := []int{}
	for _, e := range retained(t, l, "t", topic)[0].Events {
		_, data, ok := strings.Cut(string(e.JSON), `"data":`)
		require.True(t, ok)
		n, err := strconv.Atoi(strings.TrimSuffix(data, "}"))
		require.NoError(t, err)
		got = append(got, n)
	}
	require.Equal(t, want, got)
}

func TestAppend(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	require.Equal(t, Appended{Fresh: 3}, tryAppend(t, l, raws(mark, 1, 3)))
	require.Equal(t, Appended{}, tryAppend(t, l, raws(mark, 1, 3)), "again")
	require.Equal(t, Appended{Fresh: 2}, tryAppend(t, l, raws(mark, 2, 5)), "partly again")
	require.Equal(t, Appended{Fresh: 1}, tryAppend(t, l, raws(mark, 7, 7)), "the 6th was none")
	require.Equal(t, Appended{}, tryAppend(t, l, raws(mark, 6, 6)))
	requireData(t, l, "a", 1, 2, 3, 4, 5, 7)

	other := raws(mark, 1, 2)
	for i := range other {
		other[i].Name.Pattern = "q*"
	}
	require.Equal(t, Appended{Fresh: 2}, tryAppend(t, l, other), "by another pattern")
	both := append(raws(mark, 8, 8), raws(mark+1, 1, 1)...)
	require.Equal(t, Appended{Fresh: 2}, tryAppend(t, l, both))
	requireData(t, l, "a", 1, 2, 3, 4, 5, 7, 1, 2, 8, 1)

	names := []RawName{{mark, "p", 8}, {mark, "p", 9}, {mark, "q*", 2}, {mark, "q", 1}, {mark + 1, "p", 1}, {mark + 1, "p", 2}}
	dealt, err := l.Dealt(t.Context(), "t", names)
	require.NoError(t, err)
	require.Equal(t, []bool{true, false, true, false, true, false}, dealt)
	dealt, err = l.Dealt(t.Context(), "another", names[:1])
	require.NoError(t, err)
	require.Equal(t, []bool{false}, dealt)
}

// What is much older than what is in the log cannot be told from what is there.
func TestAppendTooOld(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	const later = 61_000_000
	require.Equal(t, Appended{Fresh: 2}, tryAppend(t, l, raws(mark, 1, 2)))
	require.Equal(t, Appended{Fresh: 1}, tryAppend(t, l, raws(mark+later-2_000_000, 1, 1)), "no more than a minute")
	require.Equal(t, Appended{Fresh: 1}, tryAppend(t, l, raws(mark, 3, 3)), "a mark that is recorded")
	require.Equal(t, Appended{Fresh: 1}, tryAppend(t, l, raws(mark+later, 1, 1)))
	require.Equal(t, Appended{Old: 2}, tryAppend(t, l, raws(mark, 3, 4)))
	require.Equal(t, Appended{Old: 1, Fresh: 1}, tryAppend(t, l, append(raws(mark, 4, 4), raws(mark+later, 2, 2)...)))
	dealt, err := l.Dealt(t.Context(), "t", []RawName{{mark, "p", 3}})
	require.NoError(t, err)
	require.Equal(t, []bool{false}, dealt, "it is not known")
	requireData(t, l, "a", 1, 2, 1, 3, 1, 2)
	require.EqualValues(t, 6, look(t, l, "t", hub.Query{}).Head)
}

// The record stays small however much comes.
func TestRecord(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	for second := range 300 {
		require.Equal(t, 10, tryAppend(t, l, raws(mark+1_000_000*second, 1, 10)).Fresh)
	}
	key := keysOf("t").record()
	require.EqualValues(t, 62, l.Client().HLen(t.Context(), key).Val(), "a minute of marks, and how far it reaches")
	require.InDelta(t, 86400, l.Client().TTL(t.Context(), key).Val().Seconds(), 60)
}

// Without its record nobody knows what is in the log: it comes again, in a new epoch.
func TestAppendWithoutRecord(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	keys := keysOf("t")
	epoch := func() string { return look(t, l, "t", hub.Query{}).Epoch }
	append3 := func(fresh int) { require.Equal(t, Appended{Fresh: fresh}, tryAppend(t, l, raws(mark, 1, 3))) }
	gone := func(key string) { require.NoError(t, l.Client().Del(t.Context(), key).Err()) }
	append3(3)
	first := epoch()
	append3(0)
	require.Equal(t, first, epoch())
	gone(keys.record())
	append3(3)
	second := epoch()
	require.NotEqual(t, first, second)
	append3(0)
	require.Equal(t, second, epoch())
	gone(keys.prefix + "m") // the record is there, and the meta has to learn that anew
	append3(0)
	require.Equal(t, Appended{Fresh: 1}, tryAppend(t, l, raws(mark, 4, 4)))
	gone(keys.record())
	third := epoch()
	require.NotEqual(t, second, third)
	append3(3)
	require.NotEqual(t, third, epoch())

	// By itself it goes after a day, and nothing came then.
	require.NoError(t, l.Client().HSet(t.Context(), keys.prefix+"m", "raw", time.Now().Add(-time.Second).UnixMilli()).Err())
	gone(keys.record())
	fourth := epoch()
	require.Equal(t, Appended{Fresh: 1}, tryAppend(t, l, raws(mark+1_000_000, 1, 1)))
	require.Equal(t, fourth, epoch())
}

// A batch of several topics arrives live and whole, each topic with its chain, by
// the side of what is published otherwise.
func TestAppendLive(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	rec := logtest.NewRecorder(t)
	l.Listen(rec)
	l.Watch("t")
	rec.AwaitCount(t, "t", logtest.Covered, 1)
	topics := []string{"alerts", "jobs.1", "jobs.2"}
	batch := raws(mark, 1, 100)
	for i := range batch {
		batch[i].Event = event(topics[i%3], i)
		batch[i].Event.Key, batch[i].Event.Final = "progress", i == 99
	}
	publish(t, l, "t", event("alerts", -1))
	require.Equal(t, Appended{Fresh: 100}, tryAppend(t, l, batch))
	last := publish(t, l, "t", event("jobs.2", -1))[0]
	require.EqualValues(t, 102, last.Seq)
	rec.AwaitEvent(t, "t", last)
	requireWhole(t, rec.Calls("t"))
	live := rec.Events("t")
	require.Len(t, live, 102)
	prev := map[string]uint64{}
	for i, e := range live {
		require.EqualValues(t, i+1, e.Cursor.Seq)
		require.Equal(t, prev[e.Topic], e.Prev)
		prev[e.Topic] = e.Cursor.Seq
		if i > 0 && i < 101 {
			require.Equal(t, topics[(i-1)%3], e.Topic)
			require.Contains(t, string(e.JSON), fmt.Sprintf(`"data":%d}`, i-1))
			require.Equal(t, "progress", e.Key)
			require.Equal(t, i == 100, e.Final)
		}
	}
	for i, v := range retained(t, l, "t", topics...) {
		require.Equal(t, prev[topics[i]], v.Last)
		for _, e := range v.Events {
			require.Equal(t, string(live[e.Cursor.Seq-1].JSON), string(e.JSON))
		}
	}
	require.Zero(t, tryAppend(t, l, batch))
	require.EqualValues(t, 102, look(t, l, "t", hub.Query{}).Head, "and that takes no seq")
}

// An event_id counts however its event comes in.
func TestAppendDedupe(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	p := event("a", 1)
	p.Dedupe = "one"
	publish(t, l, "t", p)
	batch := raws(mark, 1, 5)
	for i, m := range []struct {
		topic, dedupe string
		n             int
	}{{"a", "one", 2}, {"a", "two", 3}, {"a", "two", 4}, {"b", "one", 5}, {"a", "", 6}} {
		batch[i].Event = event(m.topic, m.n)
		batch[i].Event.Dedupe = m.dedupe
	}
	require.Equal(t, Appended{Fresh: 3}, tryAppend(t, l, batch))
	requireData(t, l, "a", 1, 3, 6)
	requireData(t, l, "b", 5)
	p = event("a", 7)
	p.Dedupe = "two"
	require.EqualValues(t, 2, publish(t, l, "t", p)[0].Seq)
}

// A new life of the primary is a new epoch; names and record go on.
func TestAppendOverEpochs(t *testing.T) {
	server := logtest.StartRedis(t)
	l := openAt(t, server.Addr())
	tryAppend(t, l, raws(mark, 1, 2))
	old := look(t, l, "t", hub.Query{})
	admin(t, server, "REPLICAOF", "127.0.0.1", 1)
	_, err := l.Append(t.Context(), "t", raws(mark, 3, 4), time.Minute)
	require.ErrorIs(t, err, hub.ErrUnavailable)
	admin(t, server, "REPLICAOF", "NO", "ONE")
	require.Equal(t, Appended{Fresh: 2}, tryAppend(t, l, raws(mark, 2, 4)))
	v := look(t, l, "t", hub.Query{})
	require.NotEqual(t, old.Epoch, v.Epoch)
	require.Equal(t, []protocol.Cursor{{Epoch: old.Epoch, Seq: 2}}, v.Past)
	require.EqualValues(t, 4, v.Head)
	// Also when there is nothing to append.
	admin(t, server, "REPLICAOF", "127.0.0.1", 1)
	admin(t, server, "REPLICAOF", "NO", "ONE")
	require.Zero(t, tryAppend(t, l, raws(mark, 1, 4)))
	next := look(t, l, "t", hub.Query{})
	require.Equal(t, []protocol.Cursor{{Epoch: v.Epoch, Seq: 4}, {Epoch: old.Epoch, Seq: 2}}, next.Past)
	require.EqualValues(t, 4, next.Head)
	requireData(t, l, "a", 1, 2, 3, 4)
	// With everything gone, so is what was in the log.
	require.NoError(t, l.Client().FlushAll(t.Context()).Err())
	require.Equal(t, Appended{Fresh: 4}, tryAppend(t, l, raws(mark, 1, 4)))
	require.EqualValues(t, 4, look(t, l, "t", hub.Query{}).Head)
}

// Keys of other types are refused, and no event is there then.
func TestAppendAnotherType(t *testing.T) {
	for _, key := range []string{"m", "i", "a", "ing"} {
		t.Run(key, func(t *testing.T) {
			l := openAt(t, logtest.StartRedis(t).Addr())
			tryAppend(t, l, raws(mark, 1, 1))
			k := keysOf("t")
			require.NoError(t, l.Client().Del(t.Context(), k.prefix+key).Err())
			require.NoError(t, l.Client().LPush(t.Context(), k.prefix+key, "x").Err())
			for range 3 {
				_, err := l.Append(t.Context(), "t", raws(mark, 2, 3), time.Minute)
				require.ErrorContains(t, err, "WRONGTYPE")
			}
			require.EqualValues(t, 1, l.Client().XLen(t.Context(), k.stream("a")).Val())
			require.NoError(t, l.Client().Del(t.Context(), k.prefix+key).Err())
			require.Equal(t, 2, tryAppend(t, l, raws(mark+1, 2, 3)).Fresh)
		})
	}
}

// What Redis refuses as a whole can be said again; and what was done though
// nobody heard so, too.
func TestAppendAgain(t *testing.T) {
	t.Parallel()
	server := logtest.StartRedis(t)
	p := newProxy(t, server.Addr())
	l := openAt(t, p.addr())
	fails := func(all []Raw, want error) {
		t.Helper()
		_, err := l.Append(t.Context(), "t", all, time.Minute)
		require.ErrorIs(t, err, want)
	}
	tryAppend(t, l, raws(mark-1, 1, 1)) // so that the script is known
	for i := range 4 {
		two := raws(mark, 2*i+1, 2*i+2)
		admin(t, server, "CONFIG", "SET", "maxmemory", 1)
		fails(two, hub.ErrUnavailable)
		admin(t, server, "CONFIG", "SET", "maxmemory", 0)
		for _, f := range []fate{loseReplies, loseRequests} {
			p.set(f)
			fails(two, hub.ErrUnknown)
			p.set(pass)
		}
		require.Zero(t, tryAppend(t, l, two), "the first of them was done")
	}
	requireData(t, l, "a", 1, 1, 2, 3, 4, 5, 6, 7, 8)
	require.NoError(t, l.Client().ScriptFlush(t.Context()).Err())
	require.Equal(t, Appended{Fresh: 1}, tryAppend(t, l, raws(mark, 8, 9)))
}

func TestLease(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	ask := func(c Claim) bool {
		t.Helper()
		stand, err := l.Lease(t.Context(), c)
		require.NoError(t, err)
		return stand.Leads
	}
	x, y := Claim{Owner: "x", Lasts: time.Minute, Mark: time.Hour}, Claim{Owner: "y", Lasts: time.Minute, Mark: time.Hour}
	require.True(t, ask(x))
	require.True(t, ask(x))
	require.False(t, ask(y), "it is x's")
	release := func(owner string) { require.False(t, ask(Claim{Owner: owner, Mark: time.Hour})) }
	release("y")
	require.False(t, ask(y), "still")

	sub := l.Client().Subscribe(t.Context(), leaseKey)
	defer sub.Close()
	_, err := sub.Receive(t.Context())
	require.NoError(t, err)
	release("x")
	_, err = sub.ReceiveMessage(t.Context())
	require.NoError(t, err, "others are told by a mark, though the last is not old")
	release("x")
	require.True(t, ask(y))
	require.False(t, ask(x))

	ends := func(at time.Time) {
		require.NoError(t, l.Client().HSet(t.Context(), leaseKey, "until", at.UnixMilli()).Err())
	}
	ends(time.Now().Add(time.Second))
	require.False(t, ask(x))
	ends(time.Now())
	require.True(t, ask(x))
	require.False(t, ask(y))
	ends(time.Now().Add(time.Hour))
	require.True(t, ask(y), "the clock was set back")

	require.NoError(t, l.Client().Del(t.Context(), leaseKey).Err())
	require.NoError(t, l.Client().Set(t.Context(), leaseKey, "x", 0).Err())
	_, err = l.Lease(t.Context(), x)
	require.ErrorContains(t, err, "WRONGTYPE")
}

// Each instance is told from where on the one that leads has heard all, and of the
// oldest that is open to others.
func TestStanding(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	ask := func(c Claim) Standing {
		t.Helper()
		c.Mark, c.Stale = time.Hour, 3*time.Second
		stand, err := l.Lease(t.Context(), c)
		require.NoError(t, err)
		return stand
	}
	set := func(field string, ago time.Duration, more string) {
		at := strconv.FormatInt(time.Now().Add(-ago).UnixMilli(), 10)
		if field != "asked" && field != "began" {
			at = "5 " + at
		}
		require.NoError(t, l.Client().HSet(t.Context(), leaseKey, field, at+more).Err())
	}
	x := Claim{Owner: "x", Lasts: time.Minute, From: 1_700_000_000_000_007}
	require.Equal(t, Standing{Leads: true, From: x.From, Open: 1}, ask(x), "Redis may have lost what others said")
	set("began", time.Second, "")
	require.Equal(t, Standing{Leads: true, From: x.From}, ask(x))
	y := Claim{Owner: "y", Serial: 7, Open: 1_700_000_000_000_003}
	require.Equal(t, Standing{From: x.From}, ask(y))
	require.Equal(t, Standing{Leads: true, From: x.From, Open: y.Open}, ask(x))
	z := Claim{Owner: "open z", Open: 1_700_000_000_000_005}
	require.Equal(t, Standing{From: x.From, Open: y.Open}, ask(z))
	require.Equal(t, Standing{From: x.From, Open: z.Open}, ask(y))
	open := func() int64 { return ask(x).Open }
	y.Open = OpenAsBefore
	ask(y)
	require.EqualValues(t, 1_700_000_000_000_003, open())
	y.Open = 0
	ask(y)
	require.Equal(t, z.Open, open(), "nothing is open to y any more")
	y.Serial, y.Open, y.Lasts = 6, 1, time.Hour
	require.Equal(t, Standing{From: x.From, Open: z.Open}, ask(y))
	require.Equal(t, z.Open, open(), "that was asked before")

	before := time.Now().Add(-time.Millisecond).UnixMicro()
	n := Claim{Owner: "n", Open: OpenFromMark}
	_, err := l.Lease(t.Context(), n)
	require.NoError(t, err)
	ask(Claim{Owner: "open z"})
	require.Greater(t, open(), before, "the mark that was set with it")
	n.Open, n.Serial = OpenAsBefore, 1
	ask(n)
	require.Greater(t, open(), before)

	for _, gap := range []time.Duration{time.Hour, 2 * time.Second, -time.Hour} {
		set("open n", gap+time.Second, " 1")
		set("began", gap+time.Second, "")
		set("asked", gap, "")
		require.EqualValues(t, 5, open(), "nobody could ask")
		require.EqualValues(t, 5, open())
	}
	set("began", time.Hour+time.Second/5, "")
	set("asked", time.Hour, "")
	require.EqualValues(t, 1, open(), "nor say what is open since Redis lost that")
	set("began", time.Hour, "")
	require.NoError(t, l.Client().HSet(t.Context(), leaseKey, "server", "another", "set", 0).Err())
	require.EqualValues(t, 1, open(), "nor what this server has not heard of")
	set("began", time.Hour, "")
	set("open n", 3*time.Second, " 1")
	require.Zero(t, open(), "n is gone")
	require.False(t, l.Client().HExists(t.Context(), leaseKey, "open n").Val())
	require.Equal(t, Standing{}, ask(Claim{Owner: "x"}), "it is given back")
}

// Marks rise, whatever the clock does, and are not set more often than asked.
func TestMarks(t *testing.T) {
	l := openAt(t, logtest.StartRedis(t).Addr())
	sub := l.Client().Subscribe(t.Context(), leaseKey)
	defer sub.Close()
	_, err := sub.Receive(t.Context())
	require.NoError(t, err)
	set := func(every time.Duration) {
		_, err := l.Lease(t.Context(), Claim{Owner: "x", Mark: every})
		require.NoError(t, err)
	}
	next := func() int64 {
		m, err := sub.ReceiveMessage(t.Context())
		require.NoError(t, err)
		number, server, _ := strings.Cut(m.Payload, " ")
		require.Len(t, server, 40)
		n, err := strconv.ParseInt(number, 10, 64)
		require.NoError(t, err)
		return n
	}
	before := time.Now().Add(-time.Millisecond).UnixMicro()
	set(time.Hour)
	first := next()
	require.Greater(t, first, before, "there was none")
	set(time.Hour)
	set(0)
	second := next()
	require.Greater(t, second, first)
	future := time.Now().Add(time.Hour).UnixMicro()
	require.NoError(t, l.Client().HSet(t.Context(), leaseKey, "mark", future).Err())
	set(time.Second) // none
	set(0)
	require.Equal(t, future+1, next(), "the clock was set back")
	require.NoError(t, l.Client().HSet(t.Context(), leaseKey, "set", time.Now().Add(-time.Minute).UnixMicro()).Err())
	set(time.Second)
	require.EqualValues(t, future+1+1_000_000, next(), "and marks tell how time passes")
	require.NoError(t, l.Client().HSet(t.Context(), leaseKey, "set", future).Err())
	set(time.Second)
	require.EqualValues(t, future+2+1_000_000, next())
	require.NoError(t, l.Client().Del(t.Context(), leaseKey).Err())
	set(time.Hour)
	require.Less(t, next(), future)
}
