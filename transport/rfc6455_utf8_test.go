package transport_test

import (
	"fmt"
	"strings"
)

// koosme is the valid UTF-8 that Autobahn begins with.
const koosme = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"

// utf8Group is a group of sequences that are valid, or are not.
type utf8Group struct {
	valid     bool
	first     int // the number of its first sequence in the section, if not 1
	section   int
	sequences []string
}

var utf8Groups = []utf8Group{
	{true, 0, 5, []string{"hello\x24world", "hello\xc2\xa2world", "hello\xe2\x82\xacworld", "hello\xf0\xa4\xad\xa2world", koosme}},
	{false, 1, 6, []string{koosme[:1]}}, // beginnings of koosme
	{true, 2, 6, []string{koosme[:2]}},
	{false, 3, 6, []string{koosme[:3], koosme[:4]}},
	{true, 5, 6, []string{koosme[:5]}},
	{false, 6, 6, []string{koosme[:6]}},
	{true, 7, 6, []string{koosme[:7]}},
	{false, 8, 6, []string{koosme[:8]}},
	{true, 9, 6, []string{koosme[:9]}},
	{false, 10, 6, []string{koosme[:10]}},
	{true, 11, 6, []string{koosme}},
	{true, 2, 7, []string{"\xc2\x80", "\xe0\xa0\x80", "\xf0\x90\x80\x80"}}, // the first of a length
	{false, 0, 8, []string{"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80"}},
	{true, 0, 9, []string{"\x7f", "\xdf\xbf", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf"}}, // the last of a length
	{false, 0, 10, []string{"\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf"}},
	{true, 0, 11, []string{"\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbd", "\xf4\x8f\xbf\xbf"}}, // other boundaries
	{false, 5, 11, []string{"\xf4\x90\x80\x80"}},
	{false, 0, 12, []string{ // continuation bytes that continue nothing
		"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf", "\x80\xbf\x80\xbf\x80", "\x80\xbf\x80\xbf\x80\xbf", octets(0x80, 0xbf, ""),
	}},
	{false, 0, 13, []string{ // first bytes that are not continued
		octets(0xc0, 0xdf, " "), octets(0xe0, 0xef, " "), octets(0xf0, 0xf7, " "), octets(0xf8, 0xfb, " "), octets(0xfc, 0xfd, " "),
	}},
	{false, 0, 14, incomplete},
	{false, 0, 15, []string{strings.Join(incomplete, "")}},
	{false, 0, 16, []string{"\xfe", "\xff", "\xfe\xfe\xff\xff"}},
	{false, 0, 17, []string{"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf"}}, // longer than need be
	{false, 0, 18, []string{"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf"}},
	{false, 0, 19, []string{"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80"}},
	{false, 0, 20, []string{"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf"}}, // surrogates
	{false, 0, 21, []string{
		"\xed\xa0\x80\xed\xb0\x80", "\xed\xa0\x80\xed\xbf\xbf", "\xed\xad\xbf\xed\xb0\x80", "\xed\xad\xbf\xed\xbf\xbf",
		"\xed\xae\x80\xed\xb0\x80", "\xed\xae\x80\xed\xbf\xbf", "\xed\xaf\xbf\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf",
	}},
	{true, 0, 22, nonCharacters()},
	{true, 0, 23, []string{"\xef\xbf\xb9", "\xef\xbf\xba", "\xef\xbf\xbb", "\xef\xbf\xbc", "\xef\xbf\xbd", "\xef\xbf\xbe", "\xef\xbf\xbf"}},
}

// incomplete are sequences without their last byte.
var incomplete = []string{
	"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80",
	"\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf",
}

// octets are those from one to before another, each with something after it.
func octets(from, to byte, after string) string {
	var s strings.Builder
	for ; from < to; from++ {
		s.WriteByte(from)
		s.WriteString(after)
	}
	return s.String()
}

// nonCharacters are code points that are no characters, but valid.
func nonCharacters() []string {
	all := []string{"\xef\xbf\xbe", "\xef\xbf\xbf"}
	for _, lead := range []string{
		"\xf0\x9f", "\xf0\xaf", "\xf0\xbf", "\xf1\x8f", "\xf1\x9f", "\xf1\xaf", "\xf1\xbf", "\xf2\x8f", "\xf2\x9f", "\xf2\xaf", "\xf2\xbf",
		"\xf3\x8f", "\xf3\x9f", "\xf3\xaf", "\xf3\xbf", "\xf4\x8f",
	} {
		all = append(all, lead+"\xbf\xbe", lead+"\xbf\xbf")
	}
	return all
}

// utf8Cases is section 6. A valid sequence comes back in the ref of a command, sent
// in one frame and with a frame for each of its bytes. An invalid one is the whole
// message, or cut into frames within a ref. The hub finds it at the end of the
// message: Autobahn calls 6.4 "non-strict" then.
func utf8Cases() []rfcCase {
	accents := "Hello-µ@ßöäüàá-UTF-8!!"
	message := refers(accents)
	border := strings.Index(message, "ö")
	surrogate := koosme + "\xed\xa0\x80edited"
	high := koosme + "\xf4\x90\x80\x80edited"
	frame := text(high)
	at := len(frame) - len(high)
	empty := answered(pieces(opText, "", "", ""), malformed)
	cases := []rfcCase{
		{name: "6.1.1", steps: asks("", malformed)},
		{name: "6.1.2", steps: empty},
		{name: "6.1.3", steps: answered(pieces(opText, "", message, ""), echo(accents))},
		{name: "6.2.1", steps: asks(message, echo(accents))},
		{name: "6.2.2", steps: answered(pieces(opText, message[:border], message[border:]), echo(accents))},
		{name: "6.2.2 within a code point", steps: answered(pieces(opText, message[:border+1], message[border+1:]), echo(accents))},
		{name: "6.2.3", steps: answered(fragments(opText, message, 1), echo(accents))},
		{name: "6.2.4", steps: answered(fragments(opText, refers(koosme), 1), echo(koosme))},
		{name: "6.3.1", steps: says(text(surrogate), ping("after")), fails: 1007},
		{name: "6.3.2", steps: says(fragments(opText, surrogate, 1)...), fails: 1007},
		{name: "6.4.1", steps: says(pieces(opText, high[:11], high[11:15], high[15:])...), fails: 1007},
		{name: "6.4.2", steps: says(pieces(opText, high[:12], high[12:13], high[13:])...), fails: 1007},
		{name: "6.4.3", steps: says(frame[:at+11], frame[at+11:at+15], frame[at+15:]), fails: 1007, chops: []int{stepwise}},
		{name: "6.4.4", steps: says(frame[:at+12], frame[at+12:at+13], frame[at+13:]), fails: 1007, chops: []int{stepwise}},
		{name: "6.7.1", steps: then(asks("\x00", malformed), asks(refers("\x00"), malformed), asks(refers(`\u0000`), echo(`\u0000`)))},
		{name: "6 binary need not be", steps: then(asksWith(opBinary, surrogate, notSupported), asks(message, echo(accents)))},
		{name: "6 after others", steps: then(asks(message, echo(accents)), empty, says(text(refers("\xff")))), fails: 1007},
		{name: "6 a ping between", steps: then(says(part(opText, surrogate[:12])), answered([]string{ping("\xff")}, pong("\xff")), says(framed(opContinuation, surrogate[12:]))), fails: 1007},
	}
	for _, g := range utf8Groups {
		for n, s := range g.sequences {
			name := fmt.Sprintf("6.%d.%d", g.section, n+max(g.first, 1))
			parts := []string{`{"op":"ping","ref":"`}
			for i := range len(s) {
				parts = append(parts, s[i:i+1])
			}
			inFrames := pieces(opText, append(parts, `"}`)...)
			if g.valid {
				cases = append(cases, rfcCase{name: name, steps: then(asks(refers(s), echo(s)), answered(inFrames, echo(s)), asks(s, malformed)), chops: fewChops})
				continue
			}
			cases = append(cases,
				rfcCase{name: name, steps: says(text(s)), fails: 1007, chops: fewChops},
				rfcCase{name: name + " in frames", steps: says(inFrames...), fails: 1007, chops: fewChops})
		}
	}
	return cases
}
