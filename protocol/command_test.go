package protocol_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

func TestParseCommand(t *testing.T) {
	at := func(epoch string, seq uint64) protocol.Cursor { return protocol.Cursor{Epoch: epoch, Seq: seq} }
	for in, want := range map[string]protocol.Command{
		`{"op":"ping"}`: {Op: protocol.OpPing},
		` { "ref" : "5" , "op" : "ping" , "more" : [ 1 ] } `: {Op: protocol.OpPing, Ref: "5"},
		`{"op":"ping","ref":null}`:                           {Op: protocol.OpPing},
		`{"op":"auth","ref":"4","token":"a.b.c"}`:            {Op: protocol.OpAuth, Ref: "4", Token: "a.b.c"},
		`{"op":"nonsense","op":"ping"}`:                      {Op: protocol.OpPing},
		`{"op":"unsubscribe","ref":"3","topics":["alerts","jobs.*"]}`: {
			Op: protocol.OpUnsubscribe, Ref: "3", Topics: []protocol.TopicWish{{Topic: "alerts"}, {Topic: "jobs.*"}},
		},
		`{"op":"subscribe","ref":"1","topics":["alerts","jobs.7b0c"],"since":"k3f9x2-1042"}`: {
			Op: protocol.OpSubscribe, Ref: "1", Topics: []protocol.TopicWish{
				{Topic: "alerts", Since: at("k3f9x2", 1042), Last: -1}, {Topic: "jobs.7b0c", Since: at("k3f9x2", 1042), Last: -1},
			},
		},
		`{"op":"subscribe","ref":"2","topics":[{"topic":"alerts","since":"k3f9x2-1042"},{"topic":"jobs.*","last":5},"nodes.n1"]}`: {
			Op: protocol.OpSubscribe, Ref: "2", Topics: []protocol.TopicWish{
				{Topic: "alerts", Since: at("k3f9x2", 1042), Last: -1}, {Topic: "jobs.*", Last: 5}, {Topic: "nodes.n1", Last: -1},
			},
		},
		// What stands with a topic is all that counts for it.
		`{"op":"subscribe","since":"e-9","topics":["a",{"topic":"b"},{"topic":"c","last":0},{"topic":"d","since":"e-3"}]}`: {
			Op: protocol.OpSubscribe, Topics: []protocol.TopicWish{
				{Topic: "a", Since: at("e", 9), Last: -1}, {Topic: "b", Since: at("e", 9), Last: -1}, {Topic: "c"}, {Topic: "d", Since: at("e", 3), Last: -1},
			},
		},
		`{"op":"subscribe","topics":[">"],"since":"","last":1000}`: {
			Op: protocol.OpSubscribe, Topics: []protocol.TopicWish{{Topic: ">", Last: 1000}},
		},
		`{"op":"subscribe","topics":["a"],"since":null,"last":null}`: {
			Op: protocol.OpSubscribe, Topics: []protocol.TopicWish{{Topic: "a", Last: -1}},
		},
	} {
		got, err := protocol.ParseCommand([]byte(in))
		require.Nil(t, err, in)
		require.Equal(t, want, got, in)
	}
}

