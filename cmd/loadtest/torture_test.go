//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/loadtest/history"
	"github.com/pushhub/pushhub/loadtest/torture"
)

// TestTorture is a short schedule: an instance dies, sleeps and does not hear, all are
// asked to end one after the other, clients are reset, Redis restarts, cuts connections,
// refuses, and forgets a part or everything. No event is lost in silence, and the history
// proves it: without one of its deliveries it does not.
func TestTorture(t *testing.T) { // not beside others: each run has a dozen processes
	dir := t.TempDir()
	past, account := filepath.Join(dir, "history"), filepath.Join(dir, "account")
	var out, said bytes.Buffer
	got := runWith(t, &out, &said, "torture", "--server", hub(t), "--readers", "40", "--duration", "12s", "--seed", "1",
		"--faults", "kill,zombie,cut-pubsub,deaf-tenant,redis-restart,redis-flush,redis-evict,redis-full,net-reset,roll", "--history", past, "--json", account)
	require.Zero(t, got, "%s%s", &said, &out)
	var a history.Account
	b, err := os.ReadFile(account)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &a))
	require.GreaterOrEqual(t, a.Faults, 10)
	require.Len(t, a.Drains, 3*strings.Count(said.String(), " s  roll\n"))
	for what, n := range map[string]int{"published": a.Published, "delivered": a.Delivered, "gaps": a.Gaps, "drops": a.Drops, "recoveries": a.Recovery.Count, "conflated": a.Conflated} {
		require.Positive(t, n, what)
	}

	out.Reset()
	require.Zero(t, runWith(t, &out, &said, "verify", past), "%s", &out)
	b, err = os.ReadFile(past)
	require.NoError(t, err)
	require.Contains(t, string(b), "slow_consumer", "who is slow was cut off, and came back")
	lines := strings.SplitAfter(string(b), "\n")
	newest := 0 // of a topic that reader 1 got; what the log had lost may have come again after it
	of := func(line string) (n int) {
		_, _ = fmt.Sscanf(line[max(0, strings.Index(line, `"kind"`)):], `"kind":"event","reader":1,"topic":"acme/alerts","n":%d,`, &n)
		return n
	}
	for _, line := range lines {
		newest = max(newest, of(line))
	}
	require.Positive(t, newest)
	lines = slices.DeleteFunc(lines, func(line string) bool { return of(line) == newest })
	require.NoError(t, os.WriteFile(past, []byte(strings.Join(lines, "")), 0o600))
	out.Reset()
	require.Equal(t, 1, runWith(t, &out, &said, "verify", past))
	require.Contains(t, out.String(), "reader 1 never got")
}

// TestTortureReplicated is the same of a Redis whose primaries fail, and of which an
// instance loses a part.
func TestTortureReplicated(t *testing.T) {
	for redis, faults := range map[string]string{
		torture.Sentinel: "primary-behind,failover,redis-cut,kill-ingester,redis-unreachable,redis-one-way",
		torture.Cluster:  "cluster-behind,slot-move,kill,redis-hold",
	} {
		t.Run(redis, func(t *testing.T) {
			var out, said bytes.Buffer
			got := runWith(t, &out, &said, "torture", "--server", hub(t), "--redis", redis, "--readers", "40", "--duration", "10s", "--seed", "1", "--faults", faults)
			require.Zero(t, got, "%s%s", &said, &out)
			for fault := range strings.SplitSeq(faults, ",") {
				require.Contains(t, said.String(), " s  "+fault+"\n")
			}
		})
	}
}

// A run in which something was lost fails, and says how to have it again.
func TestTortureFails(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "account")
	c := tortureCommand{Redis: torture.Cluster, Hubs: 3, Readers: 40, Rate: 100, RawRate: 200, Drain: 4 * time.Second, Duration: time.Minute, Seed: 7, Faults: []string{"kill", "deaf"}, JSON: file}
	const again = "loadtest torture --redis cluster --hubs 3 --readers 40 --rate 100 --raw-rate 200 --drain 4s --duration 1m0s --seed 7 --faults kill,deaf"
	for _, a := range []*history.Account{{Lost: 1}, {Twice: 1}, {Disorder: 1}, {Strange: 1}, {GaveUp: 1}, {Needless: 1}, {Wrong: 1}, {}} {
		var out bytes.Buffer
		err := c.report(output{stdout: &out}, a)
		b, read := os.ReadFile(file)
		require.NoError(t, read)
		require.Contains(t, string(b), `"command": "`+again+`"`)
		if a.Failed() {
			require.ErrorIs(t, err, errFailed)
			require.Contains(t, out.String(), "FAILED: "+again+"\n")
		} else {
			require.NoError(t, err)
			require.NotContains(t, out.String(), "FAILED")
		}
	}
}

func TestTortureUsage(t *testing.T) {
	t.Parallel()
	for _, redis := range []string{torture.Standalone, torture.Sentinel, torture.Cluster} {
		require.Contains(t, torture.Faults(redis), "kill")
	}
	var out, said bytes.Buffer
	require.Zero(t, runWith(t, &out, &said, "torture", "--list"))
	require.Contains(t, out.String(), "zombie")
	require.Equal(t, 2, runWith(t, &out, &said, "torture", "--hubs", "1"))
	require.Equal(t, 1, runWith(t, &out, &said, "torture", "--server", "x", "--faults", "slot-move"))
	require.Contains(t, said.String(), `no fault "slot-move"`)
	require.Equal(t, 1, runWith(t, &out, &said, "verify", filepath.Join(t.TempDir(), "none")))
}

func runWith(t *testing.T, out, said *bytes.Buffer, args ...string) int {
	t.Helper()
	return run(t.Context(), args, out, said)
}
