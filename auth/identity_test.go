package auth

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

func TestMayRead(t *testing.T) {
	const (
		no     = "no"
		yes    = "yes"
		hiding = "hiding" // yes, but others' private topics
	)
	for name, c := range map[string]struct {
		claims object
		want   map[string]string
	}{
		"without topics": {object{}, map[string]string{
			"alerts": yes, "alerts.>": yes, "jobs.*": yes, "jobs.>": yes, "a.b.c": yes, "users": yes, "usersx.u8": yes,
			"users.u7": yes, "users.u7.inbox": yes, "users.u7.>": yes, "users.u7.*": yes,
			"users.u8": no, "users.u8.>": no, "users.U7": no, "users.u77": no, "users.*": no, "users.>": no, "users.*.inbox": no, "users.*.>": no,
			">": hiding, "*": hiding, "*.u7": hiding, "*.*": hiding, "*.>": hiding,
		}},
		"without a user": {object{"user_id": nil}, map[string]string{
			"alerts": yes, "users": yes, "users.u7": no, "users.*": no, "users.>": no, ">": hiding,
		}},
		"user is *": {object{"user_id": "*"}, map[string]string{
			"users.*": no, "users.*.inbox": no, "users.>": no, "users.u7": no, ">": hiding,
		}},
		"user is >": {object{"user_id": ">"}, map[string]string{"users.*": no, "users.>": no}},
		"user is no token": {object{"user_id": "u7.x"}, map[string]string{
			"users.u7": no, "users.u7.x": no, "users.u7.>": no, "alerts": yes,
		}},
		"some topics": {object{"topics": []string{"alerts", "jobs.*", "nodes.>"}}, map[string]string{
			"alerts": yes, "jobs.1": yes, "jobs.*": yes, "nodes.1": yes, "nodes.*": yes, "nodes.1.>": yes, "nodes.>": yes,
			"alerts.x": no, "alerts.>": no, "jobs": no, "jobs.1.x": no, "jobs.>": no, "nodes": no, ">": no, "*": no, "*.1": no,
			"users.u7": no, "users.u7.>": no, "users.u8": no,
		}},
		"two that add up to more": {object{"topics": []string{"jobs.*", "jobs.*.>"}}, map[string]string{
			"jobs.*": yes, "jobs.*.>": yes, "jobs.>": no,
		}},
		"no topics at all": {object{"topics": []string{}}, map[string]string{
			"alerts": no, ">": no, "*": no, "users.u7": no, "jobs.1": no,
		}},
		"everything": {object{"topics": []string{">"}}, map[string]string{
			"alerts": yes, "jobs.>": yes, "users": yes, "users.u7": yes, "users.u7.>": yes,
			"users.u8": no, "users.u8.>": no, "users.*": no, "users.>": no, "users.*.x": no,
			">": hiding, "*": hiding, "*.>": hiding, "*.u8": hiding,
		}},
		"two tokens": {object{"topics": []string{"*.*"}}, map[string]string{
			"a.b": yes, "users.u7": yes, "users.u8": no, "users.*": no, "*.*": hiding, "*.u8": hiding, "alerts": no, ">": no,
		}},
		"wildcard, then a user": {object{"topics": []string{"*.u8"}}, map[string]string{
			"*.u8": hiding, "nodes.u8": yes, "users.u8": no, "users.u7": no,
		}},
		"another user": {object{"topics": []string{"users.u8", "users.u8.>"}}, map[string]string{
			"users.u8": yes, "users.u8.inbox": yes, "users.u8.>": yes, "users.u7": no, "users.*": no, "users.>": no,
		}},
		"all users": {object{"topics": []string{"users.>"}}, map[string]string{
			"users.u8": yes, "users.*": yes, "users.>": yes, "users.*.inbox": yes, "users.u7": yes, "users": no, ">": no, "*.u8": no,
		}},
		"all users and everything": {object{"topics": []string{">", "users.>"}}, map[string]string{
			"users.u8": yes, "users.>": yes, "alerts": yes, ">": hiding,
		}},
		"everything, user is *": {object{"topics": []string{">"}, "user_id": "*"}, map[string]string{
			"users.*": no, "users.*.x": no, ">": hiding,
		}},
		"job": {object{"job_id": "j1"}, map[string]string{
			"jobs.j1": yes, "jobs.j1.log": no, "jobs.j1.>": no, "jobs.j2": no, "jobs.*": no, "jobs.>": no, "*": no, ">": no, "*.j1": no,
			"alerts": no, "users.u7": no, "jobs": no, "j1": no,
		}},
		"job and topics": {object{"job_id": "j1", "topics": []string{"jobs.>", "alerts"}}, map[string]string{
			"jobs.j1": yes, "jobs.j2": no, "jobs.>": no, "alerts": no,
		}},
		"job outside its topics": {object{"job_id": "j1", "topics": []string{"alerts"}}, map[string]string{
			"jobs.j1": no, "alerts": no,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			id := identify(t, minimal().with(c.claims))
			for pattern, want := range c.want {
				require.NoError(t, protocol.CheckPattern(pattern))
				hide, ok := id.MayRead(pattern)
				require.Equal(t, want != no, ok, pattern)
				require.Equal(t, want == hiding, hide, pattern)
				if !protocol.IsPattern(pattern) {
					require.Equal(t, ok, id.MaySee(pattern), pattern)
				}
			}
			_, _ = id.MayRead("") // malformed, but no reason to panic
		})
	}
}

