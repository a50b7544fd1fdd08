//! Standard output and standard error of the verbs that print something and end.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::ProgressBar;

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

/// Prints a line to standard error. Ignores errors: a reader that goes away, as in `2>&1 | head`, ends no server and
/// changes no exit status.
pub(crate) fn tell(line: impl Display) {
    // In one call, so that lines of several threads and processes do not mix.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// As [`print`], for a server, which goes on without the reader.
pub(crate) fn print_if_read(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// The time between two pictures of the spinner, which shows that the program is alive.
const TICK: Duration = Duration::from_millis(120);

/// The time between two lines of progress where standard error is no terminal: logs of a CI are read later.
const LINE_PERIOD: Duration = Duration::from_secs(10);

/// The progress of long work: a line on a terminal that is written over, and now and then a plain line elsewhere.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Progress {
    pub(crate) fn start() -> Self {
        let bar = io::stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, told: Instant::now() }
    }

    pub(crate) fn show(&mut self, line: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(line.to_owned()),
            None if self.told.elapsed() >= LINE_PERIOD => {
                self.told = Instant::now();
                tell(format_args!("linux-actiond: {line}"));
            }
            None => {}
        }
    }

    /// Clears the line.
    pub(crate) fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
