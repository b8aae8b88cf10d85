// Package auth turns a token into an identity: who is calling, in which tenant,
// and what that caller may read and publish there.
//
// A request carries a token in one of three places (FromRequest). A Verifier,
// made once from configuration, checks it and gives an Identity (Verify). The
// Identity is then moved to the tenant that the request names (For), and
// answers every question about rights from then on: MayRead, MayPublish,
// MaySee. Nothing here does I/O but the fetch of a JWK set, which has a
// goroutine of its own; a token that was verified before costs one hash and one
// look into a map.
//
// Four rules hold everywhere. The algorithm is the configured one, never what
// the token says. A claim of the wrong type refuses the token instead of
// counting as absent, and JSON null is of the wrong type for every claim. A
// token, a key or a part of either never appears in an error. And when in
// doubt, the answer is no.
//
// Errors about a token are *protocol.Error, ready to be sent to the client.
package auth
