package loadtest

import "time"

// A Plan is what a scenario does to a server. The tags are the flags of the
// command line and their defaults.
type Plan struct {
	Clients    int           `default:"${clients=10000}" help:"Client connections."`
	SSE        float64       `name:"sse" default:"0" help:"Share of the clients that use SSE (0 to 1); the others use WebSocket."`
	Topics     int           `default:"${topics=1}" help:"Topics."`
	PerClient  int           `default:"1" help:"Topics that each client subscribes to."`
	Rate       float64       `default:"${rate=10}" help:"Events published per second, over all topics."`
	Size       int           `default:"${size=256}" help:"Bytes of an event's data."`
	Warmup     time.Duration `default:"${warmup=3s}" help:"Publishing before the measured interval."`
	Duration   time.Duration `default:"${duration=20s}" help:"The measured interval."`
	Publishers int           `default:"8" help:"Connections that publish over HTTP; a topic's events go over one."`
	Batch      int           `default:"${batch=1}" help:"Most events published at once, where several are due."`
	Linger     time.Duration `default:"0s" help:"How long an event waits for others to be published with; it counts as latency."`
	Raw        bool          `help:"Publish by Redis PUBLISH instead of HTTP."`
	Keyed      bool          `help:"Give events a conflation key: what is passed over then counts as conflated, but for the newest, and for what exceeds the server's own count (pushhub_conflated_total)."`
	Inflight   int           `default:"64" help:"Handshakes at a time."`
	Prefix     string        `default:"${prefix=load}" help:"First token of the topics' names."`
}
