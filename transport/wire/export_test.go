package wire

// Finish ends a connection as a client's close frame does; a comment goes out last.
func (c *Conn) Finish() { c.finish([]byte(":\n\n")) }
