package torture

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"github.com/pushhub/pushhub/loadtest/history"
)

// What faults do, and what must hold meanwhile.

func pick[T any](rng *rand.Rand, of []T) T { return of[rng.IntN(len(of))] }

func seconds(rng *rand.Rand, from, to int) time.Duration {
	return time.Duration(from*1000+rng.IntN((to-from)*1000)) * time.Millisecond
}

// noticed is after what time an instance has found out that a client is gone: a
// heartbeat and the wait for a pong. Where the kernel still takes what is sent and
// nobody acknowledges it, until it takes no more, and then as long once more. The rest
// is for a loaded machine.
func noticed(taken bool) time.Duration {
	const silent, rest = (3 + 6) * time.Second, 2 * time.Second
	if taken {
		return silent + rest
	}
	return 2*silent + rest
}

// vanish has clients gone without a word; the instance finds out by itself.
func vanish(ctx context.Context, w *world, rng *rand.Rand) error {
	h := pick(rng, w.hubs)
	sockets := func(metric string) float64 {
		n, _ := h.metricWith(ctx, metric, `transport="websocket"`)
		return n
	}
	unanswered := func() float64 { return h.disconnects(ctx)["no_pong"] }
	taken := rng.IntN(2) == 0
	began, before, pings := time.Now(), sockets("pushhub_disconnects_total"), unanswered()
	gone := sockets("pushhub_connections")           // some that the proxy still has may have ended there
	gone = min(gone, float64(h.front.vanish(taken))) // and others have come since
	err := await(ctx, "it is noticed that clients are gone", func() bool { return sockets("pushhub_disconnects_total") >= before+gone })
	if took := time.Since(began); took > noticed(taken) {
		w.wrong("%s notices after %v that clients are gone", h.name, took)
	}
	if err == nil && unanswered() < pings+gone { // others may have been among them: one of those is yet to be noticed
		err = pause(ctx, time.Until(began.Add(noticed(taken))))
	}
	return err
}

// weather changes that of links for a while.
func (w *world) weather(ctx context.Context, l links, d time.Duration, change func(*weather)) error {
	var next weather
	change(&next)
	l.set(func(x *weather) { x.delay, x.hold, x.deaf = next.delay, next.hold, next.deaf })
	defer l.set(func(x *weather) { x.delay, x.hold, x.deaf = 0, 0, "" })
	return pause(ctx, d)
}

// replaced is after what time an instance has replaced a connection that is deaf: two
// verifies in a row found that, each within a heartbeat, and waited a second for what is
// late. The rest is for a loaded machine.
const replaced = 2*(3+1)*time.Second + 2*time.Second

// deafen has an instance hear nothing of what Redis publishes, on connections that live.
func (w *world) deafen(ctx context.Context, h *hub, d time.Duration) error {
	const reconnects = "pushhub_log_reconnects_total"
	clients, err := h.metric(ctx, "pushhub_connections")
	before, err2 := h.metric(ctx, reconnects)
	if err = cmp.Or(err, err2, w.weather(ctx, h.back, d, func(x *weather) { x.deaf = ":" })); err != nil {
		return err
	}
	after, err := h.metric(ctx, reconnects)
	if clients > 0 && d >= replaced && after == before { // without clients it listens to nothing
		w.wrong("%s has not replaced a connection that was deaf for %v", h.name, d)
	}
	return err
}

// listening waits until all instances hear the raw channels: what one alone hears is lost
// with it.
func (w *world) listening(ctx context.Context) error {
	return await(ctx, "all instances listen", func() bool {
		n := int64(0)
		for _, primary := range w.db.primaries(ctx) {
			n += primary.client.PubSubNumSub(ctx, "pushhub:ingest").Val()["pushhub:ingest"]
		}
		return int(n) == len(w.hubs)
	})
}

// restart kills an instance and starts it again.
func (w *world) restart(ctx context.Context, h *hub, rng *rand.Rand) error {
	if err := w.listening(ctx); err != nil {
		return err
	}
	h.kill()
	if err := pause(ctx, seconds(rng, 0, 3)); err != nil {
		return err
	}
	return h.up(ctx)
}

// ingester gives the instance that ingests, and is not the one that is gone.
func (w *world) ingester(ctx context.Context, gone *hub) (found *hub, err error) {
	err = await(ctx, "one instance ingests", func() bool {
		for _, h := range w.hubs {
			if h == gone {
				continue
			}
			if v, err := h.metric(ctx, "pushhub_ingesting"); err == nil && v == 1 {
				found = h
				return true
			}
		}
		return false
	})
	return found, err
}

