//! The events of a log that tell times: of actions (`crates/worker/src/slot.rs`) and of connections
//! (`crates/vm/src/bridge/mod.rs`).

use std::{collections::BTreeMap, iter::Sum};

use crate::daemon_log::{self, Event, FINISHED};

/// The message of an action without a result.
const FAILED: &str = "action failed";

/// The message of a connection that has ended.
const CONNECTION: &str = "vm bridge timing";

/// All that a log tells.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Actions that were run.
    pub(super) actions: Vec<Stages>,
    /// The number of those that were not, for their result was cached.
    pub(super) cached: usize,
    /// The number of those without a result.
    pub(super) failed: usize,
    pub(super) connections: Vec<Connection>,
}

/// How long each stage of an action took, in microseconds; what it did not reach has no time.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Stages {
    pub(super) queued: Option<u64>,
    pub(super) inputs: Option<u64>,
    pub(super) sandbox: Option<u64>,
    pub(super) set_up: Option<u64>,
    pub(super) run: Option<u64>,
    pub(super) end: Option<u64>,
    pub(super) outputs: Option<u64>,
    pub(super) total: Option<u64>,
}

/// One of the bridge's connections. Times in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    outcome: String,
    pub(super) total: u64,
    pub(super) connect: u64,
    pub(super) up: Direction,
    pub(super) down: Direction,
}

/// The bytes that went one way.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Direction {
    pub(super) bytes: u64,
    pub(super) reads: u64,
    /// Time waited for the sender.
    pub(super) reading: u64,
    /// Time waited for the receiver.
    pub(super) writing: u64,
}

impl Log {
    /// Reads a log that was written with `--log-format json`, and passes over what tells no times.
    pub(super) fn parse(text: &str) -> Self {
        let mut log = Self::default();
        daemon_log::events(text).for_each(|event| log.take(&event));
        log
    }

    fn take(&mut self, event: &Event) {
        match event.message() {
            FINISHED if event.flag("cached") == Some(true) => self.cached += 1,
            FINISHED if event.is_structured() => self.actions.push(Stages::of(event)),
            FAILED => self.failed += 1,
            CONNECTION => self.connections.extend(Connection::of(event)),
            _ => {}
        }
    }
}

impl Stages {
    fn of(event: &Event) -> Self {
        let us = |name| event.count(name);
        Self {
            queued: us("queued_us"),
            inputs: us("inputs_us"),
            sandbox: us("sandbox_us"),
            set_up: us("set_up_us"),
            run: us("run_us"),
            end: us("end_us"),
            outputs: us("outputs_us"),
            total: us("total_us"),
        }
    }

    /// From the inputs being there up to the command being gone.
    pub(super) fn execution(&self) -> Option<u64> {
        Some(self.sandbox? + self.set_up? + self.run? + self.end?)
    }

    /// The time that the daemon adds to the command, but for the queue.
    pub(super) fn overhead(&self) -> Option<u64> {
        Some(self.inputs? + self.sandbox? + self.set_up? + self.end? + self.outputs?)
    }
}

impl Connection {
    /// `None` for an event that lacks a field.
    fn of(event: &Event) -> Option<Self> {
        let direction = |prefix: &str| {
            let of = |name| event.count(&format!("{prefix}_{name}"));
            Some(Direction {
                bytes: of("bytes")?,
                reads: of("reads")?,
                reading: of("read_us")?,
                writing: of("write_us")?,
            })
        };
        Some(Self {
            outcome: event.text("outcome")?.to_owned(),
            total: event.count("total_us")?,
            connect: event.count("connect_us")?,
            up: direction("client_to_guest")?,
            down: direction("guest_to_client")?,
        })
    }
}

/// The ends of the connections, and the number of each.
pub(super) fn outcomes(connections: &[Connection]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for connection in connections {
        *counts.entry(connection.outcome.as_str()).or_default() += 1;
    }
    counts
}

impl Sum for Direction {
    fn sum<I: Iterator<Item = Self>>(directions: I) -> Self {
        directions.fold(Self::default(), |sum, one| Self {
            bytes: sum.bytes + one.bytes,
            reads: sum.reads + one.reads,
            reading: sum.reading + one.reading,
            writing: sum.writing + one.writing,
        })
    }
}
