package search

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"

	"pgregory.net/rapid"

	"github.com/pushhub/pushhub/hub"
)

// Schedule is what is done, as plain data: a configuration, and one step after
// the other. What a step does exactly is decided by its seed and by what there is
// at its turn, so that each can be left out.
type Schedule struct {
	Hubs      int
	Retention string
	Cut       int  // > 0: at most so many events of a topic in one answer of the log
	Lossless  bool // no step makes a gap necessary
	Cluster   bool
	Narrow    bool // hubs read, queue and keep very little at once
	Steps     []Step
}

// Step is one of the kinds, with the seed of its own choices.
type Step struct {
	Kind string
	Seed uint64
}

// String gives what Parse reads.
func (s Schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s %d %v %v", s.Hubs, s.Retention, s.Cut, s.Lossless, s.Cluster)
	if s.Narrow {
		b.WriteString(" narrow")
	}
	for _, step := range s.Steps {
		fmt.Fprintf(&b, " %s:%d", step.Kind, step.Seed)
	}
	return b.String()
}

// Parse reads what String gave.
func Parse(text string) (Schedule, error) {
	part := strings.Fields(text)
	if len(part) < 5 {
		return Schedule{}, fmt.Errorf("not a schedule: %q", text)
	}
	s := Schedule{Retention: part[1], Lossless: part[3] == "true", Cluster: part[4] == "true"}
	var err1, err2 error
	s.Hubs, err1 = strconv.Atoi(part[0])
	s.Cut, err2 = strconv.Atoi(part[2])
	if err1 != nil || err2 != nil || s.Hubs < 1 {
		return Schedule{}, fmt.Errorf("not a schedule: %q", text)
	}
	if _, err := hub.ParseRetention(s.Retention); err != nil {
		return Schedule{}, err
	}
	steps := part[5:]
	if s.Narrow = len(steps) > 0 && steps[0] == "narrow"; s.Narrow {
		steps = steps[1:]
	}
	for _, p := range steps {
		name, seed, _ := strings.Cut(p, ":")
		n, err := strconv.ParseUint(seed, 10, 64)
		if err != nil || kindOf(name) == nil {
			return Schedule{}, fmt.Errorf("not a step: %q", p)
		}
		s.Steps = append(s.Steps, Step{name, n})
	}
	return s, nil
}

// keepsAll is a retention that no schedule comes to the end of.
const keepsAll = ">:1000/24h"

// Schedules makes schedules. A few kinds of trouble at a time find more than all
// at once: which there are is drawn first, but where only names them. What it
// names twice comes twice as often.
func Schedules(only ...string) *rapid.Generator[Schedule] {
	return rapid.Custom(func(t *rapid.T) Schedule {
		// rapid prefers small numbers, which is right for what a failure is made
		// of, and wrong for which kinds there are: so these come of a hash.
		salt := rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "salt")
		rng := rand.New(rand.NewPCG(binary.LittleEndian.Uint64(salt), 1))
		s := Schedule{Hubs: 2 + rng.IntN(4)/3, Lossless: rng.IntN(4) == 0, Retention: keepsAll}
		if !s.Lossless {
			s.Retention = pick(rng, keepsAll, ">:3/24h", ">:1000/20s", ">:5/90s")
		}
		s.Cut = pick(rng, 0, 0, 1, 2, 5)
		s.Cluster = rng.IntN(4) == 0
		s.Narrow = rng.IntN(2) == 0
		var some []*kind
		total := 0
		for i := range kinds {
			k := &kinds[i]
			if k.lossy && s.Lossless || !k.basic && len(only) == 0 && rng.IntN(k.rare) > 0 {
				continue
			}
			for range k.times(only) {
				some = append(some, k)
				total += k.weight
			}
		}
		step := rapid.Custom(func(t *rapid.T) Step {
			seed := mix(salt, rapid.Uint16().Draw(t, "step"))
			n := int(seed % uint64(total))
			for _, k := range some {
				if n -= k.weight; n < 0 {
					return Step{k.name, seed >> 48}
				}
			}
			panic("a step is of no kind")
		})
		for range 15 { // rapid leaves out more of several short lists than of one long
			s.Steps = append(s.Steps, rapid.SliceOfN(step, 0, 20).Draw(t, "steps")...)
		}
		return s
	})
}

// times says how often a kind is among those that are drawn from.
func (k *kind) times(only []string) int {
	n := 0
	for _, name := range only {
		if name == k.name {
			n++
		}
	}
	if k.basic || len(only) == 0 {
		n = max(n, 1)
	}
	return n
}

func mix(salt []byte, n uint16) uint64 {
	h := fnv.New64a()
	h.Write(salt)
	h.Write([]byte{byte(n), byte(n >> 8), 0, 0, 0, 0})
	return h.Sum64()
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }
