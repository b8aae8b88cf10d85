package auth

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/pushhub/pushhub/protocol"
)

const (
	// BearerProtocol + token is a WebSocket subprotocol that a client offers to
	// hand in its token. The hub never selects it.
	BearerProtocol = "pushhub.bearer."
	// TenantHeader names the tenant of a request, as ?tenant= does.
	TenantHeader = "X-Tenant-Id"
)

// FromRequest gives the token of a request and where it was: the first of ?token=,
// an Authorization header of the scheme Bearer (in any case), and a subprotocol
// BearerProtocol + token. What is empty counts as absent. Without a token it gives
// "" and headers.
func FromRequest(header http.Header, query url.Values) (token string, origin protocol.Origin) {
	for _, token := range query["token"] {
		if token != "" {
			return token, protocol.InQuery
		}
	}
	for _, credentials := range header.Values("Authorization") {
		scheme, token, _ := strings.Cut(strings.TrimSpace(credentials), " ")
		if token = strings.TrimSpace(token); token != "" && strings.EqualFold(scheme, "Bearer") {
			return token, protocol.InHeaders
		}
	}
	for _, list := range header.Values("Sec-WebSocket-Protocol") {
		for offer := range strings.SplitSeq(list, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(offer), BearerProtocol); ok && token != "" {
				return token, protocol.InHeaders
			}
		}
	}
	return "", protocol.InHeaders
}

// TenantFromRequest gives the tenant that a request names by ?tenant= or
// X-Tenant-Id, "" if neither does; what is empty counts as absent. Whether it is
// well-formed and may be used is for Identity.For to say. The error, for names
// that differ, is a *protocol.Error, bad_request.
func TenantFromRequest(header http.Header, query url.Values) (string, error) {
	named, origin := "", protocol.InQuery
	for _, place := range []struct {
		names  []string
		origin protocol.Origin
	}{{query["tenant"], protocol.InQuery}, {header.Values(TenantHeader), protocol.InHeaders}} {
		for _, name := range place.names {
			switch {
			case name == "" || name == named:
			case named == "":
				named, origin = name, place.origin
			default:
				return "", WithOrigin(badRequest("tenant", protocol.IsConflict, "different tenants are named, by ?tenant= or X-Tenant-Id"), origin)
			}
		}
	}
	return named, nil
}
