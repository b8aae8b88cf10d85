package history

import (
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
	// held is how long a raw message may wait for who takes it in.
	held = 10 * time.Second
	// catchUp is how long a fault may have readers behind after it.
	catchUp = 5 * time.Second
)

// fault is one that was injected.
type fault struct {
	Record
	from, to time.Duration // to: 0 while it lasts
}

// during says whether something that lasted from one time to another may have met with
// the fault, or with what it left for some time.
func (f *fault) during(from, to, after time.Duration) bool {
	return to >= f.from && (f.to == 0 || from <= f.to+after)
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
			return f.Two && f.during(pub.began, pub.ended, 0) && (f.to == 0 || c.at-f.to < twoTime)
		}) {
			c.account.Lost--
			c.account.Late++
			p.passed[n] = &c.account.Late
		}
	}
}
