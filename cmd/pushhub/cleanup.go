package main

import (
	"slices"
	"time"

	"github.com/rs/zerolog"
)

// cleanups undoes what a start has made, the last first. It is used by one
// goroutine.
type cleanups struct {
	log  zerolog.Logger
	list []cleanup
}

type cleanup struct {
	name string
	do   func() error
}

// add registers what is to be done for something that was just made.
func (c *cleanups) add(name string, do func() error) {
	c.list = append(c.list, cleanup{name, do})
}

// run does it all, each within the time given: what takes longer is left behind,
// for the process ends anyhow. Called again it does nothing.
func (c *cleanups) run(each time.Duration) {
	for _, one := range slices.Backward(c.list) {
		done := make(chan error, 1)
		go func() { done <- one.do() }()
		timer := time.NewTimer(each)
		select {
		case err := <-done:
			if err != nil {
				c.log.Warn().Err(err).Str("what", one.name).Msg("clean-up failed")
			}
		case <-timer.C:
			c.log.Warn().Str("what", one.name).Msg("clean-up took too long")
		}
		timer.Stop()
	}
	c.list = nil
}
