package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/pushhub/pushhub/"

// edges says what each room may import of the others, and why the line is there.
var edges = []struct {
	room  string // a package and those below it that have no line of their own
	may   []string
	never []string // prefixes of packages from elsewhere
	why   string
}{
	{"protocol", nil, []string{"."}, "a client, a test or a tool can use the nouns without the server"},
	{"auth", []string{"protocol"}, nil, "who may do what is decided without knowing how events travel"},
	{"hub", []string{"protocol"}, []string{"github.com/redis/", "net/http"}, "the heart declares the log that it needs and knows none"},
	{"hub/memlog", []string{"hub", "protocol"}, []string{"github.com/redis/"}, "the logs do not know each other"},
	{"hub/redislog", []string{"hub", "protocol"}, nil, "the logs do not know each other"},
	{"hub/redislog/redissim", nil, []string{"net/http"}, "a Redis knows nothing of those who use it"},
	{"hub/search", []string{"hub", "hub/redislog", "hub/redislog/redissim", "protocol"}, nil, "the search is of the hub on the real log"},
	{"hub/ingest", []string{"hub", "hub/redislog", "protocol"}, nil, "raw channels are Redis's: what brings them in knows that log"},
	{"hub/logtest", []string{"hub", "protocol"}, nil, "one suite for every log: it knows none"},
	{"transport", []string{"protocol", "auth", "hub"}, []string{"github.com/redis/"}, "what the world touches works on any log"},
	{"transport/quiet", nil, []string{"github.com/", "net/http"}, "a connection is a connection"},
	{"transport/wire", []string{"protocol", "hub", "transport/quiet"}, []string{"github.com/redis/", "net/http"}, "bytes to sockets, whoever made them"},
	{"transport/web", nil, []string{"github.com/redis/"}, "a page needs only what a browser has"},
	{"loadtest", []string{"loadtest/port"}, nil, "a client needs only the protocol on the wire"},
	{"loadtest/port", nil, []string{"."}, "it asks the kernel, and nobody else"},
	{"loadtest/history", nil, []string{"."}, "who judges shares no code with who is judged, nor with who wrote it down"},
	{"loadtest/torture", []string{"loadtest/history", "loadtest/port"}, nil, "a client needs only the protocol on the wire"},
}

// may of transport has its own rooms too.
func allowed(room, imported string, may []string) bool {
	return imported == room || slices.Contains(may, imported) ||
		room == "transport" && (imported == "transport/wire" || imported == "transport/quiet")
}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	require.NoError(t, err)
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		if strings.HasPrefix(name, "cmd/") || strings.HasPrefix(name, "transport/web/") {
			continue // cmd knows everything; the rest is for tests
		}
		at := -1
		for i, e := range edges {
			if (name == e.room || strings.HasPrefix(name, e.room+"/")) && (at < 0 || len(e.room) > len(edges[at].room)) {
				at = i
			}
		}
		require.GreaterOrEqual(t, at, 0, "%s has no line in edges: say what it may import, and why", name)
		seen++
		for _, imported := range p.Imports {
			if own, ok := strings.CutPrefix(imported, module); ok {
				require.True(t, allowed(edges[at].room, own, edges[at].may), "%s imports %s: %s", name, own, edges[at].why)
				continue
			}
			for _, never := range edges[at].never {
				foreign := strings.Contains(strings.Split(imported, "/")[0], ".")
				require.False(t, strings.HasPrefix(imported, never) || never == "." && foreign, "%s imports %s: %s", name, imported, edges[at].why)
			}
		}
		require.NotContains(t, []string{"util", "utils", "common", "types", "models", "helpers"}, name[strings.LastIndex(name, "/")+1:])
	}
	require.GreaterOrEqual(t, seen, 9)
}
