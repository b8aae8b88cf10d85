package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub/logtest"
)

// reader is a client that checks what it gets: the events of its tenant with
// data {"n":0}, {"n":1}, … in order, none missing, none twice.
type reader struct {
	name string
	next int
	last string // cursor of the newest event
	gaps int
}

// take checks one message; it is false when it is not the event that is due.
func (r *reader) take(message string) error {
	var m struct {
		ID   string
		Op   string
		Data struct{ N int }
	}
	if err := json.Unmarshal([]byte(message), &m); err != nil {
		return fmt.Errorf("%s: %w: %s", r.name, err, message)
	}
	if m.Op == "gap" {
		r.gaps++
	}
	if m.Op != "" {
		return nil
	}
	if m.Data.N != r.next {
		return fmt.Errorf("%s: event %d is due and %d came: %s", r.name, r.next, m.Data.N, message)
	}
	r.next++
	r.last = m.ID
	return nil
}

// followSSE reads until the n-th event has come. It leaves every so many events
// and comes back to the next of the urls with the last id, as an EventSource does.
func (r *reader) followSSE(ctx context.Context, urls []string, query string, n, leave int, ready func()) error {
	for turn := 0; r.next < n; turn++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, urls[turn%len(urls)]+"/api/v1/stream?"+query, nil)
		if err != nil {
			return err
		}
		if r.last != "" {
			req.Header.Set("Last-Event-ID", r.last)
		}
		answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			return fmt.Errorf("%s at %d: %w", r.name, r.next, err)
		}
		lines := bufio.NewScanner(answer.Body)
		for got := 0; r.next < n && (leave == 0 || got < leave) && lines.Scan(); {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			if strings.HasPrefix(data, `{"op":"subscribed"`) {
				ready()
			}
			before := r.next
			if err := r.take(data); err != nil {
				answer.Body.Close()
				return err
			}
			got += r.next - before
		}
		answer.Body.Close()
		if ctx.Err() != nil {
			return fmt.Errorf("%s stopped at %d of %d: %w", r.name, r.next, n, ctx.Err())
		}
	}
	return nil
}

// followWS reads until the n-th event has come.
func (r *reader) followWS(ctx context.Context, url, query string, n int, ready func()) error {
	ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(url, "http")+"/api/v1/ws?"+query,
		&websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
	if err != nil {
		return err
	}
	defer func() { _ = ws.CloseNow() }()
	for r.next < n {
		_, message, err := ws.Read(ctx)
		if err != nil {
			return fmt.Errorf("%s at %d of %d: %w", r.name, r.next, n, err)
		}
		if strings.HasPrefix(string(message), `{"op":"subscribed"`) {
			ready()
		}
		if err := r.take(string(message)); err != nil {
			return err
		}
	}
	return nil
}

// TestManyReaders: two instances on one Redis, raw PUBLISH at 1,000 messages/s
// over 50 tenants, 200 SSE and 200 WebSocket readers over both; half of the SSE
// readers leave and come back to the other instance all the time. It lasts 6 s,
// or SYSTEM_SECONDS.
func TestManyReaders(t *testing.T) {
	const tenants, rate = 50, 1000
	seconds := 6
	if s := os.Getenv("SYSTEM_SECONDS"); s != "" {
		_, err := fmt.Sscan(s, &seconds)
		require.NoError(t, err)
	}
	each := seconds * rate / tenants
	r := logtest.StartRedis(t)
	env := []string{"HOST=127.0.0.1", "PORT=0", "JWT_SECRET=" + secret, "REDIS_URL=" + r.URL(), "RETENTION=>:100000/1h"}
	_, one := startProgram(t, env, "serve")
	_, two := startProgram(t, env, "serve")
	urls := []string{one, two}
	for _, url := range urls {
		eventually(t, "health", func() bool { status, _ := get(t, url+"/health", ""); return status == http.StatusOK })
	}
	tokens := make([]string, tenants)
	for i := range tokens {
		tokens[i] = signToken(t, fmt.Sprintf("--tenant=t%d", i))
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(seconds)*time.Second+time.Minute)
	defer cancel()
	var work, subscribed sync.WaitGroup
	failed := make(chan error, 400)
	for i := range 400 {
		rd := &reader{name: fmt.Sprintf("reader %d of t%d", i, i%tenants)}
		query := "topics=alerts,nodes.%3E&token=" + tokens[i%tenants]
		subscribed.Add(1)
		ready := sync.OnceFunc(subscribed.Done)
		work.Go(func() {
			var err error
			switch {
			case i%2 == 0:
				err = rd.followWS(ctx, urls[i/2%2], query, each, ready)
			case i%4 == 1:
				err = rd.followSSE(ctx, []string{urls[i/4%2]}, query, each, 0, ready)
			default:
				err = rd.followSSE(ctx, []string{urls[i/4%2], urls[(i/4+1)%2]}, query, each, 10+i%13, ready)
			}
			if err == nil && rd.gaps > 0 {
				err = fmt.Errorf("%s was told of %d gaps", rd.name, rd.gaps)
			}
			failed <- err
		})
	}
	subscribed.Wait()

	publishRaw(ctx, t, r, each, tenants, rate, func(int) {})
	work.Wait()
	close(failed)
	for err := range failed {
		require.NoError(t, err)
	}
}

