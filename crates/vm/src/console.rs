//! The guest's serial console, and a VMM's messages, in the log.
//!
//! An attacker who has taken over the guest's kernel or init controls this text. Long lines are cut, and
//! only printable characters pass, so that none of it can control a terminal.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longer lines are cut into several. The worker's longest usual line, a finished action as JSON, has
/// 500 bytes.
const MAX_LINE_BYTES: usize = 1024;

/// Lines that are kept to explain an end: a kernel's panic with its stack.
const KEPT_LINES: usize = 40;

/// The last lines of a guest.
#[derive(Debug, Default)]
pub struct LastWords(Mutex<VecDeque<String>>);

impl LastWords {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The line that tells most about an end: a panic if there was one, else the last line before the
    /// kernel says that it goes.
    pub fn summary(&self) -> Option<String> {
        let lines = self.0.lock();
        let panic = lines.iter().find(|line| line.contains("Kernel panic"));
        let last = || lines.iter().rfind(|line| !line.starts_with("reboot: "));
        panic.or_else(last).cloned()
    }

    /// Whether a line with that end is among them. (What firmware writes to clear a screen may stand
    /// before it.)
    pub fn include(&self, end: &str) -> bool {
        self.0.lock().iter().any(|line| line.ends_with(end))
    }

    fn push(&self, line: String) {
        let mut lines = self.0.lock();
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Logs each line of `console` with `log` until its end, and keeps the last ones in `words`.
pub async fn log_lines(mut console: impl AsyncRead + Unpin, words: &LastWords, log: impl Fn(&str)) {
    let mut splitter = Splitter::default();
    let mut buffer = [0; 4096];
    // An error is an end like any other: the VMM is gone.
    while let Ok(read @ 1..) = console.read(&mut buffer).await {
        for byte in &buffer[..read] {
            if let Some(line) = splitter.push(*byte) {
                log(&line);
                words.push(line);
            }
        }
    }
}

/// Makes lines of bytes.
#[derive(Debug, Default)]
struct Splitter {
    line: Vec<u8>,
}

impl Splitter {
    /// The line that `byte` ends, if it does.
    fn push(&mut self, byte: u8) -> Option<String> {
        match byte {
            b'\r' => None,
            b'\n' if self.line.is_empty() => None,
            b'\n' => Some(self.take()),
            _ => {
                self.line.push(byte);
                (self.line.len() == MAX_LINE_BYTES).then(|| self.take())
            }
        }
    }

    fn take(&mut self) -> String {
        let line = std::mem::take(&mut self.line);
        let printable = |character: char| match character {
            '\t' => ' ',
            _ if character.is_control() => '\u{fffd}',
            _ => character,
        };
        String::from_utf8_lossy(&line).chars().map(printable).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(console: &[u8]) -> Vec<String> {
        let words = LastWords::new();
        log_lines(console, &words, |_| ()).await;
        words.0.into_inner().into()
    }

    #[tokio::test]
    async fn lines_are_split_and_made_harmless() {
        assert_eq!(lines(b"one\r\n\r\ntwo\tthree\nhalf").await, ["one", "two three"]);
        assert_eq!(lines(b"\x1b[2Jgone\xff\n").await, ["\u{fffd}[2Jgone\u{fffd}"]);
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        assert_eq!(lines(&[b'x'; 2 * MAX_LINE_BYTES]).await.len(), 2);
        assert_eq!(lines(&b"x\n".repeat(1000)).await.len(), KEPT_LINES);
    }

    #[tokio::test]
    async fn the_reason_is_what_comes_before_the_end() {
        let words = LastWords::new();
        let console = &b"init: up\ninit: no disk\nreboot: Restarting system\n"[..];
        log_lines(console, &words, |_| ()).await;
        assert_eq!(words.summary().as_deref(), Some("init: no disk"));
    }

    #[tokio::test]
    async fn a_panic_says_more_than_the_last_line() {
        let words = LastWords::new();
        let console = &b"boot\nKernel panic - not syncing\nRebooting\n"[..];
        log_lines(console, &words, |_| ()).await;
        assert_eq!(words.summary().as_deref(), Some("Kernel panic - not syncing"));
        assert!(words.include("boot") && !words.include("boo"));
    }
}
