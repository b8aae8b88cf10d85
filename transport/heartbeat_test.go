package transport_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport"
)

// An hour of silence is a heartbeat in each interval, which is the connection's
// own; what was published elsewhere moves its cursor.
func TestHeartbeats(t *testing.T) {
	bubble(t, nil, func(t *testing.T, i *instance) {
		long := token(t, func(c *auth.Claims) { c.ExpiresAt = time.Now().Add(24 * time.Hour).Unix() })
		s := i.stream("/api/v1/stream?topics=quiet&token=" + long)
		s.begin()
		last := time.Now()
		for range 100 {
			id := i.publish("elsewhere", "1")
			b := s.next()
			require.Equal(t, block{id, "control", `{"op":"heartbeat","cursor":"` + id + `"}`, ""}, b)
			require.GreaterOrEqual(t, time.Since(last), 15*time.Second)
			require.LessOrEqual(t, time.Since(last), 20*time.Second)
			last = time.Now()
		}
		require.NoError(t, s.body.Close())

		// What moves the cursor by itself takes the heartbeat's place.
		s = i.stream("/api/v1/stream?topics=a&token=" + long)
		s.begin()
		for range 10 {
			time.Sleep(14 * time.Second)
			id := i.publish("a", "1")
			require.Equal(t, id, s.next().id)
		}
		quiet := time.Now()
		require.Contains(t, s.next().data, "heartbeat")
		require.GreaterOrEqual(t, time.Since(quiet), 15*time.Second)
	})
}

// Each connection has an interval of its own: thousands do not beat as one.
func TestHeartbeatsAreSpread(t *testing.T) {
	bubble(t, nil, func(t *testing.T, i *instance) {
		began := time.Now()
		path := "/api/v1/stream?topics=a&token=" + token(t, nil)
		at := make(chan time.Duration, 30)
		for range cap(at) {
			s := i.stream(path)
			s.begin()
			go func() { s.next(); at <- time.Since(began) }()
		}
		seen := map[time.Duration]bool{}
		for range cap(at) {
			d := <-at
			require.True(t, 15*time.Second <= d && d <= 20*time.Second, d)
			seen[d.Round(100*time.Millisecond)] = true
		}
		require.Greater(t, len(seen), 10)
	})
}

// A WebSocket's own pings, and those of its client, do not keep its heartbeats
// back: its cursor has to move too.
func TestHeartbeatsOfWebSocket(t *testing.T) {
	bubble(t, nil, func(t *testing.T, i *instance) {
		ws := i.dial("/api/v1/ws?topics=quiet&token=" + token(t, nil))
		require.Contains(t, ws.next(), "welcome")
		require.Contains(t, ws.next(), "subscribed")
		asking, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { // asks all the time
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				select {
				case <-asking.Done():
					return
				case <-tick.C:
					_ = ws.ws.Write(asking, websocket.MessageText, []byte(`{"op":"ping"}`))
				}
			}
		}()
		last := time.Now()
		for beats := 0; beats < 20; {
			m := ws.next()
			if m == `{"op":"pong"}` {
				continue
			}
			require.Contains(t, m, `{"op":"heartbeat","cursor":"`)
			require.LessOrEqual(t, time.Since(last), 20*time.Second)
			last = time.Now()
			beats++
		}
	})
}

// While the tenant's channel is lost no cursor can advance: over SSE a comment
// keeps the connection alive, over a WebSocket a heartbeat without a cursor.
func TestHeartbeatWithoutPosition(t *testing.T) {
	bubble(t, nil, func(t *testing.T, i *instance) {
		tok := token(t, nil)
		s := i.stream("/api/v1/stream?topics=a&token=" + tok)
		_, subscribed := s.begin()
		ws := i.dial("/api/v1/ws?topics=a&token=" + tok)
		require.Contains(t, ws.next(), "welcome")
		require.Contains(t, ws.next(), "subscribed")
		i.hub.Lost("acme")
		began := time.Now()
		comment, err := s.in.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, ":\n", comment)
		require.LessOrEqual(t, time.Since(began), 20*time.Second)
		require.Equal(t, `{"op":"heartbeat"}`, ws.next())
		i.hub.Covered("acme")
		synctest.Wait()
		require.Equal(t, subscribed.id, s.next().id, "the cursor again")
		for m := ws.next(); m != `{"op":"heartbeat","cursor":"`+subscribed.id+`"}`; m = ws.next() {
			require.Equal(t, `{"op":"heartbeat"}`, m)
		}
	})
}

