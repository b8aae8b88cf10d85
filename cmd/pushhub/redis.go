package main

import (
	"cmp"
	"net"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/pushhub/pushhub/hub/redislog"
)

// redisPlace says where Redis is. One of its fields is set.
type redisPlace struct {
	one      *redis.Options
	sentinel *redis.FailoverOptions
	cluster  *redis.ClusterOptions
}

const (
	defaultRedisPort    = 6379
	defaultSentinelPort = 26379
)

// place says which Redis to use, nil for none.
func (s redisSettings) place() (*redisPlace, error) {
	setting, one, addrs := "REDIS_HOST", (*redis.Options)(nil), []string(nil)
	var err error
	if s.RedisURL != "" {
		setting = "REDIS_URL"
		one, addrs, err = s.fromURL()
	} else {
		one, addrs, err = s.fromHost()
	}
	switch {
	case err != nil:
		return nil, err
	case one == nil:
		return nil, nil
	case s.RedisSentinelMaster != "":
		if one.Network == "unix" {
			return nil, wrong(setting, "Sentinel has no unix socket: give its addresses")
		}
		o := several(one, addrs).Failover()
		o.MasterName = s.RedisSentinelMaster
		return &redisPlace{sentinel: o}, nil
	case len(addrs) == 1:
		return &redisPlace{one: one}, nil
	case one.DB != 0:
		return nil, wrong(setting, "several addresses are a Redis Cluster, which has only database 0")
	}
	return &redisPlace{cluster: several(one, addrs).Cluster()}, nil
}

// several takes over for more than one server what the options of one say.
func several(o *redis.Options, addrs []string) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs: addrs, DB: o.DB,
		Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig, ClientName: o.ClientName,
		DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout,
		PoolFIFO: o.PoolFIFO, PoolSize: o.PoolSize, PoolTimeout: o.PoolTimeout,
		MinIdleConns: o.MinIdleConns, MaxIdleConns: o.MaxIdleConns, MaxActiveConns: o.MaxActiveConns,
		ConnMaxIdleTime: o.ConnMaxIdleTime, ConnMaxLifetime: o.ConnMaxLifetime,
	}
}

// log gives the options of a log there, without a retention.
func (p *redisPlace) log() redislog.Options {
	return redislog.Options{Redis: p.one, Sentinel: p.sentinel, Cluster: p.cluster}
}

// String is for people: what is there, without a secret.
func (p *redisPlace) String() string {
	switch {
	case p.sentinel != nil:
		return "Redis " + p.sentinel.MasterName + " behind Sentinel at " + strings.Join(p.sentinel.SentinelAddrs, ", ")
	case p.cluster != nil:
		return "Redis Cluster at " + strings.Join(p.cluster.Addrs, ", ")
	}
	return "Redis at " + p.one.Addr
}

// fromURL reads REDIS_URL, and gives the addresses in it. Its errors show nothing
// of it: a URL that cannot be read may have its password anywhere.
func (s redisSettings) fromURL() (*redis.Options, []string, error) {
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
			return nil, nil, wrong("REDIS_URL", "%s is set too: give the URL, or host, port, database and password", other.name)
		}
	}
	before, hosts, after := cutAuthority(s.RedisURL)
	var first *redis.Options
	var addrs []string
	for host := range strings.SplitSeq(hosts, ",") {
		o, err := redis.ParseURL(before + host + after)
		if err != nil || o.DB < 0 || !hasPort(o) || host == "" && hosts != "" {
			return nil, nil, wrong("REDIS_URL", "it is not redis://[[user]:password@]host[:port][,host[:port]…][/db], rediss:// or unix://path; user and password must be percent-encoded")
		}
		if !strings.Contains(host[strings.LastIndexByte(host, ']')+1:], ":") && s.RedisSentinelMaster != "" && o.Network != "unix" {
			name, _, _ := net.SplitHostPort(o.Addr)
			o.Addr = net.JoinHostPort(name, strconv.Itoa(defaultSentinelPort))
		}
		first, addrs = cmp.Or(first, o), append(addrs, o.Addr)
	}
	if len(addrs) > 1 && first.TLSConfig != nil {
		first.TLSConfig.ServerName = "" // each its own
	}
	return first, addrs, nil
}

// cutAuthority cuts the host, or hosts, out of a URL.
func cutAuthority(rawURL string) (before, hosts, after string) {
	from := 0
	if i := strings.Index(rawURL, "://"); i >= 0 {
		from = i + len("://")
	}
	if i := strings.LastIndexByte(rawURL[from:], '@'); i >= 0 {
		from += i + 1
	}
	to := len(rawURL)
	if i := strings.IndexAny(rawURL[from:], "/?#"); i >= 0 {
		to = from + i
	}
	return rawURL[:from], rawURL[from:to], rawURL[to:]
}

// hasPort says whether the port is one: to dial another fails each time.
func hasPort(o *redis.Options) bool {
	if o.Network == "unix" {
		return true
	}
	_, port, err := net.SplitHostPort(o.Addr)
	return err == nil && isPort(port)
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// fromHost reads REDIS_HOST and what goes with it. Without a host the others
// would be passed over in silence, and the log kept in memory.
func (s redisSettings) fromHost() (*redis.Options, []string, error) {
	if s.RedisHost == "" {
		for _, other := range []struct {
			name  string
			given bool
		}{
			{"REDIS_PASSWORD", s.RedisPassword != ""},
			{"REDIS_DB", s.RedisDB != 0},
			{"REDIS_PORT", s.RedisPort != defaultRedisPort},
			{"REDIS_SENTINEL_MASTER", s.RedisSentinelMaster != ""},
		} {
			if other.given {
				return nil, nil, wrong(other.name, "it needs REDIS_HOST")
			}
		}
		return nil, nil, nil
	}
	port := int(s.RedisPort)
	if s.RedisSentinelMaster != "" && port == defaultRedisPort {
		port = defaultSentinelPort
	}
	var addrs []string
	for host := range strings.SplitSeq(s.RedisHost, ",") {
		addr, ok := address(strings.TrimSpace(host), port)
		if !ok {
			return nil, nil, wrong("REDIS_HOST", "it is not host[:port][,host[:port]…]")
		}
		addrs = append(addrs, addr)
	}
	return &redis.Options{Addr: addrs[0], DB: int(s.RedisDB), Password: s.RedisPassword}, addrs, nil
}

// address reads one host of a list, with a port or without.
func address(host string, port int) (string, bool) {
	if name, own, err := net.SplitHostPort(host); err == nil {
		return host, name != "" && isPort(own)
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return net.JoinHostPort(host, strconv.Itoa(port)), host != "" && !strings.ContainsAny(host, "[]/@ ")
}
