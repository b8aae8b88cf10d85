package auth

import (
	"encoding/json"
	"slices"
	"strings"
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
	id.ExpiresAt, dated = r.date("exp")
	if !dated {
		r.fail("exp", protocol.Required, "the token has no exp")
	}
	id.IssuedAt, _ = r.date("iat")
	if id.IssuedAt.After(now.Add(Leeway)) {
		r.fail("iat", protocol.Invalid, "the token is of the future")
	}
	if start, _ := r.date("nbf"); start.After(now.Add(Leeway)) {
		r.fail("nbf", protocol.Invalid, "the token is not valid yet")
	}
	v.readParties(r)

	id.Service = r.text("service_name")
	id.Tenant = r.text("tenant_id")
	switch {
	case id.Tenant == "":
		r.fail("tenant_id", protocol.Required, "the token names no tenant")
	case id.Tenant == anyTenant && id.Service == "":
		r.fail("service_name", protocol.Required, "a token for any tenant needs a service_name")
	case id.Tenant != anyTenant && protocol.CheckTenant(id.Tenant) != nil:
		r.fail("tenant_id", protocol.Malformed, "the tenant_id is malformed")
	}
	id.access = r.access()
	id.Role = r.text("tenant_role")

	user, subject := r.text("user_id"), r.text("sub")
	if id.User = user; user == "" {
		id.User = subject
	}
	if job, ok := r.optional("job_id"); ok {
		if strings.Contains(job, ".") || protocol.CheckTopic(protocol.JobsPrefix+job) != nil {
			r.fail("job_id", protocol.Malformed, "the job_id is malformed")
		}
		id.Job = job
	}
	id.topics, id.limited = r.patterns("topics")
	id.publish, _ = r.patterns("publish")
	current := v.readSubscription(r, id)

	switch {
	case r.err != nil:
		return nil, r.err
	case !current:
		return nil, forbidden("subscription", protocol.Invalid, "the subscription is not active")
	}
	return id, nil
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

// readSubscription fills what the subscription says and tells whether its status
// is current. A token without one is never held up by it.
func (v *Verifier) readSubscription(r *reader, id *Identity) (current bool) {
	sub := &reader{within: "subscription"}
	raw := r.members.Get("subscription")
	if raw == nil {
		return true
	}
	var ok bool
	if sub.members, ok = protocol.ParseObject(raw); !ok {
		r.wrong("subscription", "an object")
		return true
	}
	id.Tier = sub.text("tier")
	status := sub.text("status")
	if until, ok := sub.optional("valid_until"); ok {
		end, err := time.Parse(time.RFC3339, until)
		if err != nil {
			sub.fail("valid_until", protocol.Malformed, "the valid_until of the subscription is no RFC 3339 time with a zone")
		}
		id.paidUntil = end.Add(v.grace)
	}
	r.adopt(sub)
	return status == "active" || status == "trialing"
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
func (r *reader) date(name string) (time.Time, bool) {
	raw := r.members.Get(name)
	if raw == nil {
		return time.Time{}, false
	}
	var seconds float64
	if string(raw) == "null" || json.Unmarshal(raw, &seconds) != nil {
		r.wrong(name, "a number of seconds")
		return time.Time{}, false
	}
	if seconds < 0 || seconds > maxDate {
		r.fail(name, protocol.Invalid, name+" is not a number of seconds since 1970")
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), 0).UTC(), true
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
