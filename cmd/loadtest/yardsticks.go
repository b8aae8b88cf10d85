//go:build linux

package main

import (
	"fmt"
	"net"

	"github.com/pushhub/pushhub/loadtest"
)

// yardstickFlags are those of the servers for comparison. They say on one line of
// standard output where clients connect and where orders are taken.
type yardstickFlags struct {
	Size int `default:"256" help:"Bytes of an event's data."`
}

func listen() (*net.TCPListener, error) {
	return net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
}

func (f yardstickFlags) listen(out output) (y loadtest.Yardstick, err error) {
	y = loadtest.Yardstick{Size: f.Size, Stats: out.stderr}
	if y.Listener, err = listen(); err != nil {
		return y, err
	}
	if y.Control, err = listen(); err != nil {
		return y, err
	}
	_, err = fmt.Fprintln(out.stdout, y.Listener.Addr(), y.Control.Addr())
	return y, err
}

type floorCommand struct {
	yardstickFlags `embed:""`
}

func (c *floorCommand) Run(out output) error {
	y, err := c.listen(out)
	if err != nil {
		return err
	}
	return loadtest.Floor(y)
}

type naiveCommand struct {
	yardstickFlags `embed:""`
}

func (c *naiveCommand) Run(out output) error {
	y, err := c.listen(out)
	if err != nil {
		return err
	}
	return loadtest.Naive(y)
}

type upgradeCommand struct {
	yardstickFlags `embed:""`
}

func (c *upgradeCommand) Run(out output) error {
	l, err := listen()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out.stdout, l.Addr(), "-"); err != nil {
		return err
	}
	return loadtest.Upgrade(l)
}
