package hub

import "github.com/pushhub/pushhub/protocol"

// listOf gives the tenant's list that a subscription is in while it is live.
func (t *tenant) listOf(s *sub, grow bool) *[]*sub {
	if protocol.IsPattern(s.pattern) {
		return t.wild.at(s.pattern, grow)
	}
	list := t.exact[s.pattern]
	if list == nil {
		list = new([]*sub)
		t.exact[s.pattern] = list
	}
	return list
}

// list makes a subscription live, unlist ends that. With mu held.
func (t *tenant) list(s *sub) {
	list := t.listOf(s, true)
	if len(*list) > 0 {
		s.pattern = (*list)[0].pattern // one string for all
	}
	s.since = nil
	s.index, s.state, s.owner = int32(len(*list)), live, true
	*list = append(*list, s)
	if len(*list) == 1 {
		t.topics++
		t.h.stats.Topics.Add(1)
	}
}

func (t *tenant) unlist(s *sub) {
	list := t.listOf(s, false)
	last := len(*list) - 1
	moved := (*list)[last]
	(*list)[s.index], moved.index = moved, s.index
	(*list)[last] = nil
	*list = (*list)[:last]
	if last > 0 {
		return
	}
	t.topics--
	t.h.stats.Topics.Add(-1)
	if protocol.IsPattern(s.pattern) {
		*list = nil
		t.wild.prune(s.pattern)
	} else {
		delete(t.exact, s.pattern)
	}
}
