package search

import (
	"fmt"
	"maps"
	"time"

	"github.com/pushhub/pushhub/hub/redislog/redissim"
)

// breakLive ends the live connection of an instance, or all that it has.
func (x *run) breakLive() {
	x.redis.Break(pick(x.rng, x.instances...).name, x.rng.IntN(3) == 0)
}

// cutOff takes the network from an instance, or gives it back.
func (x *run) cutOff() {
	i := pick(x.rng, x.instances...)
	i.down = !i.down
	x.w.step("    %s cut off: %v", i, i.down)
	x.redis.Refuse(i.name, i.down)
	if i.down {
		x.redis.Break(i.name, true)
	}
}

func (x *run) deafen() { x.redis.Deafen(pick(x.rng, x.instances...).name, -1) }

func (x *run) swallow() { x.redis.Deafen(pick(x.rng, x.instances...).name, 1+x.rng.IntN(3)) }

// hold holds back what an instance hears, lets some of it come, or all.
func (x *run) hold() {
	i := pick(x.rng, x.instances...)
	switch {
	case !i.held:
		i.held = true
		x.redis.Hold(i.name, true)
	case x.rng.IntN(3) == 0:
		i.held = false
		x.redis.Hold(i.name, false)
	default:
		x.redis.Pass(i.name, 1+x.rng.IntN(4))
	}
	x.w.step("    %s held: %v", i, i.held)
}

// spoil lets something befall the next scripts of an instance, or lets go on what
// is held back.
func (x *run) spoil() {
	if held := x.redis.Held(); held > 0 && x.rng.IntN(3) > 0 {
		which, all := x.rng.IntN(8), x.rng.IntN(2) == 0
		x.w.step("    of %d scripts held back one goes on; all: %v", held, all)
		for x.redis.Held() > 0 {
			if x.redis.Release(which); !all {
				break
			}
		}
		return
	}
	i, reading, n := pick(x.rng, x.instances...), x.rng.IntN(4) > 0, 1+x.rng.IntN(3)
	f := pick(x.rng, redissim.LateRequest, redissim.LateAnswer, redissim.LateAnswer, redissim.LoseRequest,
		redissim.LoseAnswer, redissim.Loading, redissim.ReadOnly, redissim.OOM, redissim.TryAgain)
	x.w.step("    the next %d scripts of %s that read, %v: %s", n, i, reading, f)
	x.redis.Spoil(i.name, f, reading, n)
}

// mislead leads live connections of an instance to a replica.
func (x *run) mislead() {
	i := pick(x.rng, x.instances...)
	x.redis.Mislead(i.name, 1+x.rng.IntN(2))
	if x.rng.IntN(2) == 0 {
		x.redis.Break(i.name, false)
	}
}

func (x *run) mute() { x.redis.Mute(pick(x.rng, x.instances...).name) }

// stall lets what an instance asks of its live connection wait, lets some of it
// go on, or all.
func (x *run) stall() {
	i := pick(x.rng, x.instances...)
	switch {
	case !i.stalled:
		i.stalled = true
		x.redis.Stall(i.name, true)
	case x.rng.IntN(3) == 0:
		i.stalled = false
		x.redis.Stall(i.name, false)
	default:
		x.redis.Take(i.name)
	}
	x.w.step("    %s stalled: %v", i, i.stalled)
}

// move lets the slot leave its server, and be nowhere for a while.
func (x *run) move() {
	i := pick(x.rng, x.instances...)
	x.redis.Elsewhere(i.name, x.rng.IntN(3))
	x.redis.Move(i.name)
}

// kill ends an instance; another takes its place.
func (x *run) kill() {
	n := x.rng.IntN(len(x.instances))
	old := x.instances[n]
	x.w.step("    %s dies", old)
	for _, c := range x.clients {
		if c.conn != nil && c.conn.instance == old {
			x.disconnect(c)
		}
	}
	apart := x.redis.OnOld(old.name)
	for _, c := range x.clients { // nobody else knows what it was told, and it has to ask the new primary first
		maps.DeleteFunc(c.debts, func(_ int, d debt) bool {
			return d.by == old && (apart || min(time.Since(d.since), time.Since(x.whole)) < within)
		})
	}
	x.redis.Break(old.name, true)
	x.stop(old)
	x.instances[n] = x.start()
}

