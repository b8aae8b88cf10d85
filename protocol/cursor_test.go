package protocol_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

func TestCursor(t *testing.T) {
	e32 := strings.Repeat("e", 32)
	for s, want := range map[string]protocol.Cursor{
		"k3f9x2-1042":            {Epoch: "k3f9x2", Seq: 1042},
		"0-0":                    {Epoch: "0", Seq: 0},
		e32 + "-1":               {Epoch: e32, Seq: 1},
		"e-9007199254740991":     {Epoch: "e", Seq: 1<<53 - 1},
		"e-9007199254740992":     {},
		"e-18446744073709551617": {},
		e32 + "e-1":              {},
		"":                       {},
		"-":                      {},
		"-1":                     {},
		"e-":                     {},
		"e":                      {},
		"e-01":                   {},
		"e-00":                   {},
		"e-+1":                   {},
		"e--1":                   {},
		"e-1-1":                  {},
		"e-1 ":                   {},
		" e-1":                   {},
		"e-1\n":                  {},
		"e-1_000":                {},
		"e-0x1":                  {},
		"e-1.0":                  {},
		"e-1e3":                  {},
		"E-1":                    {},
		"é-1":                    {},
		"e-١":                    {},
		"e.f-1":                  {},
	} {
		got, err := protocol.ParseCursor(s)
		require.Equal(t, want, got, "%q: %v", s, err)
		require.Equal(t, want.IsZero(), err != nil, "%q", s)
		if err != nil {
			require.ErrorIs(t, err, protocol.ErrMalformed)
			continue
		}
		require.Equal(t, s, got.String())
		require.Equal(t, "x"+s, string(got.Append([]byte("x"))))
	}
	require.Empty(t, protocol.Cursor{}.String(), "no position is no text")
	require.Empty(t, protocol.Cursor{Seq: 7}.Append(nil))
}

var cursorForm = regexp.MustCompile(`^[a-z0-9]{1,32}-(0|[1-9][0-9]*)$`)

func FuzzParseCursor(f *testing.F) {
	for _, s := range []string{"k3f9x2-1042", "e-0", "e-9007199254740992", "e-01", "-", "e-1-2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := protocol.ParseCursor(s)
		_, digits, _ := strings.Cut(s, "-")
		seq, numberErr := strconv.ParseUint(digits, 10, 53)
		require.Equal(t, cursorForm.MatchString(s) && numberErr == nil, err == nil)
		if err == nil {
			require.Equal(t, s, c.String(), "there is one form only")
			require.Equal(t, seq, c.Seq)
			require.LessOrEqual(t, len(s), 128, "it goes into an id: line")
		}
	})
}
