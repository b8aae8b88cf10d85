package hub

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pushhub/pushhub/protocol"
)

// DefaultRetention is the retention of the wire contract: a job's last 100
// events for an hour, 1,000 events for a day of everything else.
const DefaultRetention = "jobs.>:100/1h,>:1000/24h"

// Retention says how much of each topic the log keeps: the first rule whose
// pattern matches counts.
type Retention []RetentionRule

// RetentionRule keeps the newest Events of each matching topic, none older than
// Age.
type RetentionRule struct {
	Pattern string
	Events  int
	Age     time.Duration
}

// ParseRetention reads rules such as "jobs.>:100/1h,>:1000/24h". The last rule
// must have the pattern >, so that every topic has one.
func ParseRetention(s string) (Retention, error) {
	var all Retention
	for part := range strings.SplitSeq(s, ",") {
		rule, err := parseRule(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		all = append(all, rule)
	}
	if all[len(all)-1].Pattern != protocol.Everything {
		return nil, fmt.Errorf("retention %q: the last rule is not for >", s)
	}
	return all, nil
}

func parseRule(s string) (RetentionRule, error) {
	pattern, keep, ok := strings.Cut(s, ":")
	count, age, ok2 := strings.Cut(keep, "/")
	if !ok || !ok2 {
		return RetentionRule{}, fmt.Errorf("retention rule %q: want pattern:events/age, as in jobs.>:100/1h", s)
	}
	if err := protocol.CheckPattern(pattern); err != nil {
		return RetentionRule{}, fmt.Errorf("retention rule %q: %w", s, err)
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > 1_000_000 {
		return RetentionRule{}, fmt.Errorf("retention rule %q: events is not a number from 1 to 1000000", s)
	}
	d, err := time.ParseDuration(age)
	if err != nil || d < time.Second || d > 366*24*time.Hour {
		return RetentionRule{}, fmt.Errorf("retention rule %q: age is not a duration from 1s to 8784h", s)
	}
	return RetentionRule{pattern, n, d}, nil
}

// For gives the rule of a topic.
func (r Retention) For(topic string) RetentionRule {
	for _, rule := range r {
		if protocol.Match(rule.Pattern, topic) {
			return rule
		}
	}
	return RetentionRule{Pattern: protocol.Everything, Events: 1000, Age: 24 * time.Hour}
}
