package protocol

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds of names, in bytes and tokens.
const (
	MaxTenantBytes = 64
	MaxTopicBytes  = 200
	MaxTopicTokens = 8
	MaxTokenBytes  = 64
)

// Well-known topics.
const (
	// Alerts is the topic of a tenant's alerts; finer ones are alerts.<kind>.
	Alerts = "alerts"
	// JobsPrefix + job id is the topic of one job's progress.
	JobsPrefix = "jobs."
	// UsersPrefix + user id is private to that user, and so is what lies below it.
	UsersPrefix = "users."
	// Everything is the pattern that every topic matches.
	Everything = ">"
)

// ErrMalformed is wrapped by every error about a name, cursor, message or value
// that is not of its form.
var ErrMalformed = errors.New("malformed")

// CheckTenant says whether id is 1–64 of A-Za-z0-9_-. The error wraps ErrMalformed.
func CheckTenant(id string) error {
	if !isToken(id) {
		return fmt.Errorf("%w tenant: 1 to %d of A-Za-z0-9_- are allowed", ErrMalformed, MaxTenantBytes)
	}
	return nil
}

// CheckTopic says whether s is a topic: 1–8 tokens of A-Za-z0-9_-, each of 1–64
// bytes, joined by dots, 200 bytes at most. The error wraps ErrMalformed.
func CheckTopic(s string) error { return checkName(s, false) }

// CheckPattern says whether s is a topic, or a pattern: a topic in which a token
// may be * (any one token) and the last may be > (one or more tokens), as in
// NATS. The error wraps ErrMalformed.
func CheckPattern(s string) error { return checkName(s, true) }

func checkName(s string, wild bool) error {
	if s == "" {
		return fmt.Errorf("%w topic: it is empty", ErrMalformed)
	}
	if len(s) > MaxTopicBytes {
		return fmt.Errorf("%w topic: it is longer than %d bytes", ErrMalformed, MaxTopicBytes)
	}
	rest, more := s, true
	for n := 1; more; n++ {
		if n > MaxTopicTokens {
			return fmt.Errorf("%w topic: it has more than %d tokens", ErrMalformed, MaxTopicTokens)
		}
		var token string
		token, rest, more = strings.Cut(rest, ".")
		switch {
		case wild && token == "*":
		case wild && token == ">":
			if more {
				return fmt.Errorf("%w pattern: > is allowed at the end only", ErrMalformed)
			}
		case !isToken(token):
			return fmt.Errorf("%w topic: token %d is not 1 to %d of A-Za-z0-9_-", ErrMalformed, n, MaxTokenBytes)
		}
	}
	return nil
}

func isToken(s string) bool {
	if len(s) == 0 || len(s) > MaxTokenBytes {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// IsPattern says whether a name that CheckPattern accepts has a wildcard.
func IsPattern(s string) bool { return strings.ContainsAny(s, "*>") }

// Match says whether pattern (or an exact topic) matches topic. Both must be
// well-formed. It does not allocate.
func Match(pattern, topic string) bool {
	for {
		p, pRest, pMore := strings.Cut(pattern, ".")
		t, tRest, tMore := strings.Cut(topic, ".")
		if p == ">" {
			return true
		}
		if p != "*" && p != t {
			return false
		}
		if !pMore || !tMore {
			return pMore == tMore
		}
		pattern, topic = pRest, tRest
	}
}

// Covers says whether every topic that inner matches is matched by outer too.
// Both are well-formed topics or patterns.
func Covers(outer, inner string) bool {
	for {
		o, oRest, oMore := strings.Cut(outer, ".")
		i, iRest, iMore := strings.Cut(inner, ".")
		switch {
		case o == ">":
			return true
		case i == ">":
			return false
		case o != "*" && o != i:
			return false
		case !oMore || !iMore:
			return oMore == iMore
		}
		outer, inner = oRest, iRest
	}
}

// PrivateTo gives the user whose private topics the name lies in, "" where it
// lies in nobody's: users.7 and users.7.inbox belong to 7. The user of a pattern
// may be * or >.
func PrivateTo(name string) string {
	rest, ok := strings.CutPrefix(name, UsersPrefix)
	if !ok {
		return ""
	}
	user, _, _ := strings.Cut(rest, ".")
	return user
}

// Overlap says whether some topic may match both a and b, topics or patterns.
func Overlap(a, b string) bool {
	for {
		x, aRest, aMore := strings.Cut(a, ".")
		y, bRest, bMore := strings.Cut(b, ".")
		switch {
		case x == ">" || y == ">":
			return true
		case x != "*" && y != "*" && x != y:
			return false
		case !aMore || !bMore:
			return aMore == bMore
		}
		a, b = aRest, bRest
	}
}
