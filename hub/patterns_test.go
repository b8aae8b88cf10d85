package hub

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/pushhub/pushhub/protocol"
)

// The tree finds what Match finds, and is empty again when all have left.
func TestPatternsAgainstMatch(t *testing.T) {
	name := func(tokens ...string) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			s := rapid.SampledFrom(tokens).Draw(t, "token")
			for range rapid.IntRange(0, 3).Draw(t, "more") {
				if s[len(s)-1] == '>' {
					return s
				}
				s += "." + rapid.SampledFrom(tokens).Draw(t, "token")
			}
			return s
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		tenant := newTenant(&Hub{ctx: t.Context()}, "acme")
		var subs []*sub
		for _, p := range rapid.SliceOf(name("a", "b", "*", ">")).Draw(t, "patterns") {
			if protocol.IsPattern(p) {
				s := &sub{pattern: p}
				tenant.list(s)
				subs = append(subs, s)
			}
		}
		for len(subs) > 0 {
			topic := name("a", "b", "c").Draw(t, "topic")
			found := map[*sub]int{}
			tenant.wild.match(topic, func(list []*sub) {
				for _, s := range list {
					found[s]++
				}
			})
			for _, s := range subs {
				want := 0
				if protocol.Match(s.pattern, topic) {
					want = 1
				}
				require.Equal(t, want, found[s], "%s in %s", topic, s.pattern)
			}
			n := rapid.IntRange(0, len(subs)-1).Draw(t, "leaves")
			tenant.unlist(subs[n])
			subs = append(subs[:n], subs[n+1:]...)
		}
		require.Zero(t, tenant.topics)
		require.Empty(t, tenant.wild.next)
		require.Empty(t, tenant.wild.tail)
	})
}
