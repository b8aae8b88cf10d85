package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// The clock of one instance jumps, of nobody else: the bench itself asks the instance
// what time it has. Not in parallel: TestTorture needs the processor.
func TestTortureOfTheClock(t *testing.T) {
	var out, said bytes.Buffer
	require.Zero(t, runWith(t, &out, &said, "torture", "--server", hub(t), "--hubs", "2", "--readers", "10", "--duration", "1s", "--faults", "clock"),
		"%s%s", &said, &out)
	require.Contains(t, said.String(), " s  clock")
}
