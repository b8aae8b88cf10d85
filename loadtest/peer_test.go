package loadtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// Every description is well-formed, and what it makes is HTTP and JSON.
func TestPeers(t *testing.T) {
	files, err := filepath.Glob("testdata/peers/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	peers := []*Peer{Pushhub()}
	for _, file := range files {
		p, err := ReadPeer(file)
		require.NoError(t, err)
		peers = append(peers, p)
	}
	for _, p := range peers {
		t.Run(p.Name, func(t *testing.T) {
			for _, batch := range [][]mark{{{n: 1, k: 1, t: 5}}, {{n: 1, k: 1, t: 5}, {n: 1, k: 0, t: 6}}} {
				if len(batch) > 1 && p.Publish.Batch[0] == "" {
					continue
				}
				h := httpPublisher{addr: "127.0.0.1:1", form: p.Publish, token: "jwt", topics: []string{"a", "b"}, size: 100}
				h.request(batch)
				req, err := http.ReadRequest(bufio.NewReader(&h.out))
				require.NoError(t, err)
				body, err := io.ReadAll(req.Body)
				require.NoError(t, err)
				require.NotContains(t, req.URL.String()+string(body), "{topic}")
				if req.Header.Get("Content-Type") == "application/json" {
					require.True(t, json.Valid(body), "%s", body)
				}
				require.Equal(t, len(batch), bytes.Count(body, []byte(findData)))
			}
			for _, end := range []*Endpoint{p.WebSocket, p.SSE} {
				if end == nil {
					continue
				}
				path := fill(end.Path, "{topic}", "a", "{topics}", "a", "{cursor}", "", "{number}", "0", "{token}", "jwt")
				require.NotContains(t, path, "{")
				for _, text := range end.Send {
					require.True(t, json.Valid([]byte(fill(text, "{topic}", "a", "{token}", "jwt"))), text)
				}
			}
		})
	}
}

func TestTokensAreFilledIn(t *testing.T) {
	text, err := sign("secret", map[string]any{"tenant_id": tenant, "a": []any{map[string]any{"b": "{user}"}}}, "{user}", "u1")
	require.NoError(t, err)
	claims := jwt.MapClaims{}
	_, err = jwt.ParseWithClaims(text, claims, func(*jwt.Token) (any, error) { return []byte("secret"), nil })
	require.NoError(t, err)
	require.Equal(t, []any{map[string]any{"b": "u1"}}, claims["a"])
	require.Contains(t, claims, "exp")
	require.Equal(t, 2, strings.Count(text, "."))
}
