//! One JSON line per answered operation.
//!
//! ```text
//!  slots ──► bounded channel ──► thread ──► file
//!                 │ full
//!                 └─► counted, and told as a line of its own: {"dropped":3}
//! ```

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use events::{Event, Finished, Listener};

/// Events that may wait for the thread. A second of the fastest builds; at about 1 KiB each they hold
/// a few MiB at most.
const QUEUE_LIMIT: usize = 4096;

/// Errors of opening the event file.
#[derive(Debug, thiserror::Error)]
pub enum EventFileError {
    /// The file cannot be opened for appending.
    #[error("cannot open the event log {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The thread that writes cannot be started.
    #[error("cannot start the thread of the event log")]
    Thread(#[source] io::Error),
}

/// Appends finished operations to a file, as JSON lines. Dropping it writes what is left.
#[derive(Debug)]
pub struct EventFile {
    queue: Option<SyncSender<Arc<Finished>>>,
    dropped: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl EventFile {
    /// Appends to `path`, or writes to standard output if it is `-`.
    ///
    /// # Errors
    /// [`EventFileError`] when the file cannot be opened or the thread cannot be started.
    pub fn open(path: &Path) -> Result<Self, EventFileError> {
        if path == Path::new("-") {
            return Self::start(io::stdout());
        }
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|source| EventFileError::Open { path: path.to_owned(), source })?;
        Self::start(file)
    }

    /// Writes to `sink`.
    fn start(sink: impl Write + Send + 'static) -> Result<Self, EventFileError> {
        let (queue, events) = sync_channel(QUEUE_LIMIT);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer { events, dropped: Arc::clone(&dropped), sink: BufWriter::new(sink) };
        let writer = std::thread::Builder::new()
            .name("event-log".into())
            .spawn(move || writer.run())
            .map_err(EventFileError::Thread)?;
        Ok(Self { queue: Some(queue), dropped, writer: Some(writer) })
    }
}

impl Listener for EventFile {
    fn tell(&self, event: &Event) {
        let (Event::Finished(finished), Some(queue)) = (event, &self.queue) else { return };
        if queue.try_send(Arc::clone(finished)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for EventFile {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the thread of the event log ended by a panic");
        }
    }
}

struct Writer<W: Write> {
    events: Receiver<Arc<Finished>>,
    dropped: Arc<AtomicU64>,
    sink: BufWriter<W>,
}

impl<W: Write> Writer<W> {
    /// Writes events until the last sender is gone. A write that fails is told once; later events are
    /// tried again, since a full disk may pass.
    fn run(mut self) {
        let mut failing = false;
        while let Ok(event) = self.events.recv() {
            let written = self.write(event);
            if let Err(error) = &written
                && !failing
            {
                tracing::warn!(%error, "the event log cannot be written");
            }
            failing = written.is_err();
        }
        if let Err(error) = self.write_dropped().and_then(|()| self.sink.flush()) {
            tracing::warn!(%error, "the end of the event log cannot be written");
        }
    }

    /// A line that counts the events that found the queue full, if there were any.
    fn write_dropped(&mut self) -> io::Result<()> {
        match self.dropped.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            dropped => writeln!(self.sink, "{{\"dropped\":{dropped}}}"),
        }
    }

    /// Writes this event and all that wait behind it, then flushes.
    fn write(&mut self, first: Arc<Finished>) -> io::Result<()> {
        let mut next = Some(first);
        while let Some(event) = next {
            self.write_dropped()?;
            serde_json::to_writer(&mut self.sink, &*event)?;
            self.sink.write_all(b"\n")?;
            next = self.events.try_recv().ok();
        }
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use events::{Limits, Miss, Origin, Stages};
    use serde_json::Value;

    use super::*;

    fn finished(action: &str) -> Event {
        Event::Finished(Arc::new(Finished {
            operation: "operations/1".into(),
            instance: String::new(),
            digest_function: "sha256",
            action: action.to_owned(),
            command: None,
            input_root: None,
            inputs: None,
            origin: Arc::new(Origin { mnemonic: "CppCompile".into(), ..Origin::default() }),
            queued_at: SystemTime::UNIX_EPOCH + Duration::from_micros(7),
            cached: false,
            miss: Some(Miss::Absent),
            limits: Limits::default(),
            exit_code: Some(1),
            error: None,
            stages: Stages { run_us: Some(5), ..Stages::default() },
            usage: None,
            outputs: 1,
            output_bytes: 2,
            worker: "here".into(),
            result: None,
        }))
    }

    #[test]
    fn an_event_is_a_line_that_is_whole_when_the_file_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        for action in ["a/1", "b/2\n"] {
            let file = EventFile::open(&path).unwrap();
            file.tell(&finished(action));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["action"], "a/1");
        assert_eq!(lines[1]["action"], "b/2\n");
        assert_eq!(lines[0]["queued_at_us"], 7);
        assert_eq!(lines[0]["run_us"], 5);
        assert_eq!(lines[0]["origin"]["mnemonic"], "CppCompile");
        assert_eq!(lines[0]["miss"], "absent");
        assert_eq!(lines[0].get("error"), None);
        assert_eq!(lines[0].get("limits"), None);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = EventFile::open(Path::new("/nowhere/events")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open the event log /nowhere/events");
    }

    /// A sink that waits until it is let go.
    struct Stuck(Receiver<()>, Arc<parking::Shared>);

    mod parking {
        #[derive(Default)]
        pub(super) struct Shared(pub(super) std::sync::Mutex<Vec<u8>>);
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The sender is dropped to let the writer go.
            let _ = self.0.recv();
            self.1.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_disk_holds_nobody_up_and_what_is_dropped_is_counted() {
        let (hold, held) = std::sync::mpsc::channel();
        let written = Arc::<parking::Shared>::default();
        let file = EventFile::start(Stuck(held, Arc::clone(&written))).unwrap();
        let told = 3 * QUEUE_LIMIT as u64;
        for _ in 0..told {
            file.tell(&finished("a/1"));
        }
        drop(hold);
        file.tell(&finished("last/1"));
        drop(file);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let dropped: u64 = lines.iter().filter_map(|line| line["dropped"].as_u64()).sum();
        let events = lines.iter().filter(|line| line.get("action").is_some()).count() as u64;
        assert!(dropped > 0);
        assert!(events >= QUEUE_LIMIT as u64);
        assert_eq!(events + dropped, told + 1, "{events} written, {dropped} dropped");
    }
}
