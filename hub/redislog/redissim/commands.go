package redissim

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// command is one that scripts and clients may use.
type command struct {
	do     func(s *server, args []string) any
	least  int // arguments
	writes bool
}

const (
	errSyntax  = failure("ERR syntax error")
	errInteger = failure("ERR value is not an integer or out of range")
	errFloat   = failure("ERR value is not a valid float")
	errType    = failure("WRONGTYPE Operation against a key holding the wrong kind of value")
	errID      = failure("ERR Invalid stream ID specified as stream command argument")
	errRange   = failure("ERR min or max is not a float")
)

// commands are those of data; what concerns the connection is in link.go.
var commands map[string]command

func init() { // a command can be a script, which runs commands

	commands = map[string]command{
		"get":           {get, 1, false},
		"set":           {set, 2, true},
		"del":           {del, 1, true},
		"exists":        {exists, 1, false},
		"pexpireat":     {pexpireat, 2, true},
		"hset":          {hset, 3, true},
		"hget":          {hget, 2, false},
		"hmget":         {hmget, 2, false},
		"hdel":          {hdel, 2, true},
		"zadd":          {zadd, 3, true},
		"zrem":          {zrem, 2, true},
		"zscore":        {zscore, 2, false},
		"zcard":         {zcard, 1, false},
		"zrange":        {zrange, 3, false},
		"zrevrange":     {zrevrange, 3, false},
		"zrangebyscore": {zrangebyscore, 3, false},
		"xadd":          {xadd, 4, true},
		"xlen":          {xlen, 1, false},
		"xrange":        {xrange, 3, false},
		"xrevrange":     {xrevrange, 3, false},
		"xtrim":         {xtrim, 3, true},
		"spublish":      {spublish, 2, false},
		"time":          {clock, 0, false},
		"info":          {info, 0, false},
		"flushall":      {flushall, 0, true},
	}
}

// run runs a command of data.
func (s *server) run(name string, args []string, readOnly bool) any {
	c, ok := commands[name]
	if !ok {
		s.redis.fail("the model Redis has no command %q", name)
		return failure("ERR unknown command '" + name + "'")
	}
	if len(args) < c.least {
		return failure("ERR wrong number of arguments for '" + name + "' command")
	}
	if c.writes && readOnly {
		return failure("ERR Write commands are not allowed from read-only scripts.")
	}
	return c.do(s, args)
}

func count(n int) any { return int64(n) }

func get(s *server, args []string) any {
	v := s.get(args[0])
	switch {
	case v == nil:
		return nil
	case v.text == nil:
		return errType
	}
	return *v.text
}

func set(s *server, args []string) any {
	v := &value{text: &args[1]}
	switch {
	case len(args) == 4 && strings.EqualFold(args[2], "ex"):
		seconds, err := strconv.ParseInt(args[3], 10, 64)
		if err != nil {
			return errInteger
		}
		if seconds <= 0 {
			return failure("ERR invalid expire time in 'set' command")
		}
		v.expires = s.now().UnixMilli() + seconds*1000
	case len(args) != 2:
		return errSyntax
	}
	s.get(args[0])
	s.set(args[0], v)
	return status("OK")
}

func del(s *server, args []string) any {
	n := 0
	for _, key := range args {
		if s.remove(key) {
			n++
		}
	}
	return count(n)
}

func exists(s *server, args []string) any {
	n := 0
	for _, key := range args {
		if s.get(key) != nil {
			n++
		}
	}
	return count(n)
}

func pexpireat(s *server, args []string) any {
	at, err := strconv.ParseInt(args[1], 10, 64)
	switch {
	case err != nil:
		return errInteger
	case s.get(args[0]) == nil:
		return count(0)
	case at <= s.now().UnixMilli():
		s.remove(args[0])
	default:
		s.change(args[0]).expires = at
	}
	return count(1)
}

func hset(s *server, args []string) any {
	if len(args)%2 == 0 {
		return failure("ERR wrong number of arguments for 'hset' command")
	}
	if v := s.get(args[0]); v != nil && v.hash == nil {
		return errType
	}
	v := s.change(args[0])
	if v == nil {
		v = &value{hash: map[string]string{}}
		s.set(args[0], v)
	}
	added := 0
	for i := 1; i < len(args); i += 2 {
		if _, ok := v.hash[args[i]]; !ok {
			added++
		}
		v.hash[args[i]] = args[i+1]
	}
	return count(added)
}

func (s *server) field(v *value, name string) any {
	if v != nil {
		if text, ok := v.hash[name]; ok {
			return text
		}
	}
	return nil
}

func hget(s *server, args []string) any {
	v := s.get(args[0])
	if v != nil && v.hash == nil {
		return errType
	}
	return s.field(v, args[1])
}

func hmget(s *server, args []string) any {
	v := s.get(args[0])
	if v != nil && v.hash == nil {
		return errType
	}
	all := make([]any, 0, len(args)-1)
	for _, name := range args[1:] {
		all = append(all, s.field(v, name))
	}
	return all
}

func hdel(s *server, args []string) any {
	switch v := s.get(args[0]); {
	case v == nil:
		return count(0)
	case v.hash == nil:
		return errType
	}
	v, gone := s.change(args[0]), 0
	for _, name := range args[1:] {
		if _, ok := v.hash[name]; ok {
			delete(v.hash, name)
			gone++
		}
	}
	if len(v.hash) == 0 {
		s.remove(args[0])
	}
	return count(gone)
}

