package auth

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pushhub/pushhub/protocol"
)

// maxDate is the last second that RFC 3339 can write. An exp in milliseconds,
// a common mistake, lies beyond it.
const maxDate = 253402300799

// identity reads the claims of a token whose signature is good. The error is
// unauthorized and names the claim, or forbidden for a subscription whose status
// is not current. What depends on the time of each call is left to current.
func (v *Verifier) identity(payload []byte, now time.Time) (*Identity, *protocol.Error) {
	r := &reader{}
	var ok bool
	if r.members, ok = protocol.ParseObject(payload); !ok {
		return nil, unauthorized("token", protocol.Malformed, "the claims are not a JSON object")
	}
	id := &Identity{}

	var dated bool
	if id.expires, dated = r.date("exp"); !dated {
		r.fail("exp", protocol.Required, "the token has no exp")
	}
	soon := now.Add(Leeway)
	if id.issued, _ = r.date("iat"); time.Unix(id.issued, 0).After(soon) {
		r.fail("iat", protocol.Invalid, "the token is of the future")
	}
	if start, _ := r.date("nbf"); time.Unix(start, 0).After(soon) {
		r.fail("nbf", protocol.Invalid, "the token is not valid yet")
	}
	v.readParties(r)

	user, subject := r.text("user_id"), r.text("sub")
	if id.User = user; user == "" {
		id.User = subject
	}
	tier, current := v.readSubscription(r, id)
	id.Grants = v.grants.of(r, tier)

	switch {
	case r.err != nil:
		return nil, r.err
	case !current:
		return nil, forbidden("subscription", protocol.Invalid, "the subscription is not active")
	}
	return id, nil
}

// shared has the Grants of the tokens that were verified, found by the JSON that
// says them. The zero shared is ready for use.
type shared struct {
	mu   sync.Mutex
	seen map[string]*Grants // guarded by mu
}

// maxShared bounds seen: over it, it begins again.
const maxShared = 10_000

