package wire

// Finish ends a connection as a client's close frame does; a comment goes out last.
func (c *Conn) Finish() { c.finish([]byte(":\n\n")) }

// Readable is what the poller calls, with a buffer of the test's.
func (c *Conn) Readable(buf []byte) { c.readable(buf, false) }
