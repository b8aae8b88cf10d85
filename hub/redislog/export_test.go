package redislog

// What the tests of package redislog_test need from the inside. They are outside
// because package search imports redislog.

// Rule is one of the rules that can be switched off.
type Rule = rule

// Rules are all of them.
var Rules = []struct {
	Name string
	Rule Rule
}{
	{"end", ruleEnd}, {"confirmed", ruleConfirmed}, {"nth", ruleNth}, {"answer", ruleAnswer},
	{"left", ruleLeft}, {"primary", rulePrimary}, {"once", ruleOnce},
}

// RulePoll is another one, which is not for the live connection.
const RulePoll = rulePoll

// OpenWithout is Open with a rule switched off.
func OpenWithout(opts Options, off Rule) (*Log, error) {
	opts.off = off
	return Open(opts)
}
