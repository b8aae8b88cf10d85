package protocol

import (
	"fmt"
	"net/http"
)

// Code is the stable name of an error: what programs branch on.
type Code string

// The error codes, each with its HTTP status (Code.Status).
const (
	BadRequest          Code = "bad_request"
	Unauthorized        Code = "unauthorized"
	Forbidden           Code = "forbidden"
	NotFound            Code = "not_found"
	MethodNotAllowed    Code = "method_not_allowed"
	Conflict            Code = "conflict"
	PayloadTooLarge     Code = "payload_too_large"
	UnprocessableEntity Code = "unprocessable_entity"
	TooManyRequests     Code = "too_many_requests"
	Internal            Code = "internal"
	Unavailable         Code = "unavailable"
)

// Status gives the HTTP status of the code.
func (c Code) Status() int {
	switch c {
	case BadRequest:
		return http.StatusBadRequest
	case Unauthorized:
		return http.StatusUnauthorized
	case Forbidden:
		return http.StatusForbidden
	case NotFound:
		return http.StatusNotFound
	case MethodNotAllowed:
		return http.StatusMethodNotAllowed
	case Conflict:
		return http.StatusConflict
	case PayloadTooLarge:
		return http.StatusRequestEntityTooLarge
	case UnprocessableEntity:
		return http.StatusUnprocessableEntity
	case TooManyRequests:
		return http.StatusTooManyRequests
	case Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// Origin says which part of a request an error is about.
type Origin string

// The origins of errors.
const (
	InQuery    Origin = "query"
	InPath     Origin = "path"
	InHeaders  Origin = "headers"
	InBody     Origin = "body"
	InMessage  Origin = "message" // of a WebSocket
	InInternal Origin = "internal"
)

// Reason says what is wrong with one field.
type Reason string

// The reasons given in Error.Details.
const (
	Required       Reason = "required"
	Malformed      Reason = "malformed"
	Invalid        Reason = "invalid"
	Expired        Reason = "expired"
	Stale          Reason = "stale"
	IsForbidden    Reason = "forbidden"
	IsNotFound     Reason = "not_found"
	IsConflict     Reason = "conflict"
	NotSupported   Reason = "not_supported"
	TimedOut       Reason = "timed_out"
	IsUnauthorized Reason = "unauthorized"
)

// Error is an error as a client sees it, over HTTP and in a WebSocket alike.
// Nothing internal is in it.
type Error struct {
	Code    Code              `json:"code"`
	Message string            `json:"message"`
	Origin  Origin            `json:"origin"`
	Details map[string]Reason `json:"details"`
	TraceID string            `json:"trace_id"`
}

// Errorf makes an error of one field. A field of "" leaves the details empty.
func Errorf(code Code, origin Origin, field string, reason Reason, format string, args ...any) *Error {
	e := &Error{Code: code, Origin: origin, Message: fmt.Sprintf(format, args...), Details: map[string]Reason{}}
	if field != "" {
		e.Details[field] = reason
	}
	return e
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// CloseCode is the status of a WebSocket close frame and of bye.
type CloseCode int

// The close codes. From 4400 on they are Pushhub's own.
const (
	GoingAway         CloseCode = 1001
	ProtocolError     CloseCode = 1002 // frames that RFC 6455 forbids
	NotUTF8           CloseCode = 1007 // text that is not
	MessageTooBig     CloseCode = 1009
	Drain             CloseCode = 1012
	Overload          CloseCode = 1013
	CloseBadRequest   CloseCode = 4400
	CloseUnauthorized CloseCode = 4401 // get a new token, then reconnect
	CloseForbidden    CloseCode = 4403 // do not reconnect
	NoPong            CloseCode = 4408
	SlowConsumer      CloseCode = 4413 // reconnect and resume at once
	LimitReached      CloseCode = 4429
)

// Reason gives the text that goes with the code in close frames and bye.
func (c CloseCode) Reason() string {
	switch c {
	case GoingAway:
		return "going_away"
	case MessageTooBig:
		return "message_too_big"
	case Drain:
		return "drain"
	case Overload:
		return "overload"
	case CloseBadRequest, ProtocolError, NotUTF8:
		return "bad_request"
	case CloseUnauthorized:
		return "unauthorized"
	case CloseForbidden:
		return "forbidden"
	case NoPong:
		return "no_pong"
	case SlowConsumer:
		return "slow_consumer"
	case LimitReached:
		return "limit_reached"
	}
	return "closed"
}

// CloseCode gives the code with which a connection is closed that meets e.
func (c Code) CloseCode() CloseCode {
	switch c {
	case Unauthorized:
		return CloseUnauthorized
	case Forbidden:
		return CloseForbidden
	case TooManyRequests:
		return LimitReached
	case Unavailable, Internal:
		return Overload
	case PayloadTooLarge:
		return MessageTooBig
	}
	return CloseBadRequest
}
