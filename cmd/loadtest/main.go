//go:build linux

// Command loadtest measures a push server: with clients by the ten thousand, with
// a schedule of events that nothing moves, and against yardsticks in the same run.
// loadtest --help tells the scenarios.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

type commands struct {
	Broadcast broadcastCommand `kong:"cmd" help:"All clients listen to one topic."`
	Idle      idleCommand      `kong:"cmd,set='duration=10s'" help:"Clients are connected and subscribed, and nothing is published: memory per connection."`

	Jobs      jobsCommand      `kong:"cmd,set='topics=1000',set='rate=2000',set='prefix=jobs'" help:"Many topics, few clients each."`
	Storm     stormCommand     `kong:"cmd" help:"Connect, authenticate and subscribe as fast as can be."`
	Reconnect reconnectCommand `kong:"cmd,set='topics=10',set='rate=100'" help:"All sockets are killed, and all clients resume."`
	Saturate  saturateCommand  `kong:"cmd,set='duration=5s',set='warmup=2s',set='batch=64'" help:"Raise the rate until loss or p99 gives: the most deliveries per second that hold."`
	Slow      slowCommand      `kong:"cmd,set='duration=60s',set='rate=5',set='size=4096'" help:"A share of the readers stalls: what do the others notice, and what does it cost?"`
	Soak      soakCommand      `kong:"cmd,set='topics=100',set='rate=100',set='duration=10m'" help:"A long run in which clients leave and resume."`

	Torture tortureCommand `cmd:"" help:"Everything goes wrong: instances and Redis die, hang and lie, and no event may be lost in silence."`
	Verify  verifyCommand  `cmd:"" help:"Judge a history that torture has written."`

	Floor   floorCommand   `cmd:"" help:"The yardstick: a bare server that does one send per client and event."`
	Naive   naiveCommand   `cmd:"" help:"For comparison: a hub with a goroutine and a channel for each connection."`
	Upgrade upgradeCommand `cmd:"" help:"The yardstick of storm: a bare Go upgrade, and nothing after it."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// errFailed: the report has told what failed.
var errFailed = errors.New("failed")

// run runs the command that the arguments name and gives the exit status: 1 when
// the server or a threshold failed, 2 on wrong use.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	helped := false
	parser, err := kong.New(&commands{},
		kong.Name("loadtest"),
		kong.Description("Drives a push server with many clients and proves what they were sent. The server is started from ./cmd/pushhub unless --server or --url is given."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Bind(output{stdout, stderr}),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		panic(err) // the definition of the commands is wrong
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	selected, err := parser.Parse(args)
	switch {
	case helped:
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "loadtest: %v\n", err)
		return 2
	}
	switch err := selected.Run(); {
	case err == nil:
		return 0
	case errors.Is(err, errFailed):
		return 1
	default:
		fmt.Fprintf(stderr, "loadtest: %v\n", err)
		if errors.As(err, new(usageError)) {
			return 2
		}
		return 1
	}
}

// usageError is a wrong use that the parser cannot see.
type usageError string

func (e usageError) Error() string { return string(e) }

// output is where a command writes: the table, and progress.
type output struct{ stdout, stderr io.Writer }
