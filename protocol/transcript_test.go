package protocol_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

// transcript reads testdata/<name>.txt: what the client and the hub say in turn.
type transcript struct {
	t     *testing.T
	lines []string // with their > or <
}

func open(t *testing.T, name string) *transcript {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name + ".txt")
	require.NoError(t, err)
	tr := &transcript{t: t}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && line[0] != '#' {
			tr.lines = append(tr.lines, line)
		}
	}
	return tr
}

// says gives the next line, which must be of who.
func (tr *transcript) says(who string) string {
	tr.t.Helper()
	require.NotEmpty(tr.t, tr.lines, "the transcript has ended")
	line := tr.lines[0]
	tr.lines = tr.lines[1:]
	rest, ok := strings.CutPrefix(line, who)
	require.True(tr.t, ok, "not of %s: %s", who, line)
	return strings.TrimPrefix(rest, " ")
}

func (tr *transcript) hub(want []byte) {
	tr.t.Helper()
	require.Equal(tr.t, string(want), tr.says("<"))
}

func (tr *transcript) end() {
	tr.t.Helper()
	require.Empty(tr.t, tr.lines, "the transcript goes on")
}

func (tr *transcript) command(want protocol.Command) {
	tr.t.Helper()
	got, err := protocol.ParseCommand([]byte(tr.says(">")))
	require.Nil(tr.t, err)
	require.Equal(tr.t, want, got)
}

const trace = "4bf92f3577b34da6a3ce929d0e0e4736"

func at(seq uint64) protocol.Cursor { return protocol.Cursor{Epoch: "k3f9x2", Seq: seq} }