func TestParseCommandRefuses(t *testing.T) {
	long := strings.Repeat("r", 129)
	for in, want := range map[string]struct {
		field  string
		reason protocol.Reason
		ref    string
	}{
		``:                         {"message", protocol.Malformed, ""},
		`nonsense`:                 {"message", protocol.Malformed, ""},
		`null`:                     {"message", protocol.Malformed, ""},
		`[]`:                       {"message", protocol.Malformed, ""},
		`"op"`:                     {"message", protocol.Malformed, ""},
		`{"op":"ping"}{}`:          {"message", protocol.Malformed, ""},
		"{\"op\":\"ping\xff\"}":    {"message", protocol.Malformed, ""},
		`{}`:                       {"op", protocol.Required, ""},
		`{"op":null,"ref":"1"}`:    {"op", protocol.Required, "1"},
		`{"Op":"ping","ref":"1"}`:  {"op", protocol.Required, "1"},
		`{"op":1,"ref":"1"}`:       {"op", protocol.Malformed, "1"},
		`{"op":"","ref":"1"}`:      {"op", protocol.NotSupported, "1"},
		`{"op":"publish"}`:         {"op", protocol.NotSupported, ""},
		`{"op":"ping","ref":1}`:    {"ref", protocol.Malformed, ""},
		`{"op":"ping","ref":{}}`:   {"ref", protocol.Malformed, ""},
		`{"ref":"` + long + `"}`:   {"ref", protocol.Malformed, ""},
		`{"op":"auth","ref":"4"}`:  {"token", protocol.Required, "4"},
		`{"op":"auth","token":""}`: {"token", protocol.Required, ""},
		`{"op":"auth","token":1}`:  {"token", protocol.Malformed, ""},

		`{"op":"subscribe","ref":"1"}`:                            {"topics", protocol.Required, "1"},
		`{"op":"subscribe","topics":null}`:                        {"topics", protocol.Required, ""},
		`{"op":"subscribe","topics":[]}`:                          {"topics", protocol.Required, ""},
		`{"op":"subscribe","topics":"a"}`:                         {"topics", protocol.Malformed, ""},
		`{"op":"subscribe","topics":{"topic":"a"}}`:               {"topics", protocol.Malformed, ""},
		`{"op":"subscribe","topics":["a",1]}`:                     {"topics", protocol.Malformed, ""},
		`{"op":"subscribe","topics":["a",null]}`:                  {"topics", protocol.Malformed, ""},
		`{"op":"subscribe","topics":["a",["b"]]}`:                 {"topics", protocol.Malformed, ""},
		`{"op":"subscribe","topics":["a",""]}`:                    {"topics", protocol.Malformed, ""},
		`{"op":"subscribe","topics":["a..b"]}`:                    {"topics", protocol.Malformed, ""},
		`{"op":"subscribe","topics":[{}]}`:                        {"topics", protocol.Malformed, ""},
		`{"op":"subscribe","topics":[{"topic":7}]}`:               {"topics", protocol.Malformed, ""},
		`{"op":"subscribe","topics":[{"topic":">.a"}]}`:           {"topics", protocol.Malformed, ""},
		`{"op":"subscribe","topics":["a"],"since":"x"}`:           {"since", protocol.Malformed, ""},
		`{"op":"subscribe","topics":["a"],"since":1042}`:          {"since", protocol.Malformed, ""},
		`{"op":"subscribe","topics":["a"],"last":-1}`:             {"last", protocol.Malformed, ""},
		`{"op":"subscribe","topics":["a"],"last":1001}`:           {"last", protocol.Malformed, ""},
		`{"op":"subscribe","topics":["a"],"last":"5"}`:            {"last", protocol.Malformed, ""},
		`{"op":"subscribe","topics":["a"],"last":1.5}`:            {"last", protocol.Malformed, ""},
		`{"op":"subscribe","topics":["a"],"last":1e99}`:           {"last", protocol.Malformed, ""},
		`{"op":"subscribe","topics":[{"topic":"a","since":"-"}]}`: {"since", protocol.Malformed, ""},
		`{"op":"subscribe","topics":[{"topic":"a","last":[]}]}`:   {"last", protocol.Malformed, ""},

		`{"op":"unsubscribe"}`:                          {"topics", protocol.Required, ""},
		`{"op":"unsubscribe","topics":[]}`:              {"topics", protocol.Required, ""},
		`{"op":"unsubscribe","topics":[1]}`:             {"topics", protocol.Malformed, ""},
		`{"op":"unsubscribe","topics":["a b"]}`:         {"topics", protocol.Malformed, ""},
		`{"op":"unsubscribe","topics":[{"topic":"a"}]}`: {"topics", protocol.Malformed, ""},
	} {
		got, err := protocol.ParseCommand([]byte(in))
		require.NotNil(t, err, in)
		require.Equal(t, map[string]protocol.Reason{want.field: want.reason}, err.Details, in)
		require.Equal(t, protocol.BadRequest, err.Code, in)
		require.Equal(t, protocol.InMessage, err.Origin, in)
		require.Equal(t, want.ref, got.Ref, in)
	}
}

func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{
		`{"op":"subscribe","ref":"2","topics":[{"topic":"alerts","since":"k3f9x2-1042"},{"topic":"jobs.*","last":5},"nodes.n1"]}`,
		`{"op":"unsubscribe","topics":["alerts"]}`, `{"op":"auth","token":"a.b.c"}`, `{"op":"ping","ref":"\u0000"}`,
		`{"op":"subscribe","topics":[null,{},[]],"since":""}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := protocol.ParseCommand(b)
		require.LessOrEqual(t, len(c.Ref), 3*protocol.MaxLabelBytes, "what is echoed is bounded")
		if err != nil {
			require.Equal(t, protocol.BadRequest, err.Code)
			require.Equal(t, protocol.InMessage, err.Origin)
			require.Len(t, err.Details, 1)
			return
		}
		wantsTopics := c.Op == protocol.OpSubscribe || c.Op == protocol.OpUnsubscribe
		require.Contains(t, []protocol.Op{protocol.OpSubscribe, protocol.OpUnsubscribe, protocol.OpAuth, protocol.OpPing}, c.Op)
		require.Equal(t, wantsTopics, len(c.Topics) > 0)
		require.Equal(t, c.Op == protocol.OpAuth, c.Token != "")
		for _, w := range c.Topics {
			require.NoError(t, protocol.CheckPattern(w.Topic))
			require.LessOrEqual(t, w.Last, protocol.MaxLast)
			require.GreaterOrEqual(t, w.Last, -1)
		}
	})
}
