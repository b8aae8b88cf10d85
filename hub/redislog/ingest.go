package redislog

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

var (
	//go:embed lua/append.lua
	appendText string
	//go:embed lua/lease.lua
	leaseText string

	appendScript = newScript("#!lua", appendText, "")
	leaseScript  = newScript("#!lua", leaseText, "")
)

// leaseKey is the hub's only key that belongs to no tenant.
const leaseKey = "pushhub:ingest"

// Raw is a message that came by a raw PUBLISH, and what tells it from others.
type Raw struct {
	Event  protocol.Publication
	Digest string // of channel and payload: 1 to 64 of A-Za-z0-9_-
	Heard  int64  // µs since 1970 by the clock of Redis; no two of one owner are equal
}

// Record says what is kept of raw messages, and how they are recognized.
type Record struct {
	Keep  time.Duration // how long it is known who appended what
	Apart time.Duration // how far two instances may be apart in hearing one message
	Since int64         // since when the owner has been listening, µs as Heard
}

// Appended is the answer to Append.
type Appended struct {
	Stale  bool  // another reign is newer: nothing was done
	Behind bool  // messages before the first are missing: nothing was done
	Last   int64 // number of the last message of the reign that is in the log
	Fresh  int   // messages that were appended
	Old    int   // messages that came too late to know whether they are in the log
}

// Append puts raw messages of a tenant into the log, all or none, but for those
// that are there: the record, which the same script keeps, knows. The messages
// of a reign are numbered 1, 2, 3 …; what was appended under its number is not
// appended again, so that an attempt with an unknown outcome can be repeated.
// Without a reign (a second look) the record alone decides. Errors are those of
// Publish.
func (l *Log) Append(ctx context.Context, tenant string, owner string, reign int64, first int64, messages []Raw, rec Record) (Appended, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	k := keysOf(tenant)
	names := append(k.fixed(3+2*len(messages)), k.prefix+"ing", k.prefix+"rec", k.prefix+"rech")
	args := append(make([]any, 0, 9+8*len(messages)), newEpoch(), k.channel(), l.oldest.Milliseconds(),
		reign, owner, first, rec.Keep.Microseconds(), rec.Apart.Microseconds(), rec.Since)
	now := time.Now()
	var buf []byte
	for i := range messages {
		m := &messages[i]
		p := &m.Event
		start := len(buf)
		buf = appendHead(buf, p)
		end := len(buf)
		buf = p.AppendBody(buf, now)
		names = append(names, k.stream(p.Topic))
		dedupe := "0"
		if p.Dedupe != "" {
			dedupe = "1"
			names = append(names, k.dedupe(p.Topic, p.Dedupe))
		}
		rule := l.retention.For(p.Topic)
		args = append(args, p.Topic, string(buf[start:end]), string(buf[end:]), rule.Events, rule.Age.Milliseconds(), dedupe, m.Digest, m.Heard)
	}
	answer, err := l.eval(ctx, appendScript, names, args)
	if err != nil {
		return Appended{}, fmt.Errorf("append: %w", outcome(err))
	}
	list, ok := answer.([]any)
	if !ok || len(list) < 2 {
		return Appended{}, fmt.Errorf("append: %w: %w", hub.ErrUnknown, errAnswer)
	}
	r := reading{}
	a := Appended{Last: int64(r.seq(list[1]))}
	switch list[0] {
	case "STALE":
		a.Stale = true
	case "ORDER":
		a.Behind = true
	default:
		if len(list) == 5 {
			fresh, _ := list[2].(int64)
			old, _ := list[4].(int64)
			a.Fresh, a.Old = int(fresh), int(old)
		}
	}
	if r.bad {
		return Appended{}, fmt.Errorf("append: %w: %w", hub.ErrUnknown, errAnswer)
	}
	return a, nil
}

// Occurrence is one message in the record.
type Occurrence struct {
	Heard int64 // as Raw.Heard
	Owner string
}

// Recorded gives what the record knows of each digest.
func (l *Log) Recorded(ctx context.Context, tenant string, digests []string) ([][]Occurrence, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	key := keysOf(tenant).prefix + "rec"
	node, err := l.servers.primary(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("record: %w: %w", hub.ErrUnavailable, err)
	}
	values, err := node.HMGet(ctx, key, digests...).Result()
	if err != nil {
		return nil, fmt.Errorf("record: %w: %w", hub.ErrUnavailable, err)
	}
	all := make([][]Occurrence, len(digests))
	for i, v := range values {
		s, _ := v.(string)
		for part := range strings.SplitSeq(s, ";") {
			f := strings.Split(part, ",")
			heard, err := strconv.ParseInt(f[0], 10, 64)
			if err == nil && len(f) == 3 {
				all[i] = append(all[i], Occurrence{heard, f[1]})
			}
		}
	}
	return all, nil
}

// Want is what Lease is asked for.
type Want string

// What can be wanted of the lease.
const (
	Take    Want = "take"    // take it if it is free, keep it if it is ours
	Raise   Want = "raise"   // as Take, but begin a new reign
	Release Want = "release" // give it back
)

// Lease takes, keeps or gives back the lease that says who ingests. It lasts for
// a time and can be taken by another only when it has been free for that long as
// free says. It gives the number of the reign, whether owner has it, and the
// clock of Redis.
func (l *Log) Lease(ctx context.Context, owner string, want Want, lasts, free time.Duration) (reign int64, has bool, now time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	answer, err := l.eval(ctx, leaseScript, []string{leaseKey}, []any{owner, string(want), lasts.Milliseconds(), free.Milliseconds()})
	if err != nil {
		return 0, false, time.Time{}, fmt.Errorf("lease: %w", outcome(err))
	}
	list, ok := answer.([]any)
	if !ok || len(list) != 3 {
		return 0, false, time.Time{}, fmt.Errorf("lease: %w: %w", hub.ErrUnknown, errAnswer)
	}
	r := reading{}
	n, us := r.seq(list[0]), r.seq(list[2])
	if r.bad {
		return 0, false, time.Time{}, fmt.Errorf("lease: %w: %w", hub.ErrUnknown, errAnswer)
	}
	return int64(n), list[1] == int64(1), time.UnixMicro(int64(us)), nil
}
