package main

import (
	"crypto/tls"
	"slices"
	"time"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/hub"
	"github.com/pushhub/pushhub/transport"
)

// The settings of a hub, each an environment variable (the tag setting) and a
// flag of the same name. An empty variable counts as unset; a flag wins over its
// variable. The tags are the one place for names, defaults, bounds and help.
// What cannot be judged by itself is judged by the methods below.

// settings is what serve has, and check checks.
type settings struct {
	listenSettings `embed:"" group:"Listening"`
	tlsSettings    `embed:"" group:"Listening"`
	logSettings    `embed:"" group:"Logs"`
	redisSettings  `embed:"" group:"Redis (else the log is kept in memory)"`
	ingestSettings `embed:"" group:"Redis (else the log is kept in memory)"`
	jwtSettings    `embed:"" group:"Tokens (one key is required)"`
	originSettings `embed:"" group:"Browsers and proxies"`
	limitSettings  `embed:"" group:"Limits"`
}

type listenSettings struct {
	Host string `setting:"HOST" default:"${host}" help:"Address to listen on."`
	Port number `setting:"PORT" default:"5080" max:"65535" help:"Port to listen on; 0 takes a free one."`
}

type tlsSettings struct {
	TLSCertFile string `setting:"TLS_CERT_FILE" name:"tls-cert-file" placeholder:"FILE" help:"Certificate chain, PEM: serve HTTPS."`
	TLSKeyFile  string `setting:"TLS_KEY_FILE" name:"tls-key-file" placeholder:"FILE" help:"Its private key, PEM."`
}

type logSettings struct {
	LogLevel    choice `setting:"LOG_LEVEL" default:"${level}" choices:"trace,debug,info,warn,error" help:"Least severity that is logged: trace, debug, info, warn or error."`
	LogFormat   choice `setting:"LOG_FORMAT" default:"${format}" choices:"json,console" help:"json, or console for people."`
	Environment string `setting:"ENVIRONMENT" placeholder:"NAME" help:"Name of the deployment, for the logs."`
}

type redisSettings struct {
	RedisURL      string `setting:"REDIS_URL" name:"redis-url" placeholder:"URL" help:"redis://[[user]:password@]host[:port][/db], rediss:// with TLS, or unix://path; host:port,host:port for several."`
	RedisHost     string `setting:"REDIS_HOST" placeholder:"HOST,..." help:"Host of the Redis, instead of the URL; several are a Redis Cluster. Each may have its port: host:port."`
	RedisPort     number `setting:"REDIS_PORT" default:"6379" min:"1" max:"65535" help:"Port of a host without one; of Sentinels 26379."`
	RedisDB       number `setting:"REDIS_DB" name:"redis-db" default:"0" max:"65535" help:"Number of the database."`
	RedisPassword string `setting:"REDIS_PASSWORD" placeholder:"TEXT" help:"Password of it."`

	RedisSentinelMaster string `setting:"REDIS_SENTINEL_MASTER" placeholder:"NAME" help:"Name of the primary: the addresses are those of the Sentinels that know where it is."`
}

type ingestSettings struct {
	Ingest mapping `setting:"INGEST" default:"${ingest}" help:"Raw channels that become topics: CHANNEL -> TOPIC type=TYPE [key=KEY] [final=MEMBER:VALUE|VALUE], joined by semicolons."`
}

type jwtSettings struct {
	JWTPublicKey             string  `setting:"JWT_PUBLIC_KEY" name:"jwt-public-key" placeholder:"PEM" help:"Public key (RSA, EC, Ed25519) or certificate: PEM text, or a file."`
	JWTSecret                string  `setting:"JWT_SECRET" name:"jwt-secret" placeholder:"TEXT" help:"HMAC secret of 32 bytes or more."`
	JWTJWKSURL               string  `setting:"JWT_JWKS_URL" name:"jwt-jwks-url" placeholder:"URL" help:"Where a JWK set is fetched from."`
	JWTAlgorithm             string  `setting:"JWT_ALGORITHM" name:"jwt-algorithm" placeholder:"ALG" help:"The only algorithm accepted: RS256 by default, HS256 with a secret."`
	JWTIssuer                string  `setting:"JWT_ISSUER" name:"jwt-issuer" placeholder:"TEXT" help:"Required iss of tokens."`
	JWTAudience              string  `setting:"JWT_AUDIENCE" name:"jwt-audience" placeholder:"TEXT" help:"Required aud of tokens."`
	SubscriptionGraceSeconds seconds `setting:"SUBSCRIPTION_GRACE_SECONDS" default:"0" help:"How long a subscription counts on after its valid_until."`
}

