package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	maxRemembered = 100_000
	swept         = 8 // entries looked at when one is added
)

// memory holds the identities of tokens that were verified, by the SHA-256 of
// the token. It is bounded: each addition drops what has expired among a few
// entries taken at random, so that expired ones never pile up, and one of those
// entries if there is no room yet. The zero memory is ready for use.
type memory struct {
	mu sync.RWMutex
	// Guarded by mu.
	ids map[digest]*Identity
}

// digest is the front of a token's SHA-256: 128 bits are beyond anybody who would
// make a token with the digest of another.
type digest [16]byte

func digestOf(token string) digest {
	sum := sha256.Sum256([]byte(token))
	return digest(sum[:])
}

// get gives the identity of a token, nil if it is not remembered.
func (m *memory) get(sum digest) *Identity {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.ids[sum]
}

func (m *memory) put(sum digest, id *Identity, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ids == nil {
		m.ids = make(map[digest]*Identity)
	}
	looked := 0
	for k, old := range m.ids {
		if looked++; old.expired(now) || looked == swept && len(m.ids) >= maxRemembered {
			delete(m.ids, k)
		}
		if looked >= swept {
			break
		}
	}
	m.ids[sum] = id
}