func moment(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

func shown(seq uint64, topic, kind, time, source, data string) *protocol.Event {
	return newEvent(at(seq).String(), protocol.Publication{Topic: topic, Type: kind, Time: time, Source: source, Data: []byte(data)})
}

var (
	quota    = shown(1040, "alerts", "alert.v1", "2026-05-27T10:14:58Z", "billing", `{"text":"quota at 90 %"}`)
	progress = shown(1042, "jobs.7b0c", "render.progress.v1", "2026-05-27T10:15:00.123Z", "render-node-7", `{"progress":42}`)
)

func TestTranscriptOfWebSocket(t *testing.T) {
	tr := open(t, "websocket")
	ends := moment("2026-05-27T10:16:30Z")
	tr.hub(protocol.Welcome{ConnectionID: "0d6f3c2e-5a0b-4a6e-9f0a-3f0f2a1c9b11", TenantID: "acme", UserID: "u1", ExpiresAt: ends, Heartbeat: 20}.Encode())
	tr.command(protocol.Command{Op: protocol.OpSubscribe, Ref: "1", Topics: []protocol.TopicWish{
		{Topic: "alerts", Since: at(12), Last: -1}, {Topic: "jobs.7b0c", Since: at(12), Last: -1},
	}})
	tr.hub(protocol.Gap{Topic: "alerts", Since: at(12).String(), Reason: protocol.GapExpired}.Encode())
	tr.hub(quota.JSON)
	tr.hub(progress.JSON)
	tr.hub(protocol.Subscribed{Ref: "1", Topics: []protocol.SubscribedTopic{{Topic: "alerts", Replayed: 1}, {Topic: "jobs.7b0c", Resumed: true, Replayed: 1}}, Cursor: at(1045)}.Encode())
	tr.hub(shown(1046, "jobs.7b0c", "render.progress.v1", "2026-05-27T10:15:01.200Z", "", `{"progress":43}`).JSON)
	tr.hub(protocol.Heartbeat{Cursor: at(1051)}.Encode())

	tr.command(protocol.Command{Op: protocol.OpSubscribe, Ref: "2", Topics: []protocol.TopicWish{{Topic: "nodes.*", Last: 2}}})
	tr.hub(shown(988, "nodes.n1", "node.v1", "2026-05-27T10:14:00Z", "", `"up"`).JSON)
	tr.hub(protocol.Subscribed{Ref: "2", Topics: []protocol.SubscribedTopic{{Topic: "nodes.*", Replayed: 1}}, Cursor: at(1051)}.Encode())
	tr.command(protocol.Command{Op: protocol.OpUnsubscribe, Ref: "3", Topics: []protocol.TopicWish{{Topic: "nodes.*"}}})
	tr.hub(protocol.Unsubscribed{Ref: "3", Topics: []string{"nodes.*"}}.Encode())

	tr.command(protocol.Command{Op: protocol.OpSubscribe, Ref: "4", Topics: []protocol.TopicWish{{Topic: "users.u2.inbox", Last: -1}}})
	refused := protocol.Errorf(protocol.Forbidden, protocol.InMessage, "topics", protocol.IsForbidden, "the token does not grant %s", "users.u2.inbox")
	refused.TraceID = trace
	tr.hub(protocol.ErrorMessage{Ref: "4", Error: refused}.Encode())

	tr.hub(protocol.Expiring{ExpiresAt: ends}.Encode())
	tr.command(protocol.Command{Op: protocol.OpAuth, Ref: "5", Token: "eyJhbGciOiJSUzI1NiJ9.eyJ0ZW5hbnRfaWQiOiJhY21lIn0.c2lnbmF0dXJl"})
	tr.hub(protocol.Authenticated{Ref: "5", ExpiresAt: moment("2026-05-27T11:16:00Z")}.Encode())
	tr.command(protocol.Command{Op: protocol.OpPing, Ref: "6"})
	tr.hub(protocol.Pong{Ref: "6"}.Encode())
	tr.hub(protocol.Bye{Code: protocol.Drain, Retry: 3200 * time.Millisecond, Cursor: at(1051)}.Encode())
	tr.end()
}

func TestTranscriptOfStream(t *testing.T) {
	tr := open(t, "sse")
	welcome := func(connection string) []byte {
		return protocol.Welcome{ConnectionID: connection, TenantID: "acme", UserID: "u1", ExpiresAt: moment("2026-05-27T11:15:00Z"), Heartbeat: 20}.Encode()
	}
	control := func(b []byte, id protocol.Cursor, message []byte) []byte {
		return protocol.AppendSSE(b, id.String(), protocol.ControlName, message)
	}
	request := func(lines ...string) {
		tr.says(">") // the request line
		for _, want := range lines {
			require.Equal(t, want, tr.says(">"))
		}
	}
	answer := func(want []byte) {
		for line := range strings.Lines(string(want)) {
			require.Equal(t, strings.TrimSuffix(line, "\n"), tr.says("<"))
		}
	}
	request("Accept: text/event-stream")
	b := protocol.AppendRetry(nil, 2731*time.Millisecond)
	b = control(b, protocol.Cursor{}, welcome("0d6f3c2e-5a0b-4a6e-9f0a-3f0f2a1c9b11"))
	b = append(b, shown(1038, "jobs.7b0c", "render.progress.v1", "2026-05-27T10:14:57Z", "", `{"progress":41}`).Frame(protocol.SSENoID)...)
	b = control(b, at(1042), protocol.Subscribed{Topics: []protocol.SubscribedTopic{{Topic: "alerts"}, {Topic: "jobs.7b0c", Replayed: 1}}, Cursor: at(1042)}.Encode())
	b = append(b, shown(1043, "alerts", "alert.v1", "2026-05-27T10:15:03Z", "", `{"text":"quota at 95 %"}`).Frame(protocol.SSE)...)
	b = control(b, at(1077), protocol.Heartbeat{Cursor: at(1077)}.Encode())
	b = protocol.AppendComment(b)
	answer(b)

	_, lastID, retry := eventSource(string(b))
	require.Equal(t, "2731", retry)
	request("Accept: text/event-stream", "Last-Event-ID: "+lastID)
	b = protocol.AppendRetry(nil, 1904*time.Millisecond)
	b = control(b, at(1077), welcome("7e1a2b3c-1111-4222-8333-444455556666"))
	b = append(b, shown(1080, "jobs.7b0c", "render.progress.v1", "2026-05-27T10:15:09Z", "", `{"status":"completed"}`).Frame(protocol.SSE)...)
	b = control(b, at(1081), protocol.Subscribed{Topics: []protocol.SubscribedTopic{{Topic: "alerts", Resumed: true}, {Topic: "jobs.7b0c", Resumed: true, Replayed: 1}}, Cursor: at(1081)}.Encode())
	bye := protocol.Bye{Code: protocol.Drain, Retry: 6150 * time.Millisecond, Cursor: at(1081)}
	b = control(protocol.AppendRetry(b, bye.Retry), bye.Cursor, bye.Encode())
	answer(b)
	tr.end()
}

// envelope is every JSON answer.
func envelope(t *testing.T, data any, err *protocol.Error, meta any) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	require.NoError(t, enc.Encode(struct {
		Data  any             `json:"data"`
		Error *protocol.Error `json:"error"`
		Meta  any             `json:"meta"`
	}{data, err, meta}))
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func TestTranscriptOfPublish(t *testing.T) {
	tr := open(t, "publish")
	meta := map[string]string{"trace_id": trace}
	parsers := map[string]func([]byte, int) ([]protocol.Publication, *protocol.Error){
		"application/json": protocol.ParsePublish, "application/cloudevents+json": protocol.ParseCloudEvent,
	}
	for next := uint64(1042); len(tr.lines) > 0; {
		parse := parsers[tr.says(">")]
		all, err := parse([]byte(tr.says(">")), maxData)
		if err != nil {
			err.TraceID = trace
			tr.hub([]byte(map[protocol.Code]string{protocol.BadRequest: "400", protocol.PayloadTooLarge: "413"}[err.Code]))
			tr.hub(envelope(t, nil, err, meta))
			continue
		}
		var ids []string
		for range all {
			ids = append(ids, at(next).String())
			next++
		}
		tr.hub([]byte("201"))
		tr.hub(envelope(t, map[string][]string{"ids": ids}, nil, meta))
	}
}

func TestTranscriptOfFeed(t *testing.T) {
	tr := open(t, "feed")
	type meta struct {
		TraceID string   `json:"trace_id"`
		Next    string   `json:"next"`
		Gaps    []string `json:"gaps,omitempty"`
	}
	tr.says(">")
	tr.hub(envelope(t, []json.RawMessage{quota.JSON, progress.JSON}, nil, meta{trace, at(1042).String(), []string{"alerts"}}))
	tr.says(">")
	tr.hub(envelope(t, []json.RawMessage{}, nil, meta{trace, at(1045).String(), nil}))
	tr.end()
}
