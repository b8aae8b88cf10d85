//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pushhub/pushhub/loadtest/history"
	"github.com/pushhub/pushhub/loadtest/torture"
)

type tortureCommand struct {
	Redis    string        `default:"standalone" enum:"standalone,sentinel,cluster" help:"Redis to start: standalone, sentinel or cluster."`
	Hubs     int           `default:"3" help:"Instances to start."`
	Readers  int           `default:"100" help:"Clients: half event streams, half WebSockets, a tenth of them slow."`
	Rate     float64       `default:"100" help:"Events per second over HTTP."`
	RawRate  float64       `default:"200" help:"Events per second by PUBLISH."`
	Drain    time.Duration `default:"4s" help:"DRAIN_SECONDS of the instances."`
	Duration time.Duration `default:"60s" help:"How long faults are injected; the last one may take longer."`
	Seed     uint64        `help:"Seed of the schedule; 0: any."`
	Faults   []string      `placeholder:"NAME,..." help:"Only these faults, each at least once; --list tells which there are."`
	List     bool          `help:"List the faults, and do nothing."`
	History  string        `placeholder:"FILE" help:"Keep the history, for loadtest verify."`
	JSON     string        `name:"json" placeholder:"FILE" help:"Write the account as JSON."`
	Server   string        `placeholder:"FILE" help:"The pushhub binary to start; else ./cmd/pushhub is built."`
}

func (c *tortureCommand) Run(ctx context.Context, out output) error {
	if c.List {
		_, err := io.WriteString(out.stdout, torture.Help())
		return err
	}
	if c.Hubs < 2 || c.Readers < 1 || c.Rate <= 0 || c.RawRate <= 0 || c.Drain < time.Second {
		return usageError("--hubs is at least 2, --readers 1, --drain 1s, --rate and --raw-rate are above 0")
	}
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	if c.Server == "" {
		dir, err := os.MkdirTemp("", "loadtest-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		c.Server = filepath.Join(dir, "pushhub")
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", c.Server, "./cmd/pushhub").CombinedOutput(); err != nil {
			return fmt.Errorf("go build ./cmd/pushhub: %w\n%s", err, out)
		}
	}
	fmt.Fprintf(out.stderr, "seed %d\n", c.Seed)
	account, err := torture.Run(ctx, torture.Config{
		Binary: c.Server, Redis: c.Redis, Hubs: c.Hubs, Readers: c.Readers, Rate: c.Rate, RawRate: c.RawRate,
		Drain: c.Drain, Duration: c.Duration, Seed: c.Seed, Faults: c.Faults, History: c.History, Log: io.Discard,
		Say: func(format string, args ...any) { fmt.Fprintf(out.stderr, format+"\n", args...) },
	})
	if err != nil {
		return err
	}
	return c.report(out, account)
}

func (c *tortureCommand) report(out output, account *history.Account) error {
	torture.Print(out.stdout, account)
	if c.JSON != "" {
		b, err := json.MarshalIndent(struct {
			Command string `json:"command"` // that runs it again
			*history.Account
		}{c.command(), account}, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.JSON, append(b, '\n'), 0o600); err != nil {
			return err
		}
	}
	if !account.Failed() {
		return nil
	}
	fmt.Fprintln(out.stdout, "FAILED:", c.command())
	return errFailed
}

// command gives the command that has the same faults in the same order.
func (c *tortureCommand) command() string {
	faults := ""
	if len(c.Faults) > 0 {
		faults = " --faults " + strings.Join(c.Faults, ",")
	}
	return fmt.Sprintf("loadtest torture --redis %s --hubs %d --readers %d --rate %v --raw-rate %v --drain %v --duration %v --seed %d%s",
		c.Redis, c.Hubs, c.Readers, c.Rate, c.RawRate, c.Drain, c.Duration, c.Seed, faults)
}

type verifyCommand struct {
	File string `arg:"" help:"A history that torture --history has written."`
}

func (c *verifyCommand) Run(out output) error {
	file, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer file.Close()
	account, err := history.Check(file)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	torture.Print(out.stdout, account)
	if account.Failed() {
		return errFailed
	}
	return nil
}
