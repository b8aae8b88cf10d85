package redislog

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
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

// leaseKey is the hub's only key that belongs to no tenant, and the channel of
// the marks.
const leaseKey = "pushhub:ingest"

// RawName tells a message that came by a raw PUBLISH from all others. All who
// heard it over connections to the same server call it so.
type RawName struct {
	Mark    int64  // the mark before it: µs since 1970, about, by the clock of Redis
	Pattern string // by which it came
	N       int64  // it is the nth that came by Pattern after Mark
}

func (n RawName) field() string { return strconv.FormatInt(n.Mark, 10) + " " + n.Pattern }

// Raw is an event that came by a raw PUBLISH.
type Raw struct {
	Name  RawName
	Event protocol.Publication
}

// Appended is the answer to Append.
type Appended struct {
	Fresh int // messages that were appended
	Old   int // messages that came too late to know whether they are in the log
}

// Append puts raw messages of a tenant into the log, all or none, but for those
// that are there or behind others that are: the record, which the same script
// keeps, knows. It may be repeated, and called by several instances at once. They
// all give messages in the order in which they heard them, so one that is named
// lower than what is in the log was there before, or was left out on purpose. keep
// says how much older than the newest mark in the record one may be. Errors are
// those of Publish.
func (l *Log) Append(ctx context.Context, tenant string, messages []Raw, keep time.Duration) (Appended, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	c := l.newCall(tenant, len(messages), 3)
	c.names = append(c.names, c.keys.record())
	c.args = append(c.args, keep.Microseconds())
	for i := range messages {
		m := &messages[i]
		c.add(&m.Event)
		c.args = append(c.args, m.Name.Mark, m.Name.Pattern, m.Name.N)
	}
	answer, err := l.eval(ctx, appendScript, c.names, c.args)
	if err != nil {
		return Appended{}, fmt.Errorf("append: %w", outcome(err))
	}
	list, ok := answer.([]any)
	if !ok || len(list) != 4 {
		return Appended{}, fmt.Errorf("append: %w: %w", hub.ErrUnknown, errAnswer)
	}
	fresh, ok1 := list[0].(int64)
	old, ok2 := list[1].(int64)
	epoch, newest, err := parseCursors(list[2:], 1)
	if !ok1 || !ok2 || err != nil {
		return Appended{}, fmt.Errorf("append: %w: %w", hub.ErrUnknown, errAnswer)
	}
	// Also if none was fresh: they may be there because of a call that was not answered.
	l.servers.acks.note(life{tenant, epoch}, newest[0].Seq)
	return Appended{Fresh: int(fresh), Old: int(old)}, nil
}

// Dealt says of each message whether it is known that Append has nothing to do for
// it any more. It only reads. Its errors wrap hub.ErrUnavailable.
func (l *Log) Dealt(ctx context.Context, tenant string, names []RawName) ([]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	at := map[string]int{}
	var fields []string
	for _, n := range names {
		if _, is := at[n.field()]; !is {
			at[n.field()] = len(fields)
			fields = append(fields, n.field())
		}
	}
	known, err := l.record(ctx, tenant, fields)
	if err != nil {
		return nil, fmt.Errorf("record: %w: %w", hub.ErrUnavailable, err)
	}
	dealt := make([]bool, len(names))
	for i, n := range names {
		dealt[i] = n.N <= known[at[n.field()]]
	}
	return dealt, nil
}

// record reads fields of a tenant's record; 0 is for those that it lacks.
func (l *Log) record(ctx context.Context, tenant string, fields []string) ([]int64, error) {
	key := keysOf(tenant).record()
	node, err := l.servers.primary(ctx, key)
	if err != nil {
		return nil, err
	}
	values, err := node.HMGet(ctx, key, fields...).Result()
	if err != nil {
		return nil, err
	}
	if len(values) != len(fields) {
		return nil, errAnswer
	}
	known := make([]int64, len(values))
	for i, v := range values {
		if v == nil {
			continue
		}
		text, _ := v.(string)
		if known[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, errAnswer
		}
	}
	return known, nil
}

// Claim is what Lease is asked for.
type Claim struct {
	Owner  string
	Serial int64         // never falls; what Redis gets after one of a higher number changes nothing
	Lasts  time.Duration // for so long; 0 gives the lease back, if Owner has it
	Mark   time.Duration // a mark is set if the last is as old as this
	From   int64         // the mark from which on Owner has heard all; 0: it hears nothing
	Open   int64         // the oldest mark of which Owner may yet bring something in; 0: none; or as below
	Stale  time.Duration // what others have said, and not again for so long, counts no more
}

// What else Claim.Open may be.
const (
	OpenAsBefore = -1 // what it was in the last Claim
	OpenFromMark = -2 // the mark that is set with this Claim
)

// args are those of the script.
func (c *Claim) args() []string {
	var args [7]string
	args[0] = c.Owner
	for i, n := range [...]int64{c.Serial, c.Lasts.Milliseconds(), c.Mark.Microseconds(), c.From, c.Open, c.Stale.Milliseconds()} {
		args[1+i] = strconv.FormatInt(n, 10)
	}
	return args[:]
}

// Standing is the answer to a Claim.
type Standing struct {
	Leads bool  // Owner has the lease
	From  int64 // the Claim's of who has it; 0: nobody has
	Open  int64 // the oldest that another's Claim had; 0: none had; 1: others had no time to say since Redis began
}

// Lease takes, keeps or gives back the lease that says who ingests, and tells how
// things stand. It sets marks, too: see Hear. Errors are those of Publish; to ask again
// does no harm.
func (l *Log) Lease(ctx context.Context, c Claim) (Standing, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var args []any
	for _, a := range c.args() {
		args = append(args, a)
	}
	answer, err := l.eval(ctx, leaseScript, []string{leaseKey}, args)
	if err != nil {
		return Standing{}, fmt.Errorf("lease: %w", outcome(err))
	}
	list, ok := answer.([]any)
	if !ok || len(list) != 3 {
		return Standing{}, fmt.Errorf("lease: %w: %w", hub.ErrUnknown, errAnswer)
	}
	var n [3]int64
	for i := range n {
		if n[i], ok = list[i].(int64); !ok {
			return Standing{}, fmt.Errorf("lease: %w: %w", hub.ErrUnknown, errAnswer)
		}
	}
	return Standing{Leads: n[0] == 1, From: n[1], Open: n[2]}, nil
}
