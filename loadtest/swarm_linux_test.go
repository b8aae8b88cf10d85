package loadtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A fake is a server that sends each client the same messages after its handshake.
type fake struct {
	listener net.Listener
	messages []string
	split    bool   // one byte a write
	raw      []byte // after the messages
	requests chan string
}

func startFake(t *testing.T, f fake) *fake {
	var err error
	f.listener, err = net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	f.requests = make(chan string, 100)
	done := make(chan struct{})
	t.Cleanup(func() {
		require.NoError(t, f.listener.Close())
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := f.listener.Accept()
			if err != nil {
				return
			}
			f.serve(t, conn)
		}
	}()
	return &f
}

func (f *fake) serve(t *testing.T, conn net.Conn) {
	t.Cleanup(func() { _ = conn.Close() })
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	f.requests <- req.URL.String()
	sse := strings.HasPrefix(req.URL.Path, "/sse")
	answer := "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + accept + "\r\n\r\n"
	if sse {
		answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
	}
	b := []byte(answer)
	for _, m := range f.messages {
		if sse {
			m = "id: c-1\ndata: " + m + "\n\n"
			b = fmt.Appendf(b, "%x\r\n%s\r\n", len(m), m)
		} else {
			b = appendFrame(b, opText, []byte(m), false)
		}
	}
	b = append(b, f.raw...)
	if !f.split {
		_, _ = conn.Write(b)
		return
	}
	for i := range b {
		if _, err := conn.Write(b[i : i+1]); err != nil {
			return
		}
	}
}

// event is a message with the n-th event of topic k.
func event(n uint64, k uint32) string {
	return string(appendEvent(nil, mark{n: n, k: k, t: now()}, 100))
}

const fakeReady = `{"op":"subscribed","cursor":"c-9"}`

func fakePeer() *Peer {
	p := yardstick("fake")
	p.WebSocket.Path += "&since={cursor}"
	p.SSE.Path += "&since={cursor}"
	p.WebSocket.Ready, p.SSE.Ready = `"op":"subscribed"`, `"op":"subscribed"`
	return p
}

func testSwarm(t *testing.T, f *fake, clients int, sse float64) *Swarm {
	s, err := NewSwarm(SwarmConfig{Addr: f.listener.Addr().String(), Peer: fakePeer(), Clients: clients, SSE: sse, Topics: []string{"t0"}})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// await waits until what a swarm has seen is as wished.
func await(t *testing.T, s *Swarm, what func(Snapshot) bool) Snapshot {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		snap := s.Snapshot(nil)
		if what(snap) {
			return snap
		}
		require.True(t, time.Now().Before(deadline), "%+v", snap)
		time.Sleep(time.Millisecond)
	}
}

// A server that breaks its promise on a real socket is found out, whatever it
// breaks, over both transports, and however its bytes are cut.
func TestSwarmFindsFaults(t *testing.T) {
	gap := `{"op":"gap","topic":"t0","since":"c-1","reason":"expired"}`
	for _, test := range []struct {
		name     string
		messages []string
		last     string // is what ends the test
		want     Counts
	}{
		{"none", []string{event(1, 0), event(2, 0)}, event(3, 0), Counts{Delivered: 3}},
		{"lost", []string{event(1, 0)}, event(3, 0), Counts{Delivered: 2, Lost: 1}},
		{"twice", []string{event(1, 0), event(2, 0), event(2, 0)}, event(3, 0), Counts{Delivered: 4, Twice: 1}},
		{"disorder", []string{event(1, 0), event(3, 0)}, event(2, 0), Counts{Delivered: 3, Disorder: 1}},
		{"foreign", []string{event(1, 0), event(1, 5), event(2, 0)}, event(3, 0), Counts{Delivered: 3, Foreign: 1}},
		{"gap", []string{event(1, 0), gap}, event(3, 0), Counts{Delivered: 2, Gaps: 1, Announced: 1}},
		{"gap of a pattern", []string{strings.Replace(gap, "t0", ">", 1)}, event(3, 0), Counts{Delivered: 1, Gaps: 1, Announced: 2}},
	} {
		for _, sse := range []float64{0, 1} {
			for _, split := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/sse=%v/split=%v", test.name, sse, split), func(t *testing.T) {
					f := startFake(t, fake{messages: slices.Concat([]string{`{"op":"welcome"}`, fakeReady}, test.messages, []string{test.last}), split: split})
					s := testSwarm(t, f, 1, sse)
					require.NoError(t, s.Connect(t.Context()))
					await(t, s, func(snap Snapshot) bool { return snap.Counts.Delivered == test.want.Delivered })
					require.Equal(t, test.want, s.Settle([]uint64{3}).Counts)
				})
			}
		}
	}
}

