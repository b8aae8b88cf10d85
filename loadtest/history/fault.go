package history

import (
	"fmt"
	"slices"
	"time"
)

// What faults excuse.

const (
	// twoTime is how long after a failover a gap may still stand for what the primary
	// that was replaced has acknowledged, although later events came before it: nobody
	// can know in time.
	twoTime = 30 * time.Second
	// gotOver is how long after a fault that may have cost Redis its life a reader may be
	// told of a gap, and once more after it has got something then.
	gotOver = 30 * time.Second
	// unseen is for how long nobody may have seen that Redis has another life.
	unseen = 5 * time.Second
	// held is how long a raw message may wait for who takes it in.
	held = 10 * time.Second
	// tardy is how old an event is that comes late: its reader is behind, whatever made
	// it so, and is for catchUp from then on.
	tardy   = 100 * time.Millisecond
	catchUp = time.Second
)

// fault is one that was injected.
type fault struct {
	Record
	from, to time.Duration // to: 0 while it lasts
}

// during says whether something that lasted from one time to another may have met with
// the fault.
func (f *fault) during(from, to time.Duration) bool {
	return to >= f.from && (f.to == 0 || from <= f.to)
}

// inParts says whether Redis may have lost a part of what it held since then.
func (c *checker) inParts(since time.Duration) bool {
	return slices.ContainsFunc(c.faults, func(f fault) bool { return f.Parts && f.during(since, c.at) })
}

// late: a gap because of an epoch is told after the event that follows what was lost.
// It stands for that if an old primary may have acknowledged it, not long ago.
func (c *checker) late(t *topic, p *place) {
	for n, counted := range p.passed {
		if counted != &c.account.Lost {
			continue
		}
		pub := t.events[n-1]
		if pub.id == "" { // raw
			pub.ended += held
		}
		if slices.ContainsFunc(c.faults, func(f fault) bool {
			return f.Two && f.during(pub.began, pub.ended) && (f.to == 0 || c.at-f.to < twoTime)
		}) {
			c.account.Lost--
			c.account.Late++
			p.passed[n] = &c.account.Late
		}
	}
}

// doubt is a gap for which there seems to be no reason.
type doubt struct {
	at    time.Duration
	words string
}

// doubt notes a gap that no life of Redis was the reason for, as far as it is known.
func (c *checker) doubt(who *reader, r Record) {
	if c.epochs == 0 && c.life == 0 || who.sound != 0 && c.at-who.sound > gotOver {
		c.doubts = append(c.doubts, doubt{c.at, fmt.Sprintf("%s was told of a gap (%s, %s) at %v, and nothing was lost", who, r.Topic, r.Why, c.at)})
	}
}

// shaken: from now on gaps are right.
func (c *checker) shaken() {
	for _, who := range c.readers {
		who.sound = 0
	}
}

// gotOver says whether it is long past that Redis may have got another life.
func (c *checker) gotOver() bool {
	since := c.life
	if c.epochs > 0 {
		f := c.faults[c.epochs-1]
		if f.to == 0 {
			return false
		}
		since = max(since, f.to)
	}
	return since > 0 && c.at-since > gotOver
}
