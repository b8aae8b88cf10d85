package redislog

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// endpoint is a server and how to connect to it.
type endpoint struct {
	*redis.Options
	off rule
}

// endpoint gives the primary that has a channel.
func (s *servers) endpoint(ctx context.Context, channel string) (endpoint, error) {
	client, err := s.primary(ctx, channel)
	if err != nil {
		return endpoint{}, err
	}
	return endpoint{client.Options(), s.off}, nil
}

// handshake says who we are, and makes sure that this is a primary: a replica
// would bring what is published too, until it loses its primary and says nothing.
// name is what Redis is to call the connection.
func handshake(ctx context.Context, at endpoint, nc net.Conn, r *reader, name string, within time.Duration) error {
	username, password, err := at.credentials(ctx)
	if err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	hello := []string{"HELLO", "2"}
	if password != "" {
		if username == "" {
			username = "default"
		}
		hello = append(hello, "AUTH", username, password)
	}
	hello = append(hello, "SETNAME", name)
	if err := nc.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := nc.Write(appendCommand(nil, hello...)); err != nil {
		return err
	}
	facts, err := r.flatMap()
	if err != nil {
		return err
	}
	if facts["role"] != "master" && !at.off.has(rulePrimary) {
		return fmt.Errorf("%w: the server is a %s, not a primary", errRefused, facts["role"])
	}
	return nc.SetDeadline(time.Time{})
}

func (at endpoint) credentials(ctx context.Context) (username, password string, err error) {
	switch {
	case at.CredentialsProviderContext != nil:
		return at.CredentialsProviderContext(ctx)
	case at.CredentialsProvider != nil:
		username, password = at.CredentialsProvider()
		return username, password, nil
	}
	return at.Username, at.Password, nil
}
