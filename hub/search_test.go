package hub_test

import (
	"flag"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/search"
)

var (
	searchN        = flag.Int("search.n", envInt("SEARCH_N", 0), "schedules of the search; 0: as many as are bearable, < 0: without end")
	searchSeed     = flag.Uint64("search.seed", 1, "from which on the schedules are made, a thousand of each")
	searchSchedule = flag.String("search.schedule", "", "one schedule, to be run a hundred times instead")
)

func envInt(name string, or int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return or
}

// bearable gives one of two numbers of schedules.
func bearable(n, withRaceDetector int) int {
	if search.RaceDetector {
		return withRaceDetector
	}
	return n
}

// The search for holes: see package search. `make search` runs it without end.
func TestSearch(t *testing.T) {
	of := search.Subject{Narrow: (*hub.Hub).Narrow, Check: (*hub.Hub).Check}
	if *searchSchedule != "" {
		s, err := search.Parse(*searchSchedule)
		if err != nil {
			t.Fatal(err)
		}
		search.Repeat(t, of, s, 100)
		return
	}
	left := *searchN
	if left == 0 {
		left = 2000
	}
	for seed := *searchSeed; left != 0; seed++ {
		n := 1000
		if left > 0 {
			n = min(n, left)
		}
		left -= n
		began := time.Now()
		sum := search.Check(t, of, n, seed)
		t.Logf("seed %d: %d schedules, %.0f/s: %+v", seed, n, float64(n)/time.Since(began).Seconds(), sum)
		if n < 100 {
			continue
		}
		for what, n := range map[string]int64{
			"delivered": int64(sum.Delivered), "superseded": int64(sum.Superseded), "gaps": int64(sum.Gaps - sum.EpochGaps),
			"gaps of epochs": int64(sum.EpochGaps), "late events": int64(sum.Late), "migrations": int64(sum.Migrations), "heals": sum.Heals,
			"resets": sum.Resets, "reconnects": sum.Reconnects, "shared reads": sum.Shared,
		} {
			if n == 0 {
				t.Errorf("no schedule came to any %s: the search does not search", what)
			}
		}
	}
}

// Where the channel is not deaf, and no server was a primary and goes on, nothing has to be shown
// to be missing by a later event or a verify: the log tells of it.
func TestPrompt(t *testing.T) {
	of := search.Subject{Narrow: (*hub.Hub).Narrow, Check: (*hub.Hub).Check, Prompt: true}
	sum := search.Check(t, of, bearable(500, 100), *searchSeed, search.Kinds("deafen", "swallow", "split", "demote")...)
	t.Logf("%+v", sum)
	if sum.Reconnects == 0 || sum.Heals == 0 {
		t.Error("nothing was lost")
	}
}
