package protocol_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

const maxData = 64

func TestParsePublish(t *testing.T) {
	for in, want := range map[string][]protocol.Publication{
		`{"topic":"a","type":"t","data":null}`: {{Topic: "a", Type: "t", Data: []byte("null")}},
		` { "data" : { "n" : 1.0e+5 , "n" : 2 } , "type" : "t.v1" , "topic" : "a.b" , "time" : "2026-05-27T10:15:00+02:00" ,
		   "source" : "node 7" , "key" : "k" , "final" : true , "dedupe" : "d" , "unknown" : [ ] } `: {{
			Topic: "a.b", Type: "t.v1", Time: "2026-05-27T10:15:00+02:00", Source: "node 7", Data: []byte(`{"n":1.0e+5,"n":2}`),
			Key: "k", Final: true, Dedupe: "d",
		}},
		`{"topic":"a","type":"t","data":1,"time":null,"source":null,"key":null,"final":null,"dedupe":null}`: {{Topic: "a", Type: "t", Data: []byte("1")}},
		`{"topic":"x","type":"t","data":1,"topic":"y"}`:                                                     {{Topic: "y", Type: "t", Data: []byte("1")}},
		`{"events":[{"topic":"a","type":"t","data":1},{"topic":"b","type":"t","data":"2"}]}`: {
			{Topic: "a", Type: "t", Data: []byte("1")}, {Topic: "b", Type: "t", Data: []byte(`"2"`)},
		},
		fmt.Sprintf(`{"topic":"a","type":"t","data":"%s"}`, strings.Repeat("x", maxData-2)): {
			{Topic: "a", Type: "t", Data: fmt.Appendf(nil, `"%s"`, strings.Repeat("x", maxData-2))},
		},
		`{"topic":"a","type":"t","data":[` + strings.Repeat(" ", 1000) + `]}`: {{Topic: "a", Type: "t", Data: []byte("[]")}},
	} {
		got, err := protocol.ParsePublish([]byte(in), maxData)
		require.Nil(t, err, in)
		requirePublications(t, want, got)
	}
}

// requirePublications compares all that is exported.
func requirePublications(t *testing.T, want, got []protocol.Publication) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.EqualExportedValues(t, want[i], got[i])
	}
}

func TestTopicField(t *testing.T) {
	one, err := protocol.ParsePublish([]byte(`{"topic":"a","type":"t","data":1}`), maxData)
	require.Nil(t, err)
	require.Equal(t, "topic", one[0].TopicField())
	batch, err := protocol.ParsePublish([]byte(`{"events":[{"topic":"a","type":"t","data":1}]}`), maxData)
	require.Nil(t, err)
	require.Equal(t, "events[0].topic", batch[0].TopicField(), "also in a batch of one")
	cloud, err := protocol.ParseCloudEvent([]byte(cloudEvent("")), maxData)
	require.Nil(t, err)
	require.Equal(t, "subject", cloud[0].TopicField())
}

// many gives a batch of n events, one of which is another.
func many(n, at int, other string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = `{"topic":"a","type":"t","data":1}`
	}
	if other != "" {
		all[at] = other
	}
	return `{"events":[` + strings.Join(all, ",") + `]}`
}

