package hub_test

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pushhub/pushhub/hub"
)

// The randomized search: two hubs on one log, behind channels that delay, break
// and go deaf, with clients that resume anywhere; after each message that a
// client reads the promises of the contract are checked. Time is synctest's, so
// a schedule takes a few milliseconds.
//
// A schedule follows from its seed but for what the scheduler, the order of maps
// and the hub's own dice decide: a failure prints all that happened.

var (
	searchN    = flag.Int("search.n", envInt("SEARCH_N", 2000), "schedules of the search")
	searchSeed = flag.Uint64("search.seed", 0, "the only seed to search, as often as -search.n says; 0: all from 1 on")
	searchFrom = flag.Uint64("search.from", 1, "the first seed of the search")
)

func envInt(name string, or int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return or
}

// result is what one schedule came to.
type result struct {
	failure, story string

	events, delivered, superseded            int
	gaps, epochGaps, needless, needlessEpoch int
	heals, reads, shared, resets             int64
}

func (a *result) add(b result) {
	a.events += b.events
	a.gaps += b.gaps
	a.epochGaps += b.epochGaps
	a.needless += b.needless
	a.needlessEpoch += b.needlessEpoch
	a.delivered += b.delivered
	a.superseded += b.superseded
	a.heals += b.heals
	a.reads += b.reads
	a.shared += b.shared
	a.resets += b.resets
}

// search runs one schedule.
func search(t *testing.T, seed uint64, off hub.Rule) (r result) {
	synctest.Test(t, func(*testing.T) {
		s := newSchedule(seed, off)
		defer s.end()
		s.run()
		r = s.result()
	})
	return r
}

func TestSearch(t *testing.T) {
	var sum result
	lossless, began := 0, time.Now()
	for i := range uint64(*searchN) {
		seed := *searchFrom + i
		if *searchSeed != 0 {
			seed = *searchSeed
		}
		r := search(t, seed, 0)
		if r.failure != "" {
			t.Fatalf("%s\n\n%s\n\nseed %d: go test ./hub -run TestSearch -search.seed=%d -search.n=100", r.story, r.failure, seed, seed)
		}
		if newPlan(seed).lossless {
			lossless++
		}
		sum.add(r)
	}
	t.Logf("%d schedules (%d lossless) in %v: %d events published, %d delivered, %d superseded; %d gaps of epochs (%d needless as it turned out), %d others (%d); %d heals, %d resets, %d reads, %d shared",
		*searchN, lossless, time.Since(began).Round(time.Millisecond), sum.events, sum.delivered, sum.superseded,
		sum.epochGaps, sum.needlessEpoch, sum.gaps-sum.epochGaps, sum.needless-sum.needlessEpoch, sum.heals, sum.resets, sum.reads, sum.shared)
	if *searchN >= 100 {
		for what, n := range map[string]int64{
			"delivered": int64(sum.delivered), "superseded": int64(sum.superseded), "gaps": int64(sum.gaps),
			"heals": sum.heals, "resets": sum.resets, "shared reads": sum.shared,
		} {
			if n == 0 {
				t.Errorf("no schedule came to any %s: the search does not search", what)
			}
		}
	}
}

func (s *schedule) result() result {
	r := result{
		failure: s.w.failure, events: len(s.w.events), gaps: s.w.gaps, epochGaps: s.w.epochGaps,
		needless: s.w.needless, needlessEpoch: s.w.needlessEpoch,
		delivered: s.w.delivered, superseded: s.w.superseded,
	}
	if r.failure != "" {
		r.story = s.w.story()
	}
	for _, i := range s.instances {
		st := i.hub.Stats()
		r.heals += st.Heals.Load()
		r.reads += st.Reads.Load()
		r.shared += st.SharedReads.Load()
		r.resets += int64(i.pipe.resets)
	}
	return r
}

func (s *schedule) check() {
	for _, i := range s.instances {
		if err := i.hub.Check(); err != nil {
			s.w.mu.Lock()
			s.w.failf("%s: %v", i.name, err)
			s.w.mu.Unlock()
		}
	}
}

func (i *instance) String() string { return fmt.Sprint(i.name) }
