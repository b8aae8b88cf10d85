package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

func TestClaimsBecomeTheIdentity(t *testing.T) {
	id := identify(t, object{
		"tenant_id":     "acme",
		"tenant_access": []object{{"id": "beta", "role": "guest", "tier": "free"}},
		"user_id":       "u7",
		"sub":           "other",
		"topics":        []string{"alerts", "jobs.>"},
		"publish":       []string{"jobs.*"},
		"service_name":  "render",
		"tenant_role":   "admin",
		"subscription":  object{"tier": "professional", "status": "active", "valid_until": "2027-01-01T00:00:00+02:00"},
		"exp":           start.Add(time.Hour).Unix(),
		"iat":           start.Add(-time.Hour).Unix(),
		"nbf":           float64(start.Add(-time.Hour).Unix()) + 0.75,
		"an_other":      object{"is": "ignored"},
	})
	require.Equal(t, &Identity{
		Grants: &Grants{
			Tenant: "acme", Service: "render", Role: "admin", Tier: "professional",
			topics: []string{"alerts", "jobs.>"}, limited: true, publish: []string{"jobs.*"},
			access: []access{{"beta", "guest", "free"}},
		},
		User:   "u7",
		issued: start.Add(-time.Hour).Unix(), expires: start.Add(time.Hour).Unix(),
		paid: time.Date(2026, 12, 31, 22, 0, 0, 0, time.UTC).Unix(),
	}, id)
	require.Equal(t, start.Add(-time.Hour), id.IssuedAt())
	require.Equal(t, start.Add(time.Hour), id.ExpiresAt())
}

// Tokens that grant the same share what says it, as long as it is the same in all.
func TestGrantsAreShared(t *testing.T) {
	v := verifier(t, Config{Secret: secret})
	base := func(user string) object {
		return minimal().with(object{
			"user_id": user, "service_name": "s", "tenant_role": "admin", "topics": []string{"a"}, "publish": []string{"b"},
			"tenant_access": []object{{"id": "beta"}}, "subscription": object{"status": "active", "tier": "free"},
		})
	}
	grantsOf := func(claims object) *Grants {
		id, err := v.Verify(t.Context(), mint(t, "HS256", []byte(secret), nil, claims))
		require.NoError(t, err)
		return id.Grants
	}
	first := grantsOf(base("u1"))
	require.Same(t, first, grantsOf(base("u2")))
	for name, value := range map[string]any{
		"tenant_id": "other", "service_name": "t", "tenant_role": "user", "job_id": "j", "topics": []string{"b"}, "publish": []string{"a"},
		"tenant_access": []object{{"id": "gamma"}}, "subscription": object{"status": "active", "tier": "professional"},
	} {
		require.NotEqual(t, *first, *grantsOf(base("u1").with(object{name: value})), name)
	}
	for i := range maxShared + 10 {
		claims, _ := protocol.ParseObject(fmt.Appendf(nil, `{"tenant_id":"t%d"}`, i))
		require.NotNil(t, v.grants.of(&reader{members: claims}, ""))
	}
	require.LessOrEqual(t, len(v.grants.seen), maxShared)
	require.Equal(t, first, grantsOf(base("u3")))
}

// 0 stands for no end: an end at that second must not pass for none.
func TestSubscriptionThatEndedAtTheEpoch(t *testing.T) {
	v := verifier(t, Config{Secret: secret})
	for _, until := range []string{"1970-01-01T00:00:00Z", "1970-01-01T00:00:00.5Z", "1970-01-01T02:00:00+02:00", "0001-01-01T00:00:00Z"} {
		refuse(t, v, hmacToken(t, minimal().with(object{"subscription": object{"status": "active", "valid_until": until}})),
			protocol.Forbidden, "subscription", protocol.Expired)
	}
}

func TestUserComesFromUserIDOrSub(t *testing.T) {
	for name, c := range map[string]struct {
		claims object
		user   string
	}{
		"user_id":       {object{"user_id": "a", "sub": nil}, "a"},
		"sub":           {object{"user_id": nil, "sub": "b"}, "b"},
		"both":          {object{"user_id": "a", "sub": "b"}, "a"},
		"empty user_id": {object{"user_id": "", "sub": "b"}, "b"},
		"neither":       {object{"user_id": nil}, ""},
		"no topic":      {object{"user_id": "auth0|7 x.y"}, "auth0|7 x.y"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.user, identify(t, minimal().with(c.claims)).User)
		})
	}
}

