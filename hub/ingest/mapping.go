package ingest

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pushhub/pushhub/protocol"
)

// DefaultMapping is the mapping of the wire contract.
const DefaultMapping = "alerts:tenant:{tenant} -> alerts type=alert.v1; " +
	"render:tenant:{tenant}:job:{job} -> jobs.{job} type=render.progress.v1 key=progress final=status:completed|failed|cancelled; " +
	"events:tenant:{tenant}:{topic} -> {topic} type=event.v1"

// Mapping says which channels are ingested, and what becomes of their messages.
// A message is of the first rule that fits its channel.
type Mapping []Rule

// Rule maps channels of one form to topics.
type Rule struct {
	Pattern string // for PSUBSCRIBE
	channel *regexp.Regexp
	names   []string // of the groups of channel
	topic   string   // with {name} for groups
	kind    string   // type of events that name none
	key     string   // conflation key; "" none
	field   string   // member whose value makes an event final; "" none
	final   []string
}

// ParseMapping reads rules joined by semicolons:
//
//	CHANNEL -> TOPIC type=TYPE [key=KEY] [final=MEMBER:VALUE|VALUE]
//
// CHANNEL has {tenant} once and may have other {names}, each for one part without
// a colon; TOPIC may use them. A name stands for a topic, dots and all, where it
// is all of TOPIC.
func ParseMapping(s string) (Mapping, error) {
	var m Mapping
	for text := range strings.SplitSeq(s, ";") {
		if strings.TrimSpace(text) == "" {
			continue
		}
		rule, err := parseRule(text)
		if err != nil {
			return nil, fmt.Errorf("ingest rule %q: %w", strings.TrimSpace(text), err)
		}
		m = append(m, rule)
	}
	if m == nil {
		return nil, errors.New("ingest: there is no rule")
	}
	return m, nil
}

var placeholder = regexp.MustCompile(`\{([a-z_]+)\}`)

func parseRule(text string) (Rule, error) {
	var r Rule
	left, right, ok := strings.Cut(text, "->")
	channel, words := strings.TrimSpace(left), strings.Fields(right)
	if !ok || channel == "" || len(words) == 0 {
		return r, errors.New("want CHANNEL -> TOPIC type=TYPE")
	}
	if err := r.parseChannel(channel); err != nil {
		return r, err
	}
	r.topic = words[0]
	for _, n := range placeholder.FindAllStringSubmatch(r.topic, -1) {
		if !slices.Contains(r.names, n[1]) {
			return r, fmt.Errorf("{%s} is not in the channel", n[1])
		}
	}
	if err := protocol.CheckTopic(placeholder.ReplaceAllString(r.topic, "x")); err != nil {
		return r, err
	}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		switch {
		case !protocol.CheckLabel(value):
			return r, fmt.Errorf("%s has no value, or one that is too long", name)
		case name == "type":
			r.kind = value
		case name == "key":
			r.key = value
		case name == "final":
			field, values, _ := strings.Cut(value, ":")
			r.field, r.final = field, strings.Split(values, "|")
			if field == "" || values == "" {
				return r, errors.New("final is not MEMBER:VALUE|VALUE")
			}
		default:
			return r, fmt.Errorf("%s is none of type, key, final", name)
		}
	}
	if r.kind == "" {
		return r, errors.New("type is missing")
	}
	return r, nil
}

// parseChannel turns the form of a channel into a pattern of Redis and a regular
// expression.
func (r *Rule) parseChannel(channel string) (err error) {
	var pattern, expr strings.Builder
	expr.WriteString("^")
	rest := channel
	for {
		at := placeholder.FindStringSubmatchIndex(rest)
		literal := rest
		if at != nil {
			literal = rest[:at[0]]
		}
		if strings.ContainsAny(literal, "{}") {
			return errors.New("a brace that is no {name}")
		}
		for _, c := range literal {
			if strings.ContainsRune(`*?[]\^`, c) {
				pattern.WriteByte('\\')
			}
			pattern.WriteRune(c)
		}
		expr.WriteString(regexp.QuoteMeta(literal))
		if at == nil {
			break
		}
		name := rest[at[2]:at[3]]
		if slices.Contains(r.names, name) {
			return fmt.Errorf("{%s} is there twice", name)
		}
		r.names = append(r.names, name)
		pattern.WriteString("*")
		expr.WriteString("([^:]+)")
		rest = rest[at[1]:]
	}
	expr.WriteString("$")
	if !slices.Contains(r.names, "tenant") {
		return errors.New("{tenant} is not in the channel")
	}
	if strings.HasPrefix(channel, "pushhub:") {
		return errors.New("channels that begin with pushhub: are the hub's own")
	}
	r.Pattern = pattern.String()
	r.channel, err = regexp.Compile(expr.String())
	return err
}

// Patterns gives what to PSUBSCRIBE to.
func (m Mapping) Patterns() []string {
	var all []string
	for _, r := range m {
		if !slices.Contains(all, r.Pattern) {
			all = append(all, r.Pattern)
		}
	}
	return all
}

// find gives the rule of a channel, its tenant and topic. A channel of the form
// of a rule whose tenant or topic is not well-formed has none.
func (m Mapping) find(channel string) (rule *Rule, tenant, topic string) {
	for i := range m {
		r := &m[i]
		at := r.channel.FindStringSubmatchIndex(channel)
		if at == nil {
			continue
		}
		part := func(name string) string {
			n := slices.Index(r.names, name) + 1
			return channel[at[2*n]:at[2*n+1]]
		}
		tenant = part("tenant")
		dots := false
		topic = placeholder.ReplaceAllStringFunc(r.topic, func(s string) string {
			value := part(s[1 : len(s)-1])
			dots = dots || s != r.topic && strings.Contains(value, ".")
			return value
		})
		if dots || protocol.CheckTenant(tenant) != nil || protocol.CheckTopic(topic) != nil {
			return nil, "", ""
		}
		return r, tenant, topic
	}
	return nil, "", ""
}

// Why a message is not ingested.
var (
	errNoJSON   = errors.New("the payload is not JSON in UTF-8")
	errTooLarge = errors.New("the payload is too large")
)

// event makes an event of a payload.
func (r *Rule) event(topic string, payload []byte, max int) (protocol.Publication, error) {
	data, ok := protocol.Compact(payload)
	if !ok {
		return protocol.Publication{}, errNoJSON
	}
	if len(data) > max {
		return protocol.Publication{}, errTooLarge
	}
	p := protocol.Publication{Topic: topic, Type: r.kind, Key: r.key, Data: data}
	if data[0] != '{' {
		return p, nil
	}
	o, _ := protocol.ParseObject(data) // Compact took it
	text := func(name string) string {
		s, _, _ := o.Text(name)
		return s
	}
	first := func(ok func(string) bool, names ...string) string {
		for _, n := range names {
			if s := text(n); ok(s) {
				return s
			}
		}
		return ""
	}
	if kind := first(protocol.CheckLabel, "type"); kind != "" {
		p.Type = kind
	}
	p.Source = first(protocol.CheckLabel, "source", "source_agent")
	p.Time = first(protocol.CheckTime, "time", "timestamp")
	p.Dedupe = first(protocol.CheckLabel, "event_id")
	p.Final = r.field != "" && slices.Contains(r.final, text(r.field))
	return p, nil
}