// takeOver bounds the time until another ingests.
const takeOver = 7 * time.Second

// takenOver waits until another ingests than the one that is gone.
func (w *world) takenOver(ctx context.Context, gone *hub) error {
	began := time.Now()
	if _, err := w.ingester(ctx, gone); err != nil {
		return err
	}
	if took := time.Since(began); took > takeOver {
		w.wrong("the next instance ingests after %v", took)
	}
	return nil
}

func killIngester(ctx context.Context, w *world, rng *rand.Rand) error {
	if err := w.listening(ctx); err != nil {
		return err
	}
	h, err := w.ingester(ctx, nil)
	if err != nil {
		return err
	}
	h.kill()
	if err := w.takenOver(ctx, h); err != nil {
		return err
	}
	if err := pause(ctx, seconds(rng, 0, 2)); err != nil {
		return err
	}
	return h.up(ctx)
}

func zombie(ctx context.Context, w *world, rng *rand.Rand) error {
	if err := w.listening(ctx); err != nil {
		return err
	}
	h, err := w.ingester(ctx, nil)
	if err != nil {
		return err
	}
	w.balancer.take(h, true)
	defer w.balancer.take(h, false)
	h.signal(syscall.SIGSTOP)
	if err = w.takenOver(ctx, h); err == nil { // else it would be no zombie
		err = pause(ctx, seconds(rng, 0, 6))
	}
	h.signal(syscall.SIGCONT)
	if err != nil {
		return err
	}
	return await(ctx, h.name+" is back", func() bool { return h.status(ctx, "/health") == http.StatusOK })
}

// jumps are by how much a clock is set wrong: less than a token's leeway, and far more
// than all that is kept.
var jumps = []time.Duration{7 * time.Second, -7 * time.Second, time.Hour, -time.Hour, 40 * 24 * time.Hour, -40 * 24 * time.Hour}

// jump sets the clock of an instance wrong for a while. Order, retention and the log's
// ages do not go by it; tokens do, and those of readers are good for long enough.
func jump(ctx context.Context, w *world, rng *rand.Rand) error {
	h := pick(rng, w.hubs)
	err := w.undisturbed(ctx, func() error {
		for range 3 {
			off := pick(rng, jumps)
			if err := h.setClock(off); err != nil {
				return err
			}
			if is := h.health(ctx).Timestamp; time.Until(is.Add(-off)).Abs() > 5*time.Second {
				return fmt.Errorf("the clock of %s was to be off by %v, and it says %v", h.name, off, is)
			}
			if err := pause(ctx, seconds(rng, 1, 3)); err != nil {
				return err
			}
		}
		return h.setClock(0)
	})
	if err != nil {
		return err
	}
	return w.expires(ctx, h)
}

// expires has a token expire because the clock of an instance jumps: the connection ends
// with the next heartbeat, not with the next that it would have been looked at.
func (w *world) expires(ctx context.Context, h *hub) error {
	const heartbeat, good = 3 * time.Second, 30 * time.Minute
	short, err := w.token(prober, good)
	if err != nil {
		return err
	}
	conn, _, err := websocket.Dial(ctx, "ws://"+h.addr+"/api/v1/ws?token="+short, nil)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	if err := h.setClock(2 * good); err != nil {
		return err
	}
	reading, cancel := context.WithTimeout(ctx, heartbeat+2*time.Second) // for a loaded machine
	defer cancel()
	for err == nil {
		_, _, err = conn.Read(reading)
	}
	if websocket.CloseStatus(err) != 4401 {
		w.wrong("a token expired by the clock of %s, and its connection ended so: %v", h.name, err)
	}
	return h.setClock(0)
}

// roll restarts every instance in order, as an update of a deployment does.
func roll(ctx context.Context, w *world, _ *rand.Rand) error {
	for _, h := range w.hubs {
		w.balancer.take(h, true) // readiness is off at once
		began := time.Now()
		w.draining.Store(h)
		w.history.Add(history.Record{Kind: history.Ending, Why: h.name})
		h.signal(syscall.SIGTERM)
		off := time.Now().Add(time.Second)
		for h.status(ctx, "/health") == http.StatusOK {
			if time.Now().After(off) {
				w.wrong("%s is ready a second after SIGTERM", h.name)
				break
			}
		}
		code, err := h.wait(patience)
		w.draining.Store(nil)
		if err != nil {
			return err
		}
		if took := time.Since(began); code != 0 || took > w.config.Drain {
			w.wrong("%s ended with %d after %v", h.name, code, took)
		}
		if err := h.up(ctx); err != nil {
			return err
		}
		w.balancer.take(h, false)
	}
	return nil
}