func TestClaimsAreRefused(t *testing.T) {
	null := json.RawMessage("null")
	later := start.Add(time.Hour).Unix()
	for name, c := range map[string]struct {
		claims object
		field  string
		reason protocol.Reason
	}{
		"no exp":              {object{"exp": nil}, "exp", protocol.Required},
		"exp is a string":     {object{"exp": "1900000000"}, "exp", protocol.Invalid},
		"exp is null":         {object{"exp": null}, "exp", protocol.Invalid},
		"exp in milliseconds": {object{"exp": later * 1000}, "exp", protocol.Invalid},
		"exp is beyond":       {object{"exp": json.RawMessage("1e400")}, "exp", protocol.Invalid},
		"exp is negative":     {object{"exp": -1}, "exp", protocol.Invalid},
		"exp is past":         {object{"exp": start.Add(-time.Hour).Unix()}, "token", protocol.Expired},
		"exp is 0":            {object{"exp": 0}, "token", protocol.Expired},
		"nbf is to come":      {object{"nbf": start.Add(time.Minute).Unix()}, "nbf", protocol.Invalid},
		"nbf is a string":     {object{"nbf": "now"}, "nbf", protocol.Invalid},
		"iat is to come":      {object{"iat": start.Add(time.Minute).Unix()}, "iat", protocol.Invalid},
		"iat is a bool":       {object{"iat": true}, "iat", protocol.Invalid},
		"iss is a number":     {object{"iss": 1}, "iss", protocol.Invalid},
		"aud is a number":     {object{"aud": 1}, "aud", protocol.Invalid},
		"aud has a number":    {object{"aud": []any{"a", 1}}, "aud", protocol.Invalid},
		"aud is null":         {object{"aud": null}, "aud", protocol.Invalid},

		"no tenant":              {object{"tenant_id": nil}, "tenant_id", protocol.Required},
		"empty tenant":           {object{"tenant_id": ""}, "tenant_id", protocol.Required},
		"tenant is a number":     {object{"tenant_id": 7}, "tenant_id", protocol.Invalid},
		"tenant is null":         {object{"tenant_id": null}, "tenant_id", protocol.Invalid},
		"tenant is malformed":    {object{"tenant_id": "a b"}, "tenant_id", protocol.Malformed},
		"tenant has a brace":     {object{"tenant_id": "a}"}, "tenant_id", protocol.Malformed},
		"any tenant, no service": {object{"tenant_id": "*"}, "service_name", protocol.Required},
		"any tenant, empty":      {object{"tenant_id": "*", "service_name": ""}, "service_name", protocol.Required},
		"Tenant_ID":              {object{"tenant_id": nil, "Tenant_ID": "acme"}, "tenant_id", protocol.Required},

		"access is an object":   {object{"tenant_access": object{}}, "tenant_access", protocol.Invalid},
		"access of strings":     {object{"tenant_access": []string{"beta"}}, "tenant_access", protocol.Invalid},
		"access is null":        {object{"tenant_access": null}, "tenant_access", protocol.Invalid},
		"access of null":        {object{"tenant_access": []any{nil}}, "tenant_access", protocol.Invalid},
		"access without id":     {object{"tenant_access": []object{{"role": "x"}}}, "tenant_access", protocol.Malformed},
		"access to any":         {object{"tenant_access": []object{{"id": "*"}}}, "tenant_access", protocol.Malformed},
		"access id is a number": {object{"tenant_access": []object{{"id": 1}}}, "tenant_access", protocol.Invalid},
		"access role is a bool": {object{"tenant_access": []object{{"id": "b", "role": true}}}, "tenant_access", protocol.Invalid},
		"access tier is null":   {object{"tenant_access": []object{{"id": "b", "tier": null}}}, "tenant_access", protocol.Invalid},
		"access, second entry":  {object{"tenant_access": []object{{"id": "b"}, {"id": "a b"}}}, "tenant_access", protocol.Malformed},

		"user is a number":    {object{"user_id": 7}, "user_id", protocol.Invalid},
		"user is null":        {object{"user_id": null}, "user_id", protocol.Invalid},
		"sub is a number":     {object{"sub": 7}, "sub", protocol.Invalid},
		"job is a number":     {object{"job_id": 7}, "job_id", protocol.Invalid},
		"job is null":         {object{"job_id": null}, "job_id", protocol.Invalid},
		"job is empty":        {object{"job_id": ""}, "job_id", protocol.Malformed},
		"job of two tokens":   {object{"job_id": "a.b"}, "job_id", protocol.Malformed},
		"job is a wildcard":   {object{"job_id": "*"}, "job_id", protocol.Malformed},
		"job is the wildcard": {object{"job_id": ">"}, "job_id", protocol.Malformed},

		"topics is a string":      {object{"topics": "alerts"}, "topics", protocol.Invalid},
		"topics is null":          {object{"topics": null}, "topics", protocol.Invalid},
		"topics of numbers":       {object{"topics": []any{"alerts", 1}}, "topics", protocol.Invalid},
		"topics of null":          {object{"topics": []any{nil}}, "topics", protocol.Invalid},
		"topics malformed":        {object{"topics": []string{"alerts", "a..b"}}, "topics", protocol.Malformed},
		"topics: > in the middle": {object{"topics": []string{"a.>.b"}}, "topics", protocol.Malformed},
		"topics empty string":     {object{"topics": []string{""}}, "topics", protocol.Malformed},
		"publish is an object":    {object{"publish": object{}}, "publish", protocol.Invalid},
		"publish malformed":       {object{"publish": []string{"a b"}}, "publish", protocol.Malformed},

		"service is a number":    {object{"service_name": 7}, "service_name", protocol.Invalid},
		"role is an array":       {object{"tenant_role": []string{}}, "tenant_role", protocol.Invalid},
		"subscription string":    {object{"subscription": "active"}, "subscription", protocol.Invalid},
		"subscription null":      {object{"subscription": null}, "subscription", protocol.Invalid},
		"status is a bool":       {object{"subscription": object{"status": true}}, "subscription", protocol.Invalid},
		"tier is a number":       {object{"subscription": object{"status": "active", "tier": 1}}, "subscription", protocol.Invalid},
		"valid_until number":     {object{"subscription": object{"status": "active", "valid_until": later}}, "subscription", protocol.Invalid},
		"valid_until null":       {object{"subscription": object{"status": "active", "valid_until": null}}, "subscription", protocol.Invalid},
		"valid_until no zone":    {object{"subscription": object{"status": "active", "valid_until": "2027-01-01T00:00:00"}}, "subscription", protocol.Malformed},
		"valid_until is empty":   {object{"subscription": object{"status": "active", "valid_until": ""}}, "subscription", protocol.Malformed},
		"type goes before state": {object{"subscription": object{"status": "canceled", "tier": 1}}, "subscription", protocol.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			e := refuse(t, verifier(t, Config{Secret: secret}), hmacToken(t, minimal().with(c.claims)), protocol.Unauthorized, c.field, c.reason)
			require.Equal(t, protocol.InHeaders, e.Origin)
		})
	}
}

