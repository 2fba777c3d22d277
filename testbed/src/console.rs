//! What a program says, collected as it comes, for those who wait for a certain word of it.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

/// The output of a program: all of its streams, as they come.
#[derive(Clone, Default)]
pub struct Console {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    streams: usize,
}

/// Why a word that was waited for has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// The program's streams have ended.
    Ended,
    /// It took too long.
    TooLate,
}

impl Console {
    /// Collects what comes from `stream`, too.
    pub fn collect(&self, mut stream: impl Read + Send + 'static) {
        self.lock().streams += 1;
        let console = self.clone();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            // An error is an end as well: there is nothing more to read.
            while let Ok(length @ 1..) = stream.read(&mut chunk) {
                console.lock().bytes.extend_from_slice(&chunk[..length]);
                console.shared.1.notify_all();
            }
            console.lock().streams -= 1;
            console.shared.1.notify_all();
        });
    }

    /// All that has come so far; carriage returns are left out.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).replace('\r', "")
    }

    /// Waits for a line that contains `text`, and returns the whole line, which has ended.
    pub fn wait_for(&self, text: &str, deadline: Instant) -> Result<String, Missed> {
        let mut state = self.lock();
        loop {
            let said = String::from_utf8_lossy(&state.bytes);
            let line = said.split_inclusive('\n').find(|line| line.contains(text) && line.ends_with('\n'));
            if let Some(line) = line {
                return Ok(line.trim_end().to_owned());
            }
            if state.streams == 0 {
                return Err(Missed::Ended);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Missed::TooLate);
            }
            state = self.shared.1.wait_timeout(state, left).expect("no reader panics").0;
        }
    }

    /// Waits until every stream has ended.
    pub fn wait_for_end(&self, deadline: Instant) -> Result<(), Missed> {
        let mut state = self.lock();
        while state.streams > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Missed::TooLate);
            }
            state = self.shared.1.wait_timeout(state, left).expect("no reader panics").0;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.0.lock().expect("no reader panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lines_are_found_when_they_are_whole() {
        let console = Console::default();
        let later = || Instant::now() + Duration::from_secs(60);
        assert_eq!(console.wait_for("x", later()), Err(Missed::Ended));
        console.collect(&b"one\r\ntwo three\r\nfour"[..]);
        assert_eq!(console.wait_for("two", later()).unwrap(), "two three");
        assert_eq!(console.wait_for("four", later()), Err(Missed::Ended));
        console.wait_for_end(later()).unwrap();
        assert_eq!(console.text(), "one\ntwo three\nfour");

        let (reader, _writer) = std::io::pipe().unwrap();
        console.collect(reader);
        assert_eq!(console.wait_for("five", Instant::now()), Err(Missed::TooLate));
        assert_eq!(console.wait_for_end(Instant::now()), Err(Missed::TooLate));
    }
}
