//go:build !(linux && amd64)

package torture

import (
	"errors"
	"time"
)

// setClock is known for amd64 only: it is machine code.
func (p *process) setClock(time.Duration) error {
	return errors.New("the clock of a process can be set on Linux and amd64 only")
}