func TestParsePublishRefuses(t *testing.T) {
	long := strings.Repeat("x", 129)
	type refusal struct {
		field  string
		reason protocol.Reason
	}
	for in, want := range map[string]refusal{
		``:                                    {"body", protocol.Malformed},
		`[]`:                                  {"body", protocol.Malformed},
		`null`:                                {"body", protocol.Malformed},
		`{"topic":"a"`:                        {"body", protocol.Malformed},
		"{\"topic\":\"\xff\"}":                {"body", protocol.Malformed},
		deep(20_000):                          {"body", protocol.Malformed},
		`{}`:                                  {"topic", protocol.Required},
		`{"topic":null}`:                      {"topic", protocol.Required},
		`{"topic":1}`:                         {"topic", protocol.Malformed},
		`{"topic":""}`:                        {"topic", protocol.Malformed},
		`{"topic":"a.*"}`:                     {"topic", protocol.Malformed},
		`{"Topic":"a"}`:                       {"topic", protocol.Required},
		`{"topic":"a"}`:                       {"type", protocol.Required},
		`{"topic":"a","type":""}`:             {"type", protocol.Malformed},
		`{"topic":"a","type":"a\n"}`:          {"type", protocol.Malformed},
		`{"topic":"a","type":["t"]}`:          {"type", protocol.Malformed},
		`{"topic":"a","type":"` + long + `"}`: {"type", protocol.Malformed},
		`{"topic":"a","type":"t"}`:            {"data", protocol.Required},
		`{"topic":"a","type":"t","data":1,"time":"now"}`:            {"time", protocol.Malformed},
		`{"topic":"a","type":"t","data":1,"time":1716804900}`:       {"time", protocol.Malformed},
		`{"topic":"a","type":"t","data":1,"time":""}`:               {"time", protocol.Malformed},
		`{"topic":"a","type":"t","data":1,"source":""}`:             {"source", protocol.Malformed},
		`{"topic":"a","type":"t","data":1,"source":"` + long + `"}`: {"source", protocol.Malformed},
		`{"topic":"a","type":"t","data":1,"key":"\u0000"}`:          {"key", protocol.Malformed},
		`{"topic":"a","type":"t","data":1,"key":7}`:                 {"key", protocol.Malformed},
		`{"topic":"a","type":"t","data":1,"dedupe":"` + long + `"}`: {"dedupe", protocol.Malformed},
		`{"topic":"a","type":"t","data":1,"final":"true"}`:          {"final", protocol.Malformed},
		`{"topic":"a","type":"t","data":1,"final":1}`:               {"final", protocol.Malformed},
		`{"topic":"a","type":"t","data":` + deep(9001) + `}`:        {"data", protocol.Invalid},
		`{"events":null}`:   {"events", protocol.Malformed},
		`{"events":{}}`:     {"events", protocol.Malformed},
		`{"events":[]}`:     {"events", protocol.Required},
		`{"events":[1]}`:    {"events[0]", protocol.Malformed},
		`{"events":[null]}`: {"events[0]", protocol.Malformed},
		many(1001, 0, ""):   {"events", protocol.Invalid},
		many(5, 3, `{}`):    {"events[3].topic", protocol.Required},
		many(5, 3, `{"topic":"a","type":"t","data":1,"final":2}`): {"events[3].final", protocol.Malformed},
	} {
		got, err := protocol.ParsePublish([]byte(in), maxData)
		require.NotNil(t, err, in)
		require.Nil(t, got, "all or none")
		require.Equal(t, map[string]protocol.Reason{want.field: want.reason}, err.Details, in)
		require.Equal(t, protocol.BadRequest, err.Code, in)
		require.Equal(t, protocol.InBody, err.Origin, in)
	}
	for in, field := range map[string]string{
		`{"topic":"a","type":"t","data":"` + strings.Repeat("x", maxData-1) + `"}`:         "data",
		many(5, 4, `{"topic":"a","type":"t","data":"`+strings.Repeat("x", maxData-1)+`"}`): "events[4].data",
	} {
		_, err := protocol.ParsePublish([]byte(in), maxData)
		require.Equal(t, protocol.PayloadTooLarge, err.Code)
		require.Equal(t, map[string]protocol.Reason{field: protocol.Invalid}, err.Details)
	}
	whole, err := protocol.ParsePublish([]byte(many(1000, 0, "")), maxData)
	require.Nil(t, err)
	require.Len(t, whole, 1000)
}

// cloudEvent gives a CloudEvent with further members, each after a comma.
func cloudEvent(more string) string {
	return `{"specversion":"1.0","id":"7","source":"node","type":"t","subject":"a"` + more + `}`
}

