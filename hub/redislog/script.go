package redislog

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/pushhub/pushhub/hub"
)

var (
	//go:embed lua/prelude.lua
	prelude string
	//go:embed lua/publish.lua
	publishText string
	//go:embed lua/touch.lua
	touchText string
	//go:embed lua/look.lua
	lookText string
)

// The flags make Redis refuse a writing script as a whole where a write of it
// would be refused (out of memory, replica, no disk), and let a reading one run.
var (
	publishScript = newScript("#!lua", publishText, "")
	touchScript   = newScript("#!lua flags=allow-oom", touchText, "") // a few bytes, which tell what is lost
	lookScript    = newScript("#!lua flags=no-writes", lookText, "_ro")
)

// script is a script of Redis, with the prelude before it.
type script struct {
	text, sha     string
	eval, evalsha string // the commands that run it
}

func newScript(shebang, body, suffix string) *script {
	text := shebang + "\n" + prelude + "\n" + body
	sum := sha1.Sum([]byte(text))
	return &script{text, hex.EncodeToString(sum[:]), "eval" + suffix, "evalsha" + suffix}
}

// In a Cluster a key may be on its way from one primary to another, or the map of
// the Cluster be old: Redis then says so instead of running the script.
const (
	moveTries = 10
	movePause = 50 * time.Millisecond
)

// eval runs a script on the primary of its first key, once. It asks again only
// where Redis says that it ran nothing: the script is not known there yet, or
// the keys are elsewhere. See outcome for its errors.
func (s *servers) eval(ctx context.Context, sc *script, keys []string, args []any) (any, error) {
	line := make([]any, 0, 3+len(keys)+len(args))
	line = append(line, sc.evalsha, sc.sha, len(keys))
	for _, k := range keys {
		line = append(line, k)
	}
	line = append(line, args...)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	for try := 1; ; try++ {
		node, err := s.primary(ctx, keys[0])
		if err != nil {
			return nil, err
		}
		cmd := redis.NewCmd(ctx, line...)
		err = node.Process(ctx, cmd)
		switch {
		case err == nil:
			return cmd.Val(), nil
		case line[0] == sc.evalsha && hasPrefix(err, "NOSCRIPT "):
			line[0], line[1] = sc.eval, sc.text
		case s.cluster != nil && isMoving(err) && try < moveTries:
			s.mapIsOld()
			if sleep(ctx, movePause) != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isMoving says whether Redis refused because of where the keys are. ASK is not
// followed: an event that is published on the importing primary is heard by
// nobody. Soon the keys are all here or all there.
func isMoving(err error) bool {
	return hasPrefix(err, "MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN ")
}

// outcome says what an error of eval leaves known: that the script did not run
// (hub.ErrUnavailable), or nothing (hub.ErrUnknown).
func outcome(err error) error {
	kind := hub.ErrUnknown
	switch {
	case errors.Is(err, errNotSent), errors.Is(err, redis.ErrPoolTimeout),
		errors.Is(err, redis.ErrPoolExhausted), errors.Is(err, redis.ErrClosed):
		kind = hub.ErrUnavailable
	case hasPrefix(err, "MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN ", "CROSSSLOT ",
		"LOADING ", "READONLY ", "MASTERDOWN ", "NOREPLICAS ", "MISCONF ", "OOM ", "BUSY ",
		"NOAUTH ", "WRONGPASS ", "NOPERM ", "NOSCRIPT ", "NOPROTO ", "PUSHHUB ",
		"ERR max number of clients reached", "ERR DB index is out of range", "ERR invalid DB index", "ERR unknown command", "ERR Protocol error") && !inScript(err):
		kind = hub.ErrUnavailable
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// inScript says whether the error came up while a script ran: it may have
// written something before.
func inScript(err error) bool { return strings.Contains(err.Error(), "user_script") }

// hasPrefix says whether err is an answer of Redis that begins with one of these.
func hasPrefix(err error, prefixes ...string) bool {
	var answer redis.Error
	if !errors.As(err, &answer) {
		return false
	}
	for _, p := range prefixes {
		if strings.HasPrefix(answer.Error(), p) {
			return true
		}
	}
	return false
}
