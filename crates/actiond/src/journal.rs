//! Events for systemd's journal, with their fields, in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).
//!
//! systemd connects the standard error of a service to the journal, which makes an entry of each line: then priority and
//! fields are words in a text. Where standard error is that connection, events go to the journal's socket instead:
//! `MESSAGE` is the line of the text log, so that `journalctl` shows the same, and each field of the event is one
//! of the entry, such as `ACTIOND_OPERATION`. What can't be sent is written to standard error as a line.
//!
//! ```text
//! NAME=value\n                                           a value without newlines
//! NAME\n, 8 bytes: its length (little-endian), value\n   any other one
//! ```

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use chain::Chain;
use rustix::fs::fstat;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::log_line::text_line;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The device and inode of the stream that systemd connected to the journal.
const STREAM: &str = "JOURNAL_STREAM";

/// The longest value of a field, in bytes: the longest that the daemon means to log is a message of 512 characters.
const VALUE_BYTES_MAX: usize = 4 << 10;

/// The most fields of an entry; events of the daemon have a dozen at most.
const FIELDS_MAX: usize = 64;

/// Sends events to the journal.
pub(crate) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// The journal, if standard error is connected to it.
    pub(crate) fn of_standard_error() -> Option<Self> {
        let stream = std::env::var(STREAM).ok()?;
        let status = fstat(io::stderr()).ok()?;
        let is_stream = is_named(&stream, status.st_dev, status.st_ino);
        if is_stream { Self::at(Path::new(SOCKET)).ok() } else { None }
    }

    /// A journal that listens there.
    fn at(path: &Path) -> io::Result<Self> {
        // Each entry is sent to the path, so that a journald that was restarted gets them as well.
        UnixDatagram::unbound()?.connect(path)?;
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned() })
    }
}

/// Whether `DEVICE:INODE` names that file.
fn is_named(stream: &str, device: u64, inode: u64) -> bool {
    let named = stream.split_once(':');
    let named = named.map(|(device, inode)| (device.parse::<u64>(), inode.parse::<u64>()));
    named == Some((Ok(device), Ok(inode)))
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = fields.line();
        let mut entry = Vec::with_capacity(512);
        put(&mut entry, "MESSAGE", &line);
        put(&mut entry, "PRIORITY", priority(*event.metadata().level()));
        put(&mut entry, "SYSLOG_IDENTIFIER", "linux-actiond");
        put(&mut entry, "ACTIOND_MODULE", event.metadata().target());
        for (name, value) in &fields.others {
            put(&mut entry, &entry_name(name), value);
        }
        if self.socket.send_to(&entry, &self.path).is_err() {
            // Standard error is the journal as well; nobody else could be told of a failure.
            let _ = writeln!(io::stderr(), "{} {line}", event.metadata().level());
        }
    }
}

/// The number of syslog for a level.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// The name of a field in the journal: letters, digits and `_`, the first of them ours.
fn entry_name(field: &str) -> String {
    let name = field.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '_' });
    // The journal takes names of 64 bytes.
    let name: String = name.take(56).collect();
    format!("ACTIOND_{}", name.to_ascii_uppercase())
}

fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
    /// All of them as the text log has them.
    text: String,
}

impl Fields {
    /// The line of the text log, without the time and the level that the journal has for itself.
    fn line(&self) -> String {
        let line = format!("{}{}\n", self.message, self.text);
        let line = text_line(line.as_bytes());
        String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned()
    }

    fn add(&mut self, field: &Field, value: String, shown: &str) {
        // Events of libraries that log in another way name their file and line so.
        if field.name().starts_with("log.") {
            return;
        }
        let value = bounded(value);
        if field.name() == "message" {
            self.message = value;
        } else if self.others.len() < FIELDS_MAX {
            // Writing to a string does not fail.
            let _ = write!(self.text, " {}={}", field.name(), bounded(shown.to_owned()));
            self.others.push((field.name(), value));
        }
    }
}

