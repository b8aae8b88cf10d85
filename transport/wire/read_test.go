package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport/quiet"
	"github.com/pushhub/pushhub/transport/wire"
)

// frame gives a client's frame; mask 0, so that the payload can be read in it.
func frame(first byte, payload string) []byte {
	b := []byte{first, 0x80 | 126}
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	switch {
	case len(payload) < 126:
		b = []byte{first, 0x80 | byte(len(payload))}
	case len(payload) > 65535:
		b = binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, uint64(len(payload)))
	}
	b = append(b, 0, 0, 0, 0)
	return append(b, payload...)
}

// speaking opens a WebSocket Conn whose messages come to the channel.
func (l *link) speaking(message func(frames []byte) bool, early ...byte) chan string {
	l.t.Helper()
	got := make(chan string, 10_000)
	l.early = append([]byte{}, early...)
	l.open(usual, func(o *setup) {
		o.Encoding, o.MaxMessage = protocol.WebSocket, 1000
		o.message = func(frames []byte) bool {
			got <- string(frames)
			return message == nil || message(frames)
		}
		o.bye = func(code protocol.CloseCode, _ protocol.Cursor) []byte { return protocol.AppendCloseFrame(nil, code) }
	})
	return got
}

func (l *link) say(p ...[]byte) {
	l.t.Helper()
	_, err := l.far.Write(bytes.Join(p, nil))
	require.NoError(l.t, err)
}

// hears expects bytes from the hub.
func (l *link) hears(want string) {
	l.t.Helper()
	require.NoError(l.t, l.far.SetReadDeadline(time.Now().Add(10*time.Second)))
	got := make([]byte, len(want))
	_, err := io.ReadFull(l.in, got)
	require.NoError(l.t, err)
	require.Equal(l.t, want, string(got))
}

func text(s string) []byte { return frame(0x81, s) }

// Messages come whole and in order, however they are cut, with what was sent
// before anybody listened; pings between their parts are answered.
func TestMessages(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		early := bytes.Join([][]byte{text("early"), text("too"), text("cut")[:3]}, nil)
		got := l.speaking(nil, early...)
		l.say(text("cut")[3:])
		for _, want := range []string{"early", "too", "cut"} {
			require.Equal(t, string(text(want)), <-got)
		}
		parts := [][]byte{frame(0x01, "a"), frame(0x89, "1"), frame(0x00, "b"), frame(0x8a, "unasked"), frame(0x80, "c")}
		whole := string(parts[0]) + string(parts[2]) + string(parts[4])
		said := bytes.Join(parts, nil)
		for at := range said {
			l.say(said[:at])
			time.Sleep(50 * time.Microsecond) // perhaps it is read in two
			l.say(said[at:])
			require.Equal(t, whole, <-got)
			l.hears("\x8a\x011")
		}
		var many [][]byte
		for n := range 1000 {
			many = append(many, text(fmt.Sprint(n)), frame(0x89, "2"))
		}
		l.say(many...)
		for n := range 1000 {
			require.Equal(t, string(text(fmt.Sprint(n))), <-got)
			l.hears("\x8a\x012")
		}
		require.Less(t, l.conn.Silent(), 10*time.Second)
	})
}

// The next message waits for the one before; meanwhile the connection goes on.
func TestMessagesInTurn(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		turn := make(chan struct{})
		got := l.speaking(func([]byte) bool { <-turn; return true })
		l.say(text("1"), text("2"))
		require.Equal(t, string(text("1")), <-got)
		l.conn.Raw([]byte("meanwhile"))
		l.conn.Flush()
		l.hears("meanwhile")
		l.say(text("3"))
		require.Empty(t, got)
		turn <- struct{}{}
		require.Equal(t, string(text("2")), <-got)
		close(turn)
		require.Equal(t, string(text("3")), <-got)
	})
}

