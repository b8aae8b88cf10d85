package hub

import (
	"context"

	"github.com/pushhub/pushhub/protocol"
)

// maxFeedScan bounds the events that one page of the feed looks through.
const maxFeedScan = 10_000

// FeedQuery asks for a page of retained events.
type FeedQuery struct {
	Wants []Want // which topics, all with the same Since, or Last; with neither from the oldest on
	Limit int    // events in the page, at most
	// Keep says whether an event belongs into the page; nil keeps all.
	Keep func(*protocol.Event) bool
}

// Page is one page of the feed.
type Page struct {
	Events []*protocol.Event // oldest first
	Next   protocol.Cursor   // the Since of the next page; at the head of the log, that
	Gaps   []string          // topics and patterns of which events after Since are gone
}

// Feed reads retained events of a tenant, oldest first. A page that is not full
// may have more after it where Keep refuses much: Next then is not at the head,
// and asking on brings it. Errors are the Log's.
func (h *Hub) Feed(ctx context.Context, tenant string, q FeedQuery) (Page, error) {
	look := func(lq Query, _ uint64) (View, error) { return h.log.Look(ctx, tenant, lq) }
	head, err := look(Query{}, 0)
	if err != nil {
		return Page{}, err
	}
	var page Page
	seen := map[string]bool{}
	take := func(steps []step) (full bool) {
		for _, st := range steps {
			if st.event == nil {
				if !seen[st.gap.Topic] {
					seen[st.gap.Topic] = true
					page.Gaps = append(page.Gaps, st.gap.Topic)
				}
				continue
			}
			if q.Keep != nil && !q.Keep(st.event) {
				continue
			}
			if len(page.Events) == q.Limit {
				return true
			}
			page.Events = append(page.Events, st.event)
			page.Next = protocol.Cursor{Epoch: head.Epoch, Seq: st.event.Cursor.Seq}
		}
		return false
	}
	r := h.newReplay(q.Wants, look)
	take(r.rebase(head.Epoch, head.Past, head.Head))
	for _, p := range r.parts {
		if p.fresh && p.newest == 0 {
			p.from, r.at = 0, 0 // from the oldest that is retained
		}
	}
	back := false
	for scanned := 0; ; {
		steps, err := r.piece()
		if take(steps) {
			return page, nil
		}
		if err == errEpoch {
			return h.Feed(ctx, tenant, q) // begin again, in the new epoch
		}
		if err != nil {
			return Page{}, err
		}
		page.Next = protocol.Cursor{Epoch: r.epoch, Seq: r.at}
		if !r.open && r.at == 0 && !back {
			back = true // a cursor was ahead of the log: all that is retained comes after it
			continue
		}
		if scanned += len(steps); !r.open || len(page.Events) == q.Limit || scanned >= maxFeedScan {
			return page, nil
		}
	}
}

// Finished says whether the newest event of a topic is final and not after c.
func (h *Hub) Finished(ctx context.Context, tenant, topic string, c protocol.Cursor) (bool, error) {
	q := Query{Topics: []TopicQuery{{Topic: topic, Newest: 1}}}
	var v View
	var err error
	if t := h.tenant(tenant); t != nil {
		v, err = t.look(ctx, q, 0)
	} else {
		v, err = h.log.Look(ctx, tenant, q)
	}
	if err != nil || len(v.Topics[0].Events) == 0 {
		return false, err
	}
	e := v.Topics[0].Events[0]
	return e.Final && e.Cursor.Seq == v.Topics[0].Last && c.Epoch == v.Epoch && c.Seq <= v.Head && c.Seq >= e.Cursor.Seq, nil
}
