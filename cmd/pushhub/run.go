package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/alecthomas/kong"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/ingest"
)

// process is what a command sees of the world, so that a test can run whole
// commands within its own process.
type process struct {
	args           []string            // without the program's name
	getenv         func(string) string // "" for what is not set
	stdin          io.Reader
	stdout, stderr io.Writer
}

type commands struct {
	Serve   serveCommand   `kong:"cmd,set='host=0.0.0.0',set='level=info',set='format=json',set='drain=30'" help:"Run the hub. Without a Redis it keeps the log in memory, for one instance."`
	Dev     devCommand     `kong:"cmd,set='host=127.0.0.1',set='level=warn',set='format=console',set='drain=1'" help:"Run a hub with a key of its own, a demo page, and simulated render jobs and alerts."`
	Token   tokenCommand   `cmd:"" help:"Sign a token and print it."`
	Publish publishCommand `cmd:"" help:"Publish one event, or one for each line of standard input."`
	Tail    tailCommand    `cmd:"" help:"Follow topics: print each event as one line of JSON, resuming after every break."`
	Check   checkCommand   `kong:"cmd,set='host=0.0.0.0',set='level=info',set='format=json',set='drain=30'" help:"Check the configuration of serve and the Redis behind it, in words."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// reported wraps an error that the command has told the user already.
type reported struct{ error }

func (e reported) Unwrap() error { return e.error }

// run runs the command that the arguments name, until it is done or ctx ends. It
// tells errors itself, and gives the exit status.
func run(ctx context.Context, p process) int {
	helped := false
	parser, err := kong.New(&commands{},
		kong.Name("pushhub"),
		kong.Description("A real-time push hub: events from backends to WebSocket and SSE clients, resumable at any instance."),
		kong.Writers(p.stdout, p.stderr),
		kong.Exit(func(int) { helped = true }),
		kong.Vars{"retention": hub.DefaultRetention, "ingest": ingest.DefaultMapping, "url": defaultURL},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ValueFormatter(describe),
		kong.Resolvers(environment(p.getenv)),
		kong.Bind(p),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		panic(err) // the definition of the commands is wrong
	}
	// No command: the help is the answer.
	args := p.args
	if len(args) == 0 {
		args = []string{"--help"}
	}
	selected, err := parser.Parse(args)
	if helped {
		return 0
	}
	if err == nil {
		err = selected.Run()
	}
	if err == nil {
		return 0
	}
	if !errors.As(err, new(reported)) {
		report(p, err)
	}
	return 1
}

// report tells an error. What serve writes is a log, from its first line.
func report(p process, err error) {
	var setting *settingError
	if errors.As(err, &setting) {
		err = setting // without kong's name of the flag
	}
	if len(p.args) > 0 && p.args[0] == "serve" && !wantsConsole(p) {
		logger := newLogger(p.stderr, logSettings{LogFormat: "json", LogLevel: "error"})
		logger.Error().Msg(err.Error())
		return
	}
	fmt.Fprintf(p.stderr, "pushhub: %v\n", err)
}

// wantsConsole says whether LOG_FORMAT is console, while the settings could not
// be read as a whole.
func wantsConsole(p process) bool {
	if slices.Contains(p.args, "--log-format=console") {
		return true
	}
	if i := slices.Index(p.args, "--log-format"); i >= 0 {
		return i+1 < len(p.args) && p.args[i+1] == "console"
	}
	return p.getenv("LOG_FORMAT") == "console"
}
