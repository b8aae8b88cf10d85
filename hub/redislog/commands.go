package redislog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

const (
	// maxLook bounds the bytes of events in one answer to Look.
	maxLook = 1 << 20
	// lookTries bounds how often Look sees a new epoch due, begins it, and looks
	// again: more than once takes a failover in between.
	lookTries = 4
)

// keys are the names of what belongs to a tenant; prefix ends in a colon.
type keys struct{ prefix string }

func keysOf(tenant string) keys { return keys{"pushhub:{" + tenant + "}:"} }

func (k keys) stream(topic string) string     { return k.prefix + "s:" + topic }
func (k keys) dedupe(topic, id string) string { return k.prefix + "d:" + topic + ":" + id }
func (k keys) channel() string                { return k.prefix + "live" }
func (k keys) record() string                 { return k.prefix + "ing" }

// fixed gives those that every script has.
func (k keys) fixed(room int) []string {
	return append(make([]string, 0, 3+room), k.prefix+"m", k.prefix+"i", k.prefix+"a")
}

// newEpoch gives a name that no epoch of the tenant had: 50 random bits.
func newEpoch() string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	bits := rand.Uint64()
	b := make([]byte, 10)
	for i := range b {
		b[i] = letters[bits%32]
		bits /= 32
	}
	return string(b)
}

// Publish implements hub.Log. It returns within 5 s, whatever Redis does. Events
// that cannot be kept as they are give an error that wraps protocol.ErrMalformed.
func (l *Log) Publish(ctx context.Context, tenant string, events []protocol.Publication) ([]protocol.Cursor, error) {
	if len(events) == 0 {
		return nil, nil
	}
	if err := check(tenant, events); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	c := l.newCall(tenant, len(events), 0)
	for i := range events {
		c.add(&events[i])
	}
	answer, err := l.eval(ctx, publishScript, c.names, c.args)
	if err != nil {
		return nil, fmt.Errorf("publish: %w", outcome(err))
	}
	epoch, cursors, err := parseCursors(answer, len(events))
	if err != nil {
		return nil, fmt.Errorf("publish: %w: %w", hub.ErrUnknown, err)
	}
	newest := uint64(0)
	for _, c := range cursors {
		if c.Epoch == epoch { // what a dedupe brought may be of another
			newest = max(newest, c.Seq)
		}
	}
	l.servers.acks.note(life{tenant, epoch}, newest)
	return cursors, nil
}

// check refuses what would make keys or a record that nobody can read.
func check(tenant string, events []protocol.Publication) error {
	if err := protocol.CheckTenant(tenant); err != nil {
		return err
	}
	for i := range events {
		p := &events[i]
		if err := protocol.CheckTopic(p.Topic); err != nil {
			return err
		}
		if !protocol.CheckLabel(p.Type) || p.Key != "" && !protocol.CheckLabel(p.Key) {
			return fmt.Errorf("%w type or key", protocol.ErrMalformed)
		}
	}
	return nil
}

// call is what a script that appends is called with. It is made by one goroutine.
type call struct {
	log   *Log
	keys  keys
	now   time.Time
	buf   []byte
	names []string
	args  []any
}

// newCall begins the call of a script that appends to a tenant: n events, and
// more arguments for each than the events themselves.
func (l *Log) newCall(tenant string, n, more int) *call {
	k := keysOf(tenant)
	args := make([]any, 0, 4+(6+more)*n)
	return &call{log: l, keys: k, now: time.Now(), names: k.fixed(1 + 2*n), args: append(args, newEpoch(), k.channel(), l.oldest.Milliseconds())}
}

// add adds an event.
func (c *call) add(p *protocol.Publication) {
	if n := 160 + 2*(len(p.Topic)+len(p.Type)) + len(p.Key) + len(p.Source) + len(p.Data); cap(c.buf)-len(c.buf) < n {
		c.buf = make([]byte, 0, max(n, 2048)) // what is in args keeps the old one
	}
	start := len(c.buf)
	c.buf = appendHead(c.buf, p)
	end := len(c.buf)
	c.buf = p.AppendBody(c.buf, c.now)
	c.names = append(c.names, c.keys.stream(p.Topic))
	dedupe := "0"
	if p.Dedupe != "" {
		dedupe = "1"
		c.names = append(c.names, c.keys.dedupe(p.Topic, p.Dedupe))
	}
	rule := c.log.retention.For(p.Topic)
	c.args = append(c.args, p.Topic, c.buf[start:end:end], c.buf[end:len(c.buf):len(c.buf)], rule.Events, rule.Age.Milliseconds(), dedupe)
}

// parseCursors takes the epoch, and the cursor of each of n events.
func parseCursors(answer any, n int) (epoch string, cursors []protocol.Cursor, err error) {
	list, ok := answer.([]any)
	if !ok || len(list) != n+1 {
		return "", nil, errAnswer
	}
	if epoch, ok = list[0].(string); !ok {
		return "", nil, errAnswer
	}
	cursors = make([]protocol.Cursor, n)
	for i, a := range list[1:] {
		switch a := a.(type) {
		case int64:
			cursors[i] = protocol.Cursor{Epoch: epoch, Seq: uint64(a)}
		case string:
			if cursors[i], err = protocol.ParseCursor(a); err != nil {
				return "", nil, err
			}
		default:
			return "", nil, errAnswer
		}
	}
	return epoch, cursors, nil
}

