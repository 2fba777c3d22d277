//! `minicache serve --access-log`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::serve::Server;

#[test]
fn each_request_is_a_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("www")).unwrap();
    fs::write(dir.path().join("www/a.txt"), "twelve bytes").unwrap();
    let log = dir.path().join("access.log");
    fs::write(&log, "what was there stays\n").unwrap();
    let server = Server::with(&dir.path().join("www"), &["--access-log", log.to_str().unwrap()]);
    let mut stream = TcpStream::connect(server.addresses[0]).unwrap();
    let requests = "GET /a.txt?x=\"y\" HTTP/1.1\r\nHost: h\r\n\r\n\
        HEAD /a.txt HTTP/1.1\r\nHost: h\r\n\r\n\
        GET /a.txt HTTP/1.1\r\nHost: h\r\nRange: bytes=-3\r\n\r\n\
        GET /none HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    stream.write_all(requests.as_bytes()).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    server.signal();
    server.finish();
    let said = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines.len(), lines[0]), (5, "what was there stays"), "{said}");
    for (line, end) in lines[1..].iter().zip([
        r#""GET /a.txt?x=\"y\" HTTP/1.1" 200 12"#,
        r#""HEAD /a.txt HTTP/1.1" 200 0"#,
        r#""GET /a.txt HTTP/1.1" 206 3"#,
        r#""GET /none HTTP/1.1" 404 "#,
    ]) {
        assert!(line.starts_with("127.0.0.1 - - [") && line.contains(end), "{line}");
    }
}