type originSettings struct {
	CORSOrigins          origins  `setting:"CORS_ORIGINS" name:"cors-origins" placeholder:"ORIGIN,..." help:"Origins of pages that may use the hub; * for all. Without it the hub's own origin only."`
	CORSAllowCredentials toggle   `setting:"CORS_ALLOW_CREDENTIALS" name:"cors-allow-credentials" help:"Let pages of those origins send cookies."`
	TrustedProxies       prefixes `setting:"TRUSTED_PROXIES" placeholder:"NETWORK,..." help:"Proxies whose X-Forwarded headers are believed: addresses or networks."`
}

type limitSettings struct {
	MaxMessageBytes  number    `setting:"MAX_MESSAGE_BYTES" default:"16384" min:"1024" help:"One message from a client."`
	MaxEventBytes    number    `setting:"MAX_EVENT_BYTES" default:"65536" min:"1" help:"Data of one event."`
	MaxBodyBytes     number    `setting:"MAX_BODY_BYTES" default:"1048576" min:"1" help:"One publish."`
	MaxTopics        number    `setting:"MAX_TOPICS" default:"100" min:"1" help:"Topics and patterns of one connection."`
	OutboxEvents     number    `setting:"OUTBOX_EVENTS" default:"256" min:"1" help:"Events that may wait for one connection."`
	OutboxBytes      number    `setting:"OUTBOX_BYTES" default:"1048576" min:"1" max:"1073741824" help:"Bytes that may wait for one connection."`
	MaxConnections   number    `setting:"MAX_CONNECTIONS" default:"0" help:"Connections of this instance; 0 is what memory bears."`
	HandshakeSeconds seconds   `setting:"HANDSHAKE_SECONDS" default:"10" min:"1" max:"3600" help:"Time for the head of a request."`
	HeartbeatSeconds seconds   `setting:"HEARTBEAT_SECONDS" default:"20" min:"1" max:"3600" help:"Longest silence on a connection."`
	PongSeconds      seconds   `setting:"PONG_SECONDS" default:"10" min:"1" max:"3600" help:"Time for the answer to a ping."`
	DrainSeconds     seconds   `setting:"DRAIN_SECONDS" default:"${drain}" min:"1" max:"3600" help:"Time over which clients are sent to other instances before the end."`
	Retention        retention `setting:"RETENTION" default:"${retention}" help:"pattern:events/age of what the log keeps per topic; the first that matches counts."`
}

// config gives the TLS to serve with, nil for none.
func (s tlsSettings) config() (*tls.Config, error) {
	switch {
	case s.TLSCertFile == "" && s.TLSKeyFile == "":
		return nil, nil
	case s.TLSKeyFile == "":
		return nil, wrong("TLS_KEY_FILE", "it is required with TLS_CERT_FILE")
	case s.TLSCertFile == "":
		return nil, wrong("TLS_CERT_FILE", "it is required with TLS_KEY_FILE")
	}
	pair, err := tls.LoadX509KeyPair(s.TLSCertFile, s.TLSKeyFile)
	if err != nil {
		return nil, wrong("TLS_CERT_FILE, TLS_KEY_FILE", "%w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// check refuses what would let every page of the world act with cookies.
func (s originSettings) check() error {
	if bool(s.CORSAllowCredentials) && slices.Contains(s.CORSOrigins, "*") {
		return wrong("CORS_ALLOW_CREDENTIALS", "it needs CORS_ORIGINS that are named, not *")
	}
	return nil
}

func (s jwtSettings) config() auth.Config {
	return auth.Config{
		PublicKey: s.JWTPublicKey,
		Secret:    s.JWTSecret,
		JWKSURL:   s.JWTJWKSURL,
		Algorithm: s.JWTAlgorithm,
		Issuer:    s.JWTIssuer,
		Audience:  s.JWTAudience,
		Grace:     time.Duration(s.SubscriptionGraceSeconds),
	}
}

func (s limitSettings) limits() transport.Limits {
	return transport.Limits{
		MessageBytes: int(s.MaxMessageBytes),
		EventBytes:   int(s.MaxEventBytes),
		BodyBytes:    int(s.MaxBodyBytes),
		Topics:       int(s.MaxTopics),
		OutboxEvents: int(s.OutboxEvents),
		OutboxBytes:  int(s.OutboxBytes),
		Connections:  int(s.MaxConnections),
		Handshake:    time.Duration(s.HandshakeSeconds),
		Heartbeat:    time.Duration(s.HeartbeatSeconds),
		Pong:         time.Duration(s.PongSeconds),
		Drain:        time.Duration(s.DrainSeconds),
	}
}

func (s limitSettings) retention() hub.Retention { return hub.Retention(s.Retention) }