// One buffer is read into for all connections: what one client sends is nothing to the
// messages of another, not to one that is handled, waits for that, or is cut.
func TestBytesOfAnother(t *testing.T) {
	t.Parallel()
	e := wire.NewEngine()
	defer e.Close()
	handles, turn, got := make(chan string), make(chan struct{}, 1), make(chan string)
	await := func(what chan string) string {
		select {
		case s := <-what:
			return s
		case <-time.After(10 * time.Second):
			t.Fatal("nothing comes")
			return ""
		}
	}
	_, one := more(t, e, func(o *setup) {
		o.message = func(frames []byte) bool {
			handles <- ""
			<-turn
			got <- string(frames)
			return true
		}
	})
	defer one.Close()
	heard := make(chan string, 1)
	_, other := more(t, e, func(o *setup) { o.message = func([]byte) bool { heard <- ""; return true } })
	defer other.Close()
	shout := func() {
		for range 10 {
			_, err := other.Write(text(strings.Repeat("x", 8000)))
			require.NoError(t, err)
			await(heard)
		}
	}
	parts := [][]byte{text("handled"), frame(0x01, "in "), frame(0x80, "parts"), text("waits"), text("is cut")}
	said := bytes.Join(parts, nil)
	_, err := one.Write(said[:3])
	require.NoError(t, err)
	shout()
	_, err = one.Write(said[3 : len(said)-2])
	require.NoError(t, err)
	for n, want := range []string{string(parts[0]), string(parts[1]) + string(parts[2]), string(parts[3]), string(parts[4])} {
		if n == 3 {
			shout()
			_, err := one.Write(said[len(said)-2:])
			require.NoError(t, err)
		}
		await(handles)
		shout()
		turn <- struct{}{}
		require.Equal(t, want, await(got))
	}
}

func closed(code protocol.CloseCode) string { return string(protocol.AppendCloseFrame(nil, code)) }

func TestCloseHandshake(t *testing.T) {
	for payload, want := range map[string]string{"": "\x88\x00", "\x03\xe8bye": "\x88\x02\x03\xe8", "\x03": closed(1002), "\x03\xe8\xff": closed(1007)} {
		onBothPaths(t, func(t *testing.T, l *link) {
			got := l.speaking(nil)
			l.conn.Raw([]byte("before"))
			l.conn.Flush()
			l.hears("before")
			l.say(frame(0x88, payload), text("after"))
			l.hears(want)
			l.end()
			require.NoError(t, l.far.Close())
			<-l.conn.Done()
			require.Empty(t, got)
			if len(payload) == 1 || strings.HasSuffix(payload, "\xff") {
				require.NotZero(t, l.conn.Code())
			} else {
				require.Zero(t, l.conn.Code())
				require.True(t, l.conn.Left())
			}
		})
	}
}

func TestClientBreaksTheProtocol(t *testing.T) {
	for said, want := range map[string]string{
		"\x81\x01x": closed(1002), // unmasked
		"\xc1\x80":  closed(1002),
		string(text("fine")) + string(frame(0x80, "no")): closed(1002),
		"\x81\xfe\x03\xe9":       closed(1009),
		string(text("not text")): closed(1007),
	} {
		onBothPaths(t, func(t *testing.T, l *link) {
			l.speaking(func(frames []byte) bool { return !strings.HasSuffix(string(frames), "not text") })
			l.say([]byte(said))
			l.hears(want)
			require.NoError(t, l.far.Close())
			<-l.conn.Done()
			require.NotZero(t, l.conn.Code())
		})
	}
}

// However the client leaves, the connection ends, once.
func TestClientLeaves(t *testing.T) {
	for name, leave := range map[string]func(l *link) error{
		"closes":                 func(l *link) error { return l.far.Close() },
		"resets":                 func(l *link) error { _ = l.far.(*net.TCPConn).SetLinger(0); return l.far.Close() },
		"half of it":             func(l *link) error { return l.far.(*net.TCPConn).CloseWrite() },
		"in the midst of a word": func(l *link) error { l.say(text("word")[:7]); return l.far.Close() },
		"with its last word":     func(l *link) error { l.say(text("word")); return l.far.Close() },
	} {
		for _, enc := range []protocol.Encoding{protocol.WebSocket, protocol.SSE} {
			t.Run(name, func(t *testing.T) {
				onBothPaths(t, func(t *testing.T, l *link) {
					ended := make(chan struct{}, 2)
					l.open(usual, func(o *setup) {
						o.Encoding, o.MaxMessage = enc, 100
						o.ended = func() { ended <- struct{}{} }
					})
					require.NoError(t, leave(l))
					<-ended
					<-l.conn.Done()
					require.False(t, l.conn.Left())
					require.Empty(t, ended)
				})
			})
		}
	}
}

