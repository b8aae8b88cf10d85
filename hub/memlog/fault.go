package memlog

import (
	"cmp"
	"slices"
)

// The methods below make faults, as a log behind a network has them. They are
// for tests of what stands on a log; a hub never calls them. None tells the
// Listener: that is the fault.

// Forget loses everything of a tenant, as FLUSHALL does: seqs begin again, in a
// new epoch with nothing before it.
func (l *Log) Forget(tenant string) {
	t := l.tenant(tenant)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.epoch, t.past, t.head, t.floor = "", nil, 0, 0
	t.topics, t.firsts, t.ids = nil, nil, nil
	t.index.Init()
}

// NewEpoch begins a new epoch, as after a failover, with the newest lost events
// lost: their seqs are given again, in the new epoch.
func (l *Log) NewEpoch(tenant string, lost int) {
	t := l.tenant(tenant)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin(l.clock())
	t.rewind(t.head - min(t.head, uint64(lost)))
	t.turn()
}

// rewind loses all events after head.
func (t *tenant) rewind(head uint64) {
	t.head, t.floor = head, min(t.floor, head)
	for name, el := range t.topics {
		top := el.Value.(*topic)
		switch n, _ := slices.BinarySearchFunc(top.events, head+1, bySeq); {
		case top.last <= head:
		case top.first > head:
			t.index.Remove(el)
			delete(t.topics, name)
		case n > 0:
			top.events, top.came = slices.Delete(top.events, n, len(top.events)), top.came[:n]
			top.last, top.lastAt = top.events[n-1].Cursor.Seq, top.came[n-1]
		default:
			// Nothing is retained that tells its last seq: what is left of the chain
			// gives a bound.
			bound := head
			if len(top.events) > 0 {
				bound = min(bound, top.events[0].Prev)
			}
			top.events, top.came, top.last = nil, nil, bound
		}
	}
	t.sortIndex()
	t.ids = slices.DeleteFunc(t.ids, func(d datedID) bool {
		if d.seq > head {
			delete(t.firsts, d.publicID)
		}
		return d.seq > head
	})
}

// sortIndex puts the index in the order of last again.
func (t *tenant) sortIndex() {
	all := make([]*topic, 0, len(t.topics))
	for _, el := range t.topics {
		all = append(all, el.Value.(*topic))
	}
	slices.SortFunc(all, func(a, b *topic) int { return cmp.Compare(a.last, b.last) })
	t.index.Init()
	for _, top := range all {
		t.topics[top.name] = t.index.PushBack(top)
	}
}

// Trim loses all but the newest keep events of a topic, which stays in the index.
func (l *Log) Trim(tenant, name string, keep int) {
	t := l.tenant(tenant)
	t.mu.Lock()
	defer t.mu.Unlock()
	if el := t.topics[name]; el != nil {
		top := el.Value.(*topic)
		top.drop(max(0, len(top.events)-keep))
	}
}

// Deafen keeps the tenant's events from the Listener, as a connection does that
// has gone deaf unnoticed, until the next Covered.
func (l *Log) Deafen(tenant string) {
	t := l.tenant(tenant)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deaf = true
}
