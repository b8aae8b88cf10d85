package history

import (
	"slices"
	"time"
)

// An Account is what a history comes to.
type Account struct {
	Seconds float64 `json:"seconds"`
	Readers int     `json:"readers"`

	Published    int `json:"published"`
	Acknowledged int `json:"acknowledged"` // of those
	Unknown      int `json:"unknown"`      // of those: it is not known whether they were
	Unheard      int `json:"unheard"`      // of those: raw ones that no instance heard

	Delivered int `json:"delivered"`
	Again     int `json:"again"`     // of those: came again, or late, behind a gap because of an epoch
	Conflated int `json:"conflated"` // passed over for a later one of their key
	Announced int `json:"announced"` // passed over under a gap
	Late      int `json:"late"`      // acknowledged by a primary of Redis that was replaced: the gap came after the next event
	Gaps      int `json:"gaps"`
	Drops     int `json:"drops"` // connections that ended
	Faults    int `json:"faults"`

	// What must not be.
	Lost     int `json:"lost"`     // never came, and nobody said so
	Twice    int `json:"twice"`    // came again
	Disorder int `json:"disorder"` // came after a later one
	Strange  int `json:"strange"`  // was never published, or not for that reader; or an id that stands for two events
	GaveUp   int `json:"gave_up"`  // readers that an EventSource would never have brought back
	Needless int `json:"needless"` // gaps that were told, and Redis had lost nothing
	Wrong    int `json:"wrong"`    // what the bench itself saw

	Recovery Times    `json:"recovery"` // from the end of a connection to "subscribed" on the next
	Outage   Times    `json:"outage"`   // of a publish, from its first attempt to its acknowledgement
	Delay    Times    `json:"delay"`    // from the first attempt to publish an event to a reader who is not slow
	Connects []int    `json:"connects"` // per second
	Drains   []*Drain `json:"drains,omitempty"`
	Problems []string `json:"problems"` // the first of each kind that must not be
}

// Failed says whether a promise was broken.
func (a *Account) Failed() bool {
	return a.Lost+a.Twice+a.Disorder+a.Strange+a.GaveUp+a.Needless+a.Wrong > 0
}

// Times are durations in ms.
type Times struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

func times(all []time.Duration) Times {
	if len(all) == 0 {
		return Times{}
	}
	slices.Sort(all)
	at := func(q float64) float64 {
		return float64(all[min(len(all)-1, int(q*float64(len(all))))].Microseconds()) / 1e3
	}
	return Times{Count: len(all), P50: at(0.5), P99: at(0.99), Max: at(1)}
}
