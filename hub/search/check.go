package search

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"
)

// Check runs n random schedules, which follow from seed, and gives what they came
// to in all. Given kinds narrow it to schedules with those. Of one that fails it looks for the shortest that still does.
func Check(t *testing.T, of Subject, n int, seed uint64, only ...string) (sum Result) {
	quiet()
	defer begin()()
	set(t, "rapid.checks", strconv.Itoa(n))
	set(t, "rapid.seed", strconv.FormatUint(seed, 10))
	var failing Schedule
	var failed Result
	defer func() { // Check ends the test's goroutine
		if failed.Failure != "" {
			t.Logf("%s\n\n%s\n\n%s", failed.Story, failed.Failure, howTo(failing))
		}
	}()
	rapid.Check(t, func(rt *rapid.T) {
		s := Schedules(only...).Draw(rt, "schedule")
		tries := 1
		if failed.Failure != "" { // what fails may pass at times
			tries = 10
		}
		for range tries {
			r := Run(t, s, of)
			if r.Failure != "" {
				failing, failed = s, r
				rt.Fatalf("a promise is broken")
			}
			sum.add(r)
		}
	})
	return sum
}

func howTo(s Schedule) string {
	return fmt.Sprintf("to run it again: go test ./hub -run TestSearch -search.schedule='%s'", s)
}

// Repeat runs one schedule n times.
func Repeat(t *testing.T, of Subject, s Schedule, n int) {
	quiet()
	defer begin()()
	for range n {
		if r := Run(t, s, of); r.Failure != "" {
			t.Fatalf("%s\n\n%s\n\n%s", r.Story, r.Failure, howTo(s))
		}
	}
}

// Needed sees that schedules fail where a rule is switched off: of is without it.
// It logs how many it found among how many. Given kinds narrow the search to what
// shows it. With the race detector one is enough, and known, one that was found
// before, is tried first; it may be "".
func Needed(t *testing.T, of Subject, known string, only ...string) {
	quiet()
	defer begin()()
	enough := 3
	if RaceDetector {
		if enough = 1; known != "" && fails(t, of, known) {
			return
		}
	}
	const atMost = 20_000
	found, example := 0, ""
	all := Schedules(only...)
	for n := range atMost {
		if r := Run(t, all.Example(n+1), of); r.Failure != "" {
			found++
			example = r.Failure
		}
		if found == enough {
			t.Logf("%d/%d, as in: %s", found, n+1, example)
			return
		}
	}
	t.Errorf("%d/%d: nothing breaks without it", found, atMost)
}

// fails says whether a schedule fails, if it is given some tries.
func fails(t *testing.T, of Subject, known string) bool {
	s, err := Parse(known)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if r := Run(t, s, of); r.Failure != "" {
			t.Logf("known: %s", r.Failure)
			return true
		}
	}
	return false
}

func (r *Result) add(b Result) {
	r.Migrations += b.Migrations
	r.Events += b.Events
	r.Delivered += b.Delivered
	r.Superseded += b.Superseded
	r.Gaps += b.Gaps
	r.EpochGaps += b.EpochGaps
	r.Needless += b.Needless
	r.NeedlessEpoch += b.NeedlessEpoch
	r.Late += b.Late
	r.Heals += b.Heals
	r.Reads += b.Reads
	r.Shared += b.Shared
	r.Resets += b.Resets
	r.Reconnects += b.Reconnects
}

// set sets a flag of rapid for the time of a test.
func set(t *testing.T, name, value string) {
	f := flag.Lookup(name)
	was := f.Value.String()
	if err := f.Value.Set(value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Value.Set(was) })
}

// quiet keeps go-redis from saying what comes as errors too.
func quiet() { redis.SetLogger(silence{}) }

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}
