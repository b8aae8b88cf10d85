package auth

import (
	"slices"
	"strings"
	"time"

	"github.com/pushhub/pushhub/protocol"
)

// anyTenant as tenant_id of a backend's token: each call names its tenant.
const anyTenant = "*"

// Identity is who holds a token, and what the token grants in one tenant. It
// never changes and is shared: by all connections that use the same token, and
// by any number of goroutines.
type Identity struct {
	*Grants
	User string // "" if the token names none

	// seconds since 1970: there are as many identities as connections
	issued  int64     // 0 if not given
	expires int64     //
	paid    int64     // end of the subscription with its grace; 0 = none
	own     *Identity // the token's own identity, from which For made this one; nil if this is it
}

// Grants is what a token says of a tenant and what may be done there. Identities
// that have the same share it.
type Grants struct {
	Tenant  string // "*" until For has chosen, for a backend that serves all tenants
	Service string // name of a backend; "" for a user
	Role    string // in the tenant; "" if not given
	Tier    string // of the subscription, selects the limits; "" if not given
	Job     string // the only job the token is for; "" = it is not confined

	topics  []string // may be read
	publish []string // may be published to
	access  []access
	limited bool // topics counts, also when it is empty
}

// Nobody gives the identity of whom no token names: it may do nothing.
func Nobody() *Identity { return &Identity{Grants: &Grants{limited: true}} }

// ExpiresAt gives when the token ends.
func (id *Identity) ExpiresAt() time.Time { return time.Unix(id.expires, 0).UTC() }

// IssuedAt gives when the token was made; the zero time if it does not say.
func (id *Identity) IssuedAt() time.Time {
	if id.issued == 0 {
		return time.Time{}
	}
	return time.Unix(id.issued, 0).UTC()
}

// access is one more tenant that a token holds.
type access struct{ tenant, role, tier string }

// For gives the identity in the tenant that a request names by ?tenant= or
// X-Tenant-Id; "" is the token's own. Role and tier are those of the entry of
// tenant_access. The error is a *protocol.Error: bad_request for a malformed
// name, or for none with a token that has no tenant of its own; forbidden for a
// tenant that the token does not hold. It may be asked of any identity of the
// token.
func (id *Identity) For(tenant string) (*Identity, error) {
	own := id
	if id.own != nil {
		own = id.own
	}
	switch {
	case tenant == "" && own.Tenant == anyTenant:
		return nil, badRequest("tenant", protocol.Required, "the token is for any tenant: name one by ?tenant= or X-Tenant-Id")
	case tenant == "" || tenant == own.Tenant && tenant != anyTenant:
		return own, nil
	case protocol.CheckTenant(tenant) != nil:
		return nil, badRequest("tenant", protocol.Malformed, "the tenant is malformed")
	}
	for _, a := range own.access {
		if a.tenant == tenant {
			return own.in(a), nil
		}
	}
	if own.Tenant == anyTenant {
		return own.in(access{tenant, own.Role, own.Tier}), nil
	}
	return nil, forbidden("tenant", protocol.IsForbidden, "the token does not hold this tenant")
}

func (id *Identity) in(a access) *Identity {
	grants, other := *id.Grants, *id
	grants.Tenant, grants.Role, grants.Tier = a.tenant, a.role, a.tier
	other.Grants, other.own = &grants, id
	return &other
}

// MayRead says whether the whole of a well-formed topic or pattern may be
// subscribed to. With hidePrivate the caller leaves out every event whose topic
// is private to another user (protocol.PrivateTo): that is so for each pattern
// that begins with a wildcard.
//
// A token without topics reads its tenant but other users' private topics. One
// with topics reads what lies within one of them; there, other users' private
// topics are open only to a pattern that itself begins with "users.". A job
// token reads jobs.<job_id> and nothing else, if its topics, should it have any,
// grant that.
func (id *Identity) MayRead(pattern string) (hidePrivate bool, ok bool) {
	if !id.inJob(pattern) {
		return false, false
	}
	wild := strings.HasPrefix(pattern, "*") || strings.HasPrefix(pattern, ">")
	if !id.limited {
		return wild, !id.private(pattern)
	}
	for _, grant := range id.topics {
		if protocol.Covers(grant, pattern) && (strings.HasPrefix(grant, protocol.UsersPrefix) || !id.private(pattern)) {
			return wild, true
		}
	}
	return false, false
}

// Readable gives the topics and patterns that cover all that may be read: what
// somebody gets who does not choose.
func (id *Identity) Readable() []string {
	switch {
	case id.Job != "":
		return []string{protocol.JobsPrefix + id.Job}
	case id.limited:
		return id.topics
	}
	return []string{protocol.Everything}
}

// MaySee says whether events of one well-formed topic, not a pattern, may be
// read. Behind a pattern for which MayRead says hidePrivate less is shown: see
// there.
func (id *Identity) MaySee(topic string) bool {
	_, ok := id.MayRead(topic)
	return ok
}

// MayPublish says whether events may be published to a well-formed topic: one of
// the token's publish patterns matches it. Those that begin with a wildcard
// include the private topics of users. A job token publishes to jobs.<job_id>
// only.
func (id *Identity) MayPublish(topic string) bool {
	if !id.inJob(topic) {
		return false
	}
	for _, grant := range id.publish {
		if protocol.Match(grant, topic) {
			return true
		}
	}
	return false
}

// MayPublishAll says whether every topic may be published to, which is the right
// to close connections too.
func (id *Identity) MayPublishAll() bool {
	if id.Job != "" {
		return false
	}
	return slices.Contains(id.publish, protocol.Everything)
}

// Requester names the holder in logs and budgets: "service:<name>", else
// "user:<id>", else "".
func (id *Identity) Requester() string {
	switch {
	case id.Service != "":
		return "service:" + id.Service
	case id.User != "":
		return "user:" + id.User
	}
	return ""
}

// SameHolder says whether other is of the same user or service in the same
// tenant, so that its token may take the place of this one's on a live
// connection.
func (id *Identity) SameHolder(other *Identity) bool {
	return other != nil && id.Tenant == other.Tenant && id.User == other.User && id.Service == other.Service
}

// inJob says whether the name is not kept from the holder by a job_id.
func (id *Identity) inJob(name string) bool {
	if id.Job == "" {
		return true
	}
	job, ok := strings.CutPrefix(name, protocol.JobsPrefix)
	return ok && job == id.Job
}

// private says whether a name begins with "users." and is not the holder's own.
// A user whose id is not a topic token has no private topics; one that is called
// * must not pass for all.
func (id *Identity) private(name string) bool {
	user := protocol.PrivateTo(name)
	return user != "" && (user != id.User || user == "*" || user == ">")
}

// current says whether the token and its subscription are good at a time.
func (id *Identity) current(now time.Time) *protocol.Error {
	switch {
	case id.expired(now):
		return unauthorized("token", protocol.Expired, "the token has expired")
	case id.paid != 0 && now.After(time.Unix(id.paid, 0)):
		return forbidden("subscription", protocol.Expired, "the subscription has expired")
	}
	return nil
}

func (id *Identity) expired(now time.Time) bool { return !now.Before(id.ExpiresAt().Add(Leeway)) }
