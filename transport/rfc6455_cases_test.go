package transport_test

import (
	"fmt"
	"strings"
)

// framing is section 1: each way to give a length.
func framing() (cases []rfcCase) {
	for n, size := range []int{0, 125, 126, 127, 128, 65535, 65536, 65536} {
		said, answer := command(size)
		c := rfcCase{name: fmt.Sprint("1.1.", n+1), steps: asks(said, answer)}
		if size > 1000 {
			c.chops = largeChops
		}
		if n == 7 {
			c.chops = []int{997}
		}
		cases = append(cases, c)
		c.name, c.steps = fmt.Sprint("1.2.", n+1), asksWith(opBinary, strings.Repeat("\xfe", size), notSupported)
		cases = append(cases, c)
	}
	return append(cases,
		rfcCase{name: "1 not masked", steps: then(asks(hello, helloBack), says("\x81\x0d"+`{"op":"ping"}`, ping(""))), fails: 1002},
		rfcCase{name: "1 ping not masked", steps: says("\x89\x00", ping("")), fails: 1002},
		rfcCase{name: "1 close not masked", steps: says("\x88\x00"), fails: 1002},
		rfcCase{name: "1 a length with its sign", steps: says("\x82\xff\x80" + strings.Repeat("\x00", 11)), fails: 1002},
	)
}

var (
	hello     = refers("Hello, world!")
	helloBack = echo("Hello, world!")
)

// pings is section 2.
func pings() []rfcCase {
	asksPong := func(payload string) []rfcStep { return answered([]string{ping(payload)}, pong(payload)) }
	var ten, every []rfcStep
	for n := range 10 {
		ten = append(ten, asksPong(fmt.Sprint("payload-", n))...)
	}
	for n := range 126 {
		every = append(every, asksPong(strings.Repeat("\xff\x00\xfe", 42)[:n])...)
	}
	long := strings.Repeat("\xfe", 126)
	return []rfcCase{
		{name: "2.1", steps: asksPong("")},
		{name: "2.2", steps: asksPong("Hello, world!")},
		{name: "2.3", steps: asksPong("\x00\xff\xfe\xfd\xfc\xfb\x00\xff")},
		{name: "2.4", steps: asksPong(long[:125]), chops: []int{stepwise, whole, 7}},
		{name: "2.5", steps: says(ping(long), ping("after")), fails: 1002},
		{name: "2.5 by its length alone", steps: says("\x89\xfe"), fails: 1002},
		{name: "2.5 in 64 bits", steps: says("\x89\xff\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00Hello"), fails: 1002},
		{name: "2.6", steps: asksPong(long[:125]), chops: []int{1}},
		{name: "2.7", steps: says(framed(opPong, ""))},
		{name: "2.8", steps: says(framed(opPong, "unsolicited"))},
		{name: "2.8 too long", steps: says(framed(opPong, long)), fails: 1002},
		{name: "2.9", steps: then(says(framed(opPong, "unsolicited")), asksPong("ping payload"))},
		{name: "2.10", steps: ten, chops: []int{stepwise, whole, 7}},
		{name: "2.11", steps: ten, chops: []int{1}},
		{name: "2 of every length", steps: every, chops: []int{stepwise, whole, 7}},
		{name: "2 among messages", steps: then(asksPong("1"), asks(hello, helloBack), asksPong("2"), asksWith(opBinary, "", notSupported), asksPong("3"))},
	}
}

// reserved is sections 3 and 4: bits and opcodes that mean nothing.
func reserved() (cases []rfcCase) {
	sent := asks(hello, helloBack)
	bits := func(rsv, opcode byte, payload string) []rfcStep {
		return says(clientFrame(fin|rsv<<4|opcode, payload), ping("after"))
	}
	for n, steps := range [][]rfcStep{
		bits(1, opText, hello), then(sent, bits(2, opText, hello)), then(sent, bits(3, opText, hello)), then(sent, bits(4, opText, hello)),
		bits(5, opBinary, "\x00\xff"), bits(6, opPing, "Hello"), bits(7, opClose, ""),
	} {
		cases = append(cases, rfcCase{name: fmt.Sprint("3.", n+1), steps: steps, fails: 1002})
	}
	cases = append(cases, rfcCase{name: "3 within a message", steps: then(sent, says(part(opText, hello)), bits(4, opContinuation, "")), fails: 1002})
	for n := range byte(5) {
		for group, opcode := range []byte{3 + n, 11 + n} {
			payload := ""
			if n%2 == 1 {
				payload = "reserved opcode payload"
			}
			steps := says(framed(opcode, payload), ping("after"))
			if n >= 2 {
				steps = then(sent, steps)
			}
			cases = append(cases, rfcCase{name: fmt.Sprintf("4.%d.%d", group+1, n+1), steps: steps, fails: 1002})
		}
	}
	return cases
}