func TestSubscriptionThatIsNotCurrentIsForbidden(t *testing.T) {
	for name, c := range map[string]struct {
		subscription object
		reason       protocol.Reason
	}{
		"canceled":      {object{"status": "canceled"}, protocol.Invalid},
		"past_due":      {object{"status": "past_due", "valid_until": "2027-01-01T00:00:00Z"}, protocol.Invalid},
		"upper case":    {object{"status": "ACTIVE"}, protocol.Invalid},
		"Status":        {object{"Status": "active"}, protocol.Invalid},
		"no status":     {object{"tier": "free"}, protocol.Invalid},
		"over":          {object{"status": "active", "valid_until": "2026-05-27T10:14:59Z"}, protocol.Expired},
		"over, trial":   {object{"status": "trialing", "valid_until": "2020-01-01T00:00:00Z"}, protocol.Expired},
		"over, zone":    {object{"status": "active", "valid_until": "2026-05-27T12:14:59+02:00"}, protocol.Expired},
		"with a second": {object{"status": "active", "valid_until": "2026-05-27T10:14:59.999Z"}, protocol.Expired},
	} {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, Config{Secret: secret})
			token := hmacToken(t, minimal().with(object{"subscription": c.subscription}))
			refuse(t, v, token, protocol.Forbidden, "subscription", c.reason)
			refuse(t, v, token, protocol.Forbidden, "subscription", c.reason)
		})
	}
	for name, subscription := range map[string]object{
		"active":       {"status": "active"},
		"trialing":     {"status": "trialing", "valid_until": "2026-05-27T10:15:00Z"},
		"another zone": {"status": "active", "valid_until": "2026-05-27T12:15:00+02:00"},
	} {
		t.Run(name, func(t *testing.T) {
			identify(t, minimal().with(object{"subscription": subscription}))
		})
	}
}

