package protocol

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// FuzzScan: the scanner takes what encoding/json takes, and finds the same in it.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`{"a":1,"a":"two","\u0061":[null,true,false,{"b":-0.5e+7}],"":{}}`, ` [ 1 , "\ud800\n" , { } , [ ] ] `, "\"\xff\"", `"é"`,
		`-`, `01`, `1.`, `1e`, `-0`, `[1,]`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `"\u12"`, `"\x"`, "\"\t\"", `tru`, `[1}`, `{"a":1]`, `1 2`, "", `nullx`, `"`, `"\`,
		"1\v",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := scanner{b: b}
		require.Equal(t, json.Valid(b), s.whole(), "%q", b)

		var members map[string]json.RawMessage
		isObject := utf8.Valid(b) && json.Unmarshal(b, &members) == nil && members != nil
		o, ok := ParseObject(b)
		require.Equal(t, isObject, ok, "%q", b)
		for name, want := range members {
			if !ok {
				break
			}
			require.Equal(t, string(want), string(o.Get(name)), "%q in %q", name, b)
			var text string
			isText := want[0] == '"' && json.Unmarshal(want, &text) == nil
			got, found, ok := o.Text(name)
			require.Equal(t, string(want) != "null", found)
			require.Equal(t, isText || !found, ok)
			require.Equal(t, text, got)
		}
		require.Nil(t, o.Get("no member has this name"))

		var elements []json.RawMessage
		isArray := utf8.Valid(b) && json.Unmarshal(b, &elements) == nil && elements != nil
		a, ok := ParseArray(b)
		require.Equal(t, isArray, ok, "%q", b)
		for i, want := range elements {
			if ok {
				require.Equal(t, string(want), string(a[i]))
			}
		}

		var compact bytes.Buffer
		isCompact := utf8.Valid(b) && json.Compact(&compact, b) == nil
		c, ok := Compact(b)
		if ok {
			require.Equal(t, compact.String(), string(c))
		} else if isCompact {
			require.Greater(t, s.deepest, maxDepth, "%q", b)
		}
	})
}

func TestDepth(t *testing.T) {
	nested := func(depth int) []byte { return []byte(strings.Repeat("[", depth) + strings.Repeat("]", depth)) }
	for _, depth := range []int{maxDepth, maxDepth + 1, scanDepth, scanDepth + 1} {
		_, ok := ParseArray(nested(depth))
		require.Equal(t, json.Valid(nested(depth)), ok, depth)
		_, ok = Compact(nested(depth))
		require.Equal(t, depth <= maxDepth, ok, depth)
	}
}
