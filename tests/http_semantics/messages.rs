//! Rows of RFC 9112: how messages look, and where they end.

use crate::case::{Case, case, get, hello, with};

const HELLO: &str = "hello shfs\n";

/// Request lines, field lines and versions.
pub fn syntax() -> Vec<Case> {
    let filler = "x".repeat(7000);
    let name = |length: usize| format!("/{}", "n".repeat(length - 1));
    vec![
        // The request line.
        case("RFC 9112 §3", get("/hello.txt"), 200).body(HELLO),
        case("RFC 9112 §3: one space", "GET  /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §3: one space", "GET /hello.txt  HTTP/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §3: no tab", "GET\t/hello.txt HTTP/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §3: no tab", "GET /hello.txt\tHTTP/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §3: nothing behind", "GET /hello.txt HTTP/1.1 \r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §3: nothing before", " GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §3.2: no blanks in the target", "GET /a b.txt HTTP/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §3: no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §3: no version", "GET /hello.txt\r\n\r\n", 400).closes(),
        case("RFC 9112 §3: one word", "GET\r\n\r\n", 400).closes(),
        case("RFC 9112 §3: junk", "hello there, how are you?\r\n\r\n", 400).closes(),
        case("RFC 9112 §3: TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400).closes(),
        case("RFC 9110 §9.1: a method is a token", "G\"T / HTTP/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9110 §5.5: no control bytes", "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9110 §5.5: no DEL", "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9110 §5.5: no NUL", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        // Lines.
        case("RFC 9112 §2.2: an empty line before", format!("\r\n{}", get("/hello.txt")), 200).body(HELLO),
        case("RFC 9112 §2.2: four of them", format!("{}{}", "\r\n".repeat(4), get("/hello.txt")), 200).body(HELLO),
        case("RFC 9112 §2.2: but not more", format!("{}{}", "\r\n".repeat(5), get("/hello.txt")), 400).closes(),
        case("RFC 9112 §2.2: LF is no line end", "GET /hello.txt HTTP/1.1\nHost: a\n\n", 400).closes(),
        case("RFC 9112 §2.2: LF behind a field", "GET /hello.txt HTTP/1.1\r\nHost: a\n\r\n", 400).closes(),
        case("RFC 9112 §2.2: LF as the last line", "GET /hello.txt HTTP/1.1\r\nHost: a\r\n\n", 400).closes(),
        case("RFC 9112 §2.2: LF before", "\nGET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §2.2: bare CR", "GET /hello.txt HTTP/1.1\rHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §2.2: bare CR in a value", hello("X: a\rb\r\n"), 400).closes(),
        case("RFC 9112 §2.2: CR CR LF", "GET /hello.txt HTTP/1.1\r\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §2.2: blank before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400).closes(),
        // Fields.
        case("RFC 9112 §5.1: no blank before the colon", hello("X : a\r\n"), 400).closes(),
        case("RFC 9112 §5.1: no tab before the colon", hello("X\t: a\r\n"), 400).closes(),
        case("RFC 9112 §5.1: blanks around the value", hello("Range: \t bytes=0-0 \t\r\n"), 206).body("h"),
        case("RFC 9112 §5.1: no blank at all", hello("Range:bytes=0-0\r\n"), 206).body("h"),
        case("RFC 9112 §5.1: an empty value", hello("X:\r\n"), 200),
        case("RFC 9112 §5.2: no folding", hello("X: a\r\n b\r\n"), 400).closes(),
        case("RFC 9110 §5.1: names are not case-sensitive", hello("RANGE: bytes=0-0\r\n"), 206).body("h"),
        case("RFC 9110 §5.6.2: a name is a token", hello("X(): a\r\n"), 400).closes(),
        case("RFC 9110 §5.6.2: a name is not empty", hello(": a\r\n"), 400).closes(),
        case("RFC 9112 §5: a line without colon", hello("X\r\n"), 400).closes(),
        case("RFC 9110 §5.5: NUL in a value", hello("X: a\0b\r\n"), 400).closes(),
        case("RFC 9110 §5.5: a control byte in a value", hello("X: a\x0bb\r\n"), 400).closes(),
        case("RFC 9110 §5.5: bytes from 0x80 on are opaque", hello("X: \u{fc}\r\n"), 200),
        case("RFC 6585 §5: 100 fields", hello(&"X: a\r\n".repeat(99)), 200).body(HELLO),
        case("RFC 6585 §5: 101 fields", hello(&"X: a\r\n".repeat(100)), 431).closes(),
        case("RFC 6585 §5: a long head", hello(&format!("X: {filler}\r\n")), 200).body(HELLO),
        case("RFC 6585 §5: one that is too long", hello(&format!("X: {filler}\r\nY: {filler}\r\n")), 431).closes(),
        case("RFC 9112 §3: a target of 8000 bytes", get(&name(8000)), 404),
        case("RFC 9110 §15.5.15: 8001 bytes", get(&name(8001)), 414).closes(),
        case("RFC 9110 §15.5.15: 20,000 bytes", get(&name(20_000)), 414).closes(),
        // Versions.
        case("RFC 9112 §2.3: HTTP/1.0", "GET /hello.txt HTTP/1.0\r\n\r\n", 200).body(HELLO).closes(),
        case("RFC 9110 §2.5: later minor versions", "GET /hello.txt HTTP/1.2\r\nHost: a\r\n\r\n", 200).body(HELLO),
        case("RFC 9110 §2.5: which need a Host", "GET /hello.txt HTTP/1.9\r\n\r\n", 400).closes(),
        case("RFC 9110 §15.6.6", "GET /hello.txt HTTP/2.0\r\nHost: a\r\n\r\n", 505).closes(),
        case("RFC 9113 §3.4: the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505).closes(),
        case("RFC 9110 §15.6.6", "GET /hello.txt HTTP/0.9\r\n\r\n", 505).closes(),
        case("RFC 9112 §2.3: names are case-sensitive", "GET /hello.txt http/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §2.3: one digit", "GET /hello.txt HTTP/1.10\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §2.3: digits", "GET /hello.txt HTTP/1.x\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §2.3: both digits", "GET /hello.txt HTTP/1\r\nHost: a\r\n\r\n", 400).closes(),
    ]
}

/// Where a request ends.
pub fn framing() -> Vec<Case> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    vec![
        case("RFC 9112 §6.3: no body", hello("Content-Length: 0\r\n"), 200).body(HELLO),
        case("RFC 9110 §9.3.1: a GET with a body", hello("Content-Length: 5\r\n") + "12345", 200).body(HELLO),
        case("RFC 9112 §6.3: more than is read", hello("Content-Length: 9999999\r\n"), 200).body(HELLO).closes(),
        case("RFC 9110 §8.6: repeated", hello("Content-Length: 5\r\nContent-Length: 5\r\n"), 400).closes(),
        case("RFC 9112 §6.3: conflicting", hello("Content-Length: 5\r\nContent-Length: 6\r\n"), 400).closes(),
        case("RFC 9110 §8.6: a list", hello("Content-Length: 5, 5\r\n"), 400).closes(),
        case("RFC 9110 §8.6: a sign", hello("Content-Length: +5\r\n"), 400).closes(),
        case("RFC 9110 §8.6: a sign", hello("Content-Length: -1\r\n"), 400).closes(),
        case("RFC 9110 §8.6: hexadecimal", hello("Content-Length: 0x5\r\n"), 400).closes(),
        case("RFC 9110 §8.6: nothing", hello("Content-Length: \r\n"), 400).closes(),
        case("RFC 9110 §8.6: too large", hello("Content-Length: 99999999999999999999\r\n"), 400).closes(),
        case("RFC 9110 §8.6: a blank inside", hello("Content-Length: 1 2\r\n"), 400).closes(),
        case("RFC 9112 §7.1", hello(chunked) + "5\r\n12345\r\n0\r\n\r\n", 200).body(HELLO),
        case("RFC 9112 §7.1.1: extensions", hello(chunked) + "1;a=\"b\"\r\nx\r\n00\r\n\r\n", 200).body(HELLO),
        case("RFC 9112 §7.1.2: a trailer", hello(chunked) + "0\r\nX: y\r\nZ: z\r\n\r\n", 200).body(HELLO),
        case("RFC 9112 §6.1: both lengths", hello(&format!("{chunked}Content-Length: 5\r\n")), 400).closes(),
        case("RFC 9112 §6.1: in the other order", hello(&format!("Content-Length: 5\r\n{chunked}")), 400).closes(),
        case("RFC 9112 §6.1: twice", hello(&format!("{chunked}{chunked}")), 400).closes(),
        case("RFC 9112 §7: twice in a list", hello("Transfer-Encoding: chunked, chunked\r\n"), 400).closes(),
        case("RFC 9112 §6.3: chunked is not last", hello("Transfer-Encoding: chunked, gzip\r\n"), 400).closes(),
        case("RFC 9112 §6.3: not chunked", hello("Transfer-Encoding: identity\r\n"), 400).closes(),
        case("RFC 9112 §6.3: nearly chunked", hello("Transfer-Encoding: xchunked\r\n"), 400).closes(),
        case("RFC 9112 §6.3: nothing", hello("Transfer-Encoding:\r\n"), 400).closes(),
        case("RFC 9112 §6.1: another coding", hello("Transfer-Encoding: gzip, chunked\r\n"), 501).closes(),
        case("RFC 9112 §7: codings are not case-sensitive", hello("Transfer-Encoding: Chunked\r\n") + "0\r\n\r\n", 200),
        case("RFC 9112 §6.1: HTTP/1.0", format!("GET /hello.txt HTTP/1.0\r\n{chunked}\r\n0\r\n\r\n"), 400).closes(),
        case("RFC 9110 §10.1.1: no body", hello("Expect: 100-continue\r\n"), 200).body(HELLO),
        case("RFC 9110 §10.1.1: a body", hello("Expect: 100-continue\r\nContent-Length: 5\r\n"), 200)
            .body(HELLO)
            .closes(),
        case(
            "RFC 9110 §10.1.1: refused without it",
            with("POST", "/hello.txt", "Expect: 100-continue\r\nContent-Length: 5\r\n"),
            405,
        )
        .closes(),
        case("RFC 9112 §9.6: a refused body", with("POST", "/hello.txt", "Content-Length: 5\r\n") + "12345", 405)
            .closes(),
        case("RFC 9112 §9.6: a refused chunked body", with("PUT", "/x", chunked) + "5\r\n12345\r\n0\r\n\r\n", 405)
            .closes(),
    ]
}

/// Who is asked, and whether the connection goes on.
pub fn routing() -> Vec<Case> {
    let host = |value: &str| format!("GET /hello.txt HTTP/1.1\r\nHost: {value}\r\n\r\n");
    vec![
        case("RFC 9112 §3.2: Host is needed", "GET /hello.txt HTTP/1.1\r\n\r\n", 400).closes(),
        case("RFC 9112 §3.2: once", "GET /hello.txt HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400).closes(),
        case("RFC 9112 §3.2: also in 1.0", "GET /hello.txt HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400).closes(),
        case("RFC 9112 §3.2: no user", host("user@example.org"), 400).closes(),
        case("RFC 9112 §3.2: no path", host("example.org/"), 400).closes(),
        case("RFC 9112 §3.2: no list", host("a, b"), 400).closes(),
        case("RFC 3986 §3.2.3: a port is a number", host("example.org:http"), 400).closes(),
        case("RFC 3986 §3.2.3", host("example.org:8080"), 200),
        case("RFC 3986 §3.2.2", host("[::1]:8080"), 200),
        case("RFC 3986 §3.2.2: brackets", host("::1"), 400).closes(),
        case("RFC 9112 §3.2: empty", host(""), 200),
        // Forms of targets.
        case("RFC 9112 §3.2.2", get("http://example.org/hello.txt"), 200).body(HELLO),
        case("RFC 9112 §3.2.2: Host is ignored", "GET http://a/hello.txt HTTP/1.1\r\nHost: b\r\n\r\n", 200).body(HELLO),
        case("RFC 9112 §3.2.2: but needed", "GET http://a/hello.txt HTTP/1.1\r\n\r\n", 400).closes(),
        case("RFC 9110 §4.2.3: schemes are not case-sensitive", get("HTTP://example.org:80/hello.txt"), 200)
            .body(HELLO),
        case("RFC 9110 §4.2.3: an empty path is /", get("http://example.org"), 200).body("<p>start</p>"),
        case("RFC 9110 §4.2.3: with a query", get("http://example.org?a=b"), 200).body("<p>start</p>"),
        case("RFC 9110 §4.2.1: no host", get("http:///hello.txt"), 400),
        case("RFC 9110 §4.2.4: no user", get("http://user:pw@example.org/hello.txt"), 400),
        case("RFC 9112 §3.2.2: another scheme", get("ftp://example.org/hello.txt"), 400),
        case("RFC 9112 §3.2.3: only for CONNECT", get("example.org:80"), 400),
        case("RFC 9110 §9.3.6", with("CONNECT", "example.org:80", ""), 405).closes(),
        case("RFC 9112 §3.2.4: only for OPTIONS", get("*"), 400),
        case("RFC 9112 §3.2.4", with("OPTIONS", "*", ""), 204).has("Allow", "GET, HEAD, OPTIONS"),
        case("RFC 9112 §3.2.4: through a proxy", with("OPTIONS", "http://example.org", ""), 204),
        case("RFC 9112 §3.2.1: no fragment", get("/hello.txt#top"), 400),
        case("RFC 9112 §3.2: neither form", get("hello.txt"), 400),
        // Connections.
        case("RFC 9112 §9.3", hello("Connection: close\r\n"), 200).body(HELLO).closes(),
        case("RFC 9112 §9.3: in a list", hello("Connection: foo, Close\r\n"), 200).closes(),
        case("RFC 9112 §9.3: in any line", hello("Connection: foo\r\nConnection: close\r\n"), 200).closes(),
        case("RFC 9112 §9.3: close wins", hello("Connection: keep-alive, close\r\n"), 200).closes(),
        case("RFC 9112 §9.3: other options", hello("Connection: closed, x-close\r\n"), 200).lacks("Connection"),
        case("RFC 9110 §7.8: no upgrade", hello("Connection: upgrade\r\nUpgrade: h2c\r\n"), 200).body(HELLO),
        case("RFC 9112 §9.3: HTTP/1.0", "GET /hello.txt HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 200)
            .has("Connection", "keep-alive"),
        case("RFC 9112 §9.3: an error page", "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 404)
            .has("Connection", "keep-alive"),
        case("RFC 9112 §9.3: both", "GET /hello.txt HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", 200).closes(),
        case("RFC 9112 §9.3: an error that is no doubt about framing", get("/missing"), 404).lacks("Connection"),
    ]
}
