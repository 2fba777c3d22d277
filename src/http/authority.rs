//! The authority of a URI and the `Host` field (RFC 3986 §3.2, RFC 9110 §7.2).
//!
//! All objects are served under every name that leads here, so an authority is checked and then forgotten.

/// True for what a `Host` field may hold: a host and perhaps a port, or nothing (RFC 9112 §3.2: the value is empty when the
/// target URI has no authority).
pub fn is_valid_host_field(value: &[u8]) -> bool {
    value.is_empty() || is_valid(value)
}

/// True for `host [":" port]` with a host that is not empty and without user information, which RFC 9110 §4.2.4 asks to treat as an error.
pub fn is_valid(authority: &[u8]) -> bool {
    let (host_is_valid, rest) = match authority.strip_prefix(b"[") {
        Some(inner) => match inner.iter().position(|&byte| byte == b']') {
            Some(end) => (is_ip_literal(&inner[..end]), &inner[end + 1..]),
            None => return false,
        },
        None => {
            let end = authority.iter().position(|&byte| byte == b':').unwrap_or(authority.len());
            (is_registered_name(&authority[..end]), &authority[end..])
        }
    };
    host_is_valid && (rest.is_empty() || rest.strip_prefix(b":").is_some_and(is_port))
}

/// The bytes that stand for themselves in a `reg-name`: `unreserved` and `sub-delims` (RFC 3986 §2).
const NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte as usize] = matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')
            || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
        byte += 1_u8;
    }
    table
};

/// `reg-name`, which an IPv4 address is too (RFC 3986 §3.2.2), but not an empty one.
fn is_registered_name(name: &[u8]) -> bool {
    let mut rest = name.iter();
    while let Some(&byte) = rest.next() {
        let valid = match byte {
            b'%' => [rest.next(), rest.next()].iter().all(|digit| digit.is_some_and(u8::is_ascii_hexdigit)),
            _ => NAME_BYTES[usize::from(byte)],
        };
        if !valid {
            return false;
        }
    }
    !name.is_empty()
}

/// The inside of `[` `]`: an IPv6 address, or a future version's (RFC 3986 §3.2.2).
fn is_ip_literal(text: &[u8]) -> bool {
    match text {
        [b'v' | b'V', future @ ..] => {
            let dot = future.iter().position(|&byte| byte == b'.').unwrap_or(0);
            let (version, address) = future.split_at(dot);
            dot > 0
                && version.iter().all(u8::is_ascii_hexdigit)
                && address.len() > 1
                && address[1..].iter().all(|&byte| byte == b':' || NAME_BYTES[usize::from(byte)])
        }
        _ => core::str::from_utf8(text).is_ok_and(|text| text.parse::<core::net::Ipv6Addr>().is_ok()),
    }
}

/// `*DIGIT` that is a port number; RFC 3986 lets it be empty.
fn is_port(text: &[u8]) -> bool {
    text.iter()
        .try_fold(0u32, |port, byte| {
            let port = port * 10 + byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
            (port <= u32::from(u16::MAX)).then_some(port)
        })
        .is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for valid in [
            "a",
            "example.com",
            "example.com:80",
            "example.com:",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:8080",
            "a_b",
            "x%20y",
            "[v1.a:b]",
            "xn--bcher-kva.example",
            "host:65535",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_valid(valid.as_bytes()), "{valid}");
        }
        for invalid in [
            "",
            ":80",
            "a b",
            "a/b",
            "user@host",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:99999999999999999999",
            "[::1",
            "[]",
            "[::1]x",
            "::1",
            "a%2",
            "a%zz",
            "[v.a]",
            "[v1.]",
            "[vx.a]",
            "a#b",
            "a?b",
            "a\\b",
            "a\"b",
            "ü",
            "a\tb",
            "[::1%eth0]",
            "a:+1",
        ] {
            assert!(!is_valid(invalid.as_bytes()), "{invalid}");
        }
        assert!(is_valid_host_field(b""));
    }
}
