package redissim

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// store is what one server holds. Guarded by Redis.mu.
type store struct {
	values map[string]*value
	now    func() time.Time
	open   change   // of the transaction that runs
	past   []change // of those before, oldest first: what a failover can lose
}

// change is what keys held before a transaction changed them; nil: nothing.
type change map[string]*value

// maxPast is how many transactions can be lost at most.
const maxPast = 16

// value is what a key holds: one of text, hash, set and stream.
type value struct {
	text    *string
	hash    map[string]string
	set     *sortedSet
	stream  *stream
	expires int64 // ms; 0: never
}

type sortedSet struct {
	scores  map[string]float64
	members []string // in order
}

type stream struct {
	entries []entry
	last    id
}

type entry struct {
	id     id
	fields []string
}

type id struct{ ms, n uint64 }

func (a id) compare(b id) int { return cmp.Or(cmp.Compare(a.ms, b.ms), cmp.Compare(a.n, b.n)) }

func newStore() *store { return &store{values: map[string]*value{}, now: time.Now} }

// clone gives a store with the same values, and no past.
func (s *store) clone() *store {
	c := newStore()
	for key, v := range s.values {
		c.values[key] = v.clone()
	}
	return c
}

func (v *value) clone() *value {
	c := *v
	c.hash = maps.Clone(v.hash)
	if v.set != nil {
		c.set = &sortedSet{maps.Clone(v.set.scores), slices.Clone(v.set.members)}
	}
	if v.stream != nil {
		c.stream = &stream{slices.Clip(v.stream.entries), v.stream.last}
	}
	return &c
}

// get gives what a key holds, or nil.
func (s *store) get(key string) *value {
	v := s.values[key]
	if v != nil && v.expires != 0 && s.now().UnixMilli() >= v.expires {
		s.remember(key)
		delete(s.values, key)
		return nil
	}
	return v
}

// change gives what a key holds, or nil, to be changed.
func (s *store) change(key string) *value {
	s.get(key)
	s.remember(key)
	return s.values[key]
}

// remember notes what a key held before the transaction.
func (s *store) remember(key string) {
	if _, ok := s.open[key]; ok {
		return
	}
	if s.open == nil {
		s.open = change{}
	}
	if v := s.values[key]; v != nil {
		s.open[key] = v.clone()
	} else {
		s.open[key] = nil
	}
}

func (s *store) set(key string, v *value) {
	s.remember(key)
	s.values[key] = v
}

func (s *store) remove(key string) bool {
	if s.get(key) == nil {
		return false
	}
	s.remember(key)
	delete(s.values, key)
	return true
}

func (s *store) flush() {
	for key := range s.values {
		s.remove(key)
	}
}

// end ends a transaction, and says whether it changed anything.
func (s *store) end() bool {
	if s.open == nil {
		return false
	}
	if s.past = append(s.past, s.open); len(s.past) > maxPast {
		s.past = s.past[1:]
	}
	s.open = nil
	return true
}

// lose takes back the last n transactions, and gives how many there were.
func (s *store) lose(n int) int {
	n = min(n, len(s.past))
	for range n {
		last := len(s.past) - 1
		for key, v := range s.past[last] {
			if v == nil {
				delete(s.values, key)
			} else {
				s.values[key] = v
			}
		}
		s.past = s.past[:last]
	}
	return n
}

func (s *sortedSet) compare(a, b string) int {
	return cmp.Or(cmp.Compare(s.scores[a], s.scores[b]), cmp.Compare(a, b))
}

func (s *sortedSet) add(member string, score float64) (isNew bool) {
	isNew = !s.remove(member)
	s.scores[member] = score
	i, _ := slices.BinarySearchFunc(s.members, member, s.compare)
	s.members = slices.Insert(s.members, i, member)
	return isNew
}

func (s *sortedSet) remove(member string) bool {
	if _, ok := s.scores[member]; !ok {
		return false
	}
	i, _ := slices.BinarySearchFunc(s.members, member, s.compare)
	s.members = slices.Delete(s.members, i, i+1)
	delete(s.scores, member)
	return true
}
