// Package protocol holds the nouns of Pushhub and their bytes: tenants, topics,
// patterns, cursors, events, the messages of both directions, the frames that
// carry them over WebSocket and SSE, errors and close codes.
//
// It is a leaf. It imports the standard library only, does no I/O, starts no
// goroutine and takes no lock, so that a client, a test or a tool can use it
// without the server. Everything that parses a stranger's bytes lives here and
// has a fuzz target. The transcripts in testdata show whole conversations.
//
// An event is encoded once, as one compact JSON object; a WebSocket frame, an
// SSE block and an entry of the feed are that object with different wrapping:
//
//	{"id":"k3f9x2-1042","topic":"jobs.7b0c","type":"render.progress.v1","time":"2026-05-27T10:15:00.123Z","data":{"progress":42}}
package protocol
