package redissim

import (
	"crypto/sha1"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"sync"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"
)

// script is one that a server was given.
type script struct {
	proto    *lua.FunctionProto
	noWrites bool
}

func shaOf(text string) string {
	sum := sha1.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

// compiled keeps what was compiled once, by text.
var compiled sync.Map

func compile(text string) (*script, error) {
	if sc, ok := compiled.Load(text); ok {
		return sc.(*script), nil
	}
	sc, body := &script{}, text
	if strings.HasPrefix(text, "#!") {
		shebang, rest, _ := strings.Cut(text, "\n")
		sc.noWrites, body = strings.Contains(shebang, "no-writes"), "\n"+rest
	}
	chunk, err := parse.Parse(strings.NewReader(body), "user_script")
	if err != nil {
		return nil, err
	}
	if sc.proto, err = lua.Compile(chunk, "user_script"); err != nil {
		return nil, err
	}
	compiled.Store(text, sc)
	return sc, nil
}

// eval runs EVAL, EVALSHA and their _RO. A server that refuses writes refuses a
// script that may write as a whole.
func (s *server) eval(name string, args []string) any {
	if len(args) < 2 {
		return failure("ERR wrong number of arguments for '" + name + "' command")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 0 || n > len(args)-2 {
		return errInteger
	}
	readOnly := strings.HasSuffix(name, "_ro")
	sc := s.scripts[args[0]]
	if strings.HasPrefix(name, "evalsha") {
		if sc == nil {
			return failure("NOSCRIPT No matching script. Please use EVAL.")
		}
	} else {
		text := args[0]
		if s.redis.opts.Patch != nil {
			text = s.redis.opts.Patch(text)
		}
		if sc, err = compile(text); err != nil {
			return failure("ERR Error compiling script: " + strings.ReplaceAll(err.Error(), "\n", " "))
		}
		s.scripts[shaOf(args[0])] = sc
	}
	if readOnly && !sc.noWrites {
		return failure("ERR Can not execute a script with write flag using *_ro command.")
	}
	if wrong := s.elsewhere(args[2:2+n], false); wrong != nil {
		return wrong
	}
	if s.replica && !sc.noWrites {
		return failure(ReadOnly)
	}
	return s.script(sc, args[2:2+n], args[2+n:])
}

// machine is a Lua that runs one script after the other.
type machine struct {
	lua      *lua.LState
	server   *server // of the script that runs
	readOnly bool
	globals  bool // may be made: only at the beginning
}

// machines that are not in use. They outlive a Redis: to make one is slow.
var machines struct {
	sync.Mutex
	free []*machine
}

func takeMachine() *machine {
	machines.Lock()
	defer machines.Unlock()
	if n := len(machines.free); n > 0 {
		m := machines.free[n-1]
		machines.free = machines.free[:n-1]
		return m
	}
	return newMachine()
}

func newMachine() *machine {
	m := &machine{lua: lua.NewState(lua.Options{SkipOpenLibs: true}), globals: true}
	for _, lib := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.BaseLibName, lua.OpenBase}, {lua.StringLibName, lua.OpenString},
		{lua.TabLibName, lua.OpenTable}, {lua.MathLibName, lua.OpenMath},
	} {
		m.lua.Push(m.lua.NewFunction(lib.open))
		m.lua.Push(lua.LString(lib.name))
		m.lua.Call(1, 0)
	}
	library := m.lua.GetGlobal(lua.StringLibName).(*lua.LTable)
	library.RawSetString("match", m.lua.NewFunction(match(library.RawGetString("match").(*lua.LFunction).GFunction)))
	m.lua.SetGlobal("redis", m.lua.SetFuncs(m.lua.NewTable(), map[string]lua.LGFunction{
		"call":  func(*lua.LState) int { return m.call(true) },
		"pcall": func(*lua.LState) int { return m.call(false) },
		"error_reply": func(l *lua.LState) int {
			l.Push(errorTable(l, l.CheckString(1)))
			return 1
		},
	}))
	for _, name := range []string{"KEYS", "ARGV"} {
		m.lua.SetGlobal(name, m.lua.NewTable())
	}
	strict := m.lua.NewTable()
	for _, name := range []string{"__index", "__newindex"} {
		strict.RawSetString(name, m.lua.NewFunction(func(l *lua.LState) int {
			l.RaiseError("Script attempted to access nonexistent global variable '%s'", l.CheckString(2))
			return 0
		}))
	}
	m.lua.SetMetatable(m.lua.Get(lua.GlobalsIndex), strict)
	return m
}

