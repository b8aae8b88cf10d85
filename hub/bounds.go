package hub

import "time"

// bounds are how much is read, queued and kept at once. A Hub has the usual ones; the
// search also makes them so small that short schedules come to all of them.
type bounds struct {
	// One piece of a replay.
	pieceEvents int    // of one topic, of few topics
	someEvents  int    // of one topic, of many
	pieceTopics int    // asked for in one Look
	fewTopics   int    // more are read by windows of seqs
	window      uint64 // the first, in seqs

	// A session that goes live.
	follow int    // events queued under the tenant's lock
	scan   uint64 // events of the ring looked through for exact topics

	// The ring of a tenant: a client that reconnects at once finds what it missed there,
	// and costs the log nothing. And what a tenant keeps of its channel while it recovers.
	ringBytes int
	ringAge   int64 // ms

	// Tails and the index of a tenant. Over these they are dropped: they are a cache for
	// storms.
	tails      int
	tailEvents int // of one topic
	index      int // topics
	tailAge    time.Duration
}

var usual = bounds{
	pieceEvents: 128, someEvents: 16, pieceTopics: 256, fewTopics: 64, window: 1024,
	follow: 256, scan: 2048,
	ringBytes: 8 << 20, ringAge: 60_000,
	tails: 1024, tailEvents: 1200, index: 10_000, tailAge: time.Minute,
}
