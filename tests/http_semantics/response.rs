//! Reads responses as a strict client does.

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub reason: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a field that occurs once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| &value[..]);
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is repeated");
        value
    }

    /// True if the connection ends behind it.
    pub fn closes(&self) -> bool {
        self.field("Connection") == Some("close")
    }
}

/// Reads the responses in `bytes`, which must hold nothing else. `heads` tells which of them answer HEAD.
pub fn read_all(mut bytes: &[u8], heads: &[bool]) -> Vec<Response> {
    let mut responses = Vec::new();
    while !bytes.is_empty() {
        let is_head = heads.get(responses.len()).copied().unwrap_or(false);
        let (response, rest) = read(bytes, is_head);
        responses.push(response);
        bytes = rest;
    }
    responses
}

fn read(bytes: &[u8], is_head: bool) -> (Response, &[u8]) {
    let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    let end =
        bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {}", shown()));
    let head = std::str::from_utf8(&bytes[..end]).expect("a head of text");
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap();
    let (status, reason) = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.split_once(' '))
        .unwrap_or_else(|| panic!("no status line: {}", shown()));
    let fields = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").expect("a field line");
            assert!(!value.bytes().any(|byte| byte.is_ascii_control()) && value.trim() == value, "{line:?}");
            (name.to_owned(), value.to_owned())
        })
        .collect();
    let mut response =
        Response { status: status.parse().unwrap(), reason: reason.to_owned(), fields, body: Vec::new() };
    let body = &bytes[end + 4..];
    let length = match response.field("Content-Length") {
        _ if is_head || matches!(response.status, 204 | 304) => 0,
        Some(length) => length.parse().unwrap(),
        None => panic!("no length: {}", shown()),
    };
    assert!(body.len() >= length, "{} of {length} bytes: {}", body.len(), shown());
    response.body = body[..length].to_vec();
    (response, &body[length..])
}