func TestSwarmMixesTransports(t *testing.T) {
	f := startFake(t, fake{messages: []string{fakeReady, event(1, 0)}})
	s := testSwarm(t, f, 8, 0.25)
	require.NoError(t, s.Connect(t.Context()))
	await(t, s, func(snap Snapshot) bool { return snap.Counts.Delivered == 8 })
	sse := 0
	for range 8 {
		if strings.HasPrefix(<-f.requests, "/sse") {
			sse++
		}
	}
	require.Equal(t, 2, sse)
}

func TestSwarmResumesFromItsCursor(t *testing.T) {
	for _, sse := range []float64{0, 1} {
		f := startFake(t, fake{messages: []string{fakeReady, event(1, 0)}})
		s := testSwarm(t, f, 1, sse)
		s.KeepCursors()
		require.NoError(t, s.Connect(t.Context()))
		require.True(t, strings.HasSuffix(<-f.requests, "since="))
		await(t, s, func(snap Snapshot) bool { return snap.Counts.Delivered == 1 })
		require.Equal(t, 1, s.Disconnect(1))
		require.NoError(t, s.Connect(t.Context()))
		want := "since=abcdef-1" // the id of the event
		if sse == 1 {
			want = "since=c-1" // the id of the block
		}
		require.True(t, strings.HasSuffix(<-f.requests, want))
		// The same event again, after a resume, is twice.
		await(t, s, func(snap Snapshot) bool { return snap.Counts.Twice == 1 })
	}
}

func TestSwarmAnswersPingsAndTellsWhyItWasClosed(t *testing.T) {
	raw := appendFrame(nil, opPing, []byte("hi"), false)
	raw = append(raw, "\x01\x0b"+`{"n":1,"k":`+"\x80\x0b"+`0,"t":1,"p"`...) // two fragments
	raw = appendFrame(raw, opClose, []byte("\x11\x3dslow_consumer"), false)
	f := startFake(t, fake{messages: []string{fakeReady}, raw: raw})
	s := testSwarm(t, f, 1, 0)
	require.NoError(t, s.Connect(t.Context()))
	await(t, s, func(snap Snapshot) bool { return snap.Closed == 1 })
	out := s.Settle([]uint64{3})
	require.Equal(t, map[string]int{"closed 4413 slow_consumer": 1}, out.Errors)
	require.Equal(t, Counts{Delivered: 1, Cut: 2}, out.Counts)
}

// A message may hold several lines, pings of the application among them. Those are
// answered over a WebSocket; a client of an event stream sends nothing.
func TestSwarmTakesLinesAndEchoes(t *testing.T) {
	for _, sse := range []bool{false, true} {
		s, c, other := bench(t, sse)
		s.config.Peer.Lines, s.echo = true, []byte("{}")
		var b []byte
		if sse {
			for _, line := range []string{event(1, 0), "{}", event(2, 0)} {
				b = append(b, "data: "+line+"\n\n"...)
			}
		} else {
			b = appendFrame(nil, opText, []byte(event(1, 0)+"\n{}\n"+event(2, 0)), false)
		}
		_, err := unix.Write(other, b)
		require.NoError(t, err)
		s.drain(c, false)
		require.Equal(t, Counts{Delivered: 2}, s.ledger.counts)
		got := make([]byte, 100)
		n, err := unix.Read(other, got)
		if sse {
			require.ErrorIs(t, err, unix.EAGAIN)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, appendFrame(nil, opText, []byte("{}"), true), got[:n])
	}
}

