//! The log on standard error: one line per event, as text or as JSON.
//!
//! Text is for people. Where standard error is systemd's journal, text goes there with its fields. JSON is for programs: each line is one object with
//! `timestamp`, `level`, `message` and the fields of the event at its top level. Messages that the
//! program prints before the log starts, or when it fails, are plain text in both formats.
//!
//! Code that logs a client's words makes them [`model::Printable`] first. Errors of libraries and of the
//! kernel may quote such words as well, so what is left is made harmless here: no event can have more
//! than one line, an escape sequence, or no end.

use std::borrow::Cow;
use std::io::{self, Stderr, Write};
use std::sync::OnceLock;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};
#[cfg(not(target_os = "linux"))]
use tracing_subscriber::layer::Identity;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt, reload};
#[cfg(feature = "vm")]
use vm::vmm::WorkerFlag;

#[cfg(target_os = "linux")]
use crate::journal::Journal;
use crate::log_line::{MAX_LINE_BYTES, text_line};
use crate::repeated::Limited;

/// Replaces the filter of the log that was started.
type SetFilter = Box<dyn Fn(Targets) -> anyhow::Result<()> + Send + Sync>;

static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Flags that say what is logged, and how.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// The log filter: off, error, warn, info, debug or trace; with commas also per module, as in
    /// info,store=debug
    #[arg(long, value_name = "FILTER", env = "ACTIOND_LOG", default_value = "info")]
    pub log: String,

    /// The log's format: text for people, or json for programs, one object per line
    #[arg(
        long,
        value_name = "FORMAT",
        env = "ACTIOND_LOG_FORMAT",
        default_value = "text",
        overrides_with = "log_format"
    )]
    pub log_format: LogFormat,
}

#[cfg(feature = "vm")]
impl LogArgs {
    /// The flag that has the worker in a VM log in the same format, where that isn't its default.
    ///
    /// The host logs each line of the guest's console as the text of a message, so that a line of
    /// the worker is a JSON object in the `message` of another one.
    pub(crate) fn worker_flag(&self) -> Option<WorkerFlag> {
        match self.log_format {
            LogFormat::Text => None,
            LogFormat::Json => Some("--log-format=json".parse().expect("a flag without spaces")),
        }
    }
}

/// The format of a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Words and `name=value` pairs.
    Text,
    /// A JSON object.
    Json,
}

/// Starts the log.
///
/// # Errors
/// When the filter can't be parsed.
pub fn start(arguments: &LogArgs) -> anyhow::Result<()> {
    let (filter, handle) = reload::Layer::new(parse_filter(&arguments.log)?);
    let lines = fmt::layer().with_ansi(false).with_target(false);
    #[cfg(target_os = "linux")]
    let journal = match arguments.log_format {
        LogFormat::Text => Journal::of_standard_error(),
        LogFormat::Json => None,
    };
    #[cfg(not(target_os = "linux"))]
    let journal: Option<Identity> = None;
    let lines = match arguments.log_format {
        LogFormat::Text if journal.is_some() => journal.boxed(),
        LogFormat::Text => lines.with_writer(|| OneLine::text(io::stderr())).boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_writer(|| OneLine::json(io::stderr())).boxed()
        }
    };
    let lines = Limited::new(lines).with_filter(filter);
    tracing_subscriber::registry().with(lines).init();
    let set = move |filter| handle.reload(filter).context("replacing the filter of the log");
    // The log starts once in a process: `init` panics at a second time.
    let _ = SET_FILTER.set(Box::new(set));
    Ok(())
}

/// Lets the log that was started have another filter.
///
/// # Errors
/// When the filter can't be parsed; the log then stays as it was.
#[cfg(target_os = "linux")]
pub(crate) fn set_filter(filter: &str) -> anyhow::Result<()> {
    let filter = parse_filter(filter)?;
    SET_FILTER.get().map_or(Ok(()), |set| set(filter))
}