// fragmentation is section 5. What Autobahn cuts in three ways is one case here.
func fragmentation() []rfcCase {
	two, five := pieces(opText, hello[:20], hello[20:]), fragments(opText, hello, 8)
	nothing := "non-continuation payload"
	binary := pieces(opBinary, "\x00", "", "\xff")
	end, goesOn := framed(opContinuation, nothing), part(opContinuation, nothing)
	return []rfcCase{
		{name: "5.1", steps: says(pieces(opPing, "frag", "ment")...), fails: 1002},
		{name: "5.2", steps: says(pieces(opPong, "frag", "ment")...), fails: 1002},
		{name: "5.1 its first fragment", steps: says(part(opPing, "frag")), fails: 1002},
		{name: "5.2 its first fragment", steps: says(part(opPong, "frag")), fails: 1002},
		{name: "5.2 close", steps: says(pieces(opClose, status(1000), "")...), fails: 1002},
		{name: "5.3-5.5", steps: answered(two, helloBack)},
		{name: "5.3 binary", steps: then(answered(binary, notSupported), answered(two, helloBack), answered(binary, notSupported))},
		{name: "5.6-5.8", steps: then(says(two[0]), answered([]string{ping("ping payload")}, pong("ping payload")), answered(two[1:], helloBack))},
		{name: "5.9-5.11", steps: says(end, text(hello)), fails: 1002},
		{name: "5.9 after a message", steps: then(answered(two, helloBack), says(end, text(hello))), fails: 1002},
		{name: "5.12-5.14", steps: says(goesOn, text(hello)), fails: 1002},
		{name: "5.15", steps: then(answered(two, helloBack), says(goesOn, text(hello))), fails: 1002},
		{name: "5.16", steps: says(goesOn, two[0], two[1], goesOn, two[0], two[1]), fails: 1002},
		{name: "5.17", steps: says(end, two[0], two[1], end, two[0], two[1]), fails: 1002},
		{name: "5.18", steps: says(part(opText, hello[:20]), text(hello[20:])), fails: 1002},
		{name: "5.18 binary within text", steps: says(part(opText, hello[:20]), framed(opBinary, hello[20:])), fails: 1002},
		{name: "5.18 begun twice", steps: says(two[0], two[0]), fails: 1002},
		{name: "5.19-5.20", steps: then(
			says(five[0]), answered([]string{five[1], ping("pongme 1!")}, pong("pongme 1!")),
			says(five[2]), answered([]string{five[3], framed(opPong, "unasked"), ping("pongme 2!")}, pong("pongme 2!")), answered(five[4:], helloBack))},
	}
}

// closing is section 7.
func closing() []rfcCase {
	two := pieces(opText, hello[:20], hello[20:])
	leave := answered([]string{goodbye(1000, "")}, closed(1000))
	large, answer := command(64 << 10)
	cases := []rfcCase{
		{name: "7.1.1", steps: then(asks(hello, helloBack), leave), ends: true},
		{name: "7.1.2", steps: then(leave, says(goodbye(1000, ""))), late: true},
		{name: "7.1.2 another code", steps: then(leave, says(goodbye(3000, ""))), late: true},
		{name: "7.1.3", steps: then(leave, says(ping("after"))), late: true},
		{name: "7.1.4", steps: then(leave, says(text(hello))), late: true},
		{name: "7.1.4 broken", steps: then(leave, says("\xff\x00", "\x88\x01x")), late: true},
		{name: "7.1.5", steps: then(says(two[0]), leave, says(two[1])), late: true},
		{name: "7.1.6", steps: then(asks(large, answer), leave, says(ping("after"))), late: true, chops: largeChops},
		{name: "7.3.1", steps: answered([]string{framed(opClose, "")}, heard{opcode: opClose}), ends: true},
		{name: "7.3.2", steps: says(framed(opClose, "a")), fails: 1002},
		{name: "7.3.3", steps: leave, ends: true},
		{name: "7.3.4", steps: answered([]string{goodbye(1000, "Hello World!")}, closed(1000)), ends: true},
		{name: "7.3.5", steps: answered([]string{goodbye(1000, strings.Repeat("*", 123))}, closed(1000)), ends: true},
		{name: "7.3.6", steps: says(goodbye(1000, strings.Repeat("*", 124))), fails: 1002},
		{name: "7.5.1", steps: says(goodbye(1000, koosme+"\xed\xa0\x80edited")), fails: 1007},
		{name: "7.5 cut within a code point", steps: says(goodbye(1000, koosme[:10])), fails: 1007},
		{name: "7.5 UTF-8", steps: answered([]string{goodbye(1000, koosme)}, closed(1000)), ends: true},
	}
	for n, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		for _, reason := range []string{"", " reason"} {
			cases = append(cases, rfcCase{name: fmt.Sprint("7.7.", n+1, reason), steps: answered([]string{goodbye(code, reason)}, closed(code)), ends: true, chops: fewChops})
		}
	}
	for _, code := range []int{1012, 1013, 1014} { // registered later
		cases = append(cases, rfcCase{name: fmt.Sprint("7.7 code ", code), steps: answered([]string{goodbye(code, "")}, closed(code)), ends: true, chops: fewChops})
	}
	for n, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		for _, reason := range []string{"", " reason"} {
			cases = append(cases, rfcCase{name: fmt.Sprint("7.9.", n+1, reason), steps: says(goodbye(code, reason), ping("after")), fails: 1002, chops: fewChops})
		}
	}
	for name, code := range map[string]int{"7.9 code 1015": 1015, "7.13.1": 5000, "7.13.2": 65535} {
		cases = append(cases, rfcCase{name: name, steps: says(goodbye(code, ""), ping("after")), fails: 1002})
	}
	return cases
}

