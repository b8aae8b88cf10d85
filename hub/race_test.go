//go:build race

package hub_test

func init() { raceDetector = true }
