package main

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

func TestLogLines(t *testing.T) {
	// Not parallel: slog, log and go-redis have one logger in the process.
	before := slog.Default()
	out := newOutput()
	logger := newLogger(out, logSettings{LogLevel: "debug", LogFormat: "json", Environment: "testing"})
	adopt(logger)
	t.Cleanup(func() { slog.SetDefault(before) })
	host, err := os.Hostname()
	require.NoError(t, err)

	logger.Warn().Err(errors.New("why")).Msg("own")
	slog.Error("from slog", "a", 1)
	log.Print("from log")
	redisLog{logger}.Printf(context.Background(), "from %s", "go-redis")
	logger.Trace().Msg("too little")

	lines := out.lines()
	require.Len(t, lines, 4)
	for i, want := range []struct{ severity, message string }{
		{"warn", "own"}, {"error", "from slog"}, {"info", "from log"}, {"debug", "go-redis: from go-redis"},
	} {
		o := object(t, lines[i])
		require.Equal(t, want.severity, o["severity"])
		require.Equal(t, want.message, o["message"])
		require.Equal(t, host, o["host"])
		require.Equal(t, "pushhub", o["service_name"])
		require.Equal(t, buildName(), o["service_version"])
		require.Equal(t, "testing", o["environment"])
		require.Equal(t, "pushhub/logging_test.go", o["file"], want.message)
		require.NotZero(t, o["line_no"])
		at, err := time.Parse(time.RFC3339, o["local_date"].(string))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), at, time.Minute)
		require.True(t, strings.HasSuffix(o["local_date"].(string), "Z"), "UTC")
		require.Equal(t, 1, strings.Count(lines[i], `"local_date"`))
		require.NotContains(t, o, "time")
	}
	require.Equal(t, "why", object(t, lines[0])["error"])
}

func TestConsoleLines(t *testing.T) {
	t.Parallel()
	out := newOutput()
	logger := newLogger(out, logSettings{LogLevel: "info", LogFormat: "console"})
	logger.Info().Str("user", "u7").Msg("hello")
	require.Regexp(t, `^\d\d:\d\d:\d\d INF hello user=u7\n$`, out.String())
}

func TestCleanups(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := newOutput()
		c := cleanups{log: zerolog.New(out)}
		var order []string
		blocked := make(chan struct{})
		defer close(blocked)
		c.add("first", func() error { order = append(order, "first"); return nil })
		c.add("slow", func() error { <-blocked; return nil })
		c.add("failing", func() error { order = append(order, "failing"); return errors.New("no") })
		began := time.Now()
		c.run(time.Second)
		require.Equal(t, time.Second, time.Since(began), "of the slow one alone")
		c.run(time.Second)
		require.Equal(t, []string{"failing", "first"}, order)
		require.Len(t, out.lines(), 2)
		require.Contains(t, out.lines()[0], `"what":"failing"`)
		require.Contains(t, out.lines()[1], `"what":"slow"`)
	})
}
