//! A limit on warnings that repeat, such as one for each action of a build.
//!
//! Each place in the code that warns has [`LINES_MAX`] lines in [`WINDOW`]. What it says beyond that is counted, and
//! the count is told when the time is over, so that a log without a line is not one without a reason for it. Errors,
//! and what is not a warning, are never left out.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::callsite::Identifier;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// The lines of one place in a window: as many as a person reads.
const LINES_MAX: u64 = 20;

/// The time after which a place has its lines again.
const WINDOW: Duration = Duration::from_secs(60);

/// A log without the warnings that repeat. It counts as many places as warned lately.
///
/// This is a layer and not a filter: an event that a filter refuses as an event, after it took its kind, leaves the
/// marks of `tracing-subscriber` for the next event.
pub(crate) struct Limited<L> {
    log: L,
    warned: &'static Mutex<HashMap<Identifier, u64>>,
    window: Duration,
}

impl<L> Limited<L> {
    pub(crate) fn new(log: L) -> Self {
        Self::of(log, WINDOW)
    }

    fn of(log: L, window: Duration) -> Self {
        // The log lasts as long as the process, and so does what it counts.
        Self { log, warned: Box::leak(Box::default()), window }
    }

    /// Whether a warning of that place is one of the first of its window.
    fn takes(&self, metadata: &'static Metadata<'static>) -> bool {
        let mut warned = locked(self.warned);
        let count = warned.entry(metadata.callsite()).or_default();
        *count += 1;
        if *count == 1 {
            self.tell_later(metadata);
        }
        *count <= LINES_MAX
    }

    /// Ends the window in time, on a thread of its own, and tells what was left out in it.
    fn tell_later(&self, metadata: &'static Metadata<'static>) {
        let (warned, window) = (self.warned, self.window);
        let tell = move || {
            std::thread::sleep(window);
            let count = locked(warned).remove(&metadata.callsite()).unwrap_or_default();
            let left_out = count.saturating_sub(LINES_MAX);
            if left_out > 0 {
                let (module, line) = (metadata.target(), metadata.line().unwrap_or_default());
                tracing::warn!(
                    left_out,
                    module,
                    line,
                    "a warning was repeated, and left out this often"
                );
            }
        };
        // Without a thread the window does not end, and the place has said what it says.
        let _ = std::thread::Builder::new().name("warnings".into()).spawn(tell);
    }
}

/// A panic elsewhere does not end the log.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Subscriber, L: Layer<S>> Layer<S> for Limited<L> {
    fn on_layer(&mut self, subscriber: &mut S) {
        self.log.on_layer(subscriber);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if *event.metadata().level() != Level::WARN || self.takes(event.metadata()) {
            self.log.on_event(event, context);
        }
    }

    // The house has events and no spans, but its libraries have some. A log that was not told of a span panics at an
    // event inside of it.

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.log.on_new_span(attributes, id, context);
    }

    fn on_record(&self, span: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.log.on_record(span, values, context);
    }

    fn on_follows_from(&self, span: &Id, follows: &Id, context: Context<'_, S>) {
        self.log.on_follows_from(span, follows, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.log.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.log.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.log.on_close(id, context);
    }

    fn on_id_change(&self, old: &Id, new: &Id, context: Context<'_, S>) {
        self.log.on_id_change(old, new, context);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Counts events by level.
    #[derive(Clone, Default)]
    struct Counts(Arc<Mutex<HashMap<Level, u64>>>);

    impl<S: Subscriber> Layer<S> for Counts {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            *locked(&self.0).entry(*event.metadata().level()).or_default() += 1;
        }
    }

    #[test]
    fn a_warning_that_repeats_is_left_out_and_nothing_else() {
        let counts = Counts::default();
        let log = Limited::of(counts.clone(), Duration::from_secs(3600));
        let log = tracing_subscriber::registry().with(log);
        tracing::subscriber::with_default(log, || {
            for number in 0..100 {
                tracing::warn!(number, "again");
                tracing::error!(number, "an error");
                tracing::info!(number, "a word");
            }
            tracing::warn!("another one");
        });
        let counts = locked(&counts.0);
        assert_eq!(counts[&Level::WARN], LINES_MAX + 1);
        assert_eq!((counts[&Level::ERROR], counts[&Level::INFO]), (100, 100));
    }

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            locked(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_inside_of_a_librarys_span_is_logged_with_it() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt::layer().json().with_writer(move || writer.clone());
        let log = tracing_subscriber::registry().with(Limited::new(log));
        tracing::subscriber::with_default(log, || {
            let span = tracing::info_span!("connection", peer = 1, stream = tracing::field::Empty);
            span.record("stream", 7);
            span.in_scope(|| tracing::info!("a frame"));
        });
        let line = String::from_utf8(locked(&lines.0).clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["fields"]["message"], "a frame");
        let span = serde_json::json!({ "name": "connection", "peer": 1, "stream": 7 });
        assert_eq!(line["span"], span);
    }

    #[test]
    fn a_place_has_its_lines_again() {
        let counts = Counts::default();
        let log = Limited::of(counts.clone(), Duration::from_millis(1));
        let warned = log.warned;
        let log = tracing_subscriber::registry().with(log);
        tracing::subscriber::with_default(log, || {
            for _ in 0..2 {
                tracing::warn!("now and then");
                while !locked(warned).is_empty() {
                    std::thread::yield_now();
                }
            }
        });
        assert_eq!(locked(&counts.0)[&Level::WARN], 2);
    }
}
