//! Rows of RFC 9110: what requests mean.

use crate::case::{Case, case, get, hello, with};
use crate::site::{BIG_BYTES, LONG_NAME, MODIFIED, big, etag, hex_digest};

const HELLO: &str = "hello shfs\n";

/// Methods, names and the fields of an answer.
pub fn objects() -> Vec<Case> {
    let digest = hex_digest(1);
    let big = big();
    let head = |target: &str| with("HEAD", target, "");
    vec![
        // Methods.
        case("RFC 9110 §9.3.1", get("/hello.txt"), 200).body(HELLO).has("Content-Length", "11"),
        case("RFC 9110 §9.3.2", head("/hello.txt"), 200).has("Content-Length", "11").has("ETag", etag(1, 11)),
        case("RFC 9110 §9.3.2: an error", head("/missing"), 404),
        case("RFC 9110 §9.3.2: a bad request", "HEAD /hello.txt HTTP/1.1\r\n\r\n", 400).closes(),
        case("RFC 9110 §9.3.2: nothing", head("/empty"), 200).has("Content-Length", "0"),
        case("RFC 9110 §9.3.2: a large object", head("/big.bin"), 200).has("Content-Length", BIG_BYTES.to_string()),
        case("RFC 9110 §9.3.2: a folder", head("/docs"), 301).has("Location", "/docs/"),
        case("RFC 9110 §15.5.6", with("POST", "/hello.txt", ""), 405).has("Allow", "GET, HEAD, OPTIONS"),
        case("RFC 9110 §15.5.6", with("PUT", "/hello.txt", ""), 405),
        case("RFC 9110 §15.5.6", with("DELETE", "/hello.txt", ""), 405),
        case("RFC 9110 §9.3.8: no TRACE", with("TRACE", "/hello.txt", ""), 405),
        case("RFC 5789 §2: no PATCH", with("PATCH", "/hello.txt", ""), 405),
        case("RFC 9110 §9.3.7", with("OPTIONS", "/hello.txt", ""), 204).has("Allow", "GET, HEAD, OPTIONS"),
        case("RFC 9110 §9.3.7: of nothing", with("OPTIONS", "/missing", ""), 404),
        case("RFC 9110 §15.6.2", with("BREW", "/hello.txt", ""), 501).closes(),
        case("RFC 9110 §9.1: names are case-sensitive", with("get", "/hello.txt", ""), 501).closes(),
        // Fields of an answer.
        case("RFC 9110 §8.3", get("/hello.txt"), 200).has("Content-Type", "text/plain"),
        case("RFC 9110 §8.3: with a parameter", get("/a%20b.txt"), 200)
            .has("Content-Type", "text/plain; charset=utf-8"),
        case("RFC 9110 §8.3: none", get("/untyped"), 200).has("Content-Type", "application/octet-stream"),
        case("RFC 9110 §8.6: nothing", get("/empty"), 200).has("Content-Length", "0").body(""),
        case("RFC 9110 §8.6: much", get("/big.bin"), 200).has("Content-Length", BIG_BYTES.to_string()).body(&big),
        case("RFC 9110 §8.8.2", get("/hello.txt"), 200).has("Last-Modified", MODIFIED),
        case("RFC 9110 §8.8.2: no time", get("/undated"), 200).lacks("Last-Modified").body("old"),
        case("RFC 9110 §8.8.2.1: a time to come", get("/future"), 200).lacks("Last-Modified").body("new"),
        case("RFC 9110 §8.8.3", get("/hello.txt"), 200).has("ETag", etag(1, 11)),
        case("RFC 9110 §14.3", get("/hello.txt"), 200).has("Accept-Ranges", "bytes"),
        // Names.
        case("RFC 9110 §7.1: the default object", get("/"), 200).body("<p>start</p>").has("Content-Type", "text/html"),
        case("RFC 9110 §7.1: an empty query", get("/?"), 200).body("<p>start</p>"),
        case("RFC 9110 §7.1: a query", get("/?a=b"), 200).body("<p>start</p>"),
        case("RFC 9110 §7.1: leading slashes", get("///hello.txt"), 200).body(HELLO),
        case("RFC 9110 §7.1: only slashes", get("//"), 200).body("<p>start</p>"),
        case("RFC 9110 §7.1: a query behind a name", get("/hello.txt?a=b?c"), 200).body(HELLO),
        case("RFC 9110 §7.1: a digest", get(&format!("/?{digest}")), 200).body(HELLO).has("ETag", etag(1, 11)),
        case("RFC 9110 §7.1: in capitals", get(&format!("/?{}", digest.to_uppercase())), 200).body(HELLO),
        case("RFC 9110 §7.1: an unknown digest", get("/?00112233445566ff"), 404),
        case("RFC 9110 §7.1: a short digest", get(&format!("/?{}", &digest[1..])), 404),
        case("RFC 9110 §7.1: a long digest", get(&format!("/?{digest}{}", "00".repeat(100))), 404),
        case("RFC 9110 §7.1: an object named index", get("/index.html"), 200).body("<p>index</p>"),
        case("RFC 9110 §7.1: a folder's index", get("/docs/"), 200).body("<p>docs</p>"),
        case("RFC 9110 §7.1: an object with a slash", get("/dir/"), 200).body("<p>dir</p>"),
        case("RFC 9110 §15.4.2: a folder", get("/docs"), 301).has("Location", "/docs/").lacks("Connection"),
        case("RFC 9110 §15.4.2: with a query", get("/docs?a=b"), 301).has("Location", "/docs/?a=b"),
        case("RFC 9110 §15.4.2: a query of odd bytes", get(&format!("/docs?{}", "\u{fc}".repeat(256))), 301)
            .has("Location", format!("/docs/?{}", "%C3%BC".repeat(256))),
        case("RFC 9110 §15.4.2: a query that is too long to keep", get(&format!("/docs?{}", "a".repeat(513))), 301)
            .has("Location", "/docs/"),
        case("RFC 9110 §15.4.2: an encoded name", get("/a%20%62"), 301).has("Location", "/a%20b/"),
        case("RFC 9110 §15.4.2: never to another host", get("//docs"), 301).has("Location", "/docs/"),
        case("RFC 9110 §15.4.2: an object with a slash", get("/dir"), 301).has("Location", "/dir/"),
        case("RFC 9110 §15.5.5", get("/missing"), 404),
        case("RFC 9110 §15.5.5: a folder of nothing", get("/missing/"), 404),
        case("RFC 9110 §15.5.5: names are exact", get("/Hello.txt"), 404),
        case("RFC 9110 §15.5.5: a part of a name", get("/hello"), 404),
        case("RFC 9110 §15.5.5: dots have no meaning", get("/docs/../hello.txt"), 404),
        case("RFC 9110 §15.5.5: an inner slash counts", get("/docs//"), 404),
        case("RFC 3986 §2.1", get("/%68ello%2Etxt"), 200).body(HELLO),
        case("RFC 3986 §2.1: a blank", get("/a%20b.txt"), 200).body("space"),
        case("RFC 3986 §2.1: a plus is no blank", get("/a+b.txt"), 404),
        case("RFC 3986 §2.1: a question mark", get("/why%3F.txt"), 200).body("question"),
        case("RFC 3986 §2.4: decoded once", get("/100%25.txt"), 200).body("percent"),
        case("RFC 3986 §2.4: decoded once", get("/%2568ello.txt"), 404),
        case("RFC 3986 §2.1: UTF-8", get("/%C3%bc.txt"), 200).body("umlaut"),
        case("RFC 3986 §2.1: UTF-8 as it is", get("/\u{fc}.txt"), 200).body("umlaut"),
        case("RFC 3986 §2.1: a slash", get("/docs%2Findex.html"), 200).body("<p>docs</p>"),
        case("RFC 3986 §2.1: no digits", get("/%zz"), 400),
        case("RFC 3986 §2.1: one digit", get("/hello.txt%2"), 400),
        case("RFC 3986 §2.1: a sign", get("/%+1"), 400),
        case("RFC 3986 §7.3: NUL", get("/hello.txt%00"), 400),
        case("RFC 3986 §2.1: behind a long name", get(&format!("/{}%", "n".repeat(100))), 400),
        case("RFC 9110 §7.1: the longest name", get(&format!("/{LONG_NAME}")), 200).body("long"),
        case("RFC 9110 §7.1: encoded", get(&format!("/%30{}", &LONG_NAME[1..])), 200).body("long"),
        case("RFC 9110 §7.1: one byte more", get(&format!("/{LONG_NAME}c")), 404),
        // Links.
        case("RFC 9110 §15.4.8", get("/go"), 307)
            .has("Location", "http://example.org/x/y?z=1")
            .has("Content-Length", "0"),
        case("RFC 9110 §15.4.8: another port", get("/go81"), 307).has("Location", "http://192.168.7.9:81/"),
        case("RFC 9110 §15.4.8", head("/go"), 307).has("Content-Length", "0"),
        case("RFC 9110 §15.6.3", get("/stream"), 502),
    ]
}

