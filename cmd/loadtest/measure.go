//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/pushhub/pushhub/loadtest"
)

// measured has what all scenarios have.
type measured struct {
	loadtest.Plan `embed:"" group:"Load"`
	server        `embed:"" group:"Server"`
	judgement     `embed:"" group:"Judgement"`
}

// server says which server is tested.
type server struct {
	URL    string   `name:"url" placeholder:"URL" help:"A server that runs already: http://127.0.0.1:5080."`
	PID    int      `name:"pid" help:"Its process, to measure CPU and memory."`
	Secret string   `placeholder:"TEXT" help:"Its HS256 secret, to sign tokens."`
	Token  string   `placeholder:"JWT" help:"One token for everybody, instead of signed ones."`
	Redis  string   `placeholder:"URL" help:"Its Redis, for --raw."`
	Peer   string   `placeholder:"FILE" help:"A description of how another server is spoken to (JSON)."`
	Server string   `placeholder:"FILE" help:"The pushhub binary to start; else ./cmd/pushhub is built."`
	Log    string   `default:"memory" enum:"memory,redis" help:"Where a started server keeps its log: memory, or a redis-server that is started too."`
	Env    []string `placeholder:"NAME=VALUE" sep:"none" help:"Settings of a started server; may be repeated."`
	doomed bool     // start another instance, to be killed
	NoPin  bool     `help:"Do not keep the server and the load tester on a core each."`
}

// judgement says what to compare with, what fails, and where to write it.
type judgement struct {
	Floor  bool `default:"true" negatable:"" help:"Alternate with the yardstick (floor; for storm: upgrade), unless the server is on another machine."`
	Naive  bool `help:"Alternate with the naive hub too."`
	Rounds int  `default:"1" help:"Rounds; the table has medians."`

	MaxP99      time.Duration `name:"max-p99" help:"Fail above it."`
	MaxStall    float64       `name:"max-stall-ratio" placeholder:"X" help:"Fail above it (slow): p99 of the others, while the buffers of the stalled fill or once they are full, to that before."`
	MaxCPU      float64       `name:"max-cpu" placeholder:"US" help:"Fail above it: server CPU per delivery, or per handshake for storm, in µs."`
	MaxUserCPU  float64       `name:"max-user-cpu" placeholder:"US" help:"Fail above it: server CPU per delivery in user space, in µs."`
	MaxAllocs   float64       `name:"max-allocs" placeholder:"X" help:"Fail above it: allocations of the server per delivery, those of publishing included."`
	MaxCPURatio float64       `name:"max-cpu-ratio" placeholder:"X" help:"Fail above it: the same as --max-cpu, to the yardstick's."`
	MaxBytes    float64       `name:"max-bytes" placeholder:"N" help:"Fail above it: resident bytes per connection (idle), or per stalled reader (slow)."`
	MaxReads    float64       `name:"max-reads" placeholder:"N" help:"Fail above it (reconnect --kill): reads of the log in Redis."`
	MaxRoutines float64       `name:"max-goroutines" placeholder:"N" help:"Fail above it."`
	MinRate     float64       `name:"min-rate" placeholder:"N" help:"Fail below it: deliveries per second; for saturate those that held."`
	MinRatio    float64       `name:"min-rate-ratio" placeholder:"X" help:"Fail below it: the same, to the yardstick's."`

	JSON string `name:"json" placeholder:"FILE" help:"Write the report as JSON."`
	HTML string `name:"html" placeholder:"FILE" help:"Write the report as a page."`
}

func (j judgement) limits(storm, saturate bool) []loadtest.Limit {
	cpu := func(r *loadtest.Result) float64 { return r.CPU }
	if storm {
		cpu = func(r *loadtest.Result) float64 { return r.HandshakeCPU }
	}
	rate := func(r *loadtest.Result) float64 { return r.Rate }
	if saturate {
		rate = func(r *loadtest.Result) float64 { return r.Held }
	}
	stall := func(r *loadtest.Result) float64 {
		if r.Latency.Count == 0 || r.Filling.Count == 0 || r.Before.Count == 0 {
			return math.NaN()
		}
		return max(r.Latency.P99, r.Filling.P99) / r.Before.P99
	}
	bytes := func(r *loadtest.Result) float64 { return max(r.PerClient, r.Hoard) }
	return []loadtest.Limit{
		{Flag: "max-p99", Value: float64(j.MaxP99) / 1e6, Of: func(r *loadtest.Result) float64 { return r.Latency.P99 }},
		{Flag: "max-stall-ratio", Value: j.MaxStall, Of: stall},
		{Flag: "max-cpu", Value: j.MaxCPU, Of: cpu},
		{Flag: "max-user-cpu", Value: j.MaxUserCPU, Of: func(r *loadtest.Result) float64 { return r.UserCPU }},
		{Flag: "max-allocs", Value: j.MaxAllocs, Of: func(r *loadtest.Result) float64 { return r.Allocs }},
		{Flag: "max-cpu-ratio", Value: j.MaxCPURatio, Ratio: true, Of: cpu},
		{Flag: "max-bytes", Value: j.MaxBytes, Of: bytes},
		{Flag: "max-reads", Value: j.MaxReads, Of: func(r *loadtest.Result) float64 { return r.LogReads }},
		{Flag: "max-goroutines", Value: j.MaxRoutines, Of: func(r *loadtest.Result) float64 { return r.Goroutines }},
		{Flag: "min-rate", Value: j.MinRate, Least: true, Of: rate},
		{Flag: "min-rate-ratio", Value: j.MinRatio, Least: true, Ratio: true, Of: rate},
	}
}