// publishRaw publishes the numbers 0 to each-1 in every tenant, rate messages a
// second in all, on two kinds of channels. at is called before each number.
func publishRaw(ctx context.Context, t *testing.T, r *logtest.Redis, each, tenants, rate int, at func(n int)) {
	t.Helper()
	opts, err := redis.ParseURL(r.URL())
	require.NoError(t, err)
	client := redis.NewClient(opts)
	defer client.Close()
	began := time.Now()
	for n := range each {
		at(n)
		pipe := client.Pipeline()
		for i := range tenants {
			channel := fmt.Sprintf("alerts:tenant:t%d", i)
			if (n+i)%3 == 0 {
				channel = fmt.Sprintf("events:tenant:t%d:nodes.n%d.heat", i, n%7)
			}
			pipe.Publish(ctx, channel, fmt.Sprintf(`{"n":%d}`, n))
		}
		_, err := pipe.Exec(ctx)
		require.NoError(t, err)
		pace := time.NewTimer(time.Until(began.Add(time.Duration(n+1) * time.Second * time.Duration(tenants) / time.Duration(rate))))
		select {
		case <-pace.C:
		case <-ctx.Done():
		}
	}
}

// TestIngesterDies: the instance that ingests is killed under raw PUBLISH at
// 1,000 messages/s. The next takes over, and the readers of the other instance
// get every message once and in order.
func TestIngesterDies(t *testing.T) {
	const tenants, rate, seconds = 20, 1000, 8
	const each = seconds * rate / tenants
	r := logtest.StartRedis(t)
	env := []string{"HOST=127.0.0.1", "PORT=0", "JWT_SECRET=" + secret, "REDIS_URL=" + r.URL(), "RETENTION=>:100000/1h"}
	leader, leads := startProgram(t, env, "serve")
	ingests := func(url string) bool {
		_, body := get(t, url+"/metrics", "")
		return strings.Contains(body, "\npushhub_ingesting 1\n")
	}
	eventually(t, "an instance that ingests", func() bool { return ingests(leads) })
	_, other := startProgram(t, env, "serve")
	eventually(t, "health", func() bool { status, _ := get(t, other+"/health", ""); return status == http.StatusOK })
	require.False(t, ingests(other), "one at a time")

	ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second+time.Minute)
	defer cancel()
	var work, subscribed sync.WaitGroup
	failed := make(chan error, tenants)
	for i := range tenants {
		token := signToken(t, fmt.Sprintf("--tenant=t%d", i))
		subscribed.Add(1)
		work.Go(func() {
			rd := &reader{name: fmt.Sprintf("reader of t%d", i)}
			failed <- rd.followSSE(ctx, []string{other}, "topics=alerts,nodes.%3E&token="+token, each, 0, sync.OnceFunc(subscribed.Done))
		})
	}
	subscribed.Wait()
	var taking sync.WaitGroup
	publishRaw(ctx, t, r, each, tenants, rate, func(n int) {
		if n == each/4 {
			leader.signal(t, os.Kill)
			killed := time.Now()
			taking.Go(func() {
				eventually(t, "the other ingests", func() bool { return ingests(other) })
				if took := time.Since(killed); took > 7*time.Second {
					t.Errorf("the other ingests after %v", took)
				}
			})
		}
	})
	taking.Wait()
	work.Wait()
	close(failed)
	for err := range failed {
		require.NoError(t, err)
	}
	require.True(t, ingests(other))
}

// While Redis answers nothing, publishers are told so in time, however many they are,
// and nothing of them piles up.
func TestPausedRedisPilesNothingUp(t *testing.T) {
	t.Parallel()
	const publishers, each = 200, 3
	r := logtest.StartRedis(t)
	_, url := startProgram(t, []string{"JWT_SECRET=" + secret, "REDIS_URL=" + r.URL(), "HOST=127.0.0.1", "PORT=0"}, "serve")
	token := signToken(t, "--tenant=acme", "--publish=>")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: publishers}}
	publish := func() (int, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/api/v1/events", strings.NewReader(`{"topic":"a","type":"t.v1","data":1}`))
		if err != nil {
			return 0, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		answer, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, answer.Body)
		return answer.StatusCode, errors.Join(err, answer.Body.Close())
	}
	metric := func(name string) (value float64) {
		_, body := get(t, url+"/metrics", "")
		_, after, _ := strings.Cut(body, "\n"+name+" ")
		_, err := fmt.Sscan(after, &value)
		require.NoError(t, err, name)
		return value
	}
	created := func() bool { status, err := publish(); return err == nil && status == http.StatusCreated }
	eventually(t, "Redis is there", created)
	routines, memory := metric("go_goroutines"), metric("process_resident_memory_bytes")

	r.Pause()
	answers := make(chan error, publishers*each)
	for range publishers {
		go func() {
			for range each {
				began := time.Now()
				status, err := publish()
				if took := time.Since(began); err == nil && (status != http.StatusServiceUnavailable || took > 8*time.Second) { // 5 s, on a loaded machine
					err = fmt.Errorf("%d after %v", status, took)
				}
				answers <- err
			}
		}()
	}
	for n := range publishers * each {
		require.NoError(t, <-answers)
		if n%publishers == publishers/2 { // half are waiting
			require.Less(t, metric("go_goroutines"), routines+4*publishers)
			require.Less(t, metric("process_resident_memory_bytes"), memory+100<<20)
		}
	}
	r.Continue()
	eventually(t, "Redis is back", created)
	client.CloseIdleConnections()
	eventually(t, "nothing is left of them", func() bool { return metric("go_goroutines") < routines+20 })
}
