package transport_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/auth"
)

// auth sends a token and gives the answer that carries the ref.
func (s *socket) auth(token string) string {
	s.t.Helper()
	s.say(fmt.Sprintf(`{"op":"auth","ref":"r","token":%q}`, token))
	return s.answer("r")
}

// answer passes over what comes before the answer to a ref.
func (s *socket) answer(ref string) string {
	s.t.Helper()
	m := s.next()
	for !strings.Contains(m, `,"ref":"`+ref+`",`) {
		m = s.next()
	}
	return m
}

// A new token keeps the connection, which then lives as long as that one.
func TestRenewal(t *testing.T) {
	bubble(t, nil, func(t *testing.T, i *instance) {
		ends := func(in time.Duration) (string, time.Time) {
			at := time.Now().Add(in).Truncate(time.Second)
			return token(t, func(c *auth.Claims) { c.ExpiresAt = at.Unix() }), at
		}
		first, _ := ends(5 * time.Minute)
		ws := i.dial("/api/v1/ws?topics=a&token=" + first)
		expiries := 0
		next := func() string {
			m := ws.next()
			for strings.HasPrefix(m, `{"op":"heartbeat"`) {
				m = ws.next()
			}
			return m
		}
		require.Contains(t, next(), "welcome")
		require.Contains(t, next(), "subscribed")
		for range 10 {
			require.Contains(t, next(), `{"op":"expiring"`)
			expiries++
			renewed, at := ends(5 * time.Minute)
			require.Equal(t, fmt.Sprintf(`{"op":"authenticated","ref":"r","expires_at":"%s"}`, at.UTC().Format(time.RFC3339)), ws.auth(renewed))
			i.publish("a", "1")
			require.Contains(t, next(), `"data":1`)
		}
		shorter, at := ends(2 * time.Minute) // also when it ends sooner
		require.Contains(t, ws.auth(shorter), "authenticated")
		require.Contains(t, next(), `{"op":"expiring"`)
		require.Equal(t, time.Minute, time.Until(at))
		require.Contains(t, next(), `{"op":"bye","code":4401`)
		require.Equal(t, time.Duration(0), time.Until(at))
	})
}

// What a narrower token does not grant any more ends at once, and the client is
// told what; the rest goes on.
func TestNarrowerToken(t *testing.T) {
	i := start(t, nil)
	ws := i.dial("/api/v1/ws?topics=alerts,jobs.%3E,jobs.7,nodes.*,users.u1.inbox&token=" + token(t, nil))
	require.Contains(t, ws.next(), "welcome")
	require.Contains(t, ws.next(), "subscribed")
	ws.say(fmt.Sprintf(`{"op":"auth","ref":"1","token":%q}`, token(t, func(c *auth.Claims) { c.Topics = []string{"jobs.*", "nodes.>"} })))
	require.Equal(t, `{"op":"unsubscribed","topics":["alerts","jobs.>","users.u1.inbox"]}`, ws.next())
	require.Contains(t, ws.next(), `{"op":"authenticated","ref":"1"`)
	for _, topic := range []string{"alerts", "jobs.8", "users.u1.inbox", "jobs.7.frames"} {
		i.publish(topic, "0")
	}
	i.publish("jobs.7", "1")
	require.Contains(t, ws.next(), `"data":1}`)
	i.publish("nodes.n", "2")
	require.Contains(t, ws.next(), `"data":2}`)

	ws.say(`{"op":"subscribe","ref":"2","topics":["alerts"]}`)
	require.Contains(t, ws.next(), `"details":{"topics":"forbidden"}`)
	require.Contains(t, ws.auth(token(t, func(c *auth.Claims) { c.Job = "7" })), "authenticated")
	i.publish("nodes.n", "3")
	i.publish("jobs.7", "4")
	require.Contains(t, ws.next(), `"data":4}`)
	require.Contains(t, ws.auth(token(t, nil)), "authenticated")
	ws.say(`{"op":"subscribe","ref":"3","topics":["alerts"]}`)
	require.Contains(t, ws.next(), `{"op":"subscribed","ref":"3"`, "a wider one grants again")
}

// A token that may not take the place of the one at hand changes nothing.
func TestRenewalRefused(t *testing.T) {
	i := start(t, nil)
	mine := func(change func(*auth.Claims)) string {
		return token(t, func(c *auth.Claims) {
			c.Access = []auth.TenantAccess{{ID: "second"}}
			if change != nil {
				change(c)
			}
		})
	}
	ws := i.dial("/api/v1/ws?topics=a&tenant=second&token=" + mine(nil))
	require.Contains(t, ws.next(), `"tenant_id":"second"`)
	require.Contains(t, ws.next(), "subscribed")
	for name, c := range map[string]struct{ token, want string }{
		"no jwt":          {"x", `"code":"unauthorized","message":"[^"]*","origin":"message","details":{"token":"malformed"}`},
		"signature":       {mine(nil)[:50], `"code":"unauthorized",.*"origin":"message","details":{"token":"malformed"}`},
		"expired":         {mine(func(c *auth.Claims) { c.ExpiresAt = 1 }), `"code":"unauthorized",.*"origin":"message","details":{"token":"expired"}`},
		"in the leeway":   {mine(func(c *auth.Claims) { c.ExpiresAt = time.Now().Add(-5 * time.Second).Unix() }), `"code":"unauthorized",.*"origin":"message","details":{"token":"expired"}`},
		"another user":    {mine(func(c *auth.Claims) { c.User = "u2" }), `"code":"forbidden",.*"origin":"message","details":{"token":"forbidden"}`},
		"a service":       {mine(func(c *auth.Claims) { c.Service = "render" }), `"code":"forbidden",.*"origin":"message","details":{"token":"forbidden"}`},
		"not this tenant": {token(t, nil), `"code":"forbidden",.*"origin":"message","details":{"tenant":"forbidden"}`},
		"not subscribed": {mine(func(c *auth.Claims) { c.Subscription = &auth.Subscription{Status: "past_due"} }),
			`"code":"forbidden",.*"origin":"message","details":{"subscription":"invalid"}`},
	} {
		require.Regexp(t, `^{"op":"error","ref":"r","error":{.*`+c.want, ws.auth(c.token), name)
	}
	require.Contains(t, ws.auth(mine(nil)), "authenticated", "the same holder in the tenant that was chosen")
	requireNoTokens(t, i)
}
