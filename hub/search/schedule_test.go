package search_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/pushhub/pushhub/hub/search"
)

func TestParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := search.Schedules().Draw(t, "schedule")
		again, err := search.Parse(s.String())
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
	for _, wrong := range []string{"", "2 >:3/24h 1 true", "x >:3/24h 1 true true", "2 x 1 true true", "2 >:3/24h 1 true true dance:3", "2 >:3/24h 1 true true drop:x"} {
		_, err := search.Parse(wrong)
		require.Error(t, err, wrong)
	}
}

// A schedule without steps is fine, as is one of each kind on its own.
func TestKinds(t *testing.T) {
	s, err := search.Parse("2 >:3/24h 1 false false")
	require.NoError(t, err)
	for _, kind := range search.Kinds() {
		s.Steps = append(s.Steps, search.Step{Kind: "client", Seed: 1}, search.Step{Kind: kind, Seed: 2})
	}
	for _, s.Cluster = range []bool{false, true} {
		r := search.Run(t, s, search.Subject{})
		require.Empty(t, r.Failure, r.Story)
		require.NotZero(t, r.Events)
		require.NotZero(t, r.Delivered)
	}
}
