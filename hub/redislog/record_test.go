package redislog

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/protocol"
)

var defaultRetention, _ = hub.ParseRetention(hub.DefaultRetention)

// record gives the record of progress as the script writes it.
func record(epoch string, seq uint64) string {
	head := appendHead(nil, &progress)
	body := progress.AppendBody(nil, time.UnixMilli(1795167635086))
	return fmt.Sprintf("1\t%s-%d\t%d\t%d\t%s\n{\"id\":\"%s-%d\"%s", epoch, seq, seq-1, 1795167635086, head, epoch, seq, body)
}

func TestDecode(t *testing.T) {
	rec := []byte(record("k3f9x2", 1042))
	e, err := decode(rec)
	require.NoError(t, err)
	require.Equal(t, &protocol.Event{
		Cursor: protocol.Cursor{Epoch: "k3f9x2", Seq: 1042}, Prev: 1041,
		Topic: progress.Topic, Type: progress.Type, Key: "progress", At: 1795167635086,
		JSON: []byte(`{"id":"k3f9x2-1042","topic":"` + progress.Topic + `","type":"render.progress.v1",` +
			`"time":"2026-11-20T09:40:35.086Z","source":"render-node-7","data":{"progress":42,"frame":1042,"eta":12.5}}`),
	}, e)
}

func TestDecodeRefuses(t *testing.T) {
	const good = "1\te-2\t1\t5\t0\ta\tt\tk\n{\"id\":\"e-2\",\"topic\":\"a\"}"
	_, err := decode([]byte(good))
	require.NoError(t, err)
	for old, replacement := range map[string]string{
		"1\te-2":           "2\te-2",          // version
		"\te-2":            "\tE-2",           // epoch
		"\te-2\t":          "\te-02\t",        // seq
		"e-2\t1\t5":        "e-2\t2\t5",       // prev not before it
		"\t1\t5":           "\t-1\t5",         // prev
		"\t5\t":            "\tx\t",           // arrival
		"\t0\ta":           "\t2\ta",          // final
		"\ta\tt\tk":        "\t\tt\tk",        // topic
		"\tk\n":            "\n",              // fields
		"\n":               " ",               // lines
		"{\"id\"":          "{\"di\"",         // id
		"\"e-2\",":         "\"e-3\",",        // another id
		"\"e-2\",\"":       "\"e-22\",\"",     // a longer id
		"\"topic\":\"a\"}": "\"topic\":\"a\"", // end
	} {
		bad := strings.Replace(good, old, replacement, 1)
		require.NotEqual(t, good, bad)
		_, err := decode([]byte(bad))
		require.ErrorIs(t, err, errRecord, "%q", bad)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(record("k3f9x2", 1042)))
	f.Add([]byte("1\te-2\t1\t5\t1\ta\tt\t\n{\"id\":\"e-2\"}"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, rec []byte) {
		e, err := decode(slices.Clone(rec))
		if err != nil {
			if e != nil {
				t.Error("an event and an error")
			}
			return
		}
		// What it reads is what the script writes, to the byte but for numbers.
		final := "0"
		if e.Final {
			final = "1"
		}
		again := fmt.Sprintf("1\t%s\t%d\t%d\t%s\t%s\t%s\t%s\n%s", e.Cursor, e.Prev, e.At, final, e.Topic, e.Type, e.Key, e.JSON)
		back, err := decode([]byte(again))
		if err != nil || !reflect.DeepEqual(e, back) {
			t.Errorf("%q is read as %q", rec, again)
		}
		if !bytes.HasPrefix(e.JSON, []byte(`{"id":"`+e.Cursor.String()+`"`)) {
			t.Errorf("%s is not the id in %s", e.Cursor, e.JSON)
		}
	})
}

// The hand-over of a live event allocates the record, its first line and the
// event, and nothing else.
func TestLiveAllocations(t *testing.T) {
	var got counter
	l := &live{}
	c := newConn(&live{ctx: t.Context()}, endpoint{})
	s := &sub{calls: &l.calls[0], listener: &got, channel: channelT}
	s.wanted.Store(true)
	c.channels[channelT] = s
	r := newReader(&again{all: appendCommand(nil, "smessage", channelT, record("k3f9x2", 1042))})
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		require.NoError(t, c.read(r))
	}), 3.0)
}
