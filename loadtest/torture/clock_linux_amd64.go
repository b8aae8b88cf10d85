package torture

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockStub stands for clock_gettime in a process's vDSO, which is where Go asks for
// the time: it makes the system call, and adds so many seconds to the wall clock as
// stand behind it. The monotonic clock stays right, as when a clock is set.
var clockStub = []byte{
	0x41, 0x89, 0xf8, // mov r8d, edi: which clock
	0xb8, 228, 0, 0, 0, // mov eax, SYS_clock_gettime
	0x0f, 0x05, // syscall
	0x45, 0x85, 0xc0, // test r8d, r8d: CLOCK_REALTIME is 0
	0x75, 10, // jne ret
	0x4c, 0x8b, 0x0d, 4, 0, 0, 0, // mov r9, [rip+4]: the seconds
	0x4c, 0x01, 0x0e, // add [rsi], r9: tv_sec
	0xc3, // ret
}

// setClock sets the wall clock of a process, and of no other, off by so much, in
// whole seconds.
func (p *process) setClock(off time.Duration) error {
	pid := p.cmd.Process.Pid
	from, vdso, err := readVDSO(pid)
	if err != nil {
		return fmt.Errorf("%s: its vDSO: %w", p.name, err)
	}
	at, err := clockFunction(vdso)
	if err != nil {
		return fmt.Errorf("%s: its vDSO: %w", p.name, err)
	}
	stub := binary.LittleEndian.AppendUint64(bytes.Clone(clockStub), uint64(int64(off/time.Second)))
	p.signal(syscall.SIGSTOP)
	defer p.signal(syscall.SIGCONT)
	for until := time.Now().Add(patience); !isStopped(pid, from, from+uint64(len(vdso))); {
		if time.Now().After(until) {
			return fmt.Errorf("%s cannot be stopped outside of its vDSO", p.name)
		}
		p.signal(syscall.SIGCONT)
		time.Sleep(time.Millisecond)
		p.signal(syscall.SIGSTOP)
		time.Sleep(time.Millisecond)
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	_, err = mem.WriteAt(stub, int64(from+at))
	return err
}

// readVDSO gives where a process has its vDSO, and what is there.
func readVDSO(pid int) (from uint64, content []byte, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, nil, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(line, "[vdso]\n") {
			continue
		}
		var to uint64
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			return 0, nil, err
		}
		mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		if err != nil {
			return 0, nil, err
		}
		defer mem.Close()
		content = make([]byte, to-from)
		_, err = mem.ReadAt(content, int64(from))
		return from, content, err
	}
	return 0, nil, fmt.Errorf("there is none")
}

// clockFunction gives where in a vDSO clock_gettime is.
func clockFunction(vdso []byte) (uint64, error) {
	file, err := elf.NewFile(bytes.NewReader(vdso))
	if err != nil {
		return 0, err
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return 0, err
	}
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" && s.Value+uint64(len(clockStub))+8 <= uint64(len(vdso)) {
			return s.Value, nil
		}
	}
	return 0, fmt.Errorf("it has no clock_gettime")
}

// isStopped says whether all threads of a process are stopped, and none between two
// addresses.
func isStopped(pid int, from, to uint64) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, t := range threads {
		// "running", or numbers of which the last is the program counter.
		b, err := os.ReadFile(filepath.Join(t, "syscall"))
		words := strings.Fields(string(b))
		if err != nil || len(words) < 2 {
			return false
		}
		pc, err := strconv.ParseUint(words[len(words)-1], 0, 64)
		if err != nil || from <= pc && pc < to {
			return false
		}
	}
	return true
}