// undisturbed runs f, during which no instance may disconnect anybody but for being
// slow.
func (w *world) undisturbed(ctx context.Context, f func() error) error {
	count := func() map[string]float64 {
		sum := map[string]float64{}
		for _, h := range w.hubs {
			for reason, n := range h.disconnects(ctx) {
				if reason != "slow_consumer" && !strings.HasPrefix(reason, "client_") { // by itself
					sum[reason] += n
				}
			}
		}
		return sum
	}
	before := count()
	if err := f(); err != nil {
		return err
	}
	for reason, after := range count() {
		if after > before[reason] {
			w.wrong("%.0f clients were disconnected: %s", after-before[reason], reason)
		}
	}
	return nil
}

// cuts is how often cutPubSub does.
const cuts = 3

func cutPubSub(ctx context.Context, w *world, _ *rand.Rand) error {
	// Who is yet to catch up reads as much as it has missed, page by page.
	caughtUp := !slices.ContainsFunc(w.readers, func(r *reader) bool { return !r.has("", 0) })
	count := func() (came int, reads int64, err error) {
		for _, h := range w.hubs {
			n, failed := h.metric(ctx, "pushhub_connects_total")
			came, err = came+int(n), cmp.Or(err, failed)
		}
		return came, w.db.reads(ctx), err
	}
	came, reads, err := count()
	if err != nil {
		return err
	}
	err = w.undisturbed(ctx, func() error {
		for range cuts {
			primaries := w.db.primaries(ctx)
			w.cuts.Add(1)
			for _, n := range primaries {
				if err := n.do(ctx, "CLIENT", "KILL", "TYPE", "pubsub"); err != nil {
					return err
				}
			}
			w.cuts.Add(1)
			if err := pause(ctx, 500*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	cameNow, readsNow, err := count()
	// What was missed is read once for each topic and instance, by few clients or many,
	// and verified once or twice. Who comes back meanwhile may read what it missed.
	most := cuts*len(w.hubs)*len(tenants)*(len(names)+2) + (cameNow-came)*len(names)
	w.say("           the log was read %d times", readsNow-reads)
	if got := readsNow - reads; err == nil && caughtUp && got > int64(most) {
		w.wrong("to heal %d cuts the log was read %d times, not %d at most", cuts, got, most)
	}
	return err
}

// cutOff has an instance without Redis, or without one server of it, for two seconds or
// more. cut does that to links, and undoes it.
func (w *world) cutOff(ctx context.Context, rng *rand.Rand, longest int, cut func(off links, is bool)) error {
	if err := w.listening(ctx); err != nil {
		return err
	}
	h := pick(rng, w.hubs)
	off := h.back.some(rng)
	cut(off, true)
	defer cut(off, false)
	created, err := w.probe(ctx, seconds(rng, 2, longest), h)
	if created > 0 && len(off) == len(h.back) {
		w.wrong("%s has acknowledged %d events without a Redis", h.name, created)
	}
	return err
}

// answerTime is within which the contract has a publish answered.
const answerTime = 5 * time.Second

// probe publishes again and again while a fault lasts, to a tenant that nobody
// reads: each attempt has to be answered in time, by 201 or 503. It says how many by
// 201.
func (w *world) probe(ctx context.Context, lasts time.Duration, hubs ...*hub) (created int, err error) {
	until := time.Now().Add(lasts)
	for time.Now().Before(until) {
		h := hubs[rand.IntN(len(hubs))]
		began := time.Now()
		status, err := w.publishProbe(ctx, h)
		if took := time.Since(began); err != nil || took > answerTime+500*time.Millisecond || status != http.StatusCreated && status != http.StatusServiceUnavailable {
			w.wrong("%s answered a publish with %d after %v: %v", h.name, status, took, err)
		}
		if status == http.StatusCreated {
			created++
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return created, err
		}
	}
	return created, nil
}

func (w *world) publishProbe(ctx context.Context, h *hub) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+h.addr+"/api/v1/events", strings.NewReader(`{"topic":"probe","type":"probe.v1","data":1}`))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+w.tokens[prober])
	r.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode, err
}

// prober is the tenant of probes.
const prober = "prober"
