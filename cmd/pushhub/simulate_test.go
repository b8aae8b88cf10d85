package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

func TestSimulatorIsDeterministic(t *testing.T) {
	t.Parallel()
	a, b, other := newSimulator(7), newSimulator(7), newSimulator(8)
	same := true
	for range 500 {
		step := a.step()
		require.Equal(t, step, b.step())
		same = same && len(step) == len(other.step())
	}
	require.False(t, same)
}

// TestSimulatedJobs follows every job of a long run through its life.
func TestSimulatedJobs(t *testing.T) {
	t.Parallel()
	s := newSimulator(1)
	last := map[string]progress{}
	alerted := map[string]string{} // job → severity
	ended := map[string]int{}
	calm, idle, failedFirst := 0, 0, 0
	for step := range 5000 {
		for _, p := range s.step() {
			checkPublication(t, p)
			if strings.HasPrefix(p.Topic, protocol.Alerts) {
				var a alert
				require.NoError(t, json.Unmarshal(p.Data, &a))
				require.Contains(t, []string{"info", "warning", "critical"}, a.Severity)
				if a.JobID == "" {
					require.Equal(t, "alerts", p.Topic)
					calm++
				} else {
					require.Equal(t, "alerts.render", p.Topic)
					alerted[a.JobID] = a.Severity
				}
				continue
			}
			var now progress
			require.NoError(t, json.Unmarshal(p.Data, &now))
			require.Equal(t, "jobs."+now.JobID, p.Topic)
			require.NoError(t, uuid.Validate(now.JobID))
			require.Equal(t, "progress", p.Key)
			before, known := last[now.JobID]
			last[now.JobID] = now
			if !known {
				require.Equal(t, "queued", now.Stage)
				require.Equal(t, "queued", now.Status)
				require.Zero(t, now.Progress)
				continue
			}
			require.False(t, before.Status == "completed" || before.Status == "failed", "nothing comes after the end")
			require.GreaterOrEqual(t, now.Progress, before.Progress)
			require.GreaterOrEqual(t, now.Frame, before.Frame)
			require.LessOrEqual(t, now.Frame, now.Frames)
			require.Equal(t, now.Status == "completed" || now.Status == "failed", p.Final)
			if p.Final {
				ended[now.Status]++
				if now.Status == "failed" && failedFirst == 0 {
					failedFirst = step
				}
				if now.Status == "completed" {
					require.Equal(t, 100, now.Progress)
					require.Equal(t, now.Frames, now.Frame)
				}
			}
		}
		running := 0
		for _, job := range s.jobs {
			if !job.over {
				running++
			}
		}
		if running == 0 {
			idle++
		}
	}
	require.Greater(t, ended["completed"], 20)
	require.Greater(t, ended["failed"], 5)
	require.Less(t, failedFirst, 100, "the first failure is soon seen")
	require.Greater(t, calm, 50)
	require.Less(t, idle, 50, "there is nearly always something to see")
	for id, p := range last {
		switch p.Status {
		case "failed":
			require.Equal(t, "critical", alerted[id])
		case "completed":
			require.Equal(t, "info", alerted[id])
		}
	}
}

// checkPublication asks the hub's own parser.
func checkPublication(t *testing.T, p protocol.Publication) {
	t.Helper()
	body, err := json.Marshal(publication{p.Topic, p.Type, p.Data, p.Source, p.Key, p.Final, p.Dedupe})
	require.NoError(t, err)
	_, refused := protocol.ParsePublish(body, 64<<10)
	require.Nil(t, refused)
}

func TestSimulatorGoesOnAfterFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 9500*time.Millisecond)
		defer cancel()
		published, failed := 0, 0
		newSimulator(1).run(ctx, time.Second, func([]protocol.Publication) error {
			published++
			return errors.New("no")
		}, func(error) { failed++ })
		require.Equal(t, 10, published)
		require.Equal(t, 10, failed)
	})
}
