//! Standard output and standard error of the verbs that print something and end.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

use anyhow::bail;

/// Prints to standard output. A reader that goes away, such as `head`, ends the program.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_bytes(text.as_bytes())
}

/// As [`print`], for what need not be text.
pub(crate) fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => bail!("can't write to standard output: {error}"),
    }
}

/// A line on a terminal that is written over; nothing where standard error is no terminal.
pub(crate) struct Progress {
    is_shown: bool,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self { is_shown: io::stderr().is_terminal() }
    }

    pub(crate) fn show(&mut self, line: &str) {
        if self.is_shown {
            // A terminal that is gone is no reason to stop.
            let _ = write!(io::stderr(), "\r\x1b[K{line}");
        }
    }

    /// Clears the line.
    pub(crate) fn end(mut self) {
        self.show("");
    }
}
