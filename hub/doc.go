// Package hub is the heart of Pushhub: who is subscribed to what, who gets an
// event, and how a client that comes back gets exactly what it missed.
//
// # The way of an event
//
// A Log (memlog, redislog) numbers every event of a tenant, 1, 2, 3 …, and tells
// each Hub that watches the tenant, on one ordered channel that carries all of
// the tenant. The Hub keeps one position per tenant, pos: everything up to it
// was handed to everybody who is live. The next event is pos+1, or something was
// lost: so a hole is seen by counting, whatever the topic.
//
// # The way of a client
//
// A Session is one client in one tenant. What it subscribes joins: the replay
// reads the log from the client's cursor on, over all topics in the order of
// their seqs, and announces as a gap what is gone. When it has come to pos, then
// under the tenant's lock, in the same moment, the subscription goes live. So
// all that is live stands at pos, always; there are no positions of single
// clients to keep right.
//
// # When something breaks
//
// Is the channel lost, a hole seen, an epoch changed or the channel deaf, then
// the tenant holds: everything that was live is as a client that comes back with
// the cursor pos. When the channel is covered again the tenant looks where the
// log's head is, takes that for pos, and all rejoin by the same replay. There is
// one way to close a hole, and every client's resume tests it.
//
// A channel that is deaf without an error is found by verify: each heartbeat
// interval the tenant looks at the head and waits for pos to reach it.
//
// # Locks
//
// Order: Hub.mu, then tenant.mu, then the lock of a Sink. No I/O is done and no
// log line written under any of them: a Sink queues under the tenant's lock, and
// is flushed after it. The replays of a tenant read the log one at a time
// (tenant.reading), so that they can share an answer; neither a publisher nor
// the fan-out waits for that.
package hub
