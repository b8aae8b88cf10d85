// Package redislog is the log in Redis (7.0 or newer, or Valkey): one server, one
// behind Sentinel, or a Cluster. Hub instances on one Redis share its tenants.
//
// # What is where
//
// A tenant's keys and its channel carry the hash tag {tenant}, so that in a
// Cluster they are all on one primary, where scripts are atomic:
//
//	pushhub:{t}:m               hash    epoch, past, seq, floor, run, expires (of i and a), born
//	pushhub:{t}:i               zset    the index: topic → seq of its newest event
//	pushhub:{t}:a               hash    topic → when it may leave the index, arrival of its oldest event
//	pushhub:{t}:s:<topic>       stream  the retained events, ids <seq>-0
//	pushhub:{t}:d:<topic>:<id>  string  the cursor of what was published with that dedupe
//	pushhub:{t}:live            sharded channel of all events of the tenant
//
// An event is one record, written by the script that gives it its place: it is
// the entry of the stream and the message on the channel, byte for byte. A first
// line has what the hub needs, after it comes the event's JSON:
//
//	1 <cursor> <seq before it in the topic> <arrival, ms> <final 0|1> <topic> <type> <key>   (with tabs)
//	{"id":"<cursor>","topic":…}
//
// # Why it holds
//
// A script takes the seq, appends, and publishes, in one atomic step; so the
// order of the channel is that of the seqs. Before it takes a seq it compares the
// life of the Redis primary with the one that the epoch belongs to, and begins a
// new epoch when it is another: events may have been lost, which no one can find
// out later. Nothing is ever sent twice by itself (see servers), reads are made on
// the primary, and the live connection hides none of its breaks (see conn).
package redislog