// A client that resets its connection in the midst of the end is not waited for.
func TestResetWhileItEnds(t *testing.T) {
	for name, begin := range map[string]func(l *link){
		"after bye":             func(l *link) { l.conn.Close(protocol.Drain); l.hears(closed(protocol.Drain)) },
		"after its close frame": func(l *link) { l.say(frame(0x88, "\x03\xe8")); l.hears("\x88\x02\x03\xe8") },
		"after a breach":        func(l *link) { l.say([]byte("\x81\x01x")); l.hears(closed(1002)) },
		"with a full socket":    func(l *link) { l.clog(0) },
		"bye in a full socket":  func(l *link) { l.clog(0); l.conn.Close(protocol.Drain) },
	} {
		t.Run(name, func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, l *link) {
				ended := make(chan struct{}, 2)
				l.open(small, func(o *setup) {
					o.Encoding, o.MaxMessage = protocol.WebSocket, 100
					o.bye = func(code protocol.CloseCode, _ protocol.Cursor) []byte { return protocol.AppendCloseFrame(nil, code) }
					o.ended = func() { ended <- struct{}{} }
				})
				begin(l)
				require.NoError(t, l.far.(*net.TCPConn).SetLinger(0))
				began := time.Now()
				require.NoError(t, l.far.Close())
				<-l.conn.Done()
				<-ended
				require.Less(t, time.Since(began), 4*time.Second, "who does not reset is waited for for five")
				require.Empty(t, ended)
				require.Zero(t, l.conn.Waiting())
			})
		})
	}
}

// A connection that is aborted while a message is handled ends for the client at once.
func TestAbortWhileHandling(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		handling, go_ := make(chan struct{}), make(chan struct{})
		ended := make(chan struct{}, 2)
		l.open(usual, func(o *setup) {
			o.Encoding, o.MaxMessage = protocol.WebSocket, 100
			o.message = func([]byte) bool { close(handling); <-go_; return true }
			o.ended = func() { ended <- struct{}{} }
		})
		l.say(text("word"))
		<-handling
		l.conn.Abort()
		require.NoError(t, l.far.SetReadDeadline(time.Now().Add(20*time.Second)))
		_, err := l.far.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		<-ended
		close(go_)
		require.Empty(t, ended)
	})
}

// A frame that comes in very many pieces, and very many frames that come at once, cost
// what their bytes do.
func TestManyPieces(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		const large, many = 1 << 20, 20_000
		var got atomic.Int64
		done := make(chan struct{})
		l.open(usual, func(o *setup) {
			o.Encoding, o.MaxMessage = protocol.WebSocket, large
			o.message = func(frames []byte) bool {
				if len(frames) > large {
					require.Equal(t, text(strings.Repeat("x", large)), frames)
				}
				if got.Add(1) == 1+many {
					close(done)
				}
				return true
			}
		})
		long := text(strings.Repeat("x", large))
		for len(long) > 0 {
			n := min(len(long), 1+rand.IntN(3000))
			l.say(long[:n])
			long = long[n:]
		}
		l.say(bytes.Repeat(text("word"), many))
		<-done
	})
}

// What time is due is asked for when it was wished, and sooner if that is.
func TestDue(t *testing.T) {
	onBothPaths(t, func(t *testing.T, l *link) {
		asked := make(chan time.Time, 10)
		answers := []time.Duration{150 * time.Millisecond, 0, 0}
		l.open(usual, func(o *setup) {
			o.due = func() time.Duration {
				asked <- time.Now()
				next := answers[0]
				answers = answers[1:]
				return next
			}
		})
		began := time.Now()
		l.conn.Wake(time.Hour)
		l.conn.Wake(200 * time.Millisecond)
		l.conn.Wake(time.Minute)
		first := <-asked
		require.GreaterOrEqual(t, first.Sub(began), 200*time.Millisecond)
		require.GreaterOrEqual(t, (<-asked).Sub(first), 50*time.Millisecond)
		l.conn.Wake(0)
		<-asked
	})
}