func (s *server) script(sc *script, keys, argv []string) any {
	m := takeMachine()
	m.server, m.readOnly = s, sc.noWrites
	l := m.lua
	defer func() {
		l.SetTop(0)
		m.server = nil
		machines.Lock()
		machines.free = append(machines.free, m)
		machines.Unlock()
	}()
	l.SetGlobal("KEYS", list(l, keys))
	l.SetGlobal("ARGV", list(l, argv))
	l.Push(l.NewFunctionFromProto(sc.proto))
	if err := l.PCall(0, 1, nil); err != nil {
		text := err.Error()
		if e, ok := err.(*lua.ApiError); ok {
			if t, ok := e.Object.(*lua.LTable); ok {
				text = lua.LVAsString(t.RawGetString("err"))
			} else {
				text = "ERR " + e.Object.String()
			}
		}
		return failure(strings.ReplaceAll(text, "\n", " ") + " script: " + "user_script")
	}
	return answerOf(l.Get(-1))
}

func list(l *lua.LState, all []string) *lua.LTable {
	t := l.CreateTable(len(all), 0)
	for _, one := range all {
		t.Append(lua.LString(one))
	}
	return t
}

func errorTable(l *lua.LState, text string) *lua.LTable {
	t := l.NewTable()
	t.RawSetString("err", lua.LString(text))
	return t
}

// call is redis.call, and redis.pcall where it does not raise.
func (m *machine) call(raise bool) int {
	l := m.lua
	args := make([]string, l.GetTop())
	for i := range args {
		switch a := l.Get(i + 1).(type) {
		case lua.LString:
			args[i] = string(a)
		case lua.LNumber:
			args[i] = strconv.FormatFloat(float64(a), 'g', 17, 64)
		default:
			l.RaiseError("Lua redis lib command arguments must be strings or integers")
		}
	}
	if len(args) == 0 {
		l.RaiseError("Please specify at least one argument for this redis.call()")
	}
	answer := m.server.run(strings.ToLower(args[0]), args[1:], m.readOnly)
	if f, ok := answer.(failure); ok && raise {
		l.Error(errorTable(l, string(f)), 0)
	}
	l.Push(luaOf(l, answer))
	return 1
}

func luaOf(l *lua.LState, answer any) lua.LValue {
	switch a := answer.(type) {
	case status:
		t := l.NewTable()
		t.RawSetString("ok", lua.LString(a))
		return t
	case failure:
		return errorTable(l, string(a))
	case int64:
		return lua.LNumber(a)
	case string:
		return lua.LString(a)
	case []any:
		t := l.CreateTable(len(a), 0)
		for i, one := range a {
			t.RawSetInt(i+1, luaOf(l, one))
		}
		return t
	}
	return lua.LFalse // nothing
}

func answerOf(v lua.LValue) any {
	switch v := v.(type) {
	case lua.LString:
		return string(v)
	case lua.LNumber:
		return int64(v)
	case lua.LBool:
		if v {
			return int64(1)
		}
	case *lua.LTable:
		if e, ok := v.RawGetString("err").(lua.LString); ok {
			return failure(e)
		}
		if o, ok := v.RawGetString("ok").(lua.LString); ok {
			return status(o)
		}
		all := []any{}
		for i := 1; v.RawGetInt(i) != lua.LNil; i++ {
			all = append(all, answerOf(v.RawGetInt(i)))
		}
		return slices.Clip(all)
	}
	return nil
}
