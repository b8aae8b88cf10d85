package redislog

// rule names a rule of the log that a test can switch off, to see that the search
// finds the hole which it closes. Outside tests all are on.
type rule uint

const (
	ruleEnd       rule = 1 << iota // the end of a connection is told
	ruleConfirmed                  // a tenant is covered when Redis has confirmed it
	ruleNth                        // the n-th answer belongs to the n-th request
	ruleAnswer                     // an answer that does not come in time ends the connection
	ruleLeft                       // an unsubscription that was not asked for is one
	rulePrimary                    // only a primary is heard
	ruleOnce                       // nothing is sent twice
	rulePoll                       // a server is asked of something now and then
)

func (r rule) has(any rule) bool { return r&any != 0 }
