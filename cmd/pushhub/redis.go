package main

import (
	"errors"
	"net"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// fromURL reads REDIS_URL. Its errors show nothing of it: a URL that cannot be
// read may have its password anywhere.
func (s redisSettings) fromURL() (*redis.Options, error) {
	for _, other := range []struct {
		name  string
		given bool
	}{
		{"REDIS_HOST", s.RedisHost != ""},
		{"REDIS_PORT", s.RedisPort != defaultRedisPort},
		{"REDIS_DB", s.RedisDB != 0},
		{"REDIS_PASSWORD", s.RedisPassword != ""},
	} {
		if other.given {
			return nil, wrong("REDIS_URL", "%s is set too: give the URL, or host, port, database and password", other.name)
		}
	}
	if strings.Contains(authority(s.RedisURL), ",") {
		return nil, wrong("REDIS_URL", "%w", errCluster)
	}
	options, err := redis.ParseURL(s.RedisURL)
	if err != nil || options.DB < 0 || !hasPort(options) {
		return nil, wrong("REDIS_URL", "it is not redis://[[user]:password@]host[:port][/db], rediss:// or unix://path; user and password must be percent-encoded")
	}
	return options, nil
}

// hasPort says whether the port is one: to dial another fails each time.
func hasPort(o *redis.Options) bool {
	if o.Network == "unix" {
		return true
	}
	_, port, err := net.SplitHostPort(o.Addr)
	n, numErr := strconv.ParseUint(port, 10, 16)
	return err == nil && numErr == nil && n > 0
}

const defaultRedisPort = 6379

var errCluster = errors.New("several addresses mean a Redis Cluster, which is not supported yet: give one")

// authority gives what stands between the scheme and the path of a URL.
func authority(rawURL string) string {
	_, rest, _ := strings.Cut(rawURL, "://")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = rest[at+1:]
	}
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return rest
}

// fromHost reads REDIS_HOST and what goes with it. Without a host the others
// would be passed over in silence, and the log kept in memory.
func (s redisSettings) fromHost() (*redis.Options, error) {
	switch {
	case strings.Contains(s.RedisHost, ","):
		return nil, wrong("REDIS_HOST", "%w", errCluster)
	case s.RedisHost != "":
	case s.RedisPassword != "":
		return nil, wrong("REDIS_PASSWORD", "it needs REDIS_HOST")
	case s.RedisDB != 0:
		return nil, wrong("REDIS_DB", "it needs REDIS_HOST")
	case s.RedisPort != defaultRedisPort:
		return nil, wrong("REDIS_PORT", "it needs REDIS_HOST")
	default:
		return nil, nil
	}
	return &redis.Options{
		Addr:     net.JoinHostPort(s.RedisHost, strconv.Itoa(int(s.RedisPort))),
		DB:       int(s.RedisDB),
		Password: s.RedisPassword,
	}, nil
}
