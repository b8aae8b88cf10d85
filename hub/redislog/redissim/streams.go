package redissim

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// parseID reads the id of an entry; one without the second number has n.
func parseID(text string, n uint64) (id, bool) {
	before, after, whole := strings.Cut(text, "-")
	ms, err := strconv.ParseUint(before, 10, 64)
	if err != nil {
		return id{}, false
	}
	if whole {
		if n, err = strconv.ParseUint(after, 10, 64); err != nil {
			return id{}, false
		}
	}
	return id{ms, n}, true
}

func (i id) String() string {
	return strconv.FormatUint(i.ms, 10) + "-" + strconv.FormatUint(i.n, 10)
}

func (s *server) streamOf(key string) (*stream, any) {
	v := s.get(key)
	switch {
	case v == nil:
		return &stream{}, nil
	case v.stream == nil:
		return nil, errType
	}
	return v.stream, nil
}

// xadd has an explicit id, and MAXLEN = n before it or not.
func xadd(s *server, args []string) any {
	key, rest := args[0], args[1:]
	most := int64(-1)
	if strings.EqualFold(rest[0], "maxlen") {
		n, err := strconv.ParseInt(rest[2], 10, 64)
		if err != nil {
			return errInteger
		}
		if rest[1] != "=" {
			return errSyntax
		}
		if n < 0 {
			return failure("ERR The MAXLEN argument must be >= 0.")
		}
		most, rest = n, rest[3:]
	}
	if len(rest) < 3 || len(rest)%2 == 0 {
		return failure("ERR wrong number of arguments for 'xadd' command")
	}
	at, ok := parseID(rest[0], 0)
	if !ok {
		return errID
	}
	if at == (id{}) {
		return failure("ERR The ID specified in XADD must be greater than 0-0")
	}
	if _, wrong := s.streamOf(key); wrong != nil {
		return wrong
	}
	if v := s.get(key); v != nil && at.compare(v.stream.last) <= 0 {
		return failure("ERR The ID specified in XADD is equal or smaller than the target stream top item")
	}
	v := s.change(key)
	if v == nil {
		v = &value{stream: &stream{}}
		s.set(key, v)
	}
	st := v.stream
	st.entries = append(st.entries, entry{at, rest[1:]})
	st.last = at
	if most >= 0 && int64(len(st.entries)) > most {
		st.entries = st.entries[int64(len(st.entries))-most:]
	}
	return at.String()
}

func xlen(s *server, args []string) any {
	st, wrong := s.streamOf(args[0])
	if wrong != nil {
		return wrong
	}
	return count(len(st.entries))
}

// edge reads a bound of ids: -, +, an id, or ( and an id.
func edge(text string, low bool) (at id, open, ok bool) {
	if text == "-" {
		return id{}, false, true
	}
	if text == "+" {
		return id{math.MaxUint64, math.MaxUint64}, false, true
	}
	text, open = strings.CutPrefix(text, "(")
	n := uint64(math.MaxUint64)
	if low {
		n = 0
	}
	at, ok = parseID(text, n)
	return at, open, ok
}

func xrange(s *server, args []string) any { return s.xrange(args, args[1], args[2], false) }

func xrevrange(s *server, args []string) any { return s.xrange(args, args[2], args[1], true) }

func (s *server) xrange(args []string, from, to string, newestFirst bool) any {
	low, above, ok1 := edge(from, true)
	high, below, ok2 := edge(to, false)
	if !ok1 || !ok2 {
		return errID
	}
	most := int64(math.MaxInt64)
	if len(args) > 3 {
		n, err := strconv.ParseInt(args[len(args)-1], 10, 64)
		if len(args) != 5 || !strings.EqualFold(args[3], "count") {
			return errSyntax
		}
		if err != nil {
			return errInteger
		}
		most = max(0, n)
	}
	st, wrong := s.streamOf(args[0])
	if wrong != nil {
		return wrong
	}
	if most == 0 && s.get(args[0]) != nil {
		return noList{}
	}
	order := slices.All(st.entries)
	if newestFirst {
		order = slices.Backward(st.entries)
	} else if i, _ := slices.BinarySearchFunc(st.entries, low, func(e entry, at id) int { return e.id.compare(at) }); i > 0 {
		order = slices.All(st.entries[i:])
	}
	all := []any{}
	for _, e := range order {
		if int64(len(all)) >= most {
			break
		}
		lower, upper := e.id.compare(low), e.id.compare(high)
		if lower < 0 || lower == 0 && above || upper > 0 || upper == 0 && below {
			if newestFirst && lower < 0 || !newestFirst && upper > 0 {
				break
			}
			continue
		}
		fields := make([]any, len(e.fields))
		for i, f := range e.fields {
			fields[i] = f
		}
		all = append(all, []any{e.id.String(), fields})
	}
	return all
}

// xtrim has MINID id.
func xtrim(s *server, args []string) any {
	if !strings.EqualFold(args[1], "minid") || len(args) != 3 {
		return errSyntax
	}
	least, ok := parseID(args[2], 0)
	if !ok {
		return errID
	}
	if st, wrong := s.streamOf(args[0]); wrong != nil {
		return wrong
	} else if len(st.entries) == 0 || st.entries[0].id.compare(least) >= 0 {
		return count(0)
	}
	st := s.change(args[0]).stream
	n, _ := slices.BinarySearchFunc(st.entries, least, func(e entry, at id) int { return e.id.compare(at) })
	st.entries = st.entries[n:]
	return count(n)
}
