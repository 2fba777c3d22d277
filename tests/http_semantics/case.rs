//! One row of a table: a request, and what an RFC says about its answer.

use crate::response::Response;

/// A row.
pub struct Case {
    /// Where the rule stands.
    pub rule: &'static str,
    /// The request's bytes.
    pub request: Vec<u8>,
    status: u16,
    present: Vec<(&'static str, String)>,
    absent: Vec<&'static str>,
    body: Option<Vec<u8>>,
    closes: bool,
}

/// A row that expects `status` and a connection that goes on.
pub fn case(rule: &'static str, request: impl AsRef<[u8]>, status: u16) -> Case {
    let request = request.as_ref().to_vec();
    Case { rule, request, status, present: Vec::new(), absent: Vec::new(), body: None, closes: false }
}

/// A request with further field lines, each ended by CRLF.
pub fn with(method: &str, target: &str, lines: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: example.org\r\n{lines}\r\n")
}

/// A plain GET.
pub fn get(target: &str) -> String {
    with("GET", target, "")
}

/// A GET of `/hello.txt` with further field lines.
pub fn hello(lines: &str) -> String {
    with("GET", "/hello.txt", lines)
}

impl Case {
    /// The response has this field with this value.
    pub fn has(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.present.push((name, value.into()));
        self
    }

    /// The response lacks this field.
    pub fn lacks(mut self, name: &'static str) -> Self {
        self.absent.push(name);
        self
    }

    /// The response has this body.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(body.as_ref().to_vec());
        self
    }

    /// The response says that the connection ends.
    pub fn closes(mut self) -> Self {
        self.closes = true;
        self
    }

    /// True if the request's method is HEAD.
    pub fn is_head(&self) -> bool {
        self.request.starts_with(b"HEAD ")
    }

    /// True if the connection ends behind the response.
    pub fn expects_close(&self) -> bool {
        self.closes
    }

    /// Checks a response against this row and against what holds for every response.
    pub fn check(&self, response: &Response) {
        let Self { rule, request, .. } = self;
        let at = || format!("{rule}: {:?} was answered with {response:?}", String::from_utf8_lossy(request));
        assert_eq!(response.status, self.status, "{}", at());
        for (name, value) in &self.present {
            assert_eq!(response.field(name), Some(&value[..]), "{name}: {}", at());
        }
        for name in &self.absent {
            assert_eq!(response.field(name), None, "{name}: {}", at());
        }
        if let Some(body) = &self.body {
            assert!(response.body == *body, "{}", at());
        }
        assert_eq!(response.closes(), self.closes, "{}", at());

        // RFC 9110 §6.6.1, §10.2.4; §8.3; §15.5.6; §15.4.2; §15.5.17.
        assert_eq!(response.field("Date"), Some("Wed, 15 Nov 2023 22:13:21 GMT"), "{}", at());
        assert!(response.field("Server").is_some_and(|server| server.starts_with("MiniCache/")), "{}", at());
        assert!(response.body.is_empty() || response.field("Content-Type").is_some(), "{}", at());
        assert_eq!(matches!(response.status, 204 | 405), response.field("Allow").is_some(), "{}", at());
        assert_eq!(matches!(response.status, 301 | 307), response.field("Location").is_some(), "{}", at());
        assert_eq!(matches!(response.status, 206 | 416), response.field("Content-Range").is_some(), "{}", at());
        assert_eq!(matches!(response.status, 204 | 304), response.field("Content-Length").is_none(), "{}", at());
        assert_eq!(matches!(response.status, 200 | 206), response.field("Accept-Ranges").is_some(), "{}", at());
        if response.status >= 400 {
            assert_eq!(response.field("Content-Type"), Some("text/html; charset=utf-8"), "{}", at());
            assert_eq!(response.body.is_empty(), self.is_head(), "{}", at());
        }
    }
}