// A client that answers no ping is gone, though its socket is open: it is told,
// and closed. So is one of whose frame a byte comes now and then, and never the end.
func TestNoPong(t *testing.T) {
	for name, says := range map[string]func(write func(string) bool){
		"mute": func(func(string) bool) {},
		"a frame that takes its time": func(write func(string) bool) {
			for b := range bytes.SplitSeq([]byte(maskedFrame(1, strings.Repeat("x", 100))), nil) {
				if !write(string(b)) {
					return
				}
				time.Sleep(time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, i *instance) {
				conn, err := i.client().DialContext(t.Context(), "tcp", i.addr)
				require.NoError(t, err)
				mute := &raw{t: t, net: conn, in: newReader(conn)}
				mute.handshake("/api/v1/ws?topics=a&token="+token(t, nil), "HTTP/1.1")
				mute.accepted()
				var saying sync.WaitGroup
				saying.Go(func() { says(func(b string) bool { _, err := io.WriteString(conn, b); return err == nil }) })
				began := time.Now()
				var got []string
				for {
					opcode, payload, err := mute.tryFrame()
					if err != nil {
						break
					}
					if name, _, found := strings.Cut(strings.TrimPrefix(payload, `{"op":"`), `"`); found {
						got = append(got, name)
					} else {
						got = append(got, fmt.Sprintf("%d %q", opcode, payload))
					}
					if opcode == 8 {
						require.GreaterOrEqual(t, time.Since(began), 25*time.Second)
						require.LessOrEqual(t, time.Since(began), 30*time.Second)
					}
				}
				require.Equal(t, []string{"welcome", "subscribed", "heartbeat", `9 ""`, "bye", `8 "\x118no_pong"`}, sortPing(got))
				require.NoError(t, conn.Close())
				saying.Wait()
				synctest.Wait()
				require.Contains(t, i.lines.String(), `"reason":"no_pong"`)
			})
		})
	}
}

// sortPing puts the first ping after the heartbeat that is due with it.
func sortPing(got []string) []string {
	for n := range got[:len(got)-1] {
		if got[n] == `9 ""` && got[n+1] == "heartbeat" {
			got[n], got[n+1] = got[n+1], got[n]
		}
	}
	return got
}

// One that answers stays for ever; any message counts as an answer.
func TestPongs(t *testing.T) {
	bubble(t, nil, func(t *testing.T, i *instance) {
		tok := token(t, func(c *auth.Claims) { c.ExpiresAt = time.Now().Add(24 * time.Hour).Unix() })
		answers := i.dial("/api/v1/ws?token=" + tok) // the library answers pings while it reads
		require.Contains(t, answers.next(), "welcome")
		conn, err := i.client().DialContext(t.Context(), "tcp", i.addr)
		require.NoError(t, err)
		talks := &raw{t: t, net: conn, in: newReader(conn)}
		talks.handshake("/api/v1/ws?token="+tok, "HTTP/1.1")
		talks.accepted()
		for range 20 {
			for opcode := byte(0); opcode != 9; opcode, _ = talks.frame() {
			}
			talks.write(maskedFrame(1, `{"op":"ping"}`))
		}
		require.NoError(t, conn.Close())
		for range 10 {
			require.Contains(t, answers.next(), "heartbeat")
		}
	})
}

// A slow client is not a dead one: what it has to read before the ping does not
// count against its answer.
func TestSlowReplayIsNoMissingPong(t *testing.T) {
	bubble(t, nil, func(t *testing.T, i *instance) {
		first := i.publish("a", "0")
		for n := range 100 {
			i.put(large("a", n))
		}
		conn, err := i.client().DialContext(t.Context(), "tcp", i.addr)
		require.NoError(t, err)
		slow := &raw{t: t, net: conn, in: newReader(conn)}
		slow.handshake("/api/v1/ws?topics=a&since="+first+"&token="+token(t, nil), "HTTP/1.1")
		slow.accepted()
		got := 0
		for opcode, m := slow.frame(); !strings.HasPrefix(m, `{"op":"subscribed"`); opcode, m = slow.frame() {
			require.NotContains(t, m, `{"op":"bye"`)
			if opcode == 9 {
				slow.write(maskedFrame(10, ""))
			} else if strings.HasPrefix(m, `{"id"`) {
				require.Equal(t, got, numberOf(t, m))
				got++
				time.Sleep(2 * time.Second) // 25 kB/s
			}
		}
		require.Equal(t, 100, got)
		require.NoError(t, conn.Close())
	})
}

