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
// That makes the rest a matter of work, and of order.
//
// Work: one instance, which holds a lease, appends what it hears at once. The others
// keep what they hear for some seconds, then look whether it is in the log, and append
// it if it is not: at once, if who leads has not heard it. When the lease falls to
// another, that one appends all that it has kept.
//
// Order: what an instance hears over one connection is without a hole; what was sent
// before, others may have heard, and have not brought in. So all say, each time that
// they ask for the lease, and in the same breath with which they subscribe, which mark is
// open to them: the oldest of which they hold a message or may yet read one. A mark
// that is open to nobody any more remains so. So a message is brought in when no mark
// before the first of its connection is open to another (clear, timely): no clock says
// who goes first. Only one who does not speak for some seconds, or has nothing move for
// some more, is not waited for.
package ingest
