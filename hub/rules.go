package hub

// rule names a rule that a test can switch off, to see that the search finds the
// hole which it closes. Outside tests all are on.
type rule uint

const (
	ruleHole      rule = 1 << iota // a seq that is not the next is a hole
	ruleLiveEpoch                  // an event of another epoch: look before adopting it
	ruleVerify                     // look for a lost tail
	rulePrev                       // first retained event's prev is after the cursor: gap
	ruleVanished                   // nothing retained after the cursor, but the topic went on: gap
	ruleFloor                      // a forgotten topic, a cursor before the floor: gap
	ruleEpoch                      // cursor of another epoch: gap
	ruleAhead                      // cursor ahead of the log: gap
	ruleMeet                       // go live only where pos is
	ruleTold                       // a gap covers only what was lost before it
	ruleFrontier                   // give up to where every topic's events are at hand
	ruleReach                      // what others read counts as far as it reaches
	ruleCatchUp                    // what was live before comes before what joins
	ruleOwner                      // leave out what another subscription has already
	ruleStart                      // … and say so where that began later
	ruleIDs                        // no id while a subscription joins
)

func (r rule) has(one rule) bool { return r&one != 0 }
