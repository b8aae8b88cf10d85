package torture

import (
	"bufio"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReplies: no reply of a Redis leads past the proxies, and what it publishes can be
// swallowed.
func TestReplies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, out string }{
		"moved":          {"-MOVED 12 127.0.0.1:40001\r\n", "-MOVED 12 127.0.0.1:50001\r\n"},
		"ask":            {"-ASK 12 127.0.0.1:40002\r\n", "-ASK 12 127.0.0.1:50002\r\n"},
		"slots":          {"*1\r\n*3\r\n:0\r\n:9\r\n*3\r\n$9\r\n127.0.0.1\r\n:40001\r\n$2\r\nid\r\n", "*1\r\n*3\r\n:0\r\n:9\r\n*3\r\n$9\r\n127.0.0.1\r\n:50001\r\n$2\r\nid\r\n"},
		"primary":        {"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n40002\r\n", "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n50002\r\n"},
		"sentinels":      {"*1\r\n*4\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n$5\r\n40001\r\n", "*1\r\n*4\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n$5\r\n50001\r\n"},
		"RESP3":          {"*1\r\n%2\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n$5\r\n40001\r\n", "*1\r\n%2\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n$5\r\n50001\r\n"},
		"switched":       {">3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$36\r\nmain 127.0.0.1 40001 127.0.0.1 40002\r\n", ">3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$36\r\nmain 127.0.0.1 50001 127.0.0.1 50002\r\n"},
		"another":        {"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n40003\r\n", "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n40003\r\n"},
		"nothing":        {"$-1\r\n*-1\r\n_\r\n", "$-1\r\n*-1\r\n_\r\n"},
		"info":           {"=8\r\ntxt:a\r\nb\r\n", "=8\r\ntxt:a\r\nb\r\n"},
		"swallowed":      {":1\r\n*3\r\n$8\r\nsmessage\r\n$4\r\ndeaf\r\n$1\r\nx\r\n*3\r\n$7\r\nmessage\r\n$3\r\near\r\n$1\r\ny\r\n", ":1\r\n*3\r\n$7\r\nmessage\r\n$3\r\near\r\n$1\r\ny\r\n"},
		"by its pattern": {"*4\r\n$8\r\npmessage\r\n$5\r\ndeaf*\r\n$1\r\na\r\n$1\r\nx\r\n+OK\r\n", "+OK\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &replies{in: bufio.NewReader(strings.NewReader(c.in)), ports: map[string]string{"40001": "50001", "40002": "50002"}}
			var out []byte
			for {
				b, err := r.next(func() string { return "deaf" })
				out = append(out, b...)
				if err == io.EOF {
					break
				}
				require.NoError(t, err)
			}
			require.Equal(t, c.out, string(out))
		})
	}
}
