//go:build race

package redislog_test

func init() { raceDetector = true }
