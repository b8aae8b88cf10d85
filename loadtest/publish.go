package loadtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/redis/go-redis/v9"
)

// A Schedule says when which event is due: event i of the run, at Start plus i
// intervals, is one of topic i mod Topics. Nothing that a server does moves it.
type Schedule struct {
	Start  int64   // ns
	Rate   float64 // events a second, over all topics
	Topics int
	Size   int           // bytes of an event's data
	Linger time.Duration // a publisher waits so long after an event is due, for others that go with it
}

func (s Schedule) due(i uint64) int64 { return s.Start + int64(float64(i)*1e9/s.Rate) }

func (s Schedule) mark(i uint64) mark {
	return mark{n: i/uint64(s.Topics) + 1, k: uint32(i % uint64(s.Topics)), t: s.due(i)}
}

// A Publisher hands events to a server over one connection.
type Publisher interface {
	// Publish publishes events in their order. An error means that it is not known
	// which of them were published; the next call works on a new connection.
	Publish(ctx context.Context, marks []mark) error
	Close()
}

// Pace is how well publishers kept the schedule: the instrument's own part.
type Pace struct {
	Late   *hdrhistogram.Histogram // ns between due and sent
	Errors map[string]int
}

// Run publishes by the schedule until ctx ends, each topic over one of the
// publishers, so that its events stay in order. Where several are due to a
// publisher, it publishes up to batch of them at once. It gives the n of each
// topic's newest event, and calls uncertain for those whose outcome is unknown.
func (s Schedule) Run(ctx context.Context, publishers []Publisher, batch int, uncertain func(topic uint32, n uint64)) ([]uint64, Pace) {
	published := make([]uint64, s.Topics)
	paces := make([]Pace, len(publishers))
	var wg sync.WaitGroup
	for j, p := range publishers {
		wg.Go(func() { paces[j] = s.runOne(ctx, p, j, len(publishers), batch, published, uncertain) })
	}
	wg.Wait()
	all := Pace{Late: newHistogram(), Errors: map[string]int{}}
	for _, p := range paces {
		all.Late.Merge(p.Late)
		for e, n := range p.Errors {
			all.Errors[e] += n
		}
	}
	return published, all
}

// runOne publishes the topics that are j modulo of. It alone writes their
// elements of published.
func (s Schedule) runOne(ctx context.Context, p Publisher, j, of, batch int, published []uint64, uncertain func(uint32, uint64)) Pace {
	pace := Pace{Late: newHistogram(), Errors: map[string]int{}}
	var marks []mark
	topics := uint64(s.Topics)
	next := func(i uint64) uint64 { // the next event of ours after i
		for i++; (i%topics)%uint64(of) != uint64(j); i++ {
		}
		return i
	}
	if j >= s.Topics {
		return pace
	}
	for i := uint64(j); ; {
		if !sleepUntil(ctx, s.due(i)+int64(s.Linger)) {
			return pace
		}
		at := now()
		for marks = marks[:0]; len(marks) < batch && s.due(i) <= at; i = next(i) {
			marks = append(marks, s.mark(i))
			_ = pace.Late.RecordValue(at - s.due(i))
		}
		if err := p.Publish(context.WithoutCancel(ctx), marks); err != nil {
			pace.Errors[err.Error()]++
			for _, m := range marks {
				uncertain(m.k, m.n)
			}
		}
		for _, m := range marks {
			published[m.k] = m.n
		}
	}
}

// sleepUntil sleeps to a time of the clock and says whether ctx lives.
func sleepUntil(ctx context.Context, at int64) bool {
	d := time.Duration(at - now())
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// publishTime bounds one publish.
const publishTime = 10 * time.Second

// httpPublisher publishes over one keep-alive connection. It speaks HTTP/1.1 by
// itself: the instrument shares its core with the clients.
type httpPublisher struct {
	addr   string
	form   *PublishForm
	token  string
	topics []string
	keyed  bool
	size   int

	conn net.Conn // nil while not connected
	in   *bufio.Reader
	body []byte
	out  bytes.Buffer
}

func (p *httpPublisher) Publish(ctx context.Context, marks []mark) error {
	err := p.publish(ctx, marks)
	if err != nil {
		p.Close()
	}
	return err
}

func (p *httpPublisher) publish(ctx context.Context, marks []mark) error {
	if p.conn == nil {
		dialer := net.Dialer{Timeout: publishTime}
		conn, err := dialer.DialContext(ctx, "tcp4", p.addr)
		if err != nil {
			return err
		}
		p.conn, p.in = conn, bufio.NewReader(conn)
	}
	p.request(marks)
	if err := p.conn.SetDeadline(time.Now().Add(publishTime)); err != nil {
		return err
	}
	if _, err := p.conn.Write(p.out.Bytes()); err != nil {
		return fmt.Errorf("publish: %w", errors.Unwrap(err))
	}
	res, err := http.ReadResponse(p.in, nil)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("publish: %s %.200s", res.Status, body)
	}
	if res.Close {
		p.Close()
	}
	return nil
}

