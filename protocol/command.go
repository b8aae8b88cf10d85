package protocol

import "encoding/json"

// Op names what a client asks for over its WebSocket.
type Op string

// The ops of clients.
const (
	OpSubscribe   Op = "subscribe"
	OpUnsubscribe Op = "unsubscribe"
	OpAuth        Op = "auth"
	OpPing        Op = "ping"
)

// MaxLast bounds how many retained events per topic can be asked for.
const MaxLast = 1000

// Command is one message of a client.
type Command struct {
	Op     Op
	Ref    string      // the client's own, echoed in the answer
	Topics []TopicWish // of subscribe and unsubscribe
	Token  string      // of auth
}

// TopicWish is a topic or pattern that a client wants, and from where on.
type TopicWish struct {
	Topic string
	Since Cursor // zero: no cursor was given
	Last  int    // retained events wanted first; -1: the default of the topic. Void with a cursor
}

// ParseCommand reads one message of a client. The Ref is given also with an
// error, where it could be read.
func ParseCommand(b []byte) (Command, *Error) {
	var c Command
	o, ok := ParseObject(b)
	if !ok {
		return c, wrong("message", Malformed, "the message is not one JSON object")
	}
	ref, _, ok := o.Text("ref")
	if !ok || len(ref) > MaxLabelBytes {
		return c, wrong("ref", Malformed, "ref is not a string of at most %d bytes", MaxLabelBytes)
	}
	c.Ref = ref
	op, found, ok := o.Text("op")
	switch c.Op = Op(op); {
	case !found:
		return c, wrong("op", Required, "op is missing")
	case !ok:
		return c, wrong("op", Malformed, "op is not a string")
	case c.Op == OpSubscribe:
		return o.subscribe(c)
	case c.Op == OpUnsubscribe:
		return o.unsubscribe(c)
	case c.Op == OpAuth:
		token, found, ok := o.Text("token")
		if !found || token == "" && ok {
			return c, wrong("token", Required, "token is missing")
		}
		if !ok {
			return c, wrong("token", Malformed, "token is not a string")
		}
		c.Token = token
		return c, nil
	case c.Op == OpPing:
		return c, nil
	}
	return c, wrong("op", NotSupported, "op is none of subscribe, unsubscribe, auth, ping")
}

func wrong(field string, reason Reason, format string, args ...any) *Error {
	return Errorf(BadRequest, InMessage, field, reason, format, args...)
}

func (o Object) topics() ([][]byte, *Error) {
	raw := o.Get("topics")
	if isNull(raw) {
		return nil, wrong("topics", Required, "topics is missing")
	}
	list, ok := ParseArray(raw)
	if !ok {
		return nil, wrong("topics", Malformed, "topics is not an array")
	}
	if len(list) == 0 {
		return nil, wrong("topics", Required, "topics is empty")
	}
	return list, nil
}

func (o Object) subscribe(c Command) (Command, *Error) {
	list, err := o.topics()
	if err != nil {
		return c, err
	}
	base := TopicWish{Last: -1}
	if err := o.start(&base); err != nil {
		return c, err
	}
	c.Topics = make([]TopicWish, len(list))
	for i, raw := range list {
		w := base
		if raw[0] == '{' {
			own, ok := ParseObject(raw)
			if !ok {
				return c, wrong("topics", Malformed, "topics[%d] is not an object", i)
			}
			var found bool
			if w.Topic, found, ok = own.Text("topic"); !found || !ok {
				return c, wrong("topics", Malformed, "topics[%d].topic is not a string", i)
			}
			if !isNull(own.Get("since")) || !isNull(own.Get("last")) {
				w.Since, w.Last = Cursor{}, -1
			}
			if err := own.start(&w); err != nil {
				return c, err
			}
		} else if text, ok := ParseText(raw); ok {
			w.Topic = text
		} else {
			return c, wrong("topics", Malformed, "topics[%d] is neither a string nor an object", i)
		}
		if err := CheckPattern(w.Topic); err != nil {
			return c, wrong("topics", Malformed, "topics[%d]: %v", i, err)
		}
		c.Topics[i] = w
	}
	return c, nil
}

// start reads since and last into w.
func (o Object) start(w *TopicWish) *Error {
	since, found, ok := o.Text("since")
	if !ok {
		return wrong("since", Malformed, "since is not a string")
	}
	if found && since != "" {
		c, err := ParseCursor(since)
		if err != nil {
			return wrong("since", Malformed, "since: %v", err)
		}
		w.Since = c
	}
	if raw := o.Get("last"); !isNull(raw) {
		var n int
		if json.Unmarshal(raw, &n) != nil || n < 0 || n > MaxLast {
			return wrong("last", Malformed, "last is not a whole number from 0 to %d", MaxLast)
		}
		w.Last = n
	}
	return nil
}

func (o Object) unsubscribe(c Command) (Command, *Error) {
	list, err := o.topics()
	if err != nil {
		return c, err
	}
	c.Topics = make([]TopicWish, len(list))
	for i, raw := range list {
		s, ok := ParseText(raw)
		if !ok {
			return c, wrong("topics", Malformed, "topics[%d] is not a string", i)
		}
		if err := CheckPattern(s); err != nil {
			return c, wrong("topics", Malformed, "topics[%d]: %v", i, err)
		}
		c.Topics[i].Topic = s
	}
	return c, nil
}
