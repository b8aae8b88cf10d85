package hub_test

import (
	"testing"

	"github.com/pushhub/pushhub/hub"
)

// Each rule is there for a hole: with the rule switched off, the search finds it.
// The log shows in how many schedules.
func TestRulesAreNeeded(t *testing.T) {
	const enough = 20_000
	if testing.Short() {
		t.Skip("the search is long")
	}
	for _, r := range hub.Rules {
		t.Run(r.Name, func(t *testing.T) {
			for seed := range uint64(enough) {
				if got := search(t, seed+1, r.Rule); got.failure != "" {
					t.Logf("1/%d: %s", seed+1, got.failure)
					return
				}
			}
			t.Errorf("0/%d: nothing breaks without it", enough)
		})
	}
}
