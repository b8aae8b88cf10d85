package transport

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

// metrics are the server's own; no label has values that a client chooses. Those
// of the hub are read from its Stats when asked for.
type metrics struct {
	connects    *prometheus.CounterVec
	disconnects *prometheus.CounterVec
	published   *prometheus.CounterVec
	publishing  *prometheus.HistogramVec
	deliveries  *prometheus.CounterVec
	delivering  map[string]*latencies // by transport
	conflated   prometheus.Counter
	auth        *prometheus.CounterVec
	requests    *prometheus.CounterVec
	requesting  *prometheus.HistogramVec
}

// seconds are the buckets of latencies, from 100 µs to 10 s.
var seconds = [...]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

func newMetrics(reg *prometheus.Registry, s *Server) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: seconds[:]}, labels)
		reg.MustRegister(h)
		return h
	}
	m := &metrics{
		connects:    counter("pushhub_connects_total", "Connections asked for, by result.", "transport", "result"),
		disconnects: counter("pushhub_disconnects_total", "Connections that ended, by reason.", "transport", "reason"),
		published:   counter("pushhub_published_total", "Events given for publishing, by result.", "source", "result"),
		publishing:  histogram("pushhub_publish_seconds", "Time from a publish to its acknowledgement.", "source", "result"),
		deliveries:  counter("pushhub_deliveries_total", "Live events written to clients.", "transport"),
		delivering:  map[string]*latencies{},
		auth:        counter("pushhub_auth_total", "Tokens looked at, by result.", "result"),
		requests:    counter("pushhub_http_requests_total", "HTTP requests, handshakes among them.", "route", "method", "status"),
		requesting:  histogram("pushhub_http_request_seconds", "Time to the answer, or to the end of the handshake.", "route", "method"),
		conflated:   prometheus.NewCounter(prometheus.CounterOpts{Name: "pushhub_conflated_total", Help: "Events superseded in the queue of a client that was behind."}),
	}
	reg.MustRegister(m.conflated)
	for _, transport := range []string{"websocket", "sse"} {
		l := newLatencies("pushhub_delivery_seconds", "Time from an event's arrival in the log to its write to a client.", prometheus.Labels{"transport": transport})
		reg.MustRegister(l)
		m.delivering[transport] = l
	}
	value := func(kind prometheus.ValueType, name, help string, get func() float64, labels prometheus.Labels) {
		if kind == prometheus.CounterValue {
			reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, get))
		} else {
			reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, get))
		}
	}
	hubValues(value, s.opts.Hub.Stats())
	for _, transport := range []string{"websocket", "sse"} {
		value(prometheus.GaugeValue, "pushhub_connections", "Open connections.",
			func() float64 { return float64(s.count(transport)) }, prometheus.Labels{"transport": transport})
	}
	value(prometheus.GaugeValue, "pushhub_outbox_bytes", "Bytes that wait in the queues of connections.", s.waiting, nil)
	value(prometheus.GaugeValue, "pushhub_draining", "1 while the instance drains.", func() float64 {
		if s.draining.Load() {
			return 1
		}
		return 0
	}, nil)
	return m
}

func hubValues(value func(prometheus.ValueType, string, string, func() float64, prometheus.Labels), stats *hub.Stats) {
	of := func(n interface{ Load() int64 }) func() float64 {
		return func() float64 { return float64(n.Load()) }
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	value(gauge, "pushhub_subscriptions", "Subscriptions of all connections.", of(&stats.Subscriptions), nil)
	value(gauge, "pushhub_topics", "Distinct topics and patterns with a live subscription, counted per tenant.", of(&stats.Topics), nil)
	value(counter, "pushhub_replayed_total", "Retained events sent to clients.", of(&stats.Replayed), nil)
	value(counter, "pushhub_gaps_total", "Gaps announced, by reason.", of(&stats.GapsExpired), prometheus.Labels{"reason": "expired"})
	value(counter, "pushhub_gaps_total", "Gaps announced, by reason.", of(&stats.GapsEpoch), prometheus.Labels{"reason": "epoch"})
	value(counter, "pushhub_log_heals_total", "Tenants that lost their live channel or an event and came back.", of(&stats.Heals), nil)
	value(counter, "pushhub_log_healed_events_total", "Events of a tenant between where it held and where it came back.", of(&stats.Healed), nil)
}

func (m *metrics) handler(reg *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// authenticated counts the outcome of Verify.
func (m *metrics) authenticated(err error) {
	m.auth.WithLabelValues(resultOf(err)).Inc()
}

// resultOf gives a label for an outcome: the code of the error, or ok.
func resultOf(err error) string {
	var e *protocol.Error
	var large *http.MaxBytesError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &large):
		return string(protocol.PayloadTooLarge)
	case errors.As(err, &e):
		return string(e.Code)
	case errors.Is(err, hub.ErrUnavailable), errors.Is(err, hub.ErrUnknown):
		return string(protocol.Unavailable)
	}
	return string(protocol.Internal)
}

// Published counts events that came into the log by another way than this
// server: source is redis for raw channels.
func (s *Server) Published(source string, events int, err error, took time.Duration) {
	s.metrics.publish(source, events, err, took)
}

func (m *metrics) publish(source string, events int, err error, took time.Duration) {
	result := resultOf(err)
	m.published.WithLabelValues(source, result).Add(float64(max(events, 1)))
	m.publishing.WithLabelValues(source, result).Observe(took.Seconds())
}

// delivered gives what counts the live events written over a transport.
func (m *metrics) delivered(transport string) func(*protocol.Event, int) {
	count, latency := m.deliveries.WithLabelValues(transport), m.delivering[transport]
	return func(e *protocol.Event, connections int) {
		count.Add(float64(connections))
		latency.observe(max(0, float64(time.Now().UnixMilli()-e.At)/1000), connections)
	}
}

// latencies is a histogram to which many equal values can be added at once.
type latencies struct {
	desc   *prometheus.Desc
	counts [len(seconds) + 1]atomic.Uint64 // of each bucket, and beyond
	micros atomic.Uint64                   // sum
}

func newLatencies(name, help string, labels prometheus.Labels) *latencies {
	return &latencies{desc: prometheus.NewDesc(name, help, nil, labels)}
}

func (l *latencies) observe(value float64, n int) {
	bucket, _ := slices.BinarySearch(seconds[:], value)
	l.counts[bucket].Add(uint64(n))
	l.micros.Add(uint64(value*1e6) * uint64(n))
}

// Describe implements prometheus.Collector.
func (l *latencies) Describe(ch chan<- *prometheus.Desc) { ch <- l.desc }

// Collect implements prometheus.Collector.
func (l *latencies) Collect(ch chan<- prometheus.Metric) {
	sum, count, buckets := float64(l.micros.Load())/1e6, uint64(0), map[float64]uint64{}
	for i := range l.counts {
		if count += l.counts[i].Load(); i < len(seconds) {
			buckets[seconds[i]] = count
		}
	}
	ch <- prometheus.MustNewConstHistogram(l.desc, count, sum, buckets)
}

func (m *metrics) request(route, method string, status int, took time.Duration) {
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete, http.MethodPatch:
	default:
		method = "other"
	}
	if route == "" {
		route = "other"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.requesting.WithLabelValues(route, method).Observe(took.Seconds())
}

func (s *Server) count(transport string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		if transportOf(c.conn.Encoding()) == transport {
			n++
		}
	}
	return n
}

func (s *Server) waiting() (bytes float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		bytes += float64(c.conn.Waiting())
	}
	return bytes
}
