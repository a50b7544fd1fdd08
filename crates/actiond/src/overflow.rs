//! The other engine as the worker sees it, and the metrics of the actions that went there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use upstream::{Engine, EngineError};
use web::{Reading, ReadingKind};
use worker::{Answered, Elsewhere, ElsewhereError, News, Order};

use crate::upstream_flags;

/// An engine, and counters of its actions.
pub(crate) struct Overflow {
    engine: Arc<Engine>,
    counters: Arc<Counters>,
}

/// Counters since the start of the daemon.
#[derive(Debug, Default)]
struct Counters {
    /// Actions that were sent, or are.
    sent: AtomicU64,
    /// Actions that are not there any more, by their end.
    answered: AtomicU64,
    refused: AtomicU64,
    unavailable: AtomicU64,
    cancelled: AtomicU64,
    /// The time that all those took together, in microseconds.
    time_us: AtomicU64,
}

/// An action that is there; it counts as cancelled unless its end is told.
struct Sent {
    counters: Arc<Counters>,
    since: Instant,
    is_over: bool,
}

impl Sent {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.sent.fetch_add(1, Ordering::Relaxed);
        Self { counters: Arc::clone(counters), since: Instant::now(), is_over: false }
    }

    fn ended<T>(mut self, end: Result<T, EngineError>) -> Result<T, ElsewhereError> {
        self.is_over = true;
        let (counter, end) = match end {
            Ok(answer) => (&self.counters.answered, Ok(answer)),
            Err(EngineError::Refused(text)) => {
                (&self.counters.refused, Err(ElsewhereError::Refused(text)))
            }
            Err(EngineError::Unavailable(text)) => {
                (&self.counters.unavailable, Err(ElsewhereError::Unavailable(text)))
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        end
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if !self.is_over {
            self.counters.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        let took_us = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.time_us.fetch_add(took_us, Ordering::Relaxed);
    }
}

impl Overflow {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, counters: Arc::default() }
    }

    /// Ends all work, as [`Engine::close`] does.
    pub(crate) fn close(&self) {
        self.engine.close();
    }

    /// The metrics of the actions, and of the calls about blobs.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        let engine = Arc::clone(&self.engine);
        let calls = upstream_flags::rows("overflow", move || engine.counts());
        let of_end = |end: &'static str, read| {
            let (name, help) =
                ("overflow_actions_total", "Actions that were sent to the other engine.");
            self.reading(ReadingKind::Counter, name, help, Some(("end", end.into())), read)
        };
        let actions = [
            of_end("answered", |it: &Counters| get(&it.answered)),
            of_end("refused", |it: &Counters| get(&it.refused)),
            of_end("unavailable", |it: &Counters| get(&it.unavailable)),
            of_end("cancelled", |it: &Counters| get(&it.cancelled)),
            self.reading(
                ReadingKind::Gauge,
                "overflow_running_actions",
                "Actions that are at the other engine.",
                None,
                Counters::running,
            ),
            self.reading(
                ReadingKind::Counter,
                "overflow_action_microseconds_total",
                "The time that actions were at the other engine together, with the transfers of their blobs.",
                None,
                |it| get(&it.time_us),
            ),
        ];
        calls.chain(actions).collect()
    }

    fn reading(
        &self,
        kind: ReadingKind,
        name: &'static str,
        help: &'static str,
        label: Option<(&'static str, std::borrow::Cow<'static, str>)>,
        read: fn(&Counters) -> u64,
    ) -> Reading {
        let counters = Arc::clone(&self.counters);
        let read = Box::new(move || i64::try_from(read(&counters)).unwrap_or(i64::MAX));
        Reading { kind, name, help, label, read }
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    fn running(&self) -> u64 {
        let ends = [&self.answered, &self.refused, &self.unavailable, &self.cancelled];
        let over: u64 = ends.into_iter().map(get).sum();
        get(&self.sent).saturating_sub(over)
    }
}

impl Elsewhere for Overflow {
    fn is_up(&self) -> bool {
        self.engine.is_up()
    }

    fn execute(&self, order: Order, news: News) -> Answered {
        let order = upstream::Order {
            instance: order.instance.as_str().to_owned(),
            action: order.action,
            blobs: order.blobs,
            skip_cache_lookup: order.skip_cache_lookup,
            priority: order.priority,
            caller: order.caller,
        };
        let sent = Sent::new(&self.counters);
        let answered = self.engine.execute(order, news);
        Box::pin(async move { sent.ended(answered.await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_is_counted_once_by_its_end() {
        let counters = Arc::new(Counters::default());
        let sent = || Sent::new(&counters);
        let (first, dropped, stays) = (sent(), sent(), sent());
        assert_eq!(counters.running(), 3);
        assert_eq!(first.ended(Ok(1)), Ok(1));
        drop(dropped);
        let refused = sent().ended::<()>(Err(EngineError::Refused("why".into())));
        assert_eq!(refused, Err(ElsewhereError::Refused("why".into())));
        sent().ended::<()>(Err(EngineError::Unavailable("why".into()))).unwrap_err();
        let ends =
            [&counters.answered, &counters.refused, &counters.unavailable, &counters.cancelled];
        assert_eq!(ends.map(get), [1; 4]);
        assert_eq!(counters.running(), 1);
        drop(stays);
    }
}