// trim takes events of a topic away, but for the newest few.
func (x *run) trim() {
	topic, keep := pick(x.rng, topics...), x.rng.IntN(3)
	x.w.step("    %s is trimmed to %d", topic, keep)
	x.w.mu.Lock()
	x.w.trims = true
	all := x.w.byTopic[topic]
	from := ""
	if keep > 0 && len(all) >= keep {
		from = fmt.Sprintf("%d-0", x.w.events[all[len(all)-keep]].Cursor.Seq)
	}
	x.w.mu.Unlock()
	key := "pushhub:{" + acme + "}:s:" + topic
	if from == "" {
		x.redis.Do("del", key)
	} else {
		x.redis.Do("xtrim", key, "MINID", from)
	}
}

// evict takes a whole key away.
func (x *run) evict() {
	key := pick(x.rng, "m", "i", "a", "s:"+pick(x.rng, topics...))
	x.w.step("    %s is evicted", key)
	x.w.mu.Lock()
	x.w.trims = true
	x.w.mu.Unlock()
	x.redis.Do("del", "pushhub:{"+acme+"}:"+key)
}

// failover makes a replica the primary that lacks some. An older primary may go on.
func (x *run) failover() {
	lost := x.rng.IntN(6)
	x.w.step("    %d scripts are lost", lost)
	x.w.lost()
	x.w.promoted()
	x.redis.Failover(lost, redissim.Dies)
}

// splitBrain does too, while the old primary goes on for those who are connected
// to it, or is started again with nothing and some connect to that; or ends that.
func (x *run) splitBrain() {
	if x.split = !x.split; !x.split {
		x.w.step("    the split ends")
		x.endSplit()
		return
	}
	lost := x.rng.IntN(4)
	fate := pick(x.rng, redissim.GoesOn, redissim.GoesOn, redissim.Forgets)
	x.w.step("    a split, and %d scripts are lost; the old primary %s", lost, fate)
	x.w.lost()
	x.endSplit()
	x.w.promoted()
	for _, i := range x.instances {
		x.redis.Astray(i.name, x.rng.IntN(2) == 0)
	}
	x.redis.Failover(lost, fate)
}

// endSplit has nobody left who is connected to an old primary that goes on.
func (x *run) endSplit() {
	x.redis.EndSplit()
	x.whole = time.Now()
}

// demote is a failover after which the old primary is a replica, and keeps its
// connections; or lets it catch up.
func (x *run) demote() {
	if x.rng.IntN(2) == 0 {
		x.redis.Replicate()
		return
	}
	lost := x.rng.IntN(2)
	x.w.step("    %d scripts are lost", lost)
	x.w.lost()
	x.endSplit()
	x.w.promoted()
	x.redis.Failover(lost, redissim.Demoted)
}

// migrate goes on with the move of the tenant's slot to another node. It does not
// begin before the node that the slot is on has begun an epoch: one that failed
// over, lost the epoch that it had begun, and gave the slot back, all of it unseen,
// leaves no trace of what was in that epoch.
func (x *run) migrate() {
	if !x.Cluster {
		return
	}
	if !x.redis.Moving() && x.redis.Hash("pushhub:{"+acme+"}:m", "run") != x.redis.Life() {
		return
	}
	if x.redis.Moving() && x.rng.IntN(2) == 0 {
		x.redis.FinishMigration()
		x.sums.Migrations++
	} else {
		x.redis.Migrate(x.rng.IntN(4))
	}
	x.w.step("    the slot is on its way: %v", x.redis.Moving())
}

func (x *run) restart() {
	lost := x.rng.IntN(4) - 1
	x.w.step("    %d scripts are lost; -1: all", lost)
	x.w.lost()
	x.redis.Restart(lost)
}

func (x *run) flush() {
	x.w.lost()
	x.redis.Do("flushall")
}