fn bounded(mut value: String) -> String {
    if value.len() > VALUE_BYTES_MAX {
        value.truncate(value.floor_char_boundary(VALUE_BYTES_MAX));
        value.push('…');
    }
    value
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned(), &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let causes = Chain(value).to_string();
        self.add(field, causes.clone(), &causes);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        self.add(field, value.clone(), &value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// The fields of an entry, read as journald does.
    fn parsed(mut entry: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        while !entry.is_empty() {
            let end = entry.iter().position(|byte| *byte == b'\n').expect("a newline");
            let (line, rest) = (&entry[..end], &entry[end + 1..]);
            if let Some(at) = line.iter().position(|byte| *byte == b'=') {
                fields.insert(text(&line[..at]), text(&line[at + 1..]));
                entry = rest;
            } else {
                let (length, rest) = rest.split_at(8);
                let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
                assert_eq!(rest[length], b'\n');
                fields.insert(text(line), text(&rest[..length]));
                entry = &rest[length + 1..];
            }
        }
        fields
    }

    /// The datagrams that journald gets of the events in `log`.
    fn entries(log: impl FnOnce()) -> Vec<BTreeMap<String, String>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(&path).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), log);
        journald.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let next = || journald.recv(&mut buffer).ok().map(|length| parsed(&buffer[..length]));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn an_event_is_an_entry_with_its_fields() {
        let found = entries(|| {
            let error = io::Error::other("broken");
            let error = &error as &dyn std::error::Error;
            tracing::warn!(operation = "operations/1", bytes = 7, error, "not cached");
            tracing::info!(target: "store", "open");
        });
        let [first, second] = &found[..] else { panic!("{found:?}") };
        for (name, value) in [
            ("MESSAGE", "not cached operation=\"operations/1\" bytes=7 error=broken"),
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "linux-actiond"),
            ("ACTIOND_OPERATION", "operations/1"),
            ("ACTIOND_BYTES", "7"),
            ("ACTIOND_ERROR", "broken"),
        ] {
            assert_eq!(first.get(name).map(String::as_str), Some(value), "{name} of {first:?}");
        }
        assert_eq!(second["MESSAGE"], "open");
        assert_eq!((&*second["PRIORITY"], &*second["ACTIOND_MODULE"]), ("6", "store"));
    }

    #[test]
    fn words_of_a_client_forge_no_field_and_no_line() {
        let hostile = "a\nPRIORITY=0\nMESSAGE=forged\n\u{1b}[2J";
        let long = "x".repeat(1 << 20);
        let found = entries(|| {
            tracing::info!(name = hostile, "a name");
            tracing::info!(long, "{hostile}");
        });
        let [first, second] = &found[..] else { panic!("{} entries", found.len()) };
        assert_eq!((&*first["PRIORITY"], first["ACTIOND_NAME"].as_str()), ("6", hostile));
        assert!(first["MESSAGE"].starts_with("a name name="), "{first:?}");
        for entry in &found {
            assert!(!entry["MESSAGE"].contains(['\n', '\u{1b}']), "{entry:?}");
        }
        assert!(second["ACTIOND_LONG"].len() < 5000 && second["MESSAGE"].len() < 9000);
    }

    #[test]
    fn a_stream_is_named_by_device_and_inode() {
        let check = |stream, expected| assert_eq!(is_named(stream, 8, 15), expected, "{stream}");
        check("8:15", true);
        for other in ["8:16", "9:15", "8", "", "8:15:1", "a:b", ":"] {
            check(other, false);
        }
    }

    #[test]
    fn names_are_those_of_the_journal() {
        assert_eq!(entry_name("max_resident.bytes"), "ACTIOND_MAX_RESIDENT_BYTES");
        assert_eq!(entry_name(&"x".repeat(100)).len(), 64);
    }

    #[test]
    fn without_journald_there_is_none() {
        assert!(Journal::at(Path::new("/nowhere/socket")).is_err());
    }
}