// eval runs a script. What the network did not do makes the live connection,
// which may not know yet, prove that it is there.
func (l *Log) eval(ctx context.Context, sc *script, keys []string, args []any) (any, error) {
	answer, err := l.servers.eval(ctx, sc, keys, args)
	var said redis.Error
	if err != nil && !errors.As(err, &said) {
		l.live.doubt()
	}
	return answer, err
}

// Look implements hub.Log. It returns within 5 s, whatever Redis does. Its errors
// wrap hub.ErrUnavailable: to ask again does no harm.
func (l *Log) Look(ctx context.Context, tenant string, q hub.Query) (hub.View, error) {
	v, err := l.look(ctx, tenant, q)
	if err != nil {
		return hub.View{}, fmt.Errorf("look: %w: %w", hub.ErrUnavailable, err)
	}
	return v, nil
}

func (l *Log) look(ctx context.Context, tenant string, q hub.Query) (hub.View, error) {
	if err := protocol.CheckTenant(tenant); err != nil {
		return hub.View{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	k := keysOf(tenant)
	fixed := k.fixed(len(q.Topics))
	names := fixed
	after := ""
	if q.Index {
		after = strconv.FormatUint(q.IndexAfter, 10)
	}
	args := append(make([]any, 0, 4+6*len(q.Topics)), q.Known.Epoch, q.Known.Seq, after, maxLook)
	for _, tq := range q.Topics {
		limit := tq.Limit
		if limit <= 0 {
			limit = 1 << 30
		}
		names = append(names, k.stream(tq.Topic))
		args = append(args, tq.Topic, min(tq.After, protocol.MaxSeq), min(tq.To, protocol.MaxSeq), limit, tq.Newest,
			l.retention.For(tq.Topic).Age.Milliseconds())
	}
	for range lookTries {
		answer, err := l.eval(ctx, lookScript, names, args)
		if err != nil {
			return hub.View{}, err
		}
		if answer != "touch" {
			return l.parseView(answer, len(q.Topics))
		}
		if _, err := l.eval(ctx, touchScript, fixed, []any{newEpoch(), q.Known.Epoch, q.Known.Seq}); err != nil {
			return hub.View{}, err
		}
	}
	return hub.View{}, errors.New("each new epoch was overtaken by another")
}

// errAnswer: a script answered something else than it does.
var errAnswer = errors.New("the answer of the script makes no sense")

// parseView reads the answer of look.lua. A record that cannot be read is left
// out: the Prev of the event after it, or Last, tells that it is missing.
func (l *Log) parseView(answer any, topics int) (hub.View, error) {
	list, ok := answer.([]any)
	if !ok || len(list) != 6 {
		return hub.View{}, errAnswer
	}
	r := reading{}
	v := hub.View{
		Epoch: r.text(list[0]), Past: r.past(list[1]),
		Head: r.seq(list[2]), Floor: r.seq(list[3]),
	}
	if index := r.list(list[4]); len(index) > 0 {
		v.Index = make([]hub.TopicLast, 0, len(index)/2)
		for i := 0; i+1 < len(index); i += 2 {
			v.Index = append(v.Index, hub.TopicLast{Topic: r.text(index[i]), Last: r.seq(index[i+1])})
		}
	}
	all := r.list(list[5])
	if r.bad || len(all) != topics {
		return hub.View{}, errAnswer
	}
	if topics > 0 {
		v.Topics = make([]hub.TopicView, topics)
	}
	for i := range v.Topics {
		t := r.list(all[i])
		if len(t) < 2 {
			return hub.View{}, errAnswer
		}
		tv := &v.Topics[i]
		tv.Last, tv.More = r.seq(t[0]), t[1] == int64(1)
		for _, rec := range t[2:] {
			e, err := decode([]byte(r.text(rec)))
			if err != nil {
				l.live.malformed.Add(1)
				continue
			}
			tv.Events = append(tv.Events, e)
		}
	}
	if r.bad {
		return hub.View{}, errAnswer
	}
	return v, nil
}

// reading reads parts of an answer, and remembers that one was of another type.
type reading struct{ bad bool }

func (r *reading) text(a any) string {
	s, ok := a.(string)
	r.bad = r.bad || !ok
	return s
}

func (r *reading) seq(a any) uint64 {
	n, err := strconv.ParseUint(r.text(a), 10, 64)
	r.bad = r.bad || err != nil
	return n
}

// past reads cursors with spaces between them.
func (r *reading) past(a any) (all []protocol.Cursor) {
	for text := range strings.FieldsSeq(r.text(a)) {
		c, err := protocol.ParseCursor(text)
		r.bad = r.bad || err != nil
		all = append(all, c)
	}
	return all
}

func (r *reading) list(a any) []any {
	l, ok := a.([]any)
	r.bad = r.bad || !ok
	return l
}
