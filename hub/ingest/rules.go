package ingest

// rule names a rule of the ingest that a test can switch off, to see that its model
// finds what it is for. Outside tests all are on.
type rule uint

const (
	ruleLook   rule = 1 << iota // who does not lead brings in what it has heard, too
	ruleOlder                   // nobody goes before another to whom older messages are open
	ruleRead                    // open are also those that one who listens has not read yet
	ruleBegins                  // who begins to listen says so at the same place
	ruleSerial                  // what is said late does not replace what was said after it
)

func (r rule) has(any rule) bool { return r&any != 0 }