/// Checks that a filter can be parsed.
///
/// # Errors
/// When it can't.
#[cfg(target_os = "linux")]
pub(crate) fn check(filter: &str) -> anyhow::Result<()> {
    parse_filter(filter).map(drop)
}

/// Parses levels and `module=level` pairs. [`Targets`] takes any text for the name of a module, so
/// that a typing error would switch the log off silently.
fn parse_filter(text: &str) -> anyhow::Result<Targets> {
    let context = || format!("`{text}` is not a log filter");
    for directive in text.split(',') {
        let module = match directive.split_once('=') {
            Some((module, _)) => module,
            // A level of no characters would be `error`.
            None if !directive.is_empty() && directive.parse::<LevelFilter>().is_ok() => continue,
            None => bail!("{}: `{directive}` is not a level", context()),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte);
        if module.is_empty() || !module.bytes().all(is_name) {
            bail!("{}: `{module}` is not a module", context());
        }
    }
    text.parse().with_context(context)
}

/// Starts a log of warnings as text, for a command that prints its result.
///
/// # Errors
/// Never; it is what [`start`] returns.
pub fn start_for_command() -> anyhow::Result<()> {
    start(&LogArgs { log: "warn".to_owned(), log_format: LogFormat::Text })
}

/// Writes events. The subscriber writes each of them at once, with a newline at its end.
struct OneLine<W = Stderr> {
    log: W,
    bounded: fn(&[u8]) -> Cow<'_, [u8]>,
}

impl<W> OneLine<W> {
    fn text(log: W) -> Self {
        Self { log, bounded: text_line }
    }

    fn json(log: W) -> Self {
        Self { log, bounded: json_line }
    }
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.log.write_all(&(self.bounded)(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.log.flush()
    }
}

/// JSON has no control characters in its strings. A truncated object would be invalid, so a longer one is
/// replaced.
fn json_line(event: &[u8]) -> Cow<'_, [u8]> {
    if event.len() <= MAX_LINE_BYTES {
        return Cow::Borrowed(event);
    }
    let message = "a line of the log was left out: it was too long";
    let bytes = event.len();
    let line = format!("{{\"level\":\"WARN\",\"message\":\"{message}\",\"bytes\":{bytes}}}\n");
    Cow::Owned(line.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_the_text_log_is_one_line() {
        let check = |event: &str, expected: &str| {
            let mut log = OneLine::text(Vec::new());
            log.write_all(event.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(log.log).unwrap(), expected, "{event:?}");
        };
        check("INFO action finished\n", "INFO action finished\n");
        check("INFO größe …\n", "INFO größe …\n");
        check("INFO a\nERROR forged\n", "INFO a\\nERROR forged\n");
        check("INFO \u{1b}[2J\r\n", "INFO \\u{1b}[2J\\r\n");
        let end = format!("{}…\n", "x".repeat(MAX_LINE_BYTES + 1));
        check(&format!("{}\n", "x".repeat(1 << 20)), &end);
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        assert_eq!(&*text_line(b"a\xff\n"), b"a\xff\n");
        assert_eq!(&*text_line(b"\xff\n\n"), "\u{fffd}\\n\n".as_bytes());
    }

    #[test]
    fn an_event_of_the_json_log_is_one_short_object() {
        let short = br#"{"level":"INFO","message":"a\nb"}"#;
        assert_eq!(&*json_line(short), short);
        let long = format!("{{\"message\":\"{}\"}}\n", "x".repeat(1 << 20));
        let line = json_line(long.as_bytes());
        let object: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(object["bytes"], long.len());
        assert!(line.ends_with(b"\n") && line.len() < 200);
    }

    #[test]
    fn filters() {
        let check = |text: &str, good: bool| assert_eq!(parse_filter(text).is_ok(), good, "{text}");
        for good in ["off", "INFO", "info,store=debug", "worker::slot=trace,warn", "vm=off"] {
            check(good, true);
        }
        for bad in ["", "[", "inof", "store", "=debug", "store=loud", "a b=info", "info,,warn"] {
            check(bad, false);
        }
    }
}
