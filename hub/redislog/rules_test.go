package redislog_test

import (
	"strings"
	"testing"

	"github.com/pushhub/pushhub/hub/redislog"
	"github.com/pushhub/pushhub/hub/search"
)

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
	known := map[string]string{
		"nth": "3 >:1000/24h 2 false false client:58956 client:17017 drop:1386 stall:59908 client:12503 drop:65380 back:26841 sleep:51601 client:1361 stall:59908 stall:59908 client:12503 publish:3438",
	}
	for _, r := range redislog.Rules {
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			open := func(o redislog.Options) (*redislog.Log, error) { return redislog.OpenWithout(o, r.Rule) }
			search.Needed(t, search.Subject{Log: open, Prompt: true}, known[r.Name], shows[r.Name]...)
		})
	}
}

// withoutPoll opens a log that asks a server only when there is a reason.
func withoutPoll(o redislog.Options) (*redislog.Log, error) {
	return redislog.OpenWithout(o, redislog.RulePoll)
}

// An instance that was told by an old primary that an event is in its log, and has
// nothing else to say to the new one, has to ask all the same.
func TestPollIsNeeded(t *testing.T) {
	t.Parallel()
	const known = "3 >:5/90s 0 false false batch:1220 split:12362 split:62602 batch:21428 split:29535 sleep:30493 split:57368 split:12362 client:27426 sleep:27099 client:51190 publish:57690"
	search.Needed(t, search.Subject{Log: withoutPoll}, known, "split", "split", "sleep", "kill", "publish", "client", "back")
}

// knownOfScripts are schedules that take long to find.
var knownOfScripts = map[string]string{
	"floor of the forgotten":   "2 >:5/90s 1 false true sleep:18626 batch:35800 batch:35800 batch:35800 batch:35800 sleep:9605 back:3691 long:39953 batch:17341 batch:28730 client:48957 batch:35800 long:1614 client:44866 client:44866 batch:35800 batch:35800 batch:35800 batch:35800 batch:35800 publish:28811 batch:35800 batch:35800 batch:35800 batch:35800 batch:35800 batch:28730 batch:35800 batch:56008 batch:35800 batch:23256 batch:8603 batch:26734 batch:8603 batch:35800 batch:43348 batch:26734 publish:7086 batch:35800 batch:67 batch:28730 drop:53931 batch:35800 batch:35800 drop:6275 batch:65073 batch:56008 publish:26535 batch:30634 batch:28730 long:42333 publish:47148 publish:44169 publish:6565 sleep:31036 long:54529 batch:35800",
	"no replica is read":       "3 >:3/24h 2 false false client:24346 publish:22269 demote:64202 publish:15280 demote:6286 client:22378 batch:59850 drop:19434",
	"floor of the unknown":     "3 >:5/90s 0 false false client:26502 client:7312 client:22042 drop:43767 batch:61899 client:54910 drop:43767 drop:43767 long:21483 sleep:55360 drop:43767 evict:7505 publish:55218",
	"floor without index":      "2 >:3/24h 2 false false client:63077 drop:35253 client:46815 drop:56236 publish:63984 evict:54989 back:26476",
	"no stream of the unknown": "2 >:1000/24h 5 false true client:56263 client:3714 client:17427 drop:13031 drop:41313 client:17427 publish:43314 drop:2048 drop:36317 sleep:46701 batch:29379 evict:19504",
	"unknown is not retained":  "2 >:1000/24h 5 false true client:56263 client:3714 client:17427 drop:13031 drop:41313 client:17427 drop:2048 drop:36317 publish:32670 sleep:46701 client:35558 drop:13274 evict:19504",
}

// Each rule of the scripts is there for a hole too. They are switched off by
// another text, which the model Redis runs instead. The poll is off as well: it mends
// late what some are for.
func TestRulesOfScriptsAreNeeded(t *testing.T) {
	for _, r := range []struct {
		name     string
		old, new string
		shows    []string
	}{
		{"life", "elseif run ~= '' and m[5] ~= run or (", "elseif (", []string{"failover"}},
		{"base", "local past = {t.epoch .. '-' .. int(t.seq)}", "local past = {t.epoch .. '-' .. int(t.seq + 2)}", []string{"failover"}},
		{"base of each", "past[#past + 1] = cursor", "past[#past + 1] = string.match(cursor, '%w+') .. '-' .. int(t.seq)", []string{"failover", "failover", "restart"}},
		{"seqs go on", "t.epoch, t.past, t.changed = fresh,", "t.seq, t.epoch, t.past, t.changed = 0, fresh,", []string{"failover"}},
		{"above the index", "t.seq = tonumber(top[2]) or 0", "t.seq = 0", []string{"evict"}},
		{"floor of the unknown", "prev = t.floor", "prev = 0", []string{"evict", "long"}},
		{"floor without index", "if t.floor < t.seq and call('EXISTS', INDEX) == 0 then", "if false then", []string{"evict"}},
		{"floor of the forgotten", "t.floor = math.max(t.floor, tonumber(rows[i + 1]))", "", []string{"long", "long", "batch", "batch"}},
		{"no stream of the unknown", "prev = t.floor\n    call('DEL', stream)", "prev = t.floor", []string{"evict"}},
		{"unknown is not retained", "if last then --", "if true then --", []string{"evict"}},
		{"dedupe", "local first = e.dedupe and (seen[e.dedupe] or call('GET', e.dedupe))", "local first", []string{"again", "spoil"}},
		{"touch", "elseif t.changed then\n  return 'touch'", "elseif false then\n  return 'touch'", nil},
		{"no replica is read", "if t.replica then", "if false then", []string{"demote", "demote", "demote", "demote", "client", "back", "back"}},
		{"an old primary's word", "or (known_age and", "or (false and", []string{"split", "split"}},
		{"… that forgot all", "t.epoch ~= known_epoch and ended(t.past, known_epoch) < known_seq", "t.epoch ~= known_epoch and ended(t.past, known_epoch) >= 0 and ended(t.past, known_epoch) < known_seq", []string{"split", "split"}},
		{"publish", "call('SPUBLISH', t.channel, record)", "", nil},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			matched := false
			patch := func(script string) string {
				matched = matched || strings.Contains(script, r.old)
				return strings.Replace(script, r.old, r.new, 1)
			}
			search.Needed(t, search.Subject{Log: withoutPoll, Patch: patch}, knownOfScripts[r.name], r.shows...)
			if !matched {
				t.Errorf("no script has %q: its switch is of an older text", r.old)
			}
		})
	}
}
