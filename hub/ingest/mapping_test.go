package ingest

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

func TestDefaultMapping(t *testing.T) {
	m, err := ParseMapping(DefaultMapping)
	require.NoError(t, err)
	require.Equal(t, []string{"alerts:tenant:*", "render:tenant:*:job:*", "events:tenant:*:*"}, m.Patterns())
	for channel, want := range map[string][2]string{
		"alerts:tenant:acme":              {"acme", "alerts"},
		"render:tenant:acme:job:7b0c-1":   {"acme", "jobs.7b0c-1"},
		"events:tenant:acme:nodes.n1.x":   {"acme", "nodes.n1.x"},
		"alerts:tenant:acme:more":         {},
		"alerts:tenant:":                  {},
		"alerts:tenant:a/b":               {},
		"render:tenant:acme:job:a.b.c":    {},
		"render:tenant:acme:job:a b":      {},
		"events:tenant:acme:*":            {},
		"events:tenant:acme:a:b":          {},
		"events:tenant:acme:users.7.mail": {"acme", "users.7.mail"},
		"other":                           {},
	} {
		rule, tenant, topic := m.find(channel)
		require.Equal(t, want, [2]string{tenant, topic}, channel)
		require.Equal(t, want[0] != "", rule != nil, channel)
	}
}

func TestMappingErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "there is no rule",
		"alerts:{tenant}":                       "want CHANNEL -> TOPIC",
		"alerts -> alerts type=t":               "{tenant} is not in the channel",
		"a:{tenant}:{tenant} -> alerts type=t":  "{tenant} is there twice",
		"a:{tenant} -> jobs.{job} type=t":       "{job} is not in the channel",
		"a:{tenant} -> alerts":                  "type is missing",
		"a:{tenant} -> a..b type=t":             "malformed topic",
		"a:{tenant} -> a type=t final=status":   "final is not",
		"a:{tenant} -> a type=t colour=red":     "colour is none of type, key, final",
		"a:{Tenant} -> a type=t":                "a brace that is no {name}",
		"pushhub:{tenant} -> a type=t":          "the hub's own",
		"a:{tenant} -> a type=t; b -> b type=t": `ingest rule "b -> b type=t"`,
		"a:{tenant} -> a type=":                 "type has no value",
	} {
		_, err := ParseMapping(text)
		require.ErrorContains(t, err, want, text)
	}
	m, err := ParseMapping(`a*[x]:{tenant} -> a type=t`)
	require.NoError(t, err)
	require.Equal(t, []string{`a\*\[x\]:*`}, m.Patterns(), "what Redis would take for a pattern is escaped")
}

func TestEvent(t *testing.T) {
	m, err := ParseMapping(DefaultMapping)
	require.NoError(t, err)
	render := &m[1]
	for payload, want := range map[string]protocol.Publication{
		` {"status":"failed", "x":1.50} `: {Type: "render.progress.v1", Key: "progress", Final: true, Data: []byte(`{"status":"failed","x":1.50}`)},
		`{"status":"rendering"}`:          {Type: "render.progress.v1", Key: "progress", Data: []byte(`{"status":"rendering"}`)},
		`{"Status":"failed"}`:             {Type: "render.progress.v1", Key: "progress", Data: []byte(`{"Status":"failed"}`)},
		`{"type":"a.v2","source":"","source_agent":"s","time":"soon","timestamp":"2026-05-27T10:15:00+02:00","event_id":"e1"}`: {
			Type: "a.v2", Source: "s", Time: "2026-05-27T10:15:00+02:00", Key: "progress", Dedupe: "e1",
			Data: []byte(`{"type":"a.v2","source":"","source_agent":"s","time":"soon","timestamp":"2026-05-27T10:15:00+02:00","event_id":"e1"}`)},
		`{"type":7,"event_id":"a\u0000b"}`: {Type: "render.progress.v1", Key: "progress", Data: []byte(`{"type":7,"event_id":"a\u0000b"}`)},
		`[1]`:                              {Type: "render.progress.v1", Key: "progress", Data: []byte(`[1]`)},
	} {
		want.Topic = "jobs.1"
		got, err := render.event("jobs.1", []byte(payload), 1000)
		require.NoError(t, err, payload)
		require.Equal(t, want, got, payload)
	}
	for payload, want := range map[string]error{"": errNoJSON, "{": errNoJSON, "{} {}": errNoJSON, "\"\xff\"": errNoJSON, `"` + string(bytes.Repeat([]byte("x"), 1000)) + `"`: errTooLarge} {
		_, err := render.event("jobs.1", []byte(payload), 1000)
		require.ErrorIs(t, err, want, "%.20s", payload)
	}
}

// FuzzMessage has strangers choose channel and payload: what is taken is a whole
// and well-formed event.
func FuzzMessage(f *testing.F) {
	f.Add("render:tenant:acme:job:7", []byte(`{"status":"completed"}`))
	f.Add("events:tenant:acme:a.b", []byte(` [1, 2] `))
	m, err := ParseMapping(DefaultMapping)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, channel string, payload []byte) {
		rule, tenant, topic := m.find(channel)
		if rule == nil {
			return
		}
		require.NoError(t, protocol.CheckTenant(tenant))
		require.NoError(t, protocol.CheckTopic(topic))
		p, err := rule.event(topic, payload, 1<<10)
		if err != nil {
			return
		}
		require.True(t, json.Valid(p.Data))
		require.LessOrEqual(t, len(p.Data), 1<<10)
		require.True(t, protocol.CheckLabel(p.Type))
		for _, s := range []string{p.Key, p.Source, p.Dedupe} {
			require.True(t, s == "" || protocol.CheckLabel(s))
		}
		require.True(t, p.Time == "" || protocol.CheckTime(p.Time))
	})
}

func FuzzParseMapping(f *testing.F) {
	f.Add(DefaultMapping)
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := ParseMapping(text); err == nil {
			m.find("alerts:tenant:acme")
			require.NotEmpty(t, m.Patterns())
		}
	})
}
