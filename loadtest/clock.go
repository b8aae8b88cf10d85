package loadtest

import "time"

var clockBase = time.Now()

// now is the monotonic time of this process in ns. Publishers and clients are one
// process, so it is one clock for the time due and the time received.
func now() int64 { return int64(time.Since(clockBase)) + 1 }
