package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// The names of the fields are the process's: zerolog has them as variables.
func init() {
	zerolog.LevelFieldName = "severity"
	zerolog.TimestampFieldName = "local_date"
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	zerolog.TimestampFunc = func() time.Time { return time.Now().UTC() }
}

// newLogger gives the logger of the process: one JSON object a line, or lines for
// people.
func newLogger(w io.Writer, s logSettings) zerolog.Logger {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	level, err := zerolog.ParseLevel(string(s.LogLevel))
	if err != nil {
		panic(err) // a choice that the settings should not give
	}
	if s.LogFormat == "console" {
		w = zerolog.ConsoleWriter{
			Out: w, NoColor: !isTerminal(w), TimeFormat: time.TimeOnly, TimeLocation: time.Local,
			FieldsExclude: []string{"host", "service_name", "service_version", "environment", "file", "line_no"},
		}
	}
	fields := zerolog.New(w).Level(level).With().
		Str("host", host).
		Str("service_name", "pushhub").
		Str("service_version", buildName())
	if s.Environment != "" {
		fields = fields.Str("environment", s.Environment)
	}
	return fields.Timestamp().Logger().Hook(lineHook{})
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// lineHook says in each line of the log where in the source it was written.
type lineHook struct{}

// Run implements zerolog.Hook.
func (lineHook) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		frame, more := frames.Next()
		if !writesLogs(frame.Function) {
			dir, file := path.Split(frame.File)
			e.Str("file", path.Join(path.Base(dir), file)).Int("line_no", frame.Line)
			return
		}
		if !more {
			return
		}
	}
}

// writesLogs says whether a function only passes on what another one has to say.
func writesLogs(function string) bool {
	if strings.Contains(function, ".redisLog.") {
		return true
	}
	for _, prefix := range []string{"github.com/rs/zerolog.", "log.", "log/slog.", "github.com/redis/go-redis/v9/internal."} {
		if strings.HasPrefix(function, prefix) {
			return true
		}
	}
	return false
}

// adopt has the words of libraries written by logger, in the whole process.
func adopt(logger zerolog.Logger) {
	slog.SetDefault(slog.New(zerolog.NewSlogHandler(logger))) // and package log with it
	redis.SetLogger(redisLog{logger})
}

// redisLog takes what go-redis has to say, which has no severity. Its own errors
// come back from its calls: this is only their background.
type redisLog struct{ log zerolog.Logger }

// Printf implements go-redis' Logging.
func (l redisLog) Printf(_ context.Context, format string, args ...any) {
	l.log.Debug().Msg("go-redis: " + fmt.Sprintf(format, args...))
}
