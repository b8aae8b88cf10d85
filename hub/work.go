package hub

import "context"

// work is what a session is about to do. It goes when that is done: most sessions
// have none. The pointer to it is set while none works on it, and taken away by who
// does.
type work struct {
	// fixed after construction
	ctx    context.Context
	cancel context.CancelFunc

	// guarded by the tenant's lock
	ops   []func()
	names map[string]bool // what the session's subs will hold when all ops are done
	asked []*request      // Subscribes whose op has not begun
}

// over says whether nothing is begun any more. With the tenant's lock held.
func (s *Session) over() bool { return s.closed || s.t.h.ctx.Err() != nil }

// todo gives the session's work, which may have to be begun. With the tenant's lock
// held; do or idle must follow.
func (s *Session) todo() *work {
	if s.work == nil {
		s.work = &work{names: map[string]bool{}}
		s.work.ctx, s.work.cancel = context.WithCancel(s.t.h.ctx)
		for _, sub := range s.subs {
			s.work.names[sub.pattern] = true
		}
	}
	return s.work
}

// idle ends the work if there is nothing to do. With the tenant's lock held.
func (s *Session) idle() bool {
	if len(s.work.ops) > 0 && !s.closed {
		return false
	}
	s.work.cancel()
	s.work = nil
	return true
}

// do puts op at the end of what the session has to do. With the tenant's lock held.
func (s *Session) do(op func()) {
	if s.over() {
		return
	}
	todo := s.todo()
	todo.ops = append(todo.ops, op)
	if len(todo.ops) == 1 {
		s.t.h.start(s.run)
	}
}

// run is the goroutine of a session: it lives while there is something to do. What
// is being done stays the first of ops until it is done.
func (s *Session) run() {
	for {
		s.t.mu.Lock()
		op := s.work.ops[0]
		s.t.mu.Unlock()
		op()
		s.t.mu.Lock()
		s.work.ops = s.work.ops[1:]
		if s.idle() {
			s.t.mu.Unlock()
			return
		}
		s.t.mu.Unlock()
	}
}
