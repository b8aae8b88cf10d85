package ingest

// rule names a rule of the ingest that a test can switch off, to see that its model
// finds what it is for. Outside tests all are on.
type rule uint

const (
	ruleLook  rule = 1 << iota // who does not lead brings in what it has heard, too
	ruleOlder                  // nobody goes before one who holds older messages
)

func (r rule) has(any rule) bool { return r&any != 0 }
