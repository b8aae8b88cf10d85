package hub_test

import (
	"testing"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/search"
)

// shows names the kinds of steps that show the hole of a rule where with all of
// them that takes thousands of schedules.
var shows = map[string][]string{
	"vanished": {"trim", "evict"},
	"floor":    {"trim", "evict", "long"},
	"told":     {"trim", "slow", "evict", "break", "cutoff", "failover"},
	"reach":    {"spoil", "hold", "more"},
	"start":    {"more", "slow", "spoil"},
	"ids":      {"more", "less", "slow", "spoil", "break"},
}

// Each rule is there for a hole: with the rule switched off, the search finds it.
// The log shows how many schedules that took: found/searched. The rules of the log
// are tested beside it.
func TestRulesAreNeeded(t *testing.T) {
	for _, r := range hub.Rules {
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			off := func(h *hub.Hub) { h.SwitchOff(r.Rule) }
			search.Needed(t, search.Subject{Hub: off, Check: (*hub.Hub).Check}, "", shows[r.Name]...)
		})
	}
}
