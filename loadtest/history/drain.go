package history

import (
	"slices"
	"time"
)

// A Drain is what became of the readers of an instance that was asked to end.
type Drain struct {
	Instance string `json:"instance"`
	// Connects has, for each second since then, how many of them began to connect to another.
	Connects []int `json:"connects"`
	from     time.Duration
}

// even gives the seconds of a drain that can be compared: without the last, which has
// begun when it ends.
func (d *Drain) even() []int {
	return d.Connects[:max(0, len(d.Connects)-1)]
}

// Spread gives the fewest and the most that connected in a second, and the mean.
func (d *Drain) Spread() (least, most int, mean float64) {
	all := d.even()
	if len(all) == 0 {
		return 0, 0, 0
	}
	for _, n := range all {
		mean += float64(n) / float64(len(all))
	}
	return slices.Min(all), slices.Max(all), mean
}

// Bounds of a drain that is spread evenly. Slots are even; the rest is for a machine that
// stands still for a moment, and then has two or three seconds in one.
const (
	enough = 20 // connects per second: fewer say nothing
	burst  = 3  // times the mean
)

// left: the connection of a reader has ended. If its instance drained, where it goes now
// counts.
func (c *checker) left(who *reader) {
	for i := len(c.account.Drains) - 1; i >= 0; i-- {
		if d := c.account.Drains[i]; d.Instance == who.at {
			if who.opened < d.from {
				who.from = d
			}
			return
		}
	}
}

// opens: a reader begins to connect.
func (c *checker) opens(who *reader, instance string) {
	if d := who.from; d != nil {
		second := int((c.at - d.from) / time.Second)
		for len(d.Connects) <= second {
			d.Connects = append(d.Connects, 0)
		}
		d.Connects[second]++
	}
	who.at, who.opened, who.from = instance, c.at, nil
}

// judgeDrains looks for bursts.
func (c *checker) judgeDrains() {
	for _, d := range c.account.Drains {
		if _, most, mean := d.Spread(); mean >= enough && float64(most) > burst*mean {
			c.account.Wrong++
			c.problem("wrong", "%s drained, and of its readers %d came to others in one second, %.0f on average: %v", d.Instance, most, mean, d.Connects)
		}
	}
}
