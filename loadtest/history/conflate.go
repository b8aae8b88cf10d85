package history

import "strings"

// What passes as conflation.
//
// An event can only be replaced by a later one of its key while it waits for its reader.
// So one that the reader is past when the next of its key is about to be published has
// not been replaced by it: it should have come before.

// mark is how far a reader was, caught up, on its connection.
type mark struct {
	epoch string
	seq   uint64
}

// next: an event of a topic of one key is about to be published. It may replace the one
// before at readers that do not have that.
func (c *checker) next(t *topic) {
	n := len(t.events)
	if !t.keyed || n == 0 {
		return
	}
	if t.audience == nil {
		tenant, name, _ := strings.Cut(t.name, "/")
		for _, who := range c.readers {
			if who.tenant == tenant && who.wishes(name) {
				t.audience = append(t.audience, who)
			}
		}
	}
	for _, who := range t.audience {
		if p := c.place(who, t); p.last < n && who.caughtUp {
			p.next[n] = mark{who.epoch, who.seq}
		}
	}
}

// past says whether a reader that is here has all up to an id.
func (m mark) past(id string) bool {
	epoch, seq := split(id)
	return epoch != "" && epoch == m.epoch && seq <= m.seq
}

// unsure is an event that seems to have been conflated, and whose id nobody knew then.
type unsure struct {
	who  *reader
	t    *topic
	p    *place
	n    int
	next mark
}

// judgeUnsure judges them at the end, by what others have got.
func (c *checker) judgeUnsure() {
	for _, u := range c.unsure {
		pub := &u.t.events[u.n-1]
		if u.p.passed[u.n] != &c.account.Conflated || !u.next.past(pub.seen) || u.p.gaps["epoch"] >= pub.began {
			continue
		}
		c.account.Conflated--
		c.account.Lost++
		c.problem("lost", "%s never got %s %d (id %q), nor a gap, and was past it before there was another", u.who, u.t.name, u.n, pub.seen)
	}
}