func TestSwarmTellsWhyAHandshakeFailed(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) })}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	s := testSwarm(t, &fake{listener: l}, 3, 0.5)
	require.ErrorContains(t, s.Connect(t.Context()), "3 of 3 clients were refused: handshake: HTTP/1.1 403 Forbidden no")

	require.NoError(t, server.Close())
	s = testSwarm(t, &fake{listener: l}, 1, 0)
	require.ErrorContains(t, s.Connect(t.Context()), "connection refused")
}

func TestConnectEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0") // never accepts
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	s := testSwarm(t, &fake{listener: l}, 2, 0)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	require.ErrorContains(t, s.Connect(ctx), "enough")
}

// bench is a client whose socket the benchmark and the allocation test write to.
func bench(t testing.TB, sse bool) (s *Swarm, c *client, other int) {
	share := 0.0
	if sse {
		share = 1
	}
	s, err := newSwarm(SwarmConfig{Peer: fakePeer(), Clients: 1, SSE: share, Topics: []string{"t0"}})
	require.NoError(t, err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	c = &s.clients[0]
	c.fd = int32(pair[0])
	s.enter(c, ready)
	t.Cleanup(func() {
		for _, fd := range []int{pair[0], pair[1], s.epoll, s.wake} {
			_ = unix.Close(fd)
		}
	})
	s.latency.window(0, 1<<62)
	return s, c, pair[1]
}

func delivery(sse bool, n uint64) []byte {
	if sse {
		return []byte("id: abcdef-" + strconv.FormatUint(n, 10) + "\ndata: " + event(n, 0) + "\n\n")
	}
	return appendFrame(nil, opText, []byte(event(n, 0)), false)
}

func TestADeliveryAllocatesNothing(t *testing.T) {
	for _, sse := range []bool{false, true} {
		s, c, other := bench(t, sse)
		var list [][]byte
		for n := range uint64(102) {
			list = append(list, delivery(sse, n+1))
		}
		next := 0
		allocs := testing.AllocsPerRun(100, func() {
			_, _ = unix.Write(other, list[next])
			next++
			s.drain(c, false)
		})
		require.Zero(t, allocs)
		require.EqualValues(t, 101, s.ledger.counts.Delivered)
		require.Zero(t, s.ledger.counts.Faults())
	}
}

func BenchmarkDelivery(b *testing.B) {
	for _, sse := range []bool{false, true} {
		b.Run(fmt.Sprintf("sse=%v", sse), func(b *testing.B) {
			s, c, _ := bench(b, sse)
			msg := delivery(sse, 1)
			b.ReportAllocs()
			for b.Loop() {
				s.subs[0].last = 0
				copy(s.buffer, msg)
				s.consume(c, 0, len(msg))
			}
		})
	}
}

// What a step has to do to hold.
func TestJudgeStep(t *testing.T) {
	plan := Plan{Rate: 10, Clients: 100, Topics: 5, PerClient: 2} // 400 deliveries/s
	for why, spoil := range map[string]func(*Result){
		"":                              func(*Result) {},
		"3 lost, twice or out of order": func(r *Result) { r.Counts = Counts{Lost: 1, Twice: 1, Disorder: 1} },
		"2 clients disconnected":        func(r *Result) { r.Closed = 2 },
		"4 missing under a gap":         func(r *Result) { r.Counts.Announced = 4 },
		"5 publishes failed":            func(r *Result) { r.Unpublished = 5 },
		"390 of 400 deliveries/s":       func(r *Result) { r.Rate = 390 },
		"p99 over 100ms":                func(r *Result) { r.Latency.P99 = 101 },
	} {
		r := Result{Rate: 399, Latency: Latency{P99: 99}, CPU: 7}
		spoil(&r)
		require.Equal(t, Step{Published: 10, Delivered: r.Rate, P99: r.Latency.P99, CPU: 7, Held: why == "", Why: why}, judgeStep(&r, plan, 100*time.Millisecond))
	}
}

// The limit of open files is raised as far as that goes, and where it does not it is
// said what bounds it.
func TestRaiseFiles(t *testing.T) { // not beside others: it takes files away from them
	var before, now unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	few := unix.Rlimit{Cur: 200, Max: before.Max}
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	require.NoError(t, RaiseFiles(50))
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &now))
	require.Equal(t, few, now, "it is enough")
	require.NoError(t, RaiseFiles(1000))
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &now))
	require.GreaterOrEqual(t, now.Cur, uint64(1100))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	require.EqualError(t, RaiseFiles(1<<40), fmt.Sprintf(
		"1099511627776 clients need 1099511627876 open files, and this process may open %d: raise the hard limit (ulimit -Hn)", before.Max))
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &now))
	require.Equal(t, before.Max, now.Cur, "as far as it goes")
}

