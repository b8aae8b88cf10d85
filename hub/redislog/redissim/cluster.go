package redissim

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Nodes are the addresses of a Cluster, at first.
var Nodes = []string{"redis0:7000", "redis1:7001"}

// slots is how many there are. The first half is on the first node, the second on
// the second; but one slot moves.
const slots = 16384

// slotOf gives the slot of a key or channel.
func slotOf(key string) int {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			key = tag
		}
	}
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % slots
}

// ownerOf gives the address that has a slot.
func (r *Redis) ownerOf(slot int) string {
	if slot == slotOf(r.opts.Moves) {
		return r.current.addr
	}
	return r.nodes[slot*2/slots].addr
}

// other is where the slot that moves goes to next.
func (r *Redis) other() *server {
	if r.nodes[0] == r.current {
		return r.nodes[1]
	}
	return r.nodes[0]
}

// clusterSlots is the answer to CLUSTER SLOTS.
func (r *Redis) clusterSlots() any {
	moves := slotOf(r.opts.Moves)
	all := []any{}
	for _, span := range [][2]int{{0, slots/2 - 1}, {slots / 2, slots - 1}} {
		for _, part := range [][2]int{{span[0], min(span[1], moves-1)}, {max(span[0], moves), min(span[1], moves)}, {max(span[0], moves+1), span[1]}} {
			if part[0] > part[1] {
				continue
			}
			addr := r.ownerOf(part[0])
			host, port, _ := net.SplitHostPort(addr)
			n, _ := strconv.Atoi(port)
			all = append(all, []any{int64(part[0]), int64(part[1]), []any{host, int64(n), addr}})
		}
	}
	return all
}

// elsewhere gives what a server answers that cannot do a command for these keys or
// channels, or nil.
func (s *server) elsewhere(names []string, channels bool) any {
	r := s.redis
	if r.opts.Moves == "" || len(names) == 0 {
		return nil
	}
	slot := slotOf(names[0])
	for _, name := range names {
		if slotOf(name) != slot {
			return failure("CROSSSLOT Keys in request don't hash to the same slot")
		}
	}
	owner := r.ownerOf(slot)
	ofOld := slot == slotOf(r.opts.Moves) && !s.replica && !slices.Contains(r.nodes, s) // in a split it does not know
	if !ofOld && (s.addr != owner || s.replica) {
		return failure(fmt.Sprintf("MOVED %d %s", slot, owner))
	}
	moving := s.moving || r.moving && s == r.current
	if !moving || slot != slotOf(r.opts.Moves) || channels {
		return nil
	}
	here := 0
	for _, key := range names {
		if s.get(key) != nil {
			here++
		}
	}
	switch here {
	case len(names):
		return nil
	case 0:
		return failure(fmt.Sprintf("ASK %d %s", slot, r.other().addr))
	}
	return failure(TryAgain)
}

// Migrate goes on with the move of the slot to the other node, or begins it: it
// moves up to n keys.
func (r *Redis) Migrate(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moving = true
	r.moveKeys(n)
}

// Moving says whether the slot is on its way.
func (r *Redis) Moving() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.moving
}

func (r *Redis) moveKeys(n int) {
	from, to := r.current.store, r.other().store
	for _, key := range slices.Sorted(maps.Keys(from.values)) {
		if n--; n < 0 {
			break
		}
		if v := from.get(key); v != nil {
			to.values[key] = v
			delete(from.values, key)
		}
	}
	from.open, from.past, to.past = nil, nil, nil // what has moved is lost by no failover
}

// FinishMigration moves what is left, and gives the slot to the other node. Who
// subscribed a channel of it on the old one is told so.
func (r *Redis) FinishMigration() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.moving {
		return
	}
	r.moveKeys(len(r.current.values))
	r.moving = false
	old := r.current
	r.current = r.other()
	r.current.line = old.line
	for _, l := range slices.Clone(r.links) {
		if l.server == old {
			for _, channel := range slices.Sorted(maps.Keys(l.channels)) {
				if slotOf(channel) == slotOf(r.opts.Moves) {
					l.leave(channel)
				}
			}
		}
	}
}
