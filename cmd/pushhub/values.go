package main

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/hub/ingest"
)

// settingError is about one setting, by the name of its environment variable.
type settingError struct {
	name string
	err  error
}

func (e *settingError) Error() string { return e.name + ": " + e.err.Error() }
func (e *settingError) Unwrap() error { return e.err }

// wrong gives a settingError.
func wrong(name, format string, args ...any) error {
	return &settingError{name, fmt.Errorf(format, args...)}
}

// environment reads settings from the environment. kong could do that itself,
// but not from a given environment, and it takes an empty variable for a value.
func environment(getenv func(string) string) kong.ResolverFunc {
	return func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		name := flag.Tag.Get("setting")
		if name == "" {
			return nil, nil
		}
		if value := getenv(name); value != "" {
			return value, nil
		}
		return nil, nil
	}
}

// describe gives the help of a flag, with the variable that it is the same as.
func describe(v *kong.Value) string {
	name := v.Tag.Get("setting")
	if name == "" {
		return v.Help
	}
	return strings.TrimSuffix(v.Help, ".") + " ($" + name + ")."
}

// decode reads the text of a value. Its errors name the setting, if it is one.
func decode[T any](c *kong.DecodeContext, target *T, parse func(string) (T, error)) error {
	var text string
	err := c.Scan.PopValueInto("value", &text)
	if err == nil {
		*target, err = parse(text)
	}
	if name := c.Value.Tag.Get("setting"); err != nil && name != "" {
		return &settingError{name, err}
	}
	return err
}

// number is a whole number between the tags min (0) and max.
type number int

// Decode implements kong.MapperValue.
func (n *number) Decode(c *kong.DecodeContext) error {
	return decode(c, n, func(text string) (number, error) {
		i, err := wholeNumber(c, text)
		return number(i), err
	})
}

// seconds is a duration in whole seconds, between the tags min (0) and max.
type seconds time.Duration

// Decode implements kong.MapperValue.
func (s *seconds) Decode(c *kong.DecodeContext) error {
	return decode(c, s, func(text string) (seconds, error) {
		i, err := wholeNumber(c, text)
		return seconds(i) * seconds(time.Second), err
	})
}

func wholeNumber(c *kong.DecodeContext, text string) (int, error) {
	low, high := 0, math.MaxInt32
	for tag, bound := range map[string]*int{"min": &low, "max": &high} {
		if s := c.Value.Tag.Get(tag); s != "" {
			i, err := strconv.Atoi(s)
			if err != nil {
				panic(err) // the tag is wrong
			}
			*bound = i
		}
	}
	i, err := strconv.Atoi(text)
	if err != nil || i < low || i > high {
		return 0, fmt.Errorf("%q is not a whole number from %d to %d", text, low, high)
	}
	return i, nil
}

// choice is one of the words in the tag choices.
type choice string

// Decode implements kong.MapperValue.
func (w *choice) Decode(c *kong.DecodeContext) error {
	return decode(c, w, func(text string) (choice, error) {
		all := strings.Split(c.Value.Tag.Get("choices"), ",")
		if !slices.Contains(all, text) {
			return "", fmt.Errorf("%q is none of %s", text, strings.Join(all, ", "))
		}
		return choice(text), nil
	})
}

// toggle is true or false; the flag alone is true.
type toggle bool

// IsBool implements kong.BoolMapperValue.
func (*toggle) IsBool() bool { return true }

// Decode implements kong.MapperValue.
func (t *toggle) Decode(c *kong.DecodeContext) error {
	if c.Scan.Peek().Type != kong.FlagValueToken {
		*t = true
		return nil
	}
	return decode(c, t, func(text string) (toggle, error) {
		b, err := strconv.ParseBool(text)
		if err != nil {
			return false, fmt.Errorf("%q is neither true nor false", text)
		}
		return toggle(b), nil
	})
}

// retention is what hub.ParseRetention reads.
type retention hub.Retention

// Decode implements kong.MapperValue.
func (r *retention) Decode(c *kong.DecodeContext) error {
	return decode(c, r, func(text string) (retention, error) {
		rules, err := hub.ParseRetention(text)
		return retention(rules), err
	})
}

// mapping is what ingest.ParseMapping reads.
type mapping ingest.Mapping

// Decode implements kong.MapperValue.
func (m *mapping) Decode(c *kong.DecodeContext) error {
	return decode(c, m, func(text string) (mapping, error) {
		rules, err := ingest.ParseMapping(text)
		return mapping(rules), err
	})
}

// origins are what browsers send as Origin, or *.
type origins []string

// Decode implements kong.MapperValue.
func (o *origins) Decode(c *kong.DecodeContext) error {
	return decode(c, o, func(text string) (origins, error) { return parseList(text, parseOrigin) })
}

func parseOrigin(text string) (string, error) {
	if text == "*" {
		return text, nil
	}
	origin := strings.ToLower(strings.TrimSuffix(text, "/"))
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.Scheme+"://"+u.Host != origin {
		return "", fmt.Errorf("%q is not an origin, as in https://app.example.com", text)
	}
	return origin, nil
}

// prefixes are networks, or single addresses.
type prefixes []netip.Prefix

// Decode implements kong.MapperValue.
func (p *prefixes) Decode(c *kong.DecodeContext) error {
	return decode(c, p, func(text string) (prefixes, error) { return parseList(text, parsePrefix) })
}

func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not an address or a network, as in 10.0.0.0/8", text)
	}
	return prefix.Masked(), nil
}

// parseList reads what is between commas.
func parseList[T any](text string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for part := range strings.SplitSeq(text, ",") {
		v, err := parse(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}
