package redissim

import (
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// match is string.match as the scripts use it. gopher-lua's own compiles each
// pattern anew, which takes a fourth of a search's time; what this one does not
// know it leaves to it.
func match(other lua.LGFunction) lua.LGFunction {
	return func(l *lua.LState) int {
		text, pattern := l.CheckString(1), l.CheckString(2)
		if l.GetTop() > 2 || !simple(pattern) {
			return other(l)
		}
		rest, anchored := strings.CutPrefix(pattern, "^")
		for from := 0; from <= len(text); from++ {
			m := matcher{text: text, pattern: rest}
			if end := m.at(from, 0); end >= 0 {
				if len(m.captures) == 0 {
					m.captures = append(m.captures, [2]int{from, end})
				}
				for _, c := range m.captures {
					l.Push(lua.LString(text[c[0]:c[1]]))
				}
				return len(m.captures)
			}
			if anchored {
				break
			}
		}
		l.Push(lua.LNil)
		return 1
	}
}

// simple says whether a matcher knows all of a pattern.
func simple(pattern string) bool {
	for i := 0; i < len(pattern); i++ {
		if pattern[i] == '%' {
			if i++; i == len(pattern) || pattern[i] != 'd' && pattern[i] != 'w' {
				return false
			}
		}
	}
	return !strings.Contains(pattern, "()") && !strings.ContainsAny(pattern, "-?.") && strings.Count(pattern, "[") == strings.Count(pattern, "]")
}

// matcher matches a pattern of %d, %w, plain characters and sets of those, each
// with +, * or nothing after it, $, and captures.
type matcher struct {
	text, pattern string
	captures      [][2]int // end -1: open
}

// at gives the end of a match of what the pattern has from p on, at s; -1: none.
func (m *matcher) at(s, p int) int {
	switch {
	case p == len(m.pattern):
		return s
	case m.pattern[p] == '(':
		m.captures = append(m.captures, [2]int{s, -1})
		end := m.at(s, p+1)
		if end < 0 {
			m.captures = m.captures[:len(m.captures)-1]
		}
		return end
	case m.pattern[p] == ')':
		i := len(m.captures) - 1
		for m.captures[i][1] >= 0 {
			i--
		}
		m.captures[i][1] = s
		end := m.at(s, p+1)
		if end < 0 {
			m.captures[i][1] = -1
		}
		return end
	case m.pattern[p:] == "$":
		if s == len(m.text) {
			return s
		}
		return -1
	}
	next := p + 1
	switch m.pattern[p] {
	case '%':
		next++
	case '[':
		next = p + 1 + strings.IndexByte(m.pattern[p:], ']')
	}
	class := m.pattern[p:next]
	if next == len(m.pattern) || m.pattern[next] != '+' && m.pattern[next] != '*' {
		if s < len(m.text) && is(m.text[s], class) {
			return m.at(s+1, next)
		}
		return -1
	}
	most := s
	for most < len(m.text) && is(m.text[most], class) {
		most++
	}
	least := s
	if m.pattern[next] == '+' {
		least++
	}
	for ; most >= least; most-- {
		if end := m.at(most, next+1); end >= 0 {
			return end
		}
	}
	return -1
}

// is says whether a class of characters has c.
func is(c byte, class string) bool {
	digit := '0' <= c && c <= '9'
	switch {
	case class == "%d":
		return digit
	case class == "%w":
		return digit || 'a' <= c|0x20 && c|0x20 <= 'z'
	case class[0] != '[':
		return c == class[0]
	}
	set, not := strings.CutPrefix(class[1:len(class)-1], "^")
	for set != "" {
		n := 1
		if set[0] == '%' {
			n = 2
		}
		if is(c, set[:n]) {
			return !not
		}
		set = set[n:]
	}
	return not
}
