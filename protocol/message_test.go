package protocol_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
)

// The bytes of every message of the hub, members in the order of the contract.
func TestMessages(t *testing.T) {
	at := time.Date(2026, 5, 27, 12, 15, 0, 987e6, time.FixedZone("", 7200))
	cursor := protocol.Cursor{Epoch: "k3f9x2", Seq: 1045}
	refused := protocol.Errorf(protocol.Forbidden, protocol.InMessage, "topics", protocol.IsForbidden, "not %s", `"a.>"`)
	refused.TraceID = "t1"
	for _, c := range []struct {
		message interface{ Encode() []byte }
		want    string
	}{
		{
			protocol.Welcome{ConnectionID: "c1", TenantID: "acme", UserID: "u1", ExpiresAt: at, Heartbeat: 20},
			`{"op":"welcome","connection_id":"c1","tenant_id":"acme","user_id":"u1","expires_at":"2026-05-27T10:15:00Z","heartbeat":20}`,
		},
		{protocol.Gap{Topic: "a.>", Since: "k3f9x2-12", Reason: protocol.GapExpired}, `{"op":"gap","topic":"a.>","since":"k3f9x2-12","reason":"expired"}`},
		{protocol.Gap{Topic: "a", Since: "old-12", Reason: protocol.GapEpoch}, `{"op":"gap","topic":"a","since":"old-12","reason":"epoch"}`},
		{
			protocol.Subscribed{Ref: "1", Topics: []protocol.SubscribedTopic{{Topic: "alerts", Resumed: true, Replayed: 3}}, Cursor: cursor},
			`{"op":"subscribed","ref":"1","topics":[{"topic":"alerts","resumed":true,"replayed":3}],"cursor":"k3f9x2-1045"}`,
		},
		{
			protocol.Subscribed{Topics: []protocol.SubscribedTopic{{Topic: "a"}, {Topic: "b"}}, Cursor: cursor},
			`{"op":"subscribed","topics":[{"topic":"a","resumed":false,"replayed":0},{"topic":"b","resumed":false,"replayed":0}],"cursor":"k3f9x2-1045"}`,
		},
		{protocol.Unsubscribed{Ref: "3", Topics: []string{"alerts"}}, `{"op":"unsubscribed","ref":"3","topics":["alerts"]}`},
		{protocol.Unsubscribed{Topics: []string{"a.>"}}, `{"op":"unsubscribed","topics":["a.>"]}`},
		{protocol.Authenticated{Ref: "4", ExpiresAt: at}, `{"op":"authenticated","ref":"4","expires_at":"2026-05-27T10:15:00Z"}`},
		{protocol.Pong{Ref: `"5\`}, `{"op":"pong","ref":"\"5\\"}`},
		{protocol.Pong{}, `{"op":"pong"}`},
		{protocol.Heartbeat{Cursor: cursor}, `{"op":"heartbeat","cursor":"k3f9x2-1045"}`},
		{protocol.Heartbeat{}, `{"op":"heartbeat"}`},
		{protocol.Expiring{ExpiresAt: at}, `{"op":"expiring","expires_at":"2026-05-27T10:15:00Z"}`},
		{
			protocol.Bye{Code: protocol.Drain, Retry: 3200 * time.Millisecond, Cursor: cursor},
			`{"op":"bye","code":1012,"reason":"drain","retry":3200,"cursor":"k3f9x2-1045"}`,
		},
		{protocol.Bye{Code: protocol.CloseUnauthorized}, `{"op":"bye","code":4401,"reason":"unauthorized","retry":0}`},
		{
			protocol.ErrorMessage{Ref: "1", Error: refused},
			`{"op":"error","ref":"1","error":{"code":"forbidden","message":"not \"a.>\"","origin":"message","details":{"topics":"forbidden"},"trace_id":"t1"}}`,
		},
	} {
		require.Equal(t, c.want, string(c.message.Encode()))
	}
}

// A ref comes back as it was sent, whatever is in it.
func FuzzRef(f *testing.F) {
	f.Add("1")
	f.Add("\u2028<\"\\\x00")
	f.Fuzz(func(t *testing.T, ref string) {
		sent, err := json.Marshal(ref)
		require.NoError(t, err)
		c, refused := protocol.ParseCommand([]byte(`{"op":"ping","ref":` + string(sent) + `}`))
		if refused != nil {
			require.Equal(t, map[string]protocol.Reason{"ref": protocol.Malformed}, refused.Details)
			return
		}
		var got struct{ Op, Ref string }
		require.NoError(t, json.Unmarshal(protocol.Pong{Ref: c.Ref}.Encode(), &got))
		require.Equal(t, c.Ref, got.Ref)
		require.Equal(t, "pong", got.Op)
	})
}

func TestErrors(t *testing.T) {
	for code, want := range map[protocol.Code]struct {
		status int
		close  protocol.CloseCode
	}{
		protocol.BadRequest:          {400, protocol.CloseBadRequest},
		protocol.Unauthorized:        {401, protocol.CloseUnauthorized},
		protocol.Forbidden:           {403, protocol.CloseForbidden},
		protocol.NotFound:            {404, protocol.CloseBadRequest},
		protocol.MethodNotAllowed:    {405, protocol.CloseBadRequest},
		protocol.Conflict:            {409, protocol.CloseBadRequest},
		protocol.PayloadTooLarge:     {413, protocol.MessageTooBig},
		protocol.UnprocessableEntity: {422, protocol.CloseBadRequest},
		protocol.TooManyRequests:     {429, protocol.LimitReached},
		protocol.Internal:            {500, protocol.Overload},
		protocol.Unavailable:         {503, protocol.Overload},
		"unheard of":                 {500, protocol.CloseBadRequest},
	} {
		require.Equal(t, want.status, code.Status(), code)
		require.Equal(t, want.close, code.CloseCode(), code)
	}
	whole := protocol.Errorf(protocol.BadRequest, protocol.InQuery, "", "", "two %s", "words")
	require.Equal(t, "bad_request: two words", whole.Error())
	b, err := json.Marshal(whole)
	require.NoError(t, err)
	require.Equal(t, `{"code":"bad_request","message":"two words","origin":"query","details":{},"trace_id":""}`, string(b), "details are an object, always")
	var e *protocol.Error
	require.True(t, errors.As(error(whole), &e))
}