func (p *httpPublisher) request(marks []mark) {
	batch := len(marks) > 1
	p.body = p.body[:0]
	if batch {
		p.body = append(p.body, p.form.Batch[0]...)
	}
	places := []string{"{topic}", p.topics[marks[0].k], "{number}", strconv.Itoa(int(marks[0].k)), "{token}", p.token}
	for i, m := range marks {
		if i > 0 {
			p.body = append(p.body, p.form.Batch[1]...)
		}
		text := p.form.Body
		if p.keyed {
			text = p.form.Keyed
		}
		text = fill(text, "{topic}", p.topics[m.k], "{number}", strconv.Itoa(int(m.k)), "{key}", "k")
		before, after, _ := bytes.Cut([]byte(text), []byte("{data}"))
		p.body = append(p.body, before...)
		p.body = appendData(p.body, m, p.size)
		p.body = append(p.body, after...)
	}
	if batch {
		p.body = append(p.body, p.form.Batch[2]...)
	}
	p.out.Reset()
	fmt.Fprintf(&p.out, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", p.form.Method, fill(p.form.Path, places...), p.addr, len(p.body))
	for name, value := range p.form.Headers {
		fmt.Fprintf(&p.out, "%s: %s\r\n", name, fill(value, places...))
	}
	p.out.WriteString("\r\n")
	p.out.Write(p.body)
}

func (p *httpPublisher) Close() {
	if p.conn != nil {
		_ = p.conn.Close()
		p.conn = nil
	}
}

// redisPublisher publishes raw: PUBLISH events:tenant:{tenant}:{topic}, the due
// ones in one pipeline.
type redisPublisher struct {
	client *redis.Client
	topics []string
	size   int
}

func newRedisPublisher(url string, topics []string, size int) (*redisPublisher, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	opts.MaxRetries = -1 // nothing is repeated: it would be a duplicate
	opts.PoolSize = 1
	return &redisPublisher{redis.NewClient(opts), topics, size}, nil
}

func (p *redisPublisher) Publish(ctx context.Context, marks []mark) error {
	_, err := p.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, m := range marks {
			pipe.Publish(ctx, "events:tenant:"+tenant+":"+p.topics[m.k], appendData(nil, m, p.size))
		}
		return nil
	})
	return err
}

func (p *redisPublisher) Close() { _ = p.client.Close() }

// orderSize is the size of an order to a yardstick: write the event n, due at t,
// to all clients of topic k. Three 64-bit numbers, little endian: k, n, t.
const orderSize = 24

// orderPublisher tells a yardstick over its control connection.
type orderPublisher struct {
	conn net.Conn
	out  []byte
}

func newOrderPublisher(addr string) (*orderPublisher, error) {
	conn, err := net.Dial("tcp4", addr)
	if err != nil {
		return nil, err
	}
	return &orderPublisher{conn: conn}, nil
}

func (p *orderPublisher) Publish(_ context.Context, marks []mark) error {
	p.out = p.out[:0]
	for _, m := range marks {
		p.out = binary.LittleEndian.AppendUint64(p.out, uint64(m.k))
		p.out = binary.LittleEndian.AppendUint64(p.out, m.n)
		p.out = binary.LittleEndian.AppendUint64(p.out, uint64(m.t))
	}
	if err := p.conn.SetDeadline(time.Now().Add(publishTime)); err != nil {
		return err
	}
	_, err := p.conn.Write(p.out)
	return err
}

// Close does nothing: the yardstick lives as long as its target keeps the connection.
func (p *orderPublisher) Close() {}

// parseOrder reads an order.
func parseOrder(b []byte) mark {
	return mark{k: uint32(binary.LittleEndian.Uint64(b)), n: binary.LittleEndian.Uint64(b[8:]), t: int64(binary.LittleEndian.Uint64(b[16:]))}
}

// appendEvent appends the event that a yardstick sends: in size and shape like
// one of the hub.
func appendEvent(b []byte, m mark, size int) []byte {
	b = append(b, `{"id":"abcdef-`...)
	b = strconv.AppendUint(b, m.n, 10)
	b = append(b, `","topic":"yardstick.`...)
	b = strconv.AppendUint(b, uint64(m.k), 10)
	b = append(b, `","type":"load.v1","time":"2026-01-01T00:00:00.000Z","data":`...)
	b = appendData(b, m, size)
	return append(b, '}')
}
