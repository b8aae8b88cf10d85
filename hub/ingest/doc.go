// Package ingest brings what backends PUBLISH on plain Redis channels into the
// log: each message once, in the order in which Redis sent it, as long as some
// instance listens.
//
// Every instance hears every message. Among them, at the same place for all, it
// hears marks, which instances have Redis send each second; by counting from the
// last mark all come to the same name for a message (redislog.RawName). A script
// appends to the log and keeps, for each tenant and mark, how far it has come: so
// a message can be appended by anyone, any number of times, and is there once.
//
// That makes the rest a matter of work, and of order. One instance, which holds a
// lease, appends what it hears at once. The others keep what they hear for some
// seconds, then look whether it is in the log, and append it if it is not. When
// the lease falls to another, that one appends all that it has kept.
//
// Where connections break, one instance may hold messages that others have not heard.
// So all say, each time that they ask for the lease, of which mark the oldest message
// is that they hold; and nobody goes before another who holds an older one (timely).
package ingest
