package protocol_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

func TestCompact(t *testing.T) {
	for in, want := range map[string]string{
		`1`: `1`, ` null `: `null`, "\t\r\n true\n": `true`, `""`: `""`,
		`{ "a" : [ 1 , 2 ] , "b" : { } }`:     `{"a":[1,2],"b":{}}`,
		`{"b":1,"a":2,"b":3}`:                 `{"b":1,"a":2,"b":3}`,
		`1.00000000000000000000000000001`:     `1.00000000000000000000000000001`,
		`-0`:                                  `-0`,
		`1E+400`:                              `1E+400`,
		`9007199254740993`:                    `9007199254740993`,
		`"a b\t\u00e9\/\"é  "`:                `"a b\t\u00e9\/\"é  "`,
		"\"\u2028<>&\"":                       "\"\u2028<>&\"",
		`"\ud800"`:                            `"\ud800"`,
		`{" a ":" [ "}`:                       `{" a ":" [ "}`,
		deep(9000):                            deep(9000),
		`"` + strings.Repeat("[", 9999) + `"`: `"` + strings.Repeat("[", 9999) + `"`,
		`"\"` + strings.Repeat("[", 9999) + `\\"`: `"\"` + strings.Repeat("[", 9999) + `\\"`,
		"[" + strings.Repeat("[],", 9999) + "1]":  "[" + strings.Repeat("[],", 9999) + "1]",
	} {
		got, ok := protocol.Compact([]byte(in))
		require.True(t, ok, in)
		require.Equal(t, want, string(got))
	}
	for _, in := range []string{
		``, ` `, `{`, `{}}`, `{} {}`, `nul`, `'a'`, `[1,]`, `{"a":}`, `{a:1}`, `01`, `+1`, `.5`, `NaN`, `"a`, "\"\n\"", `"\x"`,
		"\"\xff\"", "\"\xed\xa0\x80\"", "\ufeff{}", deep(9001), deep(20_000), `// x`,
	} {
		_, ok := protocol.Compact([]byte(in))
		require.False(t, ok, in)
	}
}

func deep(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

// strip takes away the white space between tokens, knowing only what a string is.
func strip(b []byte) []byte {
	var out []byte
	quoted, escaped := false, false
	for _, c := range b {
		switch {
		case quoted:
			quoted = c != '"' || escaped
			escaped = c == '\\' && !escaped
		case c == '"':
			quoted = true
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			continue
		}
		out = append(out, c)
	}
	return out
}

func FuzzCompact(f *testing.F) {
	for _, s := range []string{`{ "a" : 1.0e+5 , "a":"\\\" \u2028" }`, `[[ ]]`, `"\ud83d\ude00"`, "\"\xff\"", ` -0 `} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		got, ok := protocol.Compact(b)
		require.Equal(t, before, b, "what was given stays")
		if nesting := bytes.Count(b, []byte("[")) + bytes.Count(b, []byte("{")); nesting <= 9000 {
			require.Equal(t, utf8.Valid(b) && json.Valid(b), ok)
		}
		if !ok {
			return
		}
		require.Equal(t, string(strip(b)), string(got), "nothing but white space is gone")
		require.False(t, bytes.ContainsAny(got, "\r\n"), "it fits on one line of an event stream")
		require.Equal(t, decode(t, b), decode(t, got))
	})
}

// decode reads JSON with its numbers as they are written.
func decode(t *testing.T, b []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	require.NoError(t, d.Decode(&v))
	return v
}

func TestLabels(t *testing.T) {
	for label, want := range map[string]bool{
		"": false, "a": true, strings.Repeat("a", 128): true, strings.Repeat("a", 129): false,
		strings.Repeat("é", 64): true, strings.Repeat("é", 65): false, "render.progress.v1": true, "with space": true,
		"tab\t": false, "line\n": false, "nul\x00": false, "del\x7f": false, "c1\u0085": false, "bad\xff": false, "\u2028": true,
	} {
		require.Equal(t, want, protocol.CheckLabel(label), "%q", label)
	}
}

func TestTimes(t *testing.T) {
	for s, want := range map[string]bool{
		"2026-05-27T10:15:00Z": true, "2026-05-27T10:15:00.123456789Z": true, "2026-05-27T10:15:00+02:00": true,
		"2026-05-27T10:15:00.1-23:59": true, "2024-02-29T00:00:00Z": true,
		"2026-05-27T10:15:00." + strings.Repeat("1", 43) + "Z": true,  // 64 bytes
		"2026-05-27T10:15:00." + strings.Repeat("1", 44) + "Z": false, // 65
		"": false, "now": false, "2026-05-27": false, "2026-05-27T10:15:00": false, "2026-05-27 10:15:00Z": false,
		"2026-05-27T1:15:00Z": false, "2026-05-27T10:15:00,5Z": false, "2026-05-27T10:15Z": false, "2025-02-29T00:00:00Z": false,
		"2026-05-27T10:15:00+24:00": false, "2026-05-27T10:15:00+02:60": false, "2026-05-27T10:15:00+0200": false,
		"2026-05-27T24:00:00Z": false, "2026-13-27T10:15:00Z": false, " 2026-05-27T10:15:00Z": false, "2026-05-27T10:15:00Z\n": false,
	} {
		require.Equal(t, want, protocol.CheckTime(s), "%q", s)
	}
}

func FuzzCheckTime(f *testing.F) {
	f.Add("2026-05-27T10:15:00Z")
	f.Add("2026-05-27T10:15:00.5+02:00")
	f.Fuzz(func(t *testing.T, s string) {
		if protocol.CheckTime(s) {
			require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`, s)
		}
	})
}
