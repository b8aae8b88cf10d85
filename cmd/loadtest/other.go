//go:build !linux

// Command loadtest measures a push server. It needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "loadtest: it needs Linux (epoll, /proc)")
	os.Exit(2)
}