// Many clients connect from many addresses, for one has ports for 28,000 only.
func TestSources(t *testing.T) {
	for i, want := range map[int][4]byte{
		0: {127, 0, 0, 1}, perSource - 1: {127, 0, 0, 1}, perSource: {127, 0, 0, 2}, 254 * perSource: {127, 0, 0, 255},
		255 * perSource: {127, 0, 1, 0}, 256 * perSource: {127, 0, 1, 1},
	} {
		require.Equal(t, want, source(i), i)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	for _, i := range []int32{0, perSource} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(fd)
		c := &client{fd: int32(fd), index: i}
		require.NoError(t, new(Swarm).dial(c, netip.MustParseAddrPort(l.Addr().String())))
		conn, err := l.Accept()
		require.NoError(t, err)
		defer conn.Close()
		from := source(int(i))
		require.Equal(t, net.IP(from[:]).String(), conn.RemoteAddr().(*net.TCPAddr).IP.String())
	}
}

// Who has stalled may read only when all is over that it was disconnected. It comes back,
// and gets what it is owed. Who is refused then has lost that, and the run fails.
func TestTardyClientsComeBack(t *testing.T) {
	for name, again := range map[string]struct {
		server *fake // nil: it refuses
		want   Counts
		closed int
	}{
		"back":    {&fake{messages: []string{fakeReady, event(2, 0)}, requests: make(chan string, 1)}, Counts{Delivered: 2}, 0},
		"refused": {nil, Counts{Delivered: 1, Cut: 1}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			require.NoError(t, err)
			defer l.Close()
			hangUp := make(chan struct{})
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				(&fake{messages: []string{fakeReady, event(1, 0)}, requests: make(chan string, 1)}).serve(t, conn)
				<-hangUp
				_, _ = conn.Write(appendFrame(nil, opClose, []byte("\x11\x3dslow_consumer"), false))
				if conn, err = l.Accept(); err != nil {
					return
				}
				if again.server != nil {
					again.server.serve(t, conn)
				} else {
					_, _ = conn.Write([]byte("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"))
				}
			}()
			s := testSwarm(t, &fake{listener: l}, 1, 0)
			s.KeepCursors()
			require.NoError(t, s.Connect(t.Context()))
			await(t, s, func(snap Snapshot) bool { return snap.Counts.Delivered == 1 })
			require.Equal(t, 1, s.Stall(1))
			s.Stall(0)
			close(hangUp)
			r := &run{target: &Target{Name: "fake"}, swarm: s, say: func(string, ...any) {}, result: Result{Errors: map[string]int{}}}
			r.settle(t.Context(), []uint64{2})
			require.Equal(t, again.want, r.result.Counts)
			require.Equal(t, again.closed, r.result.Closed)
			require.Len(t, r.result.faults(), again.closed)
			require.Equal(t, 1, r.result.Errors["closed 4413 slow_consumer"])
		})
	}
}
