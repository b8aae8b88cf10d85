package wire

// Finish ends a connection as a client's close frame does; a comment goes out last.
func (c *Conn) Finish() { c.finish([]byte(":\n\n")) }

// Readable is what the poller calls, with a buffer of the test's.
func (c *Conn) Readable(buf []byte) { c.readable(buf, false) }

// Cut has the shards write what take leaves of the frames; whatever it leaves out the
// socket did not take.
func (e *Engine) Cut(take func(frames [][]byte) [][]byte) {
	e.polls()
	for _, s := range e.shards {
		s.scratch.send = func(fd int, frames [][]byte, v *vector) (int, error) {
			if frames = take(frames); len(frames) == 0 {
				return 0, nil
			}
			return writeSocket(fd, frames, v)
		}
	}
}

// Writable is what the poller calls when a socket was full.
func (c *Conn) Writable() { c.writable() }
