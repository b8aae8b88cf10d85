// Package loadtest drives a push server with clients by the ten thousand and
// proves what they were sent: every event once, in order, or announced as gone.
//
// A [Swarm] is all clients: one goroutine on one thread, one epoll, one buffer,
// no goroutine and no allocation per delivery. A [Schedule] says when which event
// is due, and publishers keep to it whatever the server does: an event carries the
// time at which it was due, so a server that stalls is charged for all who waited.
// The ledger holds each client against the schedule. A [Target] is a server to
// test: the hub, one of the yardsticks ([Floor], [Naive], [Upgrade]), or a peer
// that a description names. Scenarios tie these together, and [Report] says what
// came out.
//
// It knows the wire contract and imports no package of the server. What opens
// sockets is for Linux.
package loadtest
