package loadtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a process has used and holds.
type Usage struct {
	CPU      time.Duration // of all threads that live
	User     float64       // share of CPU in user space, by the process's ticks of 10 ms
	Resident int64         // bytes
}

// ticks is those of /proc/<pid>/stat in user space and in the kernel.
type ticks struct{ user, system float64 }

// A Process is one whose usage is read from /proc.
type Process struct {
	pid   int
	begun ticks // at the last call of Begin
}

// Begin starts the interval over which the share of user space is told.
func (p *Process) Begin() { p.begun, _ = p.ticks() }

// Usage reads CPU in ns from the threads' schedstat.
func (p *Process) Usage() (u Usage, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.pid))
	if err != nil {
		return u, err
	}
	for _, file := range threads {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		text, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return u, err
		}
		u.CPU += time.Duration(ns)
	}
	if u.CPU == 0 {
		return u, fmt.Errorf("process %d has no CPU time in /proc: has it ended?", p.pid)
	}
	if t, err := p.ticks(); err == nil {
		user, system := t.user-p.begun.user, t.system-p.begun.system
		u.User = user / max(1, user+system)
	}
	u.Resident, err = p.statm()
	return u, err
}

func (p *Process) ticks() (ticks, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return ticks{}, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return ticks{}, errors.New("/proc/<pid>/stat is short")
	}
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	return ticks{user, system}, errors.Join(err1, err2)
}

// statm is the resident memory as the kernel counts it in passing.
func (p *Process) statm() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, errors.New("/proc/<pid>/statm is short")
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// Rollup is the resident memory counted page by page.
func (p *Process) Rollup() (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", p.pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "Rss:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("smaps_rollup has no Rss")
}

// TCPMemory is what the kernel holds for all TCP connections of this machine, both
// ends, with what it needs to hold it: bytes that were not sent, not acknowledged, or
// not read.
func TCPMemory() (int64, error) {
	b, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if at := slices.Index(fields, "mem"); len(fields) > 0 && fields[0] == "TCP:" && at > 0 && at+1 < len(fields) {
			pages, err := strconv.ParseInt(fields[at+1], 10, 64)
			return pages * int64(os.Getpagesize()), err
		}
	}
	return 0, errors.New("/proc/net/sockstat does not say what TCP holds")
}

// machineCPU is what all cores have done since the machine started, to 10 ms.
func machineCPU() (busy time.Duration) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, text := range strings.Fields(line) {
		// cpu user nice system idle iowait irq softirq; what follows is in them, or
		// was never ours.
		if i == 0 || i == 4 || i == 5 || i > 7 {
			continue
		}
		n, _ := strconv.ParseInt(text, 10, 64)
		busy += time.Duration(n) * 10 * time.Millisecond
	}
	return busy
}

// cores gives the first and the last core that this process may use. They are
// equal where there is one.
func cores() (first, last int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, 0, err
	}
	first = -1
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			if last = i; first < 0 {
				first = i
			}
		}
	}
	return first, last, nil
}

// pin keeps a thread on one core; 0 is the calling one.
func pin(thread, core int) error {
	var set unix.CPUSet
	set.Set(core)
	return unix.SchedSetaffinity(thread, &set)
}

// eachThread does something to every thread of this process. Threads and processes
// that these start later are like them.
func eachThread(do func(id int) error) error {
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return err
	}
	for _, dir := range threads {
		id, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return err
		}
		if err := do(id); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// Pin keeps this process on the first of its cores, and gives the last for a
// server, and both in words; -1 where there is one core only.
func Pin() (server int, words string, err error) {
	first, last, err := cores()
	if err != nil {
		return 0, "", err
	}
	if first == last {
		return -1, "one core for all", nil
	}
	return last, fmt.Sprintf("server on core %d, all else on core %d", last, first),
		eachThread(func(id int) error { return pin(id, first) })
}
