package hub_test

import (
	"testing"

	"github.com/pushhub/pushhub/hub"
)

// Each rule is there for a hole: with the rule switched off, the search finds it.
// The log shows how many schedules that took: found/searched.
func TestRulesAreNeeded(t *testing.T) {
	const enough, atMost = 3, 20_000
	for _, r := range hub.Rules {
		t.Run(r.Name, func(t *testing.T) {
			found, example := 0, ""
			for seed := range uint64(atMost) {
				if got := search(t, seed+1, r.Rule); got.failure != "" {
					found++
					example = got.failure
				}
				if found == enough {
					t.Logf("%d/%d, as in: %s", found, seed+1, example)
					return
				}
			}
			t.Errorf("%d/%d: nothing breaks without it", found, atMost)
		})
	}
}
