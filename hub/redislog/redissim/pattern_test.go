package redissim

import (
	"testing"

	"github.com/stretchr/testify/require"
	lua "github.com/yuin/gopher-lua"
	"pgregory.net/rapid"
)

// Our match gives what gopher-lua's gives.
func TestMatch(t *testing.T) {
	l := lua.NewState()
	defer l.Close()
	own := l.GetField(l.GetGlobal("string"), "match").(*lua.LFunction)
	ours := l.NewFunction(match(func(*lua.LState) int { panic("left to the other") }))
	piece := rapid.SampledFrom([]string{
		"%d", "%w", "a", "1", "\t", " ", "[^\t]", "[%d\t]", "[ab]", "%d+", "%w+", "a*", "[^\t]+", "[ab%d]*", "(%d+)", "(%w*)", "(a(%d)b)",
	})
	rapid.Check(t, func(t *rapid.T) {
		pattern := ""
		for _, p := range rapid.SliceOfN(piece, 1, 5).Draw(t, "pattern") {
			pattern += p
		}
		if rapid.Bool().Draw(t, "anchored") {
			pattern = "^" + pattern
		}
		if rapid.Bool().Draw(t, "to the end") {
			pattern += "$"
		}
		text := rapid.StringOfN(rapid.SampledFrom([]rune("ab12\t Z")), 0, 12, -1).Draw(t, "text")
		call := func(f *lua.LFunction) (all []string) {
			l.SetTop(0)
			l.Push(f)
			l.Push(lua.LString(text))
			l.Push(lua.LString(pattern))
			l.Call(2, lua.MultRet)
			for i := range l.GetTop() {
				all = append(all, l.Get(i+1).String())
			}
			if all == nil {
				return []string{"nil"} // gopher-lua gives nothing, Lua nil
			}
			return all
		}
		require.Equal(t, call(own), call(ours), "%q in %q", pattern, text)
	})
}