func TestGraceProlongsTheSubscription(t *testing.T) {
	v := verifier(t, Config{Secret: secret, Grace: time.Hour})
	token := hmacToken(t, minimal().with(object{
		"exp":          start.Add(24 * time.Hour).Unix(),
		"subscription": object{"status": "active", "valid_until": start.Format(time.RFC3339)},
	}))
	now := start.Add(time.Hour)
	v.now = func() time.Time { return now }
	_, err := v.Verify(t.Context(), token)
	require.NoError(t, err)

	now = now.Add(time.Nanosecond)
	refuse(t, v, token, protocol.Forbidden, "subscription", protocol.Expired) // though it is remembered
}

func TestLeewayIsHalfAMinute(t *testing.T) {
	for name, c := range map[string]struct {
		claims object
		good   bool
	}{
		"exp, just in time": {object{"exp": start.Add(-29 * time.Second).Unix()}, true},
		"exp, too late":     {object{"exp": start.Add(-30 * time.Second).Unix()}, false},
		"nbf, early enough": {object{"nbf": start.Add(30 * time.Second).Unix()}, true},
		"nbf, too early":    {object{"nbf": start.Add(31 * time.Second).Unix()}, false},
		"iat, early enough": {object{"iat": start.Add(30 * time.Second).Unix()}, true},
		"iat, too early":    {object{"iat": start.Add(31 * time.Second).Unix()}, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verifier(t, Config{Secret: secret}).Verify(t.Context(), hmacToken(t, minimal().with(c.claims)))
			require.Equal(t, c.good, err == nil, "%v", err)
		})
	}
}

func TestIssuerAndAudience(t *testing.T) {
	cfg := Config{Secret: secret, Issuer: "https://idp", Audience: "pushhub"}
	good := minimal().with(object{"iss": "https://idp", "aud": "pushhub"})
	for name, c := range map[string]struct {
		change object
		field  string
		reason protocol.Reason
	}{
		"both right":         {object{}, "", ""},
		"one of many":        {object{"aud": []string{"other", "pushhub"}}, "", ""},
		"no issuer":          {object{"iss": nil}, "iss", protocol.Required},
		"empty issuer":       {object{"iss": ""}, "iss", protocol.Required},
		"other issuer":       {object{"iss": "https://idp/"}, "iss", protocol.Invalid},
		"no audience":        {object{"aud": nil}, "aud", protocol.Required},
		"empty audience":     {object{"aud": ""}, "aud", protocol.Required},
		"empty list":         {object{"aud": []string{}}, "aud", protocol.Required},
		"other audience":     {object{"aud": "pushhubs"}, "aud", protocol.Invalid},
		"none of the list":   {object{"aud": []string{"a", "b"}}, "aud", protocol.Invalid},
		"audience an object": {object{"aud": object{"pushhub": true}}, "aud", protocol.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			v, token := verifier(t, cfg), hmacToken(t, good.with(c.change))
			if c.field == "" {
				_, err := v.Verify(t.Context(), token)
				require.NoError(t, err)
				return
			}
			refuse(t, v, token, protocol.Unauthorized, c.field, c.reason)
		})
	}
	identify(t, good) // not configured: any will do
}

func TestWithOrigin(t *testing.T) {
	refused := unauthorized("token", protocol.Expired, "m")
	moved := WithOrigin(refused, protocol.InQuery)
	require.Equal(t, protocol.Errorf(protocol.Unauthorized, protocol.InQuery, "token", protocol.Expired, "m"), moved)
	require.Equal(t, protocol.InHeaders, refused.Origin)

	internal := protocol.Errorf(protocol.Unavailable, protocol.InInternal, "", "", "m")
	require.Same(t, internal, WithOrigin(internal, protocol.InQuery))
	require.Equal(t, context.Canceled, WithOrigin(context.Canceled, protocol.InQuery))
	require.NoError(t, WithOrigin(nil, protocol.InQuery))
}
