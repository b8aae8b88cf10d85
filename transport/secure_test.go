package transport_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/pushhub/pushhub/protocol"
	"github.com/pushhub/pushhub/transport"
)

// secure starts an instance behind TLS, whose clients trust its certificate.
func secure(t testing.TB, change func(*transport.Options)) *instance {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	trust := x509.NewCertPool()
	trust.AddCert(cert)
	i := serve(t, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, change)
	i.client = func() *http.Transport {
		return &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trust}}
	}
	return i
}

// speak makes the clients of the instance speak one version of HTTP.
func (i *instance) speak(set func(*http.Protocols, bool)) {
	before := i.client
	i.client = func() *http.Transport {
		c := before()
		c.Protocols = new(http.Protocols)
		set(c.Protocols, true)
		return c
	}
}

// Over TLS a WebSocket is as over plain TCP: the bytes, and both ways to close.
func TestSecureWebSocket(t *testing.T) {
	i := secure(t, nil)
	i.speak((*http.Protocols).SetHTTP1)
	tok := token(t, nil)
	for range 10 {
		ws := i.dial("/api/v1/ws?topics=a&last=1&token=" + tok)
		require.Contains(t, ws.next(), "welcome")
		for m := ws.next(); !strings.Contains(m, "subscribed"); m = ws.next() {
		}
		i.publish("a", "1")
		require.Contains(t, ws.next(), `"data":1}`)
		require.NoError(t, ws.ws.Close(websocket.StatusNormalClosure, "enough"), "the hub answers the close frame")
	}
	ws := i.open()
	for range 10 {
		ws.say("")
		require.Contains(t, ws.next(), "error")
	}
	ws.ended(4400, "bad_request")
}

// Streams over HTTP/2, by TLS or in the clear, and over TLS with HTTP/1.1: the
// same bytes as everywhere, an end in order, and nothing left behind.
func TestStreamsOverHTTP2AndTLS(t *testing.T) {
	for name, c := range map[string]struct {
		start func(testing.TB, func(*transport.Options)) *instance
		speak func(*http.Protocols, bool)
		proto string
	}{
		"h2":             {secure, (*http.Protocols).SetHTTP2, "HTTP/2.0"},
		"h2c":            {start, (*http.Protocols).SetUnencryptedHTTP2, "HTTP/2.0"},
		"HTTP/1.1 + TLS": {secure, (*http.Protocols).SetHTTP1, "HTTP/1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			i := c.start(t, nil)
			i.speak(c.speak)
			first := i.publish("a", "0")
			path := "/api/v1/stream?topics=a&token=" + token(t, nil)
			s := i.stream(path, "Last-Event-ID", first)
			require.Equal(t, c.proto, s.res.Proto)
			for name, want := range map[string]string{
				"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store, no-transform",
				"X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			} {
				require.Equal(t, want, s.res.Header.Get(name), name)
			}
			require.NotEmpty(t, s.next().retry)
			require.Equal(t, first, s.next().id)
			require.Contains(t, s.next().data, "subscribed")
			var last block
			for n := range 50 {
				id := i.publish("a", fmt.Sprint(n))
				last = s.next()
				require.Equal(t, id, last.id)
			}
			feed := i.do("GET", "/api/v1/events?last=1&topics=a", token(t, nil), "")
			require.Equal(t, "["+last.data+"]", string(feed.Data))
			for range 3 { // clients that leave
				gone := i.stream(path)
				gone.begin()
				require.NoError(t, gone.body.Close())
			}
			require.Eventually(t, func() bool { return i.metric(t, "pushhub_connections") == 1 }, i.patience, time.Millisecond)
			require.Equal(t, 401, i.do("GET", "/api/v1/stream?topics=a", "", "").status)
			requireBye(t, func() *stream {
				s := i.stream(path)
				s.begin()
				go func() { _ = i.server.Drain(t.Context()) }()
				return s
			}(), protocol.Drain, last.id)
		})
	}
}

// Many streams share one HTTP/2 connection; one that is not read does not hold
// the others.
func TestStreamsOfOneConnection(t *testing.T) {
	i := start(t, nil)
	i.speak((*http.Protocols).SetUnencryptedHTTP2)
	one := i.client()
	one.DisableKeepAlives = false
	i.client = func() *http.Transport { return one }
	t.Cleanup(one.CloseIdleConnections)
	path := "/api/v1/stream?topics=a&token=" + token(t, nil)
	i.stream(path) // never read
	streams := make([]*stream, 20)
	for n := range streams {
		streams[n] = i.stream(path)
		streams[n].begin()
	}
	for n := range 10 {
		i.put(large("a", n))
		for _, s := range streams {
			require.Equal(t, n, numberOf(t, s.next().data))
		}
	}
	for _, s := range streams {
		require.NoError(t, s.body.Close())
	}
}