func zadd(s *server, args []string) any {
	if len(args)%2 == 0 {
		return errSyntax
	}
	scores := make([]float64, 0, len(args)/2)
	for i := 1; i < len(args); i += 2 {
		score, err := strconv.ParseFloat(args[i], 64)
		if err != nil || math.IsNaN(score) {
			return errFloat
		}
		scores = append(scores, score)
	}
	if v := s.get(args[0]); v != nil && v.set == nil {
		return errType
	}
	v := s.change(args[0])
	if v == nil {
		v = &value{set: &sortedSet{scores: map[string]float64{}}}
		s.set(args[0], v)
	}
	added := 0
	for i, score := range scores {
		if v.set.add(args[2*i+2], score) {
			added++
		}
	}
	return count(added)
}

func zrem(s *server, args []string) any {
	switch v := s.get(args[0]); {
	case v == nil:
		return count(0)
	case v.set == nil:
		return errType
	}
	v, gone := s.change(args[0]), 0
	for _, member := range args[1:] {
		if v.set.remove(member) {
			gone++
		}
	}
	if len(v.set.members) == 0 {
		s.remove(args[0])
	}
	return count(gone)
}

// sorted gives the sorted set of a key, an empty one where there is none.
func (s *server) sorted(key string) (*sortedSet, any) {
	v := s.get(key)
	switch {
	case v == nil:
		return &sortedSet{}, nil
	case v.set == nil:
		return nil, errType
	}
	return v.set, nil
}

func zcard(s *server, args []string) any {
	set, wrong := s.sorted(args[0])
	if wrong != nil {
		return wrong
	}
	return count(len(set.members))
}

func zscore(s *server, args []string) any {
	set, wrong := s.sorted(args[0])
	if wrong != nil {
		return wrong
	}
	score, ok := set.scores[args[1]]
	if !ok {
		return nil
	}
	return formatScore(score)
}

func formatScore(score float64) string {
	if score == math.Trunc(score) && math.Abs(score) < 1e17 {
		return strconv.FormatInt(int64(score), 10)
	}
	return strconv.FormatFloat(score, 'g', 17, 64)
}

func zrange(s *server, args []string) any { return s.zrange(args, slices.Clone[[]string]) }

func zrevrange(s *server, args []string) any {
	return s.zrange(args, func(members []string) []string {
		members = slices.Clone(members)
		slices.Reverse(members)
		return members
	})
}

// zrange gives members by their places in order.
func (s *server) zrange(args []string, order func([]string) []string) any {
	from, err1 := strconv.Atoi(args[1])
	to, err2 := strconv.Atoi(args[2])
	if err1 != nil || err2 != nil {
		return errInteger
	}
	with := len(args) == 4 && strings.EqualFold(args[3], "withscores")
	if len(args) > 3 && !with {
		return errSyntax
	}
	set, wrong := s.sorted(args[0])
	if wrong != nil {
		return wrong
	}
	members := order(set.members)
	if from < 0 {
		from = max(0, from+len(members))
	}
	if to < 0 {
		to += len(members)
	}
	to = min(to, len(members)-1)
	if from > to {
		return []any{}
	}
	return set.list(members[from:to+1], with)
}

func (s *sortedSet) list(members []string, withScores bool) []any {
	all := make([]any, 0, 2*len(members))
	for _, m := range members {
		all = append(all, m)
		if withScores {
			all = append(all, formatScore(s.scores[m]))
		}
	}
	return all
}

func zrangebyscore(s *server, args []string) any {
	from, above, ok1 := bound(args[1])
	to, below, ok2 := bound(args[2])
	if !ok1 || !ok2 {
		return errRange
	}
	with := len(args) == 4 && strings.EqualFold(args[3], "withscores")
	if len(args) > 3 && !with {
		return errSyntax
	}
	set, wrong := s.sorted(args[0])
	if wrong != nil {
		return wrong
	}
	var members []string
	for _, m := range set.members {
		score := set.scores[m]
		if (score > from || score == from && !above) && (score < to || score == to && !below) {
			members = append(members, m)
		}
	}
	return set.list(members, with)
}

// bound reads a bound of scores, with ( before it if it is not of the range.
func bound(text string) (score float64, open, ok bool) {
	text, open = strings.CutPrefix(text, "(")
	score, err := strconv.ParseFloat(text, 64)
	return score, open, err == nil && !math.IsNaN(score)
}

func spublish(s *server, args []string) any { return count(s.publish(args[0], args[1])) }

func clock(s *server, _ []string) any {
	now := s.now()
	return []any{strconv.FormatInt(now.Unix(), 10), strconv.Itoa(now.Nanosecond() / 1000)}
}

func info(s *server, args []string) any {
	if len(args) == 1 && args[0] == "server" {
		return "# Server\r\nrun_id:" + s.runID + "\r\n"
	}
	role := "master"
	if s.replica {
		role = "slave"
	}
	return "# Replication\r\nrole:" + role + "\r\nmaster_replid:" + s.replID + "\r\n"
}

func flushall(s *server, _ []string) any {
	s.flush()
	return status("OK")
}