// measure runs a scenario on the server and its yardsticks, alternating, and
// reports.
func (m *measured) measure(ctx context.Context, out output, name string, scenario loadtest.Scenario) error {
	if err := m.check(); err != nil {
		return err
	}
	report := loadtest.Report{Scenario: name, Plan: m.Plan, Conditions: loadtest.ReadConditions(os.Args)}
	if err := loadtest.RaiseFiles(m.Clients); err != nil {
		return err
	}
	core := -1
	if !m.NoPin {
		var err error
		if core, report.Conditions.Pinned, err = loadtest.Pin(); err != nil {
			return err
		}
	}
	say := func(format string, args ...any) { fmt.Fprintf(out.stderr, format+"\n", args...) }
	subjects := m.subjects(ctx, name, loadtest.Start{Binary: m.Server, Env: m.Env, Redis: m.Log == "redis", Doomed: m.doomed, Core: core, Stderr: out.stderr})
	for range m.Rounds {
		var round []loadtest.Result
		for _, start := range subjects {
			result, err := once(ctx, start, scenario, m.Plan, say)
			if err != nil {
				return err
			}
			round = append(round, result)
		}
		report.Rounds = append(report.Rounds, round)
	}
	report.Judge(m.limits(name == "storm", name == "saturate"))
	report.Table(out.stdout)
	if m.JSON != "" {
		if err := report.WriteJSON(m.JSON); err != nil {
			return err
		}
	}
	if m.HTML != "" {
		if err := report.WriteHTML(m.HTML); err != nil {
			return err
		}
	}
	if len(report.Failures) > 0 {
		return errFailed
	}
	return nil
}

func (m *measured) check() error {
	switch {
	case m.Clients < 1 || m.Topics < 1 || m.Topics > m.Clients || m.Rounds < 1 || m.Publishers < 1 || m.Batch < 1 || m.Inflight < 1:
		return usageError("--clients, --topics, --rounds, --publishers, --batch and --inflight are at least 1, and topics at most as many as clients")
	case m.Rate <= 0 || m.Duration <= 0 || m.Warmup < 0 || m.Linger < 0 || m.SSE < 0 || m.SSE > 1 || m.Size < 0:
		return usageError("--rate and --duration are above 0, --warmup and --linger not below, --sse is a share, 0 to 1")
	case m.PerClient < 1 || m.PerClient > m.Topics:
		return usageError("--per-client is 1 to --topics")
	case m.Keyed && m.Raw:
		return usageError("--raw messages have no --keyed")
	case m.Peer != "" && m.URL == "":
		return usageError("--peer needs --url: only pushhub is started here")
	}
	return nil
}

// subjects gives how to start the server and each of its yardsticks.
func (m *measured) subjects(ctx context.Context, scenario string, start loadtest.Start) []func() (*loadtest.Target, error) {
	list := []func() (*loadtest.Target, error){func() (*loadtest.Target, error) {
		if m.URL != "" {
			return m.given()
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return loadtest.StartHub(ctx, start)
	}}
	yardstick := func(name string) func() (*loadtest.Target, error) {
		return func() (*loadtest.Target, error) {
			program, err := os.Executable()
			if err != nil {
				return nil, err
			}
			return loadtest.StartYardstick(name, []string{program}, m.Size, start)
		}
	}
	if m.Floor && m.here() {
		list = append(list, yardstick(map[bool]string{true: "upgrade", false: "floor"}[scenario == "storm"]))
	}
	if m.Naive {
		list = append(list, yardstick("naive"))
	}
	return list
}

// here says whether the server is on this machine.
func (m *measured) here() bool {
	u, err := url.Parse(m.URL)
	return m.URL == "" || err == nil && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback())
}

// given is the server that runs already.
func (m *measured) given() (*loadtest.Target, error) {
	u, err := url.Parse(m.URL)
	if err != nil || u.Scheme != "http" || u.Port() == "" {
		return nil, usageError("--url is http://ADDRESS:PORT, with an IPv4 address")
	}
	t := &loadtest.Target{Name: "pushhub", Addr: strings.Replace(u.Host, "localhost", "127.0.0.1", 1), Peer: loadtest.Pushhub(), Secret: m.Secret, Token: m.Token, Redis: m.Redis}
	if m.Peer != "" {
		if t.Peer, err = loadtest.ReadPeer(m.Peer); err != nil {
			return nil, err
		}
		t.Name = t.Peer.Name
	}
	if m.PID != 0 {
		t.Attach(m.PID)
	}
	return t, nil
}

func once(ctx context.Context, start func() (*loadtest.Target, error), scenario loadtest.Scenario, p loadtest.Plan, say func(string, ...any)) (loadtest.Result, error) {
	t, err := start()
	if err != nil {
		return loadtest.Result{}, err
	}
	defer t.Stop()
	return scenario(ctx, t, p, say)
}
