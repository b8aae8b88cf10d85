package redislog_test

import (
	"strings"
	"testing"

	"github.com/pushhub/pushhub/hub/redislog"
	"github.com/pushhub/pushhub/hub/search"
)

// enough is how many failing schedules of each rule are looked for.
func enough() int {
	if search.RaceDetector {
		return 1
	}
	return 3
}

// Each rule of the live connection is there for a hole: with the rule switched
// off, the search finds it. The log shows how many schedules that took:
// found/searched. Behind most of them stands a second line, which is that the hub
// counts, and verifies: events would only be late. So there is neither a later
// event nor a verify to show what is missing; TestPrompt of hub holds that with
// all rules on none is needed.
func TestRulesAreNeeded(t *testing.T) {
	shows := map[string][]string{
		"end":       {"break"},
		"confirmed": {"stall"},
		"nth":       {"stall", "stall", "hold", "drop", "drop", "back", "back", "sleep", "sleep", "sleep"},
		"answer":    {"mute"},
		"left":      {"move"},
		"primary":   {"mislead"},
		"once":      {"spoil"},
	}
	for _, r := range redislog.Rules {
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			open := func(o redislog.Options) (*redislog.Log, error) { return redislog.OpenWithout(o, r.Rule) }
			search.Needed(t, search.Subject{Log: open, Prompt: true}, enough(), shows[r.Name]...)
		})
	}
}

// Each rule of the scripts is there for a hole too. They are switched off by
// another text, which the model Redis runs instead.
func TestRulesOfScriptsAreNeeded(t *testing.T) {
	for _, r := range []struct {
		name     string
		old, new string
		shows    []string
	}{
		{"life", "elseif m[6] ~= run or (", "elseif (", []string{"failover"}},
		{"base", "t.epoch, t.prev_epoch, t.base, t.changed = fresh, t.epoch, t.seq, true", "t.epoch, t.prev_epoch, t.base, t.changed = fresh, t.epoch, t.seq + 2, true", []string{"failover"}},
		{"seqs go on", "t.base, t.changed = fresh, t.epoch, t.seq, true", "t.base, t.seq, t.changed = fresh, t.epoch, 0, 0, true", []string{"failover"}},
		{"above the index", "t.seq = tonumber(top[2]) or 0", "t.seq = 0", []string{"evict"}},
		{"floor of the unknown", "prev = t.floor", "prev = 0", []string{"evict", "long"}},
		{"floor without index", "if t.floor < t.seq and call('EXISTS', INDEX) == 0 then", "if false then", []string{"evict"}},
		{"floor of the forgotten", "t.floor = math.max(t.floor, tonumber(rows[i + 1]))", "", []string{"long", "long", "batch", "batch"}},
		{"no stream of the unknown", "prev = t.floor\n    call('DEL', stream)", "prev = t.floor", []string{"evict"}},
		{"unknown is not retained", "if last then --", "if true then --", []string{"evict"}},
		{"dedupe", "local first = e.dedupe and (seen[e.dedupe] or call('GET', e.dedupe))", "local first", []string{"again", "spoil"}},
		{"touch", "elseif t.changed then\n  return 'touch'", "elseif false then\n  return 'touch'", nil},
		{"no replica is read", "if t.replica then", "if false then", []string{"demote", "demote", "demote", "demote", "client", "back", "back"}},
		{"publish", "call('SPUBLISH', t.channel, record)", "", nil},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			matched := false
			patch := func(script string) string {
				matched = matched || strings.Contains(script, r.old)
				return strings.Replace(script, r.old, r.new, 1)
			}
			search.Needed(t, search.Subject{Patch: patch}, enough(), r.shows...)
			if !matched {
				t.Errorf("no script has %q: its switch is of an older text", r.old)
			}
		})
	}
}