// of gives what the claims grant, the same Grants to all that say the same. What is
// wrong with them is told to r.
func (s *shared) of(r *reader, tier string) *Grants {
	key := []byte(tier)
	for _, name := range []string{"service_name", "tenant_id", "tenant_access", "tenant_role", "job_id", "topics", "publish"} {
		key = append(append(key, 0), r.members.Get(name)...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.seen[string(key)]
	if g != nil || r.err != nil {
		return g
	}
	if g = r.grants(tier); r.err != nil {
		return nil
	}
	if s.seen == nil || len(s.seen) >= maxShared {
		s.seen = map[string]*Grants{}
	}
	s.seen[string(key)] = g
	return g
}

func (r *reader) grants(tier string) *Grants {
	g := &Grants{Tier: tier, Service: r.text("service_name"), Tenant: r.text("tenant_id")}
	switch {
	case g.Tenant == "":
		r.fail("tenant_id", protocol.Required, "the token names no tenant")
	case g.Tenant == anyTenant && g.Service == "":
		r.fail("service_name", protocol.Required, "a token for any tenant needs a service_name")
	case g.Tenant != anyTenant && protocol.CheckTenant(g.Tenant) != nil:
		r.fail("tenant_id", protocol.Malformed, "the tenant_id is malformed")
	}
	g.access = r.access()
	g.Role = r.text("tenant_role")
	if job, ok := r.optional("job_id"); ok {
		if strings.Contains(job, ".") || protocol.CheckTopic(protocol.JobsPrefix+job) != nil {
			r.fail("job_id", protocol.Malformed, "the job_id is malformed")
		}
		g.Job = job
	}
	g.topics, g.limited = r.patterns("topics")
	g.publish, _ = r.patterns("publish")
	return g
}

// readParties checks iss and aud, which must be there only if they are configured.
func (v *Verifier) readParties(r *reader) {
	switch issuer := r.text("iss"); {
	case v.issuer == "" || issuer == v.issuer:
	case issuer == "":
		r.fail("iss", protocol.Required, "the token names no issuer")
	default:
		r.fail("iss", protocol.Invalid, "the token is of another issuer")
	}
	switch audience := r.audience(); {
	case v.audience == "" || slices.Contains(audience, v.audience):
	case len(audience) == 0:
		r.fail("aud", protocol.Required, "the token names no audience")
	default:
		r.fail("aud", protocol.Invalid, "the token is for another audience")
	}
}

// readSubscription gives the tier, and whether the status is current; when the
// subscription ends it says in id. A token without one is never held up by it.
func (v *Verifier) readSubscription(r *reader, id *Identity) (tier string, current bool) {
	sub := &reader{within: "subscription"}
	raw := r.members.Get("subscription")
	if raw == nil {
		return "", true
	}
	var ok bool
	if sub.members, ok = protocol.ParseObject(raw); !ok {
		r.wrong("subscription", "an object")
		return "", true
	}
	tier = sub.text("tier")
	status := sub.text("status")
	if until, ok := sub.optional("valid_until"); ok {
		end, err := time.Parse(time.RFC3339, until)
		if err != nil {
			sub.fail("valid_until", protocol.Malformed, "the valid_until of the subscription is no RFC 3339 time with a zone")
		}
		id.paid = max(1, end.Add(v.grace).Unix()) // 0 is for none
	}
	r.adopt(sub)
	return tier, status == "active" || status == "trialing"
}

// reader takes members out of a JSON object whose names are matched exactly. It
// keeps the first thing that is wrong.
type reader struct {
	members protocol.Object
	within  string // the claim that the object is part of; "" for the claims themselves
	err     *protocol.Error
}

func (r *reader) fail(name string, reason protocol.Reason, message string) {
	if r.err == nil {
		if r.within != "" {
			name = r.within
		}
		r.err = unauthorized(name, reason, message)
	}
}

func (r *reader) adopt(inner *reader) {
	if r.err == nil {
		r.err = inner.err
	}
}

// wrong: a member is not what it has to be, which want says in words.
func (r *reader) wrong(name, want string) {
	whole := name
	if r.within != "" {
		whole = r.within + "." + name
	}
	r.fail(name, protocol.Invalid, whole+" is not "+want)
}

// optional gives a string and whether the member is there.
func (r *reader) optional(name string) (string, bool) {
	raw := r.members.Get(name)
	if raw == nil {
		return "", false
	}
	s, ok := protocol.ParseText(raw)
	if !ok {
		r.wrong(name, "a string")
	}
	return s, ok
}

// text gives a string, "" where the member is absent.
func (r *reader) text(name string) string {
	s, _ := r.optional(name)
	return s
}

// date gives a numeric date, cut to the second, and whether it is there.
func (r *reader) date(name string) (int64, bool) {
	raw := r.members.Get(name)
	if raw == nil {
		return 0, false
	}
	seconds, err := strconv.ParseFloat(string(raw), 64)
	switch {
	case raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') || err != nil: // else it is a number, as ParseObject found it
		r.wrong(name, "a number of seconds")
		return 0, false
	case seconds < 0 || seconds > maxDate:
		r.fail(name, protocol.Invalid, name+" is not a number of seconds since 1970")
		return 0, false
	}
	return int64(seconds), true
}

// patterns gives a list of topics and patterns, and whether it is there.
func (r *reader) patterns(name string) ([]string, bool) {
	raw := r.members.Get(name)
	if raw == nil {
		return nil, false
	}
	list, ok := texts(raw)
	if !ok {
		r.wrong(name, "an array of strings")
		return nil, false
	}
	for _, p := range list {
		if protocol.CheckPattern(p) != nil {
			r.fail(name, protocol.Malformed, name+" holds a malformed pattern")
		}
	}
	return list, true
}

// texts reads an array of strings.
func texts(raw []byte) ([]string, bool) {
	parts, ok := protocol.ParseArray(raw)
	list := make([]string, len(parts))
	for i, p := range parts {
		var text bool
		list[i], text = protocol.ParseText(p)
		ok = ok && text
	}
	return list, ok
}

// audience gives aud, which may be a string or an array of strings.
func (r *reader) audience() []string {
	raw := r.members.Get("aud")
	if raw == nil {
		return nil
	}
	if one, ok := protocol.ParseText(raw); ok {
		return slices.DeleteFunc([]string{one}, func(s string) bool { return s == "" })
	}
	list, ok := texts(raw)
	if !ok {
		r.wrong("aud", "a string or an array of strings")
		return nil
	}
	return list
}

// access gives the entries of tenant_access.
func (r *reader) access() []access {
	const name = "tenant_access"
	raw := r.members.Get(name)
	if raw == nil {
		return nil
	}
	entries, ok := protocol.ParseArray(raw)
	if !ok {
		r.wrong(name, "an array of objects")
		return nil
	}
	list := make([]access, 0, len(entries))
	for _, raw := range entries {
		entry := &reader{within: name}
		if entry.members, ok = protocol.ParseObject(raw); !ok {
			r.wrong(name, "an array of objects")
			return nil
		}
		a := access{entry.text("id"), entry.text("role"), entry.text("tier")}
		if protocol.CheckTenant(a.tenant) != nil {
			entry.fail("id", protocol.Malformed, "tenant_access holds an entry without a well-formed id")
		}
		r.adopt(entry)
		list = append(list, a)
	}
	return list
}
