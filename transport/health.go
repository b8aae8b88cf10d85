package transport

import (
	"net/http"
	"time"
)

// health tells the state of this instance. 503 only while it starts and while
// it drains: were all instances 503 because Redis is away, the proxy would answer
// 503 in their place, and every EventSource would give up for ever.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	state := s.opts.State()
	status, word := http.StatusOK, "healthy"
	switch {
	case s.draining.Load() || !state.Ready:
		status, word = http.StatusServiceUnavailable, "unhealthy"
	case state.Degraded:
		word = "degraded"
	}
	if state.Services == nil {
		state.Services = map[string]string{}
	}
	writeJSON(w, status, struct {
		Status    string            `json:"status"`
		Version   string            `json:"version"`
		Services  map[string]string `json:"services"`
		Redis     string            `json:"redis"`
		Timestamp string            `json:"timestamp"`
	}{word, s.opts.Version, state.Services, state.Redis, time.Now().UTC().Format(time.RFC3339)})
}

// live answers as long as the process runs.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Status string `json:"status"`
	}{"alive"})
}
