package hub

import "strings"

// patterns holds live subscriptions of patterns, found by the topics that they
// match: a tree of tokens, so that an event costs as many steps as its topic has
// tokens, however many patterns there are. Guarded by the tenant's lock.
type patterns struct {
	next map[string]*patterns // by token; * is the one for any
	subs []*sub               // of the pattern that ends here
	tail []*sub               // of the pattern that ends here with >
}

// at gives the list of a pattern. With grow it makes the way there; without, the
// pattern must be known.
func (p *patterns) at(pattern string, grow bool) *[]*sub {
	for {
		token, rest, more := strings.Cut(pattern, ".")
		if token == ">" {
			return &p.tail
		}
		if grow && p.next[token] == nil {
			if p.next == nil {
				p.next = map[string]*patterns{}
			}
			p.next[token] = &patterns{}
		}
		p = p.next[token]
		if !more {
			return &p.subs
		}
		pattern = rest
	}
}

// prune removes what is empty on the way of a pattern.
func (p *patterns) prune(pattern string) {
	token, rest, more := strings.Cut(pattern, ".")
	next := p.next[token]
	if next == nil {
		return
	}
	if more {
		next.prune(rest)
	}
	if len(next.next) == 0 && len(next.subs) == 0 && len(next.tail) == 0 {
		delete(p.next, token)
	}
}

// match calls found with the subscriptions of each pattern that matches topic.
func (p *patterns) match(topic string, found func([]*sub)) {
	if len(p.tail) > 0 {
		found(p.tail)
	}
	token, rest, more := strings.Cut(topic, ".")
	for _, next := range [2]*patterns{p.next[token], p.next["*"]} {
		switch {
		case next == nil:
		case more:
			next.match(rest, found)
		case len(next.subs) > 0:
			found(next.subs)
		}
	}
}