func TestMayPublish(t *testing.T) {
	for name, c := range map[string]struct {
		claims  object
		yes, no []string
		all     bool
	}{
		"without publish":     {object{}, nil, []string{"alerts", "users.u7", "jobs.1"}, false},
		"empty":               {object{"publish": []string{}}, nil, []string{"alerts"}, false},
		"some":                {object{"publish": []string{"jobs.*", "alerts"}}, []string{"jobs.1", "alerts"}, []string{"jobs.1.x", "jobs", "alerts.x", "users.u7"}, false},
		"everything":          {object{"publish": []string{"alerts", ">"}}, []string{"alerts", "users.u8", "users.u8.inbox"}, nil, true},
		"nearly":              {object{"publish": []string{"*", "*.>"}}, []string{"alerts", "users.u8"}, nil, false},
		"read is not publish": {object{"topics": []string{">"}}, nil, []string{"alerts"}, false},
		"job":                 {object{"publish": []string{">"}, "job_id": "j1"}, []string{"jobs.j1"}, []string{"jobs.j2", "alerts", "jobs.j1.x"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			id := identify(t, minimal().with(c.claims))
			for _, topic := range c.yes {
				require.True(t, id.MayPublish(topic), topic)
			}
			for _, topic := range c.no {
				require.False(t, id.MayPublish(topic), topic)
			}
			require.Equal(t, c.all, id.MayPublishAll())
		})
	}
}

func TestForAnotherTenant(t *testing.T) {
	own := identify(t, minimal().with(object{
		"tenant_role":   "admin",
		"subscription":  object{"status": "active", "tier": "professional"},
		"tenant_access": []object{{"id": "beta", "role": "guest", "tier": "free"}, {"id": "gamma"}, {"id": "acme", "role": "owner"}},
		"topics":        []string{"alerts"},
	}))
	for name, from := range map[string]*Identity{"own": own, "chosen": must(own.For("beta"))} {
		t.Run(name, func(t *testing.T) {
			for _, same := range []string{"", "acme"} {
				require.Same(t, own, must(from.For(same)))
			}
			beta := must(from.For("beta"))
			require.Equal(t, [...]string{"beta", "u7", "guest", "free"}, [...]string{beta.Tenant, beta.User, beta.Role, beta.Tier})
			require.Equal(t, own.ExpiresAt(), beta.ExpiresAt())
			require.True(t, beta.MaySee("alerts"))
			require.False(t, beta.MaySee("jobs.1"))
			gamma := must(from.For("gamma"))
			require.Equal(t, [...]string{"gamma", "", ""}, [...]string{gamma.Tenant, gamma.Role, gamma.Tier})
		})
	}
	require.Equal(t, [...]string{"acme", "admin", "professional"}, [...]string{own.Tenant, own.Role, own.Tier})

	for tenant, want := range map[string]struct {
		code   protocol.Code
		reason protocol.Reason
	}{
		"delta":                 {protocol.Forbidden, protocol.IsForbidden},
		"Beta":                  {protocol.Forbidden, protocol.IsForbidden},
		"*":                     {protocol.BadRequest, protocol.Malformed},
		"a b":                   {protocol.BadRequest, protocol.Malformed},
		strings.Repeat("a", 65): {protocol.BadRequest, protocol.Malformed},
	} {
		_, err := own.For(tenant)
		checkError(t, err, tenant, want.code, "tenant", want.reason)
	}
}

func TestForAnyTenant(t *testing.T) {
	backend := identify(t, minimal().with(object{"tenant_id": "*", "service_name": "render", "tenant_role": "system", "publish": []string{">"}}))
	_, err := backend.For("")
	checkError(t, err, "", protocol.BadRequest, "tenant", protocol.Required)
	_, err = backend.For("*")
	checkError(t, err, "", protocol.BadRequest, "tenant", protocol.Malformed)

	acme := must(backend.For("acme"))
	require.Equal(t, [...]string{"acme", "render", "system"}, [...]string{acme.Tenant, acme.Service, acme.Role})
	require.True(t, acme.MayPublishAll())
	require.Equal(t, "beta", must(acme.For("beta")).Tenant)
	_, err = acme.For("")
	checkError(t, err, "", protocol.BadRequest, "tenant", protocol.Required)
	require.Equal(t, "*", backend.Tenant)
}

func TestRequester(t *testing.T) {
	require.Equal(t, "user:u7", identify(t, minimal()).Requester())
	require.Equal(t, "service:render", identify(t, minimal().with(object{"service_name": "render"})).Requester())
	require.Equal(t, "", identify(t, minimal().with(object{"user_id": nil})).Requester())
}

func TestSameHolder(t *testing.T) {
	id := identify(t, minimal())
	for name, c := range map[string]struct {
		change object
		same   bool
	}{
		"nothing":  {object{}, true},
		"narrower": {object{"topics": []string{}, "exp": start.Unix() + 7200}, true},
		"by sub":   {object{"user_id": nil, "sub": "u7"}, true},
		"user":     {object{"user_id": "u8"}, false},
		"no user":  {object{"user_id": nil}, false},
		"tenant":   {object{"tenant_id": "beta"}, false},
		"service":  {object{"service_name": "render"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			other := identify(t, minimal().with(c.change))
			require.Equal(t, c.same, id.SameHolder(other))
			require.Equal(t, c.same, other.SameHolder(id))
		})
	}
	require.False(t, id.SameHolder(nil))
}

func TestRightsDoNotAllocate(t *testing.T) {
	id := identify(t, minimal().with(object{"topics": []string{"alerts", "jobs.*", "users.u7.>"}, "publish": []string{"jobs.>"}}))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		id.MayRead("users.u7.inbox")
		id.MaySee("jobs.1")
		id.MayPublish("jobs.1")
	}))
}
