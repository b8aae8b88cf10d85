// Command pushhub is the hub and what belongs to it on a command line: it serves,
// shows itself in a demo, signs tokens, publishes, follows topics, and checks a
// configuration. pushhub --help tells the rest.
//
// Only this package knows all the others. settings.go is the one definition of
// the configuration; each command has a file; serve and dev share instance.go,
// which ties the rooms together.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel() // the first asks the command to end in order
		<-signals
		os.Exit(1) // the second does not ask
	}()
	os.Exit(run(ctx, process{
		args:   os.Args[1:],
		getenv: os.Getenv,
		stdin:  os.Stdin,
		stdout: os.Stdout,
		stderr: os.Stderr,
	}))
}
