package history

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Check reads a history and gives its account. An error means that it is none.
//
// The rules, per reader and topic that it is subscribed to:
//   - An event that was acknowledged, and whose publishing began after the reader
//     was first subscribed, comes once, in the order of publishing, in the end.
//   - It may be passed over for a later one of its key if it is not final, the reader
//     was behind (a moment before, or now, it got what was published long before), and
//     was not past it before that later one was there (see next).
//   - It may be passed over under a gap that the reader was told after its
//     publishing began and before the next event that it gets of the topic. A gap
//     because of an epoch does not stand for events of the epoch in which that is, unless
//     Redis lost parts of that meanwhile.
//   - Before that nothing is owed, and what came may come again.
//   - What was published before a gap because of an epoch was told may come again
//     after it.
//   - No gap is told before a fault that may have cost Redis its life, or Redis was seen
//     to have another, nor when readers had long got over that.
//   - A gap because of an epoch may come after later events of the topic for what was
//     acknowledged while two servers took themselves for the primary, see late.
//   - Ids rise on a connection as long as the epoch is the same, and stand for one
//     event each, whoever gets it.
func Check(r io.Reader) (*Account, error) {
	c := &checker{topics: map[string]*topic{}, ids: map[string]event{}, account: &Account{Problems: []string{}, Connects: []int{}}, told: map[string]int{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 16<<20)
	for n := 1; lines.Scan(); n++ {
		var rec Record
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if err := c.take(rec); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	c.end()
	return c.account, nil
}

type checker struct {
	account  *Account
	topics   map[string]*topic // <tenant>/<topic>
	readers  []*reader         // by number, from 1 on
	ids      map[string]event  // <tenant>/<id> → what it stands for
	at       time.Duration
	faults   []fault
	epochs   int           // of them: until the last that may have cost Redis its life
	life     time.Duration // when Redis was seen to have another; 0: it was not
	doubts   []doubt
	told     map[string]int // problems, by kind
	lost     []loss         // as it seemed when the next event came
	unsure   []unsure
	recovery []time.Duration
	outage   []time.Duration
	delay    []time.Duration
}

// loss is an event that a reader seems to have lost.
type loss struct {
	place *place
	n     int
	words string
}

// event names an event: its topic and number.
type event struct {
	topic string
	n     int
}

type topic struct {
	name   string
	keyed  bool
	events []publication // events[n-1]

	audience []*reader // those that subscribe to it, see next
}

type publication struct {
	began time.Duration
	ended time.Duration // when it was acknowledged
	final bool
	acked bool   // owed to readers
	id    string // "" where the publisher was not told
	seen  string // the id by which a reader has got it
}

// name gives the id of an event, if anybody was told it.
func (p *publication) name() string { return cmp.Or(p.id, p.seen) }

type reader struct {
	number  int
	tenant  string
	wants   []string
	slow    bool
	since   time.Duration // first subscribed; 0: not yet
	topics  map[string]*place
	epoch   string // of the newest id on this connection
	seq     uint64
	at      string        // the instance that it is connected to, or was last
	opened  time.Duration // when it began to connect to that
	from    *Drain        // until it connects again: the drain that it has to leave
	dropped time.Duration // when the connection ended; 0: it has not, or never was
	behind  time.Duration // when it last got an event late; 0: it never has
	sound   time.Duration // when it got an event, long after Redis may have been another; 0: not since then
	gaveUp  bool
	// caughtUp: it is subscribed on this connection, and gets all in the order of ids.
	caughtUp bool
}

// place is how far a reader is in a topic.
type place struct {
	last   int                      // number of the newest event that it got
	gaps   map[string]time.Duration // by reason: when the newest was told
	passed map[int]*int             // what was passed over, and where it was counted; nil: nowhere
	next   map[int]mark             // of those it does not have: where it was when the next was published
}

func (c *checker) take(r Record) error {
	if time.Duration(r.At) < c.at {
		return fmt.Errorf("time goes back")
	}
	c.at = time.Duration(r.At)
	var who *reader
	if r.Kind != Reader && r.Reader != 0 {
		if r.Reader < 1 || r.Reader > len(c.readers) {
			return fmt.Errorf("there is no reader %d", r.Reader)
		}
		who = c.readers[r.Reader-1]
	}
	switch r.Kind {
	case Open, Subscribed, Event, Gap, Drop, GaveUp:
		if who == nil {
			return fmt.Errorf("%s of no reader", r.Kind)
		}
	}
	switch r.Kind {
	case Topic:
		c.topics[r.Topic] = &topic{name: r.Topic, keyed: r.Keyed}
	case Reader:
		if r.Reader != len(c.readers)+1 {
			return fmt.Errorf("reader %d comes after %d", r.Reader, len(c.readers))
		}
		c.readers = append(c.readers, &reader{number: r.Reader, tenant: r.Tenant, wants: r.Topics, slow: r.Slow, topics: map[string]*place{}})
	case Publish, Ack, Unknown, Unheard:
		return c.published(r)
	case Open:
		for len(c.account.Connects) <= int(c.at.Seconds()) {
			c.account.Connects = append(c.account.Connects, 0)
		}
		c.account.Connects[int(c.at.Seconds())]++
		who.epoch, who.seq, who.caughtUp = "", 0, false
		c.opens(who, r.Why)
	case Subscribed:
		who.caughtUp = true
		if who.since == 0 {
			who.since = c.at
		}
		if who.dropped != 0 {
			c.recovery = append(c.recovery, c.at-who.dropped)
			who.dropped = 0
		}
		if epoch, seq := split(r.ID); epoch != "" {
			who.epoch, who.seq = epoch, seq
		}
	case Event:
		c.got(who, r)
	case Gap:
		c.account.Gaps++
		c.doubt(who, r)
		if r.Why == "epoch" {
			who.epoch, who.seq = "", 0
		}
		for name, t := range c.topics {
			if tenant, topic, _ := strings.Cut(name, "/"); tenant == who.tenant && matches(r.Topic, topic) {
				p := c.place(who, t)
				p.gaps[r.Why] = c.at
				if r.Why == "epoch" {
					c.late(t, p)
				}
			}
		}
	case Drop:
		c.account.Drops++
		who.caughtUp = false
		c.left(who)
		if who.dropped == 0 {
			who.dropped = c.at
		}
	case Healed:
		if n := len(c.faults); n > 0 && c.faults[n-1].to == 0 {
			c.faults[n-1].to = c.at
		}
	case GaveUp:
		c.account.GaveUp++
		who.gaveUp = true
		c.problem("a reader gave up", "%s gave up: %s", who, r.Why)
	case Fault:
		c.account.Faults++
		c.faults = append(c.faults, fault{Record: r, from: c.at})
		if r.Epoch {
			c.epochs = len(c.faults)
			c.shaken()
		}
	case Ending:
		c.account.Drains = append(c.account.Drains, &Drain{Instance: r.Why, Connects: []int{}, from: c.at})
	case Life:
		c.life = c.at
		c.shaken()
		c.doubts = slices.DeleteFunc(c.doubts, func(d doubt) bool { return c.at-d.at < unseen })
	case Wrong:
		c.account.Wrong++
		c.problem("wrong", "%s", r.Why)
	default:
		return fmt.Errorf("unknown kind %q", r.Kind)
	}
	return nil
}

func (c *checker) published(r Record) error {
	t := c.topics[r.Topic]
	if t == nil {
		return fmt.Errorf("unknown topic %q", r.Topic)
	}
	if r.Kind == Publish {
		if r.N != len(t.events)+1 {
			return fmt.Errorf("%s: event %d is published after %d", r.Topic, r.N, len(t.events))
		}
		c.next(t)
		t.events = append(t.events, publication{began: c.at, final: r.Final})
		c.account.Published++
		return nil
	}
	if r.N < 1 || r.N > len(t.events) {
		return fmt.Errorf("%s: event %d was not published", r.Topic, r.N)
	}
	p := &t.events[r.N-1]
	switch r.Kind {
	case Ack:
		c.account.Acknowledged++
		p.acked, p.id, p.ended = true, r.ID, c.at
		c.outage = append(c.outage, c.at-p.began)
		if r.ID != "" {
			c.stands(r.Topic, r.N, r.ID)
		}
	case Unknown:
		c.account.Unknown++
	default:
		c.account.Unheard++
	}
	return nil
}

// stands notes what an id stands for.
func (c *checker) stands(name string, n int, id string) {
	tenant, _, _ := strings.Cut(name, "/")
	key, e := tenant+"/"+id, event{name, n}
	if was, ok := c.ids[key]; ok && was != e {
		c.account.Strange++
		c.problem("strange", "the id %s stands for %s %d, and for %s %d", id, was.topic, was.n, e.topic, e.n)
	}
	c.ids[key] = e
}

// place gives how far a reader is in a topic.
func (c *checker) place(who *reader, t *topic) *place {
	p := who.topics[t.name]
	if p == nil {
		p = &place{gaps: map[string]time.Duration{}, passed: map[int]*int{}, next: map[int]mark{}}
		who.topics[t.name] = p
	}
	return p
}

func (c *checker) got(who *reader, r Record) {
	c.account.Delivered++
	t := c.topics[r.Topic]
	tenant, name, _ := strings.Cut(r.Topic, "/")
	if t == nil || r.N < 1 || r.N > len(t.events) || tenant != who.tenant || !who.wishes(name) {
		c.account.Strange++
		c.problem("strange", "%s got %s %d, which is not for it or was never published", who, r.Topic, r.N)
		return
	}
	c.stands(r.Topic, r.N, r.ID)
	t.events[r.N-1].seen = r.ID
	epoch, seq := split(r.ID)
	if epoch == who.epoch && seq <= who.seq {
		c.account.Disorder++
		c.problem("disorder", "%s got the id %s after %d", who, r.ID, who.seq)
	}
	who.epoch, who.seq = epoch, seq
	if who.sound == 0 && c.gotOver() {
		who.sound = c.at
	}

	p := c.place(who, t)
	if who.since == 0 && r.N <= p.last { // a client that never was subscribed begins again
		p.last = r.N
		return
	}
	if r.N <= p.last {
		_, isPassed := p.passed[r.N]
		switch {
		case p.gaps["epoch"] >= t.events[r.N-1].began:
			c.account.Again++
			p.cameLate(r.N)
		case isPassed:
			p.cameLate(r.N)
			c.account.Disorder++
			c.problem("disorder", "%s got %s %d after %d", who, r.Topic, r.N, p.last)
		default:
			c.account.Twice++
			c.problem("twice", "%s got %s %d again, after %d", who, r.Topic, r.N, p.last)
		}
		return
	}
	if c.at-t.events[r.N-1].began >= tardy {
		who.behind = c.at
	}
	c.pass(who, t, p, r.N-1, epoch, t.keyed)
	p.last = r.N
	delete(p.next, r.N)
	if pub := t.events[r.N-1]; !who.slow && pub.began >= who.since && who.since != 0 {
		c.delay = append(c.delay, c.at-pub.began)
	}
}

// pass judges the events of a topic after the newest that a reader got, up to one.
// epoch is that of the event after them, or where the reader is.
func (c *checker) pass(who *reader, t *topic, p *place, to int, epoch string, keyed bool) {
	for n := p.last + 1; n <= to; n++ {
		pub := &t.events[n-1]
		if !pub.acked || who.since == 0 || pub.began < who.since {
			p.passed[n] = nil
			delete(p.next, n)
			continue
		}
		own, _ := split(pub.id)
		expired, epochs := p.gaps["expired"], p.gaps["epoch"]
		count := &c.account.Lost
		switch {
		case expired >= pub.began || epochs >= pub.began && (own == "" || own != epoch || c.inParts(pub.began)):
			count = &c.account.Announced
		case keyed && !pub.final && who.behind != 0 && c.at-who.behind < catchUp && !p.next[n].past(pub.name()):
			count = &c.account.Conflated
			if _, noted := p.next[n]; noted && pub.name() == "" { // others may get it, and tell its id
				c.unsure = append(c.unsure, unsure{who, t, p, n, p.next[n]})
			}
		default:
			c.lost = append(c.lost, loss{p, n, fmt.Sprintf("%s never got %s %d (id %q, published at %v), nor a gap; after %d it has had %d in epoch %q by %v",
				who, t.name, n, pub.name(), pub.began, p.last, to+1, epoch, c.at)})
		}
		delete(p.next, n)
		*count++
		p.passed[n] = count
	}
}

// cameLate takes an event out of those that were passed over.
func (p *place) cameLate(n int) {
	if counted := p.passed[n]; counted != nil {
		*counted--
	}
	delete(p.passed, n)
}

// end judges what is owed at the end: the newest of each topic.
func (c *checker) end() {
	for _, who := range c.readers {
		if who.gaveUp {
			continue
		}
		if who.dropped != 0 || who.since == 0 {
			c.account.Wrong++
			c.problem("wrong", "%s is not subscribed at the end", who)
		}
		for name, t := range c.topics {
			tenant, topic, _ := strings.Cut(name, "/")
			if tenant != who.tenant || !who.wishes(topic) {
				continue
			}
			newest := len(t.events)
			for newest > 0 && !t.events[newest-1].acked {
				newest--
			}
			p := c.place(who, t)
			if newest > p.last {
				c.pass(who, t, p, newest-1, who.epoch, t.keyed)
				p.last = newest - 1
				c.pass(who, t, p, newest, who.epoch, false)
			}
		}
	}
	c.judgeUnsure()
	c.judgeDrains()
	for _, l := range c.lost {
		if l.place.passed[l.n] == &c.account.Lost {
			c.problem("lost", "%s", l.words)
		}
	}
	for _, d := range c.doubts {
		c.account.Needless++
		c.problem("needless", "%s", d.words)
	}
	a := c.account
	a.Seconds, a.Readers = c.at.Seconds(), len(c.readers)
	a.Recovery, a.Outage, a.Delay = times(c.recovery), times(c.outage), times(c.delay)
}

// problem keeps the first few problems of each kind in words.
func (c *checker) problem(kind, format string, args ...any) {
	if c.told[kind]++; c.told[kind] <= 5 {
		c.account.Problems = append(c.account.Problems, fmt.Sprintf("%.3f s: ", c.at.Seconds())+fmt.Sprintf(format, args...))
	}
}

func (r *reader) String() string { return "reader " + strconv.Itoa(r.number) }

// wishes says whether it subscribes to a topic of its tenant.
func (r *reader) wishes(topic string) bool {
	return slices.ContainsFunc(r.wants, func(pattern string) bool { return matches(pattern, topic) })
}

// split takes an id apart. One that is none has the epoch "".
func split(id string) (epoch string, seq uint64) {
	epoch, number, _ := strings.Cut(id, "-")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return "", 0
	}
	return epoch, seq
}

// matches says whether a topic lies within a pattern: * is one token, a last > one
// or more.
func matches(pattern, topic string) bool {
	p, t := strings.Split(pattern, "."), strings.Split(topic, ".")
	for i, token := range p {
		switch {
		case i >= len(t):
			return false
		case token == ">" && i == len(p)-1:
			return true
		case token != "*" && token != t[i]:
			return false
		}
	}
	return len(p) == len(t)
}
