//go:build race

package search

import (
	"runtime"
	"sync"
)

// RaceDetector says whether it is on: it makes a search ten times as slow.
const RaceDetector = true

// alone counts the searches that run, and remembers how many processors there were.
var alone struct {
	sync.Mutex
	searches, processors int
}

// begin keeps everything on one processor until the function is called that it
// gives. With more, timers of a bubble that are due at once break the race
// detector itself: https://go.dev/issue/78156. It finds races nevertheless.
func begin() (end func()) {
	alone.Lock()
	defer alone.Unlock()
	if alone.searches++; alone.searches == 1 {
		alone.processors = runtime.GOMAXPROCS(1)
	}
	return func() {
		alone.Lock()
		defer alone.Unlock()
		if alone.searches--; alone.searches == 0 {
			runtime.GOMAXPROCS(alone.processors)
		}
	}
}
