package loadtest

import "sync"

// Counts is what became of the events that clients were owed. Lost, Twice,
// Disorder and Foreign are faults of a server; the others are not.
type Counts struct {
	Delivered uint64 `json:"delivered"`
	Lost      uint64 `json:"lost"`      // never came, and nobody said so
	Twice     uint64 `json:"twice"`     // came again
	Disorder  uint64 `json:"disorder"`  // came after a later one of its topic
	Foreign   uint64 `json:"foreign"`   // of a topic that the client had not subscribed to
	Gaps      uint64 `json:"gaps"`      // gap messages
	Announced uint64 `json:"announced"` // never came, under a gap that was announced
	Conflated uint64 `json:"conflated"` // superseded by a later one of its key
	Cut       uint64 `json:"cut"`       // owed to a client that had been disconnected and did not come back
}

// Faults is how often the server broke its promise.
func (c Counts) Faults() uint64 { return c.Lost + c.Twice + c.Disorder + c.Foreign }

// add sums up.
func (c *Counts) add(d Counts) {
	c.Delivered += d.Delivered
	c.Lost += d.Lost
	c.Twice += d.Twice
	c.Disorder += d.Disorder
	c.Foreign += d.Foreign
	c.Gaps += d.Gaps
	c.Announced += d.Announced
	c.Conflated += d.Conflated
	c.Cut += d.Cut
}

// superseded says how many events the server counts as superseded. What was passed over
// beyond that was not: it is lost.
func (c *Counts) superseded(n uint64) {
	if c.Conflated > n {
		c.Lost += c.Conflated - n
		c.Conflated = n
	}
}

// A subscription is one client × topic.
type subscription struct {
	last      uint64 // n of the newest event received
	topic     uint32
	announced bool // a gap was announced and no event came since
}

// A span is events that were passed over: first to last, both included.
type span struct{ first, last uint64 }

// A ledger holds what clients received against what was published. Its methods
// but uncertain are for the goroutine of the swarm.
type ledger struct {
	keyed  bool // events have a key: those passed over are conflated
	counts Counts

	// missing has the spans passed over of the few subscriptions that have any.
	missing map[*subscription][]span

	mu      sync.Mutex // guards unknown
	unknown map[unsure]struct{}
}

// unsure names a publish whose outcome is not known.
type unsure struct {
	topic uint32
	n     uint64
}

func newLedger(keyed bool) *ledger {
	return &ledger{keyed: keyed, missing: map[*subscription][]span{}, unknown: map[unsure]struct{}{}}
}

// uncertain notes that nobody knows whether the event was published: it is not
// owed. Call it before a later event of the topic is published.
func (l *ledger) uncertain(topic uint32, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unknown[unsure{topic, n}] = struct{}{}
}

// event enters one delivery.
func (l *ledger) event(s *subscription, n uint64) {
	l.counts.Delivered++
	if n == s.last+1 && !s.announced {
		s.last = n
		return
	}
	l.irregular(s, n)
}

func (l *ledger) irregular(s *subscription, n uint64) {
	switch {
	case n > s.last:
		l.pass(s, n-1)
		s.last, s.announced = n, false
	case l.late(s, n):
		l.counts.Disorder++
	default:
		l.counts.Twice++
	}
}

// pass gives up, for now, on the events after the last up to one.
func (l *ledger) pass(s *subscription, to uint64) {
	if to <= s.last {
		return
	}
	owed := to - s.last - l.unsureIn(s.topic, s.last+1, to)
	switch {
	case s.announced:
		l.counts.Announced += owed
	case l.keyed:
		l.counts.Conflated += owed
		l.missing[s] = append(l.missing[s], span{s.last + 1, to})
	default:
		l.counts.Lost += owed
		l.missing[s] = append(l.missing[s], span{s.last + 1, to})
	}
	s.last = to
}

// late takes n out of what is missing, and says whether it was.
func (l *ledger) late(s *subscription, n uint64) bool {
	spans := l.missing[s]
	for i, sp := range spans {
		if n < sp.first || n > sp.last {
			continue
		}
		rest := append([]span(nil), spans[:i]...)
		if n > sp.first {
			rest = append(rest, span{sp.first, n - 1})
		}
		if n < sp.last {
			rest = append(rest, span{n + 1, sp.last})
		}
		l.missing[s] = append(rest, spans[i+1:]...)
		switch {
		case l.unsureIn(s.topic, n, n) > 0:
		case l.keyed:
			l.counts.Conflated--
		default:
			l.counts.Lost--
		}
		return true
	}
	return false
}

func (l *ledger) unsureIn(topic uint32, first, last uint64) (n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for u := range l.unknown {
		if u.topic == topic && u.n >= first && u.n <= last {
			n++
		}
	}
	return n
}

// gap enters a gap message that covers the subscription: what is missing before
// its next event is not silent.
func (l *ledger) gap(s *subscription) { s.announced = true }

// settle enters the end: published is the n of the topic's newest event, live
// says that the client is connected. The newest of a key must have come.
func (l *ledger) settle(s *subscription, published uint64, live bool) {
	if s.last >= published {
		return
	}
	owed := published - s.last - l.unsureIn(s.topic, s.last+1, published)
	switch {
	case !live:
		l.counts.Cut += owed
	case s.announced:
		l.counts.Announced += owed
	default:
		l.counts.Lost += owed
	}
	s.last = published
}