/// Conditional requests.
pub fn conditions() -> Vec<Case> {
    let tag = etag(1, 11);
    let field = |name: &str, value: &str| hello(&format!("{name}: {value}\r\n"));
    let (before, after) = ("Tue, 14 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 2023 22:13:22 GMT");
    let match_list = format!("\"x\", {tag}, \"y\"");
    vec![
        // If-None-Match.
        case("RFC 9110 §13.1.2", field("If-None-Match", &tag), 304).has("ETag", &tag).body(""),
        case("RFC 9110 §15.4.5", field("If-None-Match", &tag), 304).lacks("Content-Type").lacks("Last-Modified"),
        case("RFC 9110 §13.1.2: HEAD", with("HEAD", "/hello.txt", &format!("If-None-Match: {tag}\r\n")), 304),
        case("RFC 9110 §13.1.2: another", field("If-None-Match", "\"x\""), 200).body(HELLO),
        case("RFC 9110 §13.1.2: in a list", field("If-None-Match", &match_list), 304),
        case("RFC 9110 §13.1.2: any", field("If-None-Match", "*"), 304),
        case("RFC 9110 §13.1.2: weakly", field("If-None-Match", &format!("W/{tag}")), 304),
        case("RFC 9110 §8.8.3: quotes belong to it", field("If-None-Match", tag.trim_matches('"')), 200),
        case("RFC 9110 §8.8.3: * in quotes is a tag", field("If-None-Match", "\"*\""), 200),
        case("RFC 9110 §5.3: several lines", hello(&format!("If-None-Match: \"x\"\r\nIf-None-Match: {tag}\r\n")), 304),
        case("RFC 9110 §5.6.1.2: empty elements", field("If-None-Match", &format!(", ,{tag},")), 304),
        case("RFC 9110 §13.2.1: not of an error", with("GET", "/missing", "If-None-Match: *\r\n"), 404),
        case("RFC 9110 §13.2.1: not of a redirect", with("GET", "/docs", "If-None-Match: *\r\n"), 301),
        case("RFC 9110 §13.1.2: of nothing", with("GET", "/empty", &format!("If-None-Match: {}\r\n", etag(5, 0))), 304),
        // If-Modified-Since.
        case("RFC 9110 §13.1.3: the same time", field("If-Modified-Since", MODIFIED), 304).has("ETag", &tag),
        case("RFC 9110 §13.1.3: later", field("If-Modified-Since", after), 304),
        case("RFC 9110 §13.1.3: earlier", field("If-Modified-Since", before), 200).body(HELLO),
        case("RFC 9110 §5.6.7: RFC 850", field("If-Modified-Since", "Tuesday, 14-Nov-23 22:13:21 GMT"), 304),
        case("RFC 9110 §5.6.7: asctime", field("If-Modified-Since", "Tue Nov 14 22:13:21 2023"), 304),
        case("RFC 9110 §13.1.3: no date", field("If-Modified-Since", "yesterday"), 200),
        case("RFC 9110 §13.1.3: a number", field("If-Modified-Since", "1700000001"), 200),
        case(
            "RFC 9110 §13.1.3: repeated",
            field("If-Modified-Since", &format!("{after}\r\nIf-Modified-Since: {after}")),
            200,
        ),
        case(
            "RFC 9110 §13.1.3: no time here",
            with("GET", "/undated", &format!("If-Modified-Since: {after}\r\n")),
            200,
        ),
        case(
            "RFC 9110 §13.2.2: If-None-Match decides",
            hello(&format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {after}\r\n")),
            200,
        ),
        case(
            "RFC 9110 §13.2.2: If-None-Match decides",
            hello(&format!("If-None-Match: {tag}\r\nIf-Modified-Since: {before}\r\n")),
            304,
        ),
        // If-Match.
        case("RFC 9110 §13.1.1", field("If-Match", &tag), 200).body(HELLO),
        case("RFC 9110 §13.1.1: in a list", field("If-Match", &match_list), 200),
        case("RFC 9110 §13.1.1: any", field("If-Match", "*"), 200),
        case("RFC 9110 §13.1.1: another", field("If-Match", "\"x\""), 412),
        case("RFC 9110 §13.1.1: strongly", field("If-Match", &format!("W/{tag}")), 412),
        case("RFC 9110 §13.1.1: HEAD", with("HEAD", "/hello.txt", "If-Match: \"x\"\r\n"), 412),
        case("RFC 9110 §13.2.1: not of an error", with("GET", "/missing", "If-Match: *\r\n"), 404),
        case(
            "RFC 9110 §13.2.2: before If-None-Match",
            hello(&format!("If-Match: \"x\"\r\nIf-None-Match: {tag}\r\n")),
            412,
        ),
        case(
            "RFC 9110 §13.2.2: then If-None-Match",
            hello(&format!("If-Match: {tag}\r\nIf-None-Match: {tag}\r\n")),
            304,
        ),
        // If-Unmodified-Since.
        case("RFC 9110 §13.1.4: the same time", field("If-Unmodified-Since", MODIFIED), 200),
        case("RFC 9110 §13.1.4: later", field("If-Unmodified-Since", after), 200),
        case("RFC 9110 §13.1.4: earlier", field("If-Unmodified-Since", before), 412),
        case("RFC 9110 §13.1.4: long ago", field("If-Unmodified-Since", "Mon, 01 Jan 1900 00:00:00 GMT"), 412),
        case("RFC 9110 §13.1.4: no date", field("If-Unmodified-Since", "soon"), 200),
        case(
            "RFC 9110 §13.1.4: no time here",
            with("GET", "/undated", &format!("If-Unmodified-Since: {before}\r\n")),
            200,
        ),
        case(
            "RFC 9110 §13.2.2: If-Match decides",
            hello(&format!("If-Match: {tag}\r\nIf-Unmodified-Since: {before}\r\n")),
            200,
        ),
        case(
            "RFC 9110 §13.2.2: then If-Modified-Since",
            hello(&format!("If-Unmodified-Since: {after}\r\nIf-Modified-Since: {after}\r\n")),
            304,
        ),
    ]
}

/// Ranges.
pub fn ranges() -> Vec<Case> {
    let tag = etag(1, 11);
    let big = big();
    let range = |value: &str| hello(&format!("Range: {value}\r\n"));
    let if_range = |value: &str| hello(&format!("Range: bytes=0-4\r\nIf-Range: {value}\r\n"));
    let of_big = |value: &str| with("GET", "/big.bin", &format!("Range: {value}\r\n"));
    vec![
        case("RFC 9110 §14.1.2", range("bytes=0-4"), 206)
            .body("hello")
            .has("Content-Range", "bytes 0-4/11")
            .has("Content-Length", "5")
            .has("ETag", &tag)
            .has("Last-Modified", MODIFIED)
            .has("Content-Type", "text/plain"),
        case("RFC 9110 §14.1.2: one byte", range("bytes=0-0"), 206).body("h").has("Content-Range", "bytes 0-0/11"),
        case("RFC 9110 §14.1.2: the last byte", range("bytes=10-10"), 206).body("\n"),
        case("RFC 9110 §14.1.2: open", range("bytes=6-"), 206).body("shfs\n").has("Content-Range", "bytes 6-10/11"),
        case("RFC 9110 §14.1.2: all", range("bytes=0-"), 206).body(HELLO).has("Content-Range", "bytes 0-10/11"),
        case("RFC 9110 §14.1.2: clamped", range("bytes=6-999"), 206)
            .body("shfs\n")
            .has("Content-Range", "bytes 6-10/11"),
        case("RFC 9110 §14.1.2: clamped far", range("bytes=6-99999999999999999999999"), 206).body("shfs\n"),
        case("RFC 9110 §14.1.2: a suffix", range("bytes=-5"), 206).body("shfs\n").has("Content-Range", "bytes 6-10/11"),
        case("RFC 9110 §14.1.2: a long suffix", range("bytes=-12"), 206)
            .body(HELLO)
            .has("Content-Range", "bytes 0-10/11"),
        case("RFC 9110 §14.1.2: a suffix of nothing", range("bytes=-0"), 416),
        case("RFC 9110 §14.1: units are not case-sensitive", range("Bytes=0-0"), 206).body("h"),
        case("RFC 9110 §15.5.17", range("bytes=11-"), 416).has("Content-Range", "bytes */11"),
        case("RFC 9110 §15.5.17", range("bytes=11-20"), 416).has("Content-Range", "bytes */11"),
        case("RFC 9110 §15.5.17: far away", range("bytes=99999999999999999999-"), 416),
        case("RFC 9110 §14.2: of nothing", with("GET", "/empty", "Range: bytes=0-\r\n"), 416)
            .has("Content-Range", "bytes */0"),
        case("RFC 9110 §14.1.2: a suffix of nothing", with("GET", "/empty", "Range: bytes=-1\r\n"), 200).body(""),
        case("RFC 9110 §14.2: another unit", range("lines=0-4"), 200).body(HELLO),
        case("RFC 9110 §14.2: several", range("bytes=0-0,2-2"), 200).body(HELLO),
        case("RFC 9110 §5.6.1.2: an empty element", range("bytes=0-4,"), 206).body("hello"),
        case("RFC 9110 §14.2: malformed", range("bytes=4-0"), 200).body(HELLO),
        case("RFC 9110 §14.2: malformed", range("bytes=a-b"), 200).body(HELLO),
        case("RFC 9110 §14.2: malformed", range("bytes=5"), 200).body(HELLO),
        case("RFC 9110 §14.2: malformed", range("bytes"), 200).body(HELLO),
        case("RFC 9110 §14.2: malformed", range("bytes=-"), 200).body(HELLO),
        case("RFC 9110 §14.2: repeated", hello("Range: bytes=0-0\r\nRange: bytes=1-1\r\n"), 200).body(HELLO),
        case("RFC 9110 §14.2: only GET", with("HEAD", "/hello.txt", "Range: bytes=0-4\r\n"), 200)
            .has("Content-Length", "11"),
        case("RFC 9110 §14.2: not of an error", with("GET", "/missing", "Range: bytes=0-4\r\n"), 404),
        // Across chunks and pages of a large object.
        case("RFC 9110 §14.1.2: within a page", of_big("bytes=1-2"), 206).body(&big[1..3]),
        case("RFC 9110 §14.1.2: across chunks", of_big("bytes=3190-3193"), 206).body(&big[3190..3194]),
        case("RFC 9110 §14.1.2: many chunks", of_big("bytes=100-200099"), 206).body(&big[100..200_100]),
        case("RFC 9110 §14.1.2: the end", of_big("bytes=-1"), 206).body(&big[BIG_BYTES - 1..]),
        case("RFC 9110 §14.1.2: from far inside", of_big("bytes=299999-"), 206).body(&big[299_999..]),
        // If-Range.
        case("RFC 9110 §13.1.5", if_range(&tag), 206).body("hello"),
        case("RFC 9110 §13.1.5: another", if_range("\"x\""), 200).body(HELLO),
        case("RFC 9110 §13.1.5: strongly", if_range(&format!("W/{tag}")), 200).body(HELLO),
        case("RFC 9110 §13.1.5: a time", if_range(MODIFIED), 206).body("hello"),
        case("RFC 9110 §13.1.5: an earlier time", if_range("Tue, 14 Nov 2023 22:13:20 GMT"), 200).body(HELLO),
        case("RFC 9110 §13.1.5: a later time", if_range("Tue, 14 Nov 2023 22:13:22 GMT"), 200).body(HELLO),
        case("RFC 9110 §13.1.5: neither", if_range("x"), 200).body(HELLO),
        case("RFC 9110 §13.1.5: without Range", hello(&format!("If-Range: {tag}\r\n")), 200).body(HELLO),
        case("RFC 9110 §13.1.5: out of range", hello(&format!("Range: bytes=11-\r\nIf-Range: {tag}\r\n")), 416),
        case("RFC 9110 §13.1.5: out of another's", hello("Range: bytes=11-\r\nIf-Range: \"x\"\r\n"), 200).body(HELLO),
        case(
            "RFC 9110 §13.2.2: If-None-Match first",
            hello(&format!("Range: bytes=0-4\r\nIf-None-Match: {tag}\r\n")),
            304,
        ),
        case("RFC 9110 §13.2.2: If-Match first", hello("Range: bytes=0-4\r\nIf-Match: \"x\"\r\n"), 412),
        case("RFC 9110 §13.2.2: If-Match holds", hello(&format!("Range: bytes=0-4\r\nIf-Match: {tag}\r\n")), 206)
            .body("hello"),
    ]
}
