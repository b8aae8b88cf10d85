package torture

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
)

// links are the network between one instance and the Redis: a proxy for each server
// and each Sentinel, in their order. What servers tell about each other's ports is
// changed to those of the proxies, so that no connection goes past them.
type links []*proxy

func newLinks(nodes []*node) (l links, err error) {
	ports := map[string]string{}
	for _, n := range nodes {
		p, err := newProxy(n.addr())
		if err != nil {
			l.close()
			return nil, err
		}
		l = append(l, p)
		ports[strconv.Itoa(n.port)] = strconv.Itoa(p.port())
	}
	for _, p := range l {
		p.ports = ports
		p.start()
	}
	return l, nil
}

// some gives all of them or, as often, one.
func (l links) some(rng *rand.Rand) links {
	if len(l) == 1 || rng.IntN(2) == 0 {
		return l
	}
	return links{pick(rng, l)}
}

// set changes the weather on all of them.
func (l links) set(change func(*weather)) {
	for _, p := range l {
		p.set(change)
	}
}

func (l links) reset() {
	for _, p := range l {
		p.reset()
	}
}

func (l links) close() {
	for _, p := range l {
		p.close()
	}
}

// addrs gives the addresses of some, for an URL.
func (l links) addrs() string {
	var all []string
	for _, p := range l {
		all = append(all, p.addr())
	}
	return strings.Join(all, ",")
}

// replies reads what a Redis sends, in RESP2 or RESP3.
type replies struct {
	in    *bufio.Reader
	ports map[string]string // of servers, and of their proxies
	reply bytes.Buffer
}

// next gives one reply or more, without messages on channels that contain what
// deaf says, unless it says nothing.
func (r *replies) next(deaf func() string) ([]byte, error) {
	r.reply.Reset()
	for {
		start := r.reply.Len()
		channel, err := r.read()
		if err != nil {
			return r.reply.Bytes()[:start], err
		}
		if part := deaf(); part != "" && strings.Contains(channel, part) {
			r.reply.Truncate(start)
		}
		r.redirect(r.reply.Bytes()[start:])
		if r.in.Buffered() == 0 || r.reply.Len() > 32<<10 {
			return r.reply.Bytes(), nil
		}
	}
}

// address matches the address of a server: "127.0.0.1:7000" and "127.0.0.1 7000" in an
// error or a message; two elements of an array, the port a number or a string; two
// values of a map. The kernel gives ports of five digits.
var address = regexp.MustCompile(`127\.0\.0\.1(?:[: ]|\r\n:|\r\n\$5\r\n|\r\n\$4\r\nport\r\n\$5\r\n)(\d{5})\b`)

// redirect changes the ports of servers to those of their proxies.
func (r *replies) redirect(reply []byte) {
	for _, at := range address.FindAllSubmatchIndex(reply, -1) {
		port := reply[at[2]:at[3]]
		if through, ok := r.ports[string(port)]; ok {
			copy(port, through)
		}
	}
}

// read appends one reply. Of a message it gives the channel.
func (r *replies) read() (channel string, err error) {
	line, err := r.in.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	r.reply.Write(line)
	if len(line) < 3 {
		return "", fmt.Errorf("redis: %q", line)
	}
	kind, n := line[0], 0
	switch kind {
	case '$', '=', '*', '>', '~', '%':
		if n, err = strconv.Atoi(string(bytes.TrimSpace(line[1:]))); err != nil {
			return "", err
		}
	}
	switch kind {
	case '$', '=': // strings
		if n >= 0 {
			_, err = io.CopyN(&r.reply, r.in, int64(n)+2)
		}
		return "", err
	case '%': // a map
		n *= 2
		fallthrough
	case '*', '>', '~': // an array, a push, a set
		var first, second string
		for i := range n {
			from := r.reply.Len()
			if _, err := r.read(); err != nil {
				return "", err
			}
			switch text := bulk(r.reply.Bytes()[from:]); i {
			case 0:
				first = text
			case 1:
				second = text
			}
		}
		if first == "smessage" || first == "message" || first == "pmessage" {
			return second, nil
		}
	}
	return "", nil
}

// bulk gives the text of a bulk string.
func bulk(b []byte) string {
	if len(b) == 0 || b[0] != '$' {
		return ""
	}
	_, text, _ := bytes.Cut(b, []byte("\r\n"))
	return string(bytes.TrimSuffix(text, []byte("\r\n")))
}
