package protocol_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

func TestNames(t *testing.T) {
	a64 := strings.Repeat("a", 64)
	eight := strings.TrimSuffix(strings.Repeat("t.", 8), ".")
	full := strings.Join([]string{a64, a64, a64, "abcde"}, ".") // 200 bytes
	for name, want := range map[string]struct{ tenant, topic, pattern bool }{
		"":                         {},
		"a":                        {true, true, true},
		"A-Z_0-9":                  {true, true, true},
		a64:                        {true, true, true},
		a64 + "a":                  {},
		"a.b":                      {false, true, true},
		eight:                      {false, true, true},
		eight + ".t":               {},
		full:                       {false, true, true},
		full + "f":                 {},
		"a.":                       {},
		".a":                       {},
		"a..b":                     {},
		".":                        {},
		"a b":                      {},
		"a/b":                      {},
		"a:b":                      {},
		"ä":                        {},
		"a\x00":                    {},
		"a\n":                      {},
		"*":                        {false, false, true},
		">":                        {false, false, true},
		"a.*":                      {false, false, true},
		"a.>":                      {false, false, true},
		"*.*.>":                    {false, false, true},
		">.a":                      {},
		"a.>.b":                    {},
		">.>":                      {},
		"a*":                       {},
		"a.b>":                     {},
		"**":                       {},
		">>":                       {},
		eight[:len(eight)-1] + "*": {false, false, true},
		eight + ".>":               {},
	} {
		for what, c := range map[string]struct {
			err  error
			want bool
		}{
			"tenant":  {protocol.CheckTenant(name), want.tenant},
			"topic":   {protocol.CheckTopic(name), want.topic},
			"pattern": {protocol.CheckPattern(name), want.pattern},
		} {
			require.Equal(t, c.want, c.err == nil, "%q as a %s: %v", name, what, c.err)
			require.True(t, c.want || errors.Is(c.err, protocol.ErrMalformed), "%q as a %s: %v", name, what, c.err)
		}
	}
}

// names gives all topics, or patterns, of up to max tokens out of an alphabet.
func names(alphabet string, max int) []string {
	all, last := []string{}, []string{""}
	for range max {
		var longer []string
		for _, prefix := range last {
			if strings.HasSuffix(prefix, ">.") {
				continue
			}
			for _, token := range alphabet {
				all = append(all, prefix+string(token))
				longer = append(longer, prefix+string(token)+".")
			}
		}
		last = longer
	}
	return all
}

// matches is what the contract says of patterns, in other words.
func matches(pattern, topic []string) bool {
	switch {
	case len(pattern) == 0 || len(topic) == 0:
		return len(pattern) == len(topic)
	case pattern[0] == ">":
		return true
	}
	return (pattern[0] == "*" || pattern[0] == topic[0]) && matches(pattern[1:], topic[1:])
}

// Match, Covers and Overlap are held against what they mean, over all patterns
// of up to three tokens and all topics of up to four. c is a token that no
// pattern names: what stands for all tokens must stand for it too.
func TestPatternsAgainstModel(t *testing.T) {
	topics, patterns := names("abc", 4), names("ab*>", 3)
	matched := make(map[string][]bool)
	for _, p := range patterns {
		require.NoError(t, protocol.CheckPattern(p))
		for _, topic := range topics {
			want := matches(strings.Split(p, "."), strings.Split(topic, "."))
			if protocol.Match(p, topic) != want {
				t.Fatalf("Match(%q, %q) is not %v", p, topic, want)
			}
			matched[p] = append(matched[p], want)
		}
	}
	for _, a := range patterns {
		for _, b := range patterns {
			covers, overlap := true, false
			for i, inA := range matched[a] {
				covers = covers && (inA || !matched[b][i])
				overlap = overlap || inA && matched[b][i]
			}
			if protocol.Covers(a, b) != covers {
				t.Fatalf("Covers(%q, %q) is not %v", a, b, covers)
			}
			if protocol.Overlap(a, b) != overlap {
				t.Fatalf("Overlap(%q, %q) is not %v", a, b, overlap)
			}
		}
	}
}

func TestPrivateTo(t *testing.T) {
	for name, want := range map[string]string{
		"users.7": "7", "users.7.inbox": "7", "users.7.>": "7", "users.*": "*", "users.>": ">", "users.*.inbox": "*",
		"users": "", "usersx.7": "", "a.users.7": "", ">": "", "*.7": "",
	} {
		require.Equal(t, want, protocol.PrivateTo(name), name)
	}
	for name, want := range map[string]bool{"a": false, "a.b-c": false, "a.*": true, ">": true} {
		require.Equal(t, want, protocol.IsPattern(name), name)
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	topic := "nodes.rack-7.gpu-3.temperature"
	for _, p := range []string{">", "nodes.*.gpu-3.*", topic, "nodes.rack-7.gpu-3.*.x", "jobs.*"} {
		require.Zero(t, testing.AllocsPerRun(100, func() {
			protocol.Match(p, topic)
			protocol.Covers(p, topic)
			protocol.Overlap(p, topic)
		}), p)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = protocol.CheckTopic(topic) }))
}

var (
	topicForm   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64}){0,7}$`)
	patternForm = regexp.MustCompile(`^([A-Za-z0-9_-]{1,64}|\*)(\.([A-Za-z0-9_-]{1,64}|\*)){0,7}$`)
)

func FuzzNames(f *testing.F) {
	for _, s := range []string{"alerts", "jobs.*", "users.7.>", "a..b", "*.>", ">.a", strings.Repeat("a.", 9)} {
		f.Add(s, "jobs.7b0c")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		isTopic := len(a) <= 200 && topicForm.MatchString(a)
		require.Equal(t, isTopic, protocol.CheckTopic(a) == nil)
		head, rest := strings.CutSuffix(a, ">")
		isPattern := len(a) <= 200 && (patternForm.MatchString(a) ||
			rest && (head == "" || strings.HasSuffix(head, ".") && patternForm.MatchString(head+"a")))
		require.Equal(t, isPattern, protocol.CheckPattern(a) == nil)
		if isTopic {
			require.NoError(t, protocol.CheckPattern(a), "a topic is a pattern")
		}
		if !isPattern || protocol.CheckPattern(b) != nil {
			return
		}
		require.True(t, protocol.Covers(a, a))
		require.Equal(t, protocol.Overlap(a, b), protocol.Overlap(b, a))
		if protocol.Covers(a, b) {
			require.True(t, protocol.Overlap(a, b))
		}
		if protocol.CheckTopic(b) == nil {
			want := matches(strings.Split(a, "."), strings.Split(b, "."))
			require.Equal(t, want, protocol.Match(a, b))
			require.Equal(t, want, protocol.Covers(a, b), "a topic is a pattern that matches itself")
			require.Equal(t, want, protocol.Overlap(a, b))
		}
	})
}
