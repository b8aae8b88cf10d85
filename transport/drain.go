package transport

import (
	"context"
	"slices"
	"time"

	"github.com/pushhub/pushhub/protocol"
)

// Drain ends the server's life in order. /health says so at once, and no new
// client is taken. Those that are there are closed one after the other, evenly
// over the first half of the drain time: until then they are served. Each is told
// to come back after as long as it was still served, so that they come to the
// other instances evenly over the whole of it, whatever their number. Publishers
// are served to the end, and told with each answer to connect elsewhere.
//
// It returns when the last client is gone; what is left when ctx ends is cut off.
// The error is ctx's if requests were under way then.
func (s *Server) Drain(ctx context.Context) error {
	all := s.beginDrain()
	for i, c := range all {
		if !s.await(ctx, s.limits.Drain/2*time.Duration(i)/time.Duration(len(all))) {
			break
		}
		c.conn.Close(protocol.Drain)
	}
	select {
	case <-s.empty:
	case <-ctx.Done():
	}
	s.cut()
	<-s.empty // each has its line in the log now
	defer s.ended()
	return s.http.Shutdown(ctx)
}

// beginDrain gives the clients that there are. There will be no more.
func (s *Server) beginDrain() []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.draining.Load() {
		s.drainBegan.Store(int64(s.clock()))
		s.draining.Store(true)
	}
	s.checkEmpty()
	return slices.Clone(s.clients)
}

// served gives for how long the server has been draining. It takes no lock: a Conn
// asks for its bye under its own, which comes after the server's.
func (s *Server) served() time.Duration { return s.clock() - time.Duration(s.drainBegan.Load()) }

// await waits until the drain has taken so long, and is false when ctx ended or
// nobody is left.
func (s *Server) await(ctx context.Context, so time.Duration) bool {
	wait := so - s.served()
	if wait <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-time.After(wait):
		return true
	case <-s.empty:
	case <-ctx.Done():
	}
	return false
}

// cut ends the connections that are left.
func (s *Server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		c.conn.Abort()
	}
}

// checkEmpty closes empty when it is time. With mu held.
func (s *Server) checkEmpty() {
	if !s.draining.Load() || len(s.clients) > 0 {
		return
	}
	select {
	case <-s.empty:
	default:
		close(s.empty)
	}
}
