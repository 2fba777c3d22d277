//! A telnet client in line mode, for a shell with a prompt.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, bail};

/// Begins a telnet command (RFC 854).
const IAC: u8 = 255;

/// A session, at its prompt.
pub struct Telnet {
    stream: TcpStream,
    prompt: String,
    /// Bytes of a telnet command that is not complete.
    command: Vec<u8>,
    /// Text that came behind the last prompt.
    text: Vec<u8>,
    /// What came before the first prompt.
    pub greeting: String,
}

impl Telnet {
    /// Begins a session on a connection: waits for the first prompt. No silence may last longer than `patience`.
    pub fn new(stream: TcpStream, prompt: &str, patience: Duration) -> Result<Self> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let (command, text) = (Vec::new(), Vec::new());
        let mut telnet = Self { stream, prompt: prompt.to_owned(), command, text, greeting: String::new() };
        telnet.greeting = telnet.read_until_prompt()?;
        Ok(telnet)
    }

    /// What a command says, with lines that end in LF.
    pub fn run(&mut self, line: &str) -> Result<String> {
        self.stream.write_all(format!("{line}\r\n").as_bytes())?;
        self.read_until_prompt()
    }

    /// Gives a command that ends the session, and returns what it said.
    pub fn run_to_end(&mut self, line: &str) -> Result<String> {
        self.stream.write_all(format!("{line}\r\n").as_bytes())?;
        while self.read()? {}
        Ok(clean(&std::mem::take(&mut self.text)))
    }

    fn read_until_prompt(&mut self) -> Result<String> {
        let prompt = self.prompt.clone().into_bytes();
        while !self.text.ends_with(&prompt) {
            if !self.read()? {
                bail!("the session ended after {:?}", clean(&self.text));
            }
        }
        self.text.truncate(self.text.len() - prompt.len());
        Ok(clean(&std::mem::take(&mut self.text)))
    }

    /// Reads some more; false at the end.
    fn read(&mut self) -> Result<bool> {
        let mut bytes = [0; 4096];
        let length = match self.stream.read(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => bail!("{error} after {:?}", clean(&self.text)),
        };
        for byte in &bytes[..length] {
            match (&self.command[..], *byte) {
                ([], IAC) => self.command.push(IAC),
                ([], byte) => self.text.push(byte),
                ([_], IAC) => {
                    self.command.clear();
                    self.text.push(IAC);
                }
                // WILL, WON'T, DO and DON'T are followed by an option.
                ([_], 251..=254) => self.command.push(*byte),
                _ => self.command.clear(),
            }
        }
        Ok(length > 0)
    }
}

fn clean(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace("\r\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn a_session_goes_from_prompt_to_prompt() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let stream = listener.accept().unwrap().0;
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            // It will echo, and a byte 255 in the text.
            (&stream).write_all(b"hel\xff\xfb\x01lo\xff\xff\r\n> ").unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), "date");
            (&stream).write_all(b"today\r\n>").unwrap();
            (&stream).write_all(b" ").unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), "exit");
            (&stream).write_all(b"bye").unwrap();
        });
        let stream = TcpStream::connect(address).unwrap();
        let mut telnet = Telnet::new(stream, "> ", Duration::from_secs(60)).unwrap();
        assert_eq!(telnet.greeting, "hello\u{fffd}\n");
        assert_eq!(telnet.run("date").unwrap(), "today\n");
        assert_eq!(telnet.run_to_end("exit").unwrap(), "bye");
        assert!(telnet.run("more").is_err());
        server.join().unwrap();
    }
}
