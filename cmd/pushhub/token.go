package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/pushhub/pushhub/auth"
	"github.com/pushhub/pushhub/protocol"
)

type tokenCommand struct {
	Tenant   string        `required:"" placeholder:"ID" help:"Tenant; * for a service that serves all (with --service)."`
	User     string        `placeholder:"ID" help:"User (user_id)."`
	Subject  string        `placeholder:"ID" help:"Subject (sub), the user where there is no --user."`
	Job      string        `placeholder:"ID" help:"Confine the token to one job."`
	Topics   []string      `placeholder:"PATTERN" help:"What may be read; without it everything but other users' topics."`
	Publish  []string      `placeholder:"PATTERN" help:"What may be published to; without it nothing."`
	Service  string        `placeholder:"NAME" help:"Name of the backend that holds the token."`
	Role     string        `placeholder:"NAME" help:"Role in the tenant."`
	Expires  time.Duration `default:"1h" help:"How long the token is good."`
	Key      string        `setting:"JWT_PRIVATE_KEY" placeholder:"PEM" help:"Private key (RSA, EC, Ed25519): PEM text, or a file."`
	KeyID    string        `name:"key-id" placeholder:"ID" help:"kid of the key, for a hub with a JWK set."`
	Secret   string        `setting:"JWT_SECRET" name:"jwt-secret" placeholder:"TEXT" help:"HMAC secret, instead of a private key."`
	Alg      string        `setting:"JWT_ALGORITHM" name:"jwt-algorithm" placeholder:"ALG" help:"Algorithm; without it the one that goes with the key."`
	Issuer   string        `setting:"JWT_ISSUER" name:"jwt-issuer" placeholder:"TEXT" help:"iss of the token."`
	Audience string        `setting:"JWT_AUDIENCE" name:"jwt-audience" placeholder:"TEXT" help:"aud of the token."`
}

// Run prints a token.
func (c *tokenCommand) Run(p process) error {
	if err := c.check(); err != nil {
		return err
	}
	var key any = c.Key
	if c.Key == "" {
		key = []byte(c.Secret)
	}
	now := time.Now()
	token, err := auth.Sign(c.Alg, key, c.KeyID, auth.Claims{
		Tenant:    c.Tenant,
		User:      c.User,
		Subject:   c.Subject,
		Job:       c.Job,
		Topics:    c.Topics,
		Publish:   c.Publish,
		Service:   c.Service,
		Role:      c.Role,
		Issuer:    c.Issuer,
		Audience:  c.Audience,
		IssuedAt:  now.Unix(),
		ExpiresAt: now.Add(c.Expires).Unix(),
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.stdout, token)
	return err
}

// check refuses what a hub would refuse, where the reason can still be seen.
func (c *tokenCommand) check() error {
	switch {
	case c.Key == "" && c.Secret == "":
		return errors.New("no key to sign with: set JWT_PRIVATE_KEY (--key) or JWT_SECRET")
	case c.Key != "" && c.Secret != "":
		return errors.New("JWT_PRIVATE_KEY (--key) and JWT_SECRET are both set: set one")
	case c.Expires < time.Second:
		return fmt.Errorf("--expires: %v is less than a second", c.Expires)
	case c.Tenant == "*" && c.Service == "":
		return errors.New("--tenant: * needs --service")
	}
	if c.Tenant != "*" {
		if err := protocol.CheckTenant(c.Tenant); err != nil {
			return fmt.Errorf("--tenant: %w", err)
		}
	}
	if c.Job != "" {
		if err := protocol.CheckTopic(protocol.JobsPrefix + c.Job); err != nil {
			return fmt.Errorf("--job: %w", err)
		}
	}
	for flag, patterns := range map[string][]string{"--topics": c.Topics, "--publish": c.Publish} {
		for _, pattern := range patterns {
			if err := protocol.CheckPattern(pattern); err != nil {
				return fmt.Errorf("%s: %w", flag, err)
			}
		}
	}
	return nil
}