func TestParseCloudEvents(t *testing.T) {
	plain := protocol.Publication{Topic: "a", Type: "t", Source: "node", Dedupe: "node 7", Data: []byte("null")}
	full := plain
	full.Time, full.Data = "2026-05-27T10:15:00Z", []byte(`{"n":1}`)
	for in, want := range map[string]protocol.Publication{
		cloudEvent(""): plain,
		cloudEvent(`,"time":"2026-05-27T10:15:00Z","data":{ "n" : 1 },"datacontenttype":"application/vnd.x+json; charset=utf-8","extension":true`): full,
		cloudEvent(`,"data":null,"data_base64":null,"datacontenttype":"TEXT/JSON"`):                                                                plain,
	} {
		got, err := protocol.ParseCloudEvent([]byte(in), maxData)
		require.Nil(t, err, in)
		requirePublications(t, []protocol.Publication{want}, got)
		batch, err := protocol.ParseCloudEvents([]byte("["+in+","+in+"]"), maxData)
		require.Nil(t, err, in)
		requirePublications(t, []protocol.Publication{want, want}, batch)
	}
	without := func(member string) string { return strings.Replace(cloudEvent(""), `"`+member+`"`, `"x`+member+`"`, 1) }
	for in, want := range map[string]struct {
		field  string
		reason protocol.Reason
	}{
		`[]`:                               {"body", protocol.Malformed},
		`{}`:                               {"specversion", protocol.Required},
		without("specversion"):             {"specversion", protocol.Required},
		without("id"):                      {"id", protocol.Required},
		without("source"):                  {"source", protocol.Required},
		without("type"):                    {"type", protocol.Required},
		without("subject"):                 {"subject", protocol.Required},
		cloudEvent(`,"specversion":"0.3"`): {"specversion", protocol.NotSupported},
		cloudEvent(`,"subject":"a/b"`):     {"subject", protocol.Malformed},
		cloudEvent(`,"time":"yesterday"`):  {"time", protocol.Malformed},
		cloudEvent(`,"datacontenttype":"text/plain","data":"x"`): {"datacontenttype", protocol.NotSupported},
		cloudEvent(`,"datacontenttype":"json"`):                  {"datacontenttype", protocol.NotSupported},
		cloudEvent(`,"data_base64":"AAAA"`):                      {"data_base64", protocol.NotSupported},
		cloudEvent(`,"id":"` + strings.Repeat("x", 124) + `"`):   {"id", protocol.Invalid},
		cloudEvent(`,"data":` + deep(9001)):                      {"data", protocol.Invalid},
	} {
		_, err := protocol.ParseCloudEvent([]byte(in), maxData)
		require.NotNil(t, err, in)
		require.Equal(t, map[string]protocol.Reason{want.field: want.reason}, err.Details, in)
		if in[0] == '{' {
			_, err = protocol.ParseCloudEvents([]byte("["+cloudEvent("")+","+in+"]"), maxData)
			require.NotNil(t, err, in)
			require.Equal(t, map[string]protocol.Reason{"events[1]." + want.field: want.reason}, err.Details, in)
		}
	}
	for _, in := range []string{`{}`, `null`, ``, `[`} {
		_, err := protocol.ParseCloudEvents([]byte(in), maxData)
		require.Equal(t, map[string]protocol.Reason{"events": protocol.Malformed}, err.Details, in)
	}
}

func FuzzParsePublish(f *testing.F) {
	for _, s := range []string{
		`{"topic":"a.b","type":"t","data":{"n":1.0},"time":"2026-05-27T10:15:00Z","source":"s","key":"k","final":true,"dedupe":"d"}`,
		many(3, 1, `{"topic":"b","type":"\"\\","data":"\u2028"}`), `[` + cloudEvent(`,"data":[ 1 ]`) + `]`, cloudEvent(""),
	} {
		f.Add([]byte(s))
	}
	parsers := map[string]func([]byte, int) ([]protocol.Publication, *protocol.Error){
		"publish": protocol.ParsePublish, "cloud": protocol.ParseCloudEvent, "clouds": protocol.ParseCloudEvents,
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, parse := range parsers {
			all, err := parse(b, maxData)
			if err != nil {
				require.Nil(t, all)
				require.Equal(t, protocol.InBody, err.Origin)
				require.Len(t, err.Details, 1)
				continue
			}
			require.NotEmpty(t, all, name)
			for i := range all {
				requireWellFormed(t, &all[i])
			}
		}
	})
}

// requireWellFormed holds what the rest of the project relies on.
func requireWellFormed(t *testing.T, p *protocol.Publication) {
	t.Helper()
	require.NoError(t, protocol.CheckTopic(p.Topic))
	require.True(t, protocol.CheckLabel(p.Type))
	for _, optional := range []string{p.Source, p.Key} {
		require.True(t, optional == "" || protocol.CheckLabel(optional))
	}
	require.True(t, p.Dedupe == "" || protocol.CheckLabel(p.Dedupe))
	require.True(t, p.Time == "" || protocol.CheckTime(p.Time))
	require.LessOrEqual(t, len(p.Data), maxData)
	require.Equal(t, string(strip(p.Data)), string(p.Data))

	whole := p.AppendBody([]byte(`{"id":"e-1"`), time.Now())
	require.True(t, json.Valid(whole), "%s", whole)
	require.True(t, bytes.HasSuffix(whole, append([]byte(`,"data":`), append(p.Data, '}')...)))
	var e struct{ ID, Topic, Type, Time, Source string }
	require.NoError(t, json.Unmarshal(whole, &e))
	require.Equal(t, [4]string{"e-1", p.Topic, p.Type, p.Source}, [4]string{e.ID, e.Topic, e.Type, e.Source})
	require.True(t, protocol.CheckTime(e.Time))
	require.True(t, p.Time == "" || p.Time == e.Time, "passed on as given")
}
