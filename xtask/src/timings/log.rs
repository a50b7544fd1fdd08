//! The lines of a log that tell times: of actions (`crates/worker/src/slot.rs`) and of connections
//! (`crates/vm/src/bridge/mod.rs`), a name and a value a field.

use std::{collections::BTreeMap, iter::Sum};

/// What comes before the fields of an action that was run, or was answered from the cache.
const FINISHED: &str = "action finished ";

/// The same of one without a result.
const FAILED: &str = "action failed ";

/// The same of a connection.
const CONNECTION: &str = "vm bridge timing ";

/// All that a log tells.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Actions that were run.
    pub(super) actions: Vec<Stages>,
    /// How many were not, for their result was cached.
    pub(super) cached: usize,
    /// How many have no result.
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

/// What went one way.
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
    /// Takes what it knows of the lines, and passes over the rest.
    pub(super) fn parse(text: &str) -> Self {
        let mut log = Self::default();
        text.lines().for_each(|line| log.take(line));
        log
    }

    fn take(&mut self, line: &str) {
        if let Some((_, fields)) = line.split_once(FINISHED) {
            let fields = Fields::parse(fields);
            match fields.0.get("cached") {
                Some(&"true") => self.cached += 1,
                _ => self.actions.push(Stages::of(&fields)),
            }
        } else if line.contains(FAILED) {
            self.failed += 1;
        } else if let Some((_, fields)) = line.split_once(CONNECTION) {
            self.connections.extend(Connection::of(&Fields::parse(fields)));
        }
    }
}

impl Stages {
    fn of(fields: &Fields<'_>) -> Self {
        let us = |name| fields.number(name);
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

    /// What the daemon adds to the command, but for the queue.
    pub(super) fn overhead(&self) -> Option<u64> {
        Some(self.inputs? + self.sandbox? + self.set_up? + self.end? + self.outputs?)
    }
}

impl Connection {
    /// `None` for a line that lacks something.
    fn of(fields: &Fields<'_>) -> Option<Self> {
        let direction = |prefix: &str| {
            let of = |name| fields.number(&format!("{prefix}_{name}"));
            Some(Direction {
                bytes: of("bytes")?,
                reads: of("reads")?,
                reading: of("read_us")?,
                writing: of("write_us")?,
            })
        };
        Some(Self {
            outcome: fields.0.get("outcome")?.trim_matches('"').to_owned(),
            total: fields.number("total_us")?,
            connect: fields.number("connect_us")?,
            up: direction("client_to_guest")?,
            down: direction("guest_to_client")?,
        })
    }
}

/// How the connections ended, and how many in which way.
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

/// `name=value` words. A value with spaces is cut, and none that is looked at has any.
struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Self {
        Self(text.split_whitespace().filter_map(|word| word.split_once('=')).collect())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.parse().ok()
    }
}
