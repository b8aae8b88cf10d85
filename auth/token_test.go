package auth

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

func request(query string, header http.Header) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/api/v1/ws", nil)
	r.URL.RawQuery = query
	if header != nil {
		r.Header = header
	}
	return r
}

func TestFromRequest(t *testing.T) {
	const h, q = protocol.InHeaders, protocol.InQuery
	auth := func(values ...string) http.Header { return http.Header{"Authorization": values} }
	proto := func(values ...string) http.Header { return http.Header{"Sec-Websocket-Protocol": values} }
	all := http.Header{"Authorization": {"Bearer a"}, "Sec-Websocket-Protocol": {"pushhub.v1, pushhub.bearer.p"}}
	for name, c := range map[string]struct {
		query  string
		header http.Header
		token  string
		origin protocol.Origin
	}{
		"nothing":                  {"", nil, "", h},
		"query":                    {"token=q", nil, "q", q},
		"query before all":         {"token=q", all, "q", q},
		"header before protocol":   {"", all, "a", h},
		"empty query":              {"token=", all, "a", h},
		"empty query, then one":    {"token=&token=q", all, "q", q},
		"query is decoded":         {"token=a%2Bb", nil, "a+b", q},
		"other parameter":          {"Token=q&tokens=q", nil, "", h},
		"broken query":             {"token=%zz", auth("Bearer a"), "a", h},
		"bearer":                   {"", auth("Bearer a.b.c"), "a.b.c", h},
		"scheme in any case":       {"", auth("bEARER a"), "a", h},
		"many spaces":              {"", auth("  Bearer    a  "), "a", h},
		"other scheme":             {"", auth("Basic YTpi"), "", h},
		"other scheme, then ours":  {"", auth("Basic YTpi", "Bearer a"), "a", h},
		"scheme alone":             {"", auth("Bearer"), "", h},
		"scheme and space":         {"", auth("Bearer "), "", h},
		"no scheme":                {"", auth("a.b.c"), "", h},
		"scheme runs on":           {"", auth("Bearera"), "", h},
		"empty header, protocol":   {"", http.Header{"Authorization": {""}, "Sec-Websocket-Protocol": {"pushhub.bearer.p"}}, "p", h},
		"bare scheme, protocol":    {"", http.Header{"Authorization": {"Bearer "}, "Sec-Websocket-Protocol": {"pushhub.bearer.p"}}, "p", h},
		"protocol":                 {"", proto("pushhub.v1, pushhub.bearer.a.b.c"), "a.b.c", h},
		"protocol without spaces":  {"", proto("pushhub.bearer.a,pushhub.v1"), "a", h},
		"protocol, several lines":  {"", proto("pushhub.v1", "x, pushhub.bearer.a"), "a", h},
		"protocol, first of two":   {"", proto("pushhub.bearer.a, pushhub.bearer.b"), "a", h},
		"protocol, empty":          {"", proto("pushhub.bearer., pushhub.bearer.b"), "b", h},
		"protocol, in other case":  {"", proto("Pushhub.Bearer.a"), "", h},
		"protocol, bearer alone":   {"", proto("pushhub.bearer"), "", h},
		"protocol, bearer further": {"", proto("x.pushhub.bearer.a"), "", h},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(c.query, c.header)
			token, origin := FromRequest(r.Header, r.URL.Query())
			require.Equal(t, c.token, token)
			require.Equal(t, c.origin, origin)
		})
	}
}

func TestTenantFromRequest(t *testing.T) {
	header := func(values ...string) http.Header { return http.Header{"X-Tenant-Id": values} }
	for name, c := range map[string]struct {
		query  string
		header http.Header
		tenant string
		ok     bool
	}{
		"nothing":           {"", nil, "", true},
		"query":             {"tenant=acme", nil, "acme", true},
		"header":            {"", header("acme"), "acme", true},
		"both":              {"tenant=acme", header("acme"), "acme", true},
		"empty query":       {"tenant=", header("acme"), "acme", true},
		"empty header":      {"tenant=acme", header(""), "acme", true},
		"malformed":         {"tenant=a%20b", nil, "a b", true}, // For refuses it
		"different":         {"tenant=acme", header("beta"), "", false},
		"different case":    {"tenant=acme", header("Acme"), "", false},
		"different queries": {"tenant=acme&tenant=beta", nil, "", false},
		"different headers": {"", header("acme", "beta"), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(c.query, c.header)
			tenant, err := TenantFromRequest(r.Header, r.URL.Query())
			if c.ok {
				require.NoError(t, err)
				require.Equal(t, c.tenant, tenant)
				return
			}
			e := checkError(t, err, "", protocol.BadRequest, "tenant", protocol.IsConflict)
			want := protocol.InQuery
			if c.query == "" {
				want = protocol.InHeaders
			}
			require.Equal(t, want, e.Origin)
		})
	}
}

// FuzzFromRequest holds that a token is never made up: it is in the request,
// where the origin says, and is not empty unless there is none.
func FuzzFromRequest(f *testing.F) {
	f.Add("token=a&tenant=b", "Bearer a", "pushhub.v1, pushhub.bearer.a")
	f.Add("token=", "bearer  a ", "")
	f.Add("token=%zz;x", "Basic x", "pushhub.bearer.,,")
	f.Fuzz(func(t *testing.T, query, authorization, protocols string) {
		r := request(query, http.Header{"Authorization": {authorization}, "Sec-Websocket-Protocol": {protocols}})
		token, origin := FromRequest(r.Header, r.URL.Query())
		values, _ := url.ParseQuery(query)
		switch {
		case values.Get("token") != "":
			require.Equal(t, protocol.InQuery, origin)
			require.Equal(t, values.Get("token"), token)
		case origin == protocol.InQuery:
			require.Contains(t, values["token"], token)
			require.NotEmpty(t, token)
		default:
			require.Equal(t, protocol.InHeaders, origin)
			require.Contains(t, authorization+protocols, token)
		}
		tenant, err := TenantFromRequest(r.Header, r.URL.Query())
		require.Equal(t, err != nil, tenant == "" && values.Get("tenant") != "")
	})
}