// Clients come, speak and go while events go out and hubs close: no descriptor is
// written or read that has become another's. What each hears is its own.
func TestChurn(t *testing.T) {
	e := wire.NewEngine()
	defer e.Close()
	listener, err := wire.Listen(t.Context(), "tcp", "127.0.0.1:0", 30*time.Second)
	require.NoError(t, err)
	defer listener.Close()
	const workers, rounds = 8, 200
	e1 := event("a", 1, 40)
	everybody := string(e1.Frame(protocol.WebSocket))
	var live sync.Mutex
	conns := make([][]*wire.Conn, workers) // guarded by live
	var all, ended sync.WaitGroup
	var pair sync.Mutex
	for w := range workers {
		all.Go(func() {
			for round := range rounds {
				name := fmt.Sprintf("%d-%d", w, round)
				pair.Lock()
				far, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", listener.Addr().String())
				require.NoError(t, err)
				near, err := listener.Accept()
				pair.Unlock()
				require.NoError(t, err)
				var seen counts
				o := options(&seen)
				o.Encoding, o.MaxMessage = protocol.WebSocket, 100
				o.bye = func(code protocol.CloseCode, _ protocol.Cursor) []byte { return protocol.AppendCloseFrame(nil, code) }
				var conn *wire.Conn
				made := make(chan struct{})
				o.message = func(frames []byte) bool {
					<-made
					conn.Raw(frames)
					conn.Flush()
					return true
				}
				ended.Add(1)
				o.ended = ended.Done
				conn = e.New(near, quiet.TCP(near), &o.Options, &o, nil)
				close(made)
				conn.Run(nil)
				live.Lock()
				conns[w] = append(conns[w], conn)[max(0, len(conns[w])-3):] // some have ended
				live.Unlock()
				var talk sync.WaitGroup
				echoes := 0
				talk.Go(func() {
					in := bufio.NewReader(far)
					_ = far.SetReadDeadline(time.Now().Add(30 * time.Second))
					for n := range 5 {
						word := string(text(fmt.Sprintf("%s-%d", name, n)))
						if _, err := io.WriteString(far, word); err != nil {
							return
						}
						for { // the events that come between are not masked
							if head, err := in.Peek(2); err != nil || head[1]&0x80 != 0 {
								break
							}
							got := make([]byte, len(everybody))
							if _, err := io.ReadFull(in, got); err != nil || got[0]&0x0f == 8 {
								return
							}
							if string(got) != everybody {
								t.Errorf("%q came for an event", got)
							}
						}
						echo := make([]byte, len(word))
						if _, err := io.ReadFull(in, echo); err != nil {
							return
						}
						if string(echo) != word {
							t.Errorf("%q came back for %q", echo, word)
						}
						echoes++
					}
				})
				switch round % 4 {
				case 0:
					conn.Close(protocol.Drain)
				case 1:
					conn.Abort()
				case 2:
					_ = far.(*net.TCPConn).SetLinger(0)
					_ = far.Close()
				}
				talk.Wait()
				if round%4 == 3 && echoes != 5 {
					t.Errorf("nobody disturbed %s, and it heard %d words of 5", name, echoes)
				}
				_ = far.Close()
				conn.Abort()
			}
		})
	}
	publishing := make(chan struct{})
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for {
			select {
			case <-publishing:
				return
			case <-time.After(100 * time.Microsecond):
			}
			live.Lock()
			for _, some := range conns {
				for _, c := range some {
					if c.Event(e1, true) {
						c.Flush()
					}
				}
			}
			live.Unlock()
		}
	})
	all.Wait()
	close(publishing)
	publisher.Wait()
	ended.Wait()
}