// The end of a token is told a minute ahead, and is the end of the connection.
func TestExpiry(t *testing.T) {
	bubble(t, nil, func(t *testing.T, i *instance) {
		ends := time.Now().Add(10 * time.Minute).Truncate(time.Second)
		tok := token(t, func(c *auth.Claims) { c.ExpiresAt = ends.Unix() })
		id := i.publish("a", "1")
		s := i.stream("/api/v1/stream?topics=a&token=" + tok)
		s.begin()
		ws := i.dial("/api/v1/ws?token=" + tok)
		expiring := fmt.Sprintf(`{"op":"expiring","expires_at":"%s"}`, ends.UTC().Format(time.RFC3339))
		b := s.next()
		for ; strings.Contains(b.data, "heartbeat"); b = s.next() {
		}
		require.Equal(t, block{"", "control", expiring, ""}, b)
		require.Equal(t, time.Minute, time.Until(ends))
		m := ws.next()
		for m != expiring {
			m = ws.next()
		}
		for b = s.next(); b.retry == ""; b = s.next() {
			require.Contains(t, b.data, "heartbeat")
		}
		require.Equal(t, time.Duration(0), time.Until(ends))
		require.Equal(t, block{id, "control", byeJSON(protocol.CloseUnauthorized, b.retry, id), ""}, s.next())
		for m = ws.next(); strings.Contains(m, "heartbeat"); m = ws.next() {
		}
		require.Contains(t, m, `{"op":"bye","code":4401,"reason":"unauthorized"`)
		_, err := ws.read()
		require.Equal(t, websocket.StatusCode(4401), websocket.CloseStatus(err))
		require.Zero(t, time.Until(ends))
		require.Equal(t, 401, i.in(t).do("GET", "/api/v1/stream?topics=a", token(t, func(c *auth.Claims) { c.ExpiresAt = ends.Add(-30 * time.Second).Unix() }), "").status)
	})
}

// With less than a minute left the word comes at once; a token accepted in the
// leeway lives to its end, and no longer.
func TestExpirySoon(t *testing.T) {
	for name, left := range map[string]time.Duration{"soon": 30 * time.Second, "in the leeway": -10 * time.Second} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, i *instance) {
				time.Sleep(time.Minute)
				ends := time.Now().Add(left).Truncate(time.Second)
				ws := i.dial("/api/v1/ws?token=" + token(t, func(c *auth.Claims) { c.ExpiresAt = ends.Unix() }))
				require.Contains(t, ws.next(), "welcome")
				require.Contains(t, ws.next(), `{"op":"expiring"`)
				m := ws.next()
				for ; strings.Contains(m, "heartbeat"); m = ws.next() {
				}
				require.Contains(t, m, `"code":4401`)
				if left < 0 {
					ends = ends.Add(auth.Leeway)
				}
				require.Equal(t, time.Duration(0), time.Until(ends))
			})
		})
	}
}

// A client that was refused after its upgrade, and stays, has no session: nothing is
// due for it but its end.
func TestRefusedClientThatStays(t *testing.T) {
	t.Parallel()
	i := start(t, func(o *transport.Options) { o.Limits.Heartbeat = time.Second })
	stays := i.raw(0)
	conn := stays.net
	stays.write("GET /api/v1/ws?token=x HTTP/1.1\r\nHost: " + strings.TrimPrefix(i.base, "http://") + "\r\nOrigin: " + i.base + "\r\nConnection: Upgrade\r\n" +
		"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	stays.accepted()
	require.Eventually(t, func() bool { // until the hub has closed, after the linger time
		_, err := conn.Write([]byte{0})
		return err != nil
	}, time.Minute, 50*time.Millisecond)
	require.NoError(t, conn.Close())
	require.NoError(t, i.server.Close()) // it waits for what was due
	require.NotContains(t, i.lines.String(), "panicked")
}
