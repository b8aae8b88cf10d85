package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version string

// buildName names the build: what the linker was told, else what Go knows of the
// module or of the clone that it was built from.
var buildName = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if version != "" || !ok {
		return cmp.Or(version, "unknown")
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(len(s.Value), 12)]
		}
	}
	return "devel"
})

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run(p process) error {
	_, err := fmt.Fprintf(p.stdout, "pushhub %s (%s, %s/%s)\n", buildName(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
