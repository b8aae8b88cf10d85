// Package ingest brings what backends PUBLISH on plain Redis channels into the
// log: each message once, in the order in which Redis sent it, as long as some
// instance listens.
//
// Every instance hears every message and keeps what it heard of the last half
// minute. One of them, which holds a lease, appends. The append leaves a record
// of who appended what, kept by the same script in the tenant's own slot: so
// whoever appends later, in the same script skips what is there. The others look
// into the record some seconds after they heard a message, and append what it
// lacks. When the lease falls to another instance, that one appends all that it
// heard and the record lacks, and goes on.
//
// The record is what keeps a message from coming twice or not at all; the lease
// only saves work. Messages of a reign are numbered for each tenant, so that an
// attempt whose answer was lost can be repeated, and the tenant's fence refuses
// who was asleep for longer than the record reaches back.
//
// A message has no name of its own: it is known by its channel, its bytes and
// about when it was heard. Of two that are the same in that, one may be taken for
// the other while a lease changes hands. A publisher that cares sends event_id.
package ingest