// sizes is sections 9 and 10, with messages as large as may be instead of megabytes.
func sizes(limit int) (cases []rfcCase) {
	fits, answer := command(limit)
	over, _ := command(limit + 1)
	blob := strings.Repeat("\xfe", limit+1)
	add := func(name string, chops []int, fails int, steps []rfcStep) {
		cases = append(cases, rfcCase{name: name, chops: chops, fails: fails, steps: steps})
	}
	add("9.1.1", largeChops, 0, asks(fits, answer))
	add("9.1.1 beyond", largeChops, 1009, says(text(over), ping("after")))
	add("9.1.2", []int{whole, 997}, 1009, says(text(strings.Repeat(over, 4))))
	add("9.2.1", largeChops, 0, asksWith(opBinary, blob[:limit], notSupported))
	add("9.2.1 beyond", largeChops, 1009, says(framed(opBinary, blob), ping("after")))
	for n, size := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10} {
		add(fmt.Sprint("9.3.", n+1), []int{whole, 997}, 0, answered(fragments(opText, fits, size), answer))
		add(fmt.Sprint("9.3.", n+1, " beyond"), []int{whole, 997}, 1009, says(fragments(opText, over, size)...))
		add(fmt.Sprint("9.4.", n+1), []int{whole, 997}, 0, answered(fragments(opBinary, blob[:limit], size), notSupported))
	}
	for n, size := range []int{64, 128, 256, 512, 1024, 2048} {
		add(fmt.Sprint("9.5.", n+1), []int{size}, 0, asks(fits, answer))
		add(fmt.Sprint("9.6.", n+1), []int{size}, 0, asksWith(opBinary, blob[:limit], notSupported))
	}
	for n, size := range []int{0, 16, 64, 256, 1024, 4096} {
		var texts, binaries []rfcStep
		said, answer := command(size)
		for range 9 { // ten malformed ones in a row would be too many
			texts = append(texts, asks(said, answer)...)
			binaries = append(binaries, asksWith(opBinary, blob[:size], notSupported)...)
		}
		add(fmt.Sprint("9.7.", n+1), largeChops, 0, texts)
		add(fmt.Sprint("9.8.", n+1), largeChops, 0, binaries)
	}
	add("10.1.1", largeChops, 0, answered(fragments(opText, fits, 1300), answer))
	return cases
}

// limits is section 9, in its own sizes: messages of up to 16 MiB, in frames and in
// pieces, and a thousand in a row.
func limits() (cases []rfcCase) {
	const mega = 1 << 20
	blob := strings.Repeat("\xfe", 16*mega)
	add := func(name string, chop int, steps []rfcStep) {
		cases = append(cases, rfcCase{name: name, chops: []int{chop}, steps: steps})
	}
	for n, size := range []int{64 << 10, 256 << 10, mega, 4 * mega, 8 * mega, 16 * mega} {
		said, answer := command(size)
		add(fmt.Sprint("9.1.", n+1), whole, asks(said, answer))
		add(fmt.Sprint("9.2.", n+1), whole, asksWith(opBinary, blob[:size], notSupported))
	}
	said, answer := command(4 * mega)
	for n, size := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, mega, 4 * mega} {
		add(fmt.Sprint("9.3.", n+1), whole, answered(fragments(opText, said, size), answer))
		add(fmt.Sprint("9.4.", n+1), whole, answered(fragments(opBinary, blob[:4*mega], size), notSupported))
	}
	said, answer = command(mega)
	for n, size := range []int{64, 128, 256, 512, 1024, 2048} {
		add(fmt.Sprint("9.5.", n+1), size, asks(said, answer))
		add(fmt.Sprint("9.6.", n+1), size, asksWith(opBinary, blob[:mega], notSupported))
	}
	valid, pong := command(64)
	for n, size := range []int{0, 16, 64, 256, 1024, 4096} {
		var texts, binaries []rfcStep
		said, answer := command(size)
		for k := range 1000 {
			texts = append(texts, asks(said, answer)...)
			binaries = append(binaries, asksWith(opBinary, blob[:size], notSupported)...)
			if k%9 == 8 { // ten in a row that say nothing would be too many
				texts, binaries = append(texts, asks(valid, pong)...), append(binaries, asks(valid, pong)...)
			}
		}
		add(fmt.Sprint("9.7.", n+1), stepwise, texts)
		add(fmt.Sprint("9.8.", n+1), stepwise, binaries)
	}
	return cases
}
