package hub_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

func TestRetention(t *testing.T) {
	r, err := hub.ParseRetention(hub.DefaultRetention)
	require.NoError(t, err)
	require.Equal(t, hub.RetentionRule{Pattern: "jobs.>", Events: 100, Age: time.Hour}, r.For("jobs.7"))
	require.Equal(t, hub.RetentionRule{Pattern: ">", Events: 1000, Age: 24 * time.Hour}, r.For("alerts"))
	require.Equal(t, hub.RetentionRule{Pattern: ">", Events: 1000, Age: 24 * time.Hour}, hub.Retention(nil).For("a"))

	r, err = hub.ParseRetention(" a.*:1/1s , >:1000000/8784h ")
	require.NoError(t, err)
	require.Equal(t, 1, r.For("a.b").Events)
	require.Equal(t, 1_000_000, r.For("a").Events)

	for _, wrong := range []string{
		"", ">", ">:10", ">:/1h", ">:10/", "a:10/1h", ">:0/1h", ">:1000001/1h", ">:-1/1h", ">:10/999ms",
		">:10/8785h", ">:10/1", ">:10/1h,a:10/1h", "a..b:1/1h,>:1/1h", "a.>.b:1/1h,>:1/1h", ">:10/1h,", ">:1/2/1h",
	} {
		_, err := hub.ParseRetention(wrong)
		require.Error(t, err, wrong)
	}
}

func FuzzParseRetention(f *testing.F) {
	f.Add(hub.DefaultRetention)
	f.Add(">:1/1s")
	f.Add("a.*:5/90s, b.>:7/1h30m,>:3/24h")
	f.Add(">:١/1h,>::/1e9h")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := hub.ParseRetention(s)
		if err != nil {
			require.Nil(t, r)
			return
		}
		var parts []string
		for _, rule := range r {
			require.NoError(t, protocol.CheckPattern(rule.Pattern))
			require.True(t, 1 <= rule.Events && rule.Events <= 1_000_000)
			require.True(t, time.Second <= rule.Age && rule.Age <= 366*24*time.Hour)
			parts = append(parts, fmt.Sprintf("%s:%d/%s", rule.Pattern, rule.Events, rule.Age))
		}
		require.Equal(t, protocol.Everything, r[len(r)-1].Pattern)
		again, err := hub.ParseRetention(strings.Join(parts, ","))
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}
