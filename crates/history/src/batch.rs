//! Records on their way into the tables, many in one transaction.

use std::collections::{BTreeMap, HashMap};

use events::{InputTotals, Limits, Miss, Stages, Usage};
use model::Digest;
use rusqlite::{CachedStatement, Transaction, params};

use crate::record::{self, Kind, Record};

/// Names whose numbers are remembered, at some 100 bytes each; then all are forgotten and asked for again.
const NAMES_MAX: usize = 10_000;

/// Microseconds of an hour.
pub(crate) const HOUR_US: u64 = 3_600_000_000;

/// The numbers of names that are in the database.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<String, i64>);

impl Names {
    /// Forgets all: names were deleted, or the database was.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

/// A group of records whose sums are kept.
type Group = (i64, i64, i64, i64, bool);

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    events: i64,
    run_us: i64,
    output_bytes: i64,
}

impl Sums {
    /// The same, so small that two of them can be added: clients name sizes, and the tables have no type
    /// for a sum that is too large.
    fn bounded(self) -> Self {
        let Self { events, run_us, output_bytes } = self;
        Self { events, run_us: run_us.min(SUM_MAX), output_bytes: output_bytes.min(SUM_MAX) }
    }
}

/// The largest sum. The statements below know it, too.
const SUM_MAX: i64 = 1 << 61;

/// One build, as far as a batch has it.
struct Build {
    tool: Option<i64>,
    instance: Option<i64>,
    principal: Option<i64>,
    first_us: i64,
    last_us: i64,
    last_event: i64,
}

/// Writes `records` and adds them to the sums; adds `only_sums` to the sums alone.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    names: &mut Names,
    records: &[Record],
    only_sums: &[Record],
) -> rusqlite::Result<()> {
    let mut insertion = Insertion {
        transaction,
        names,
        next_id: next_id(transaction)?,
        used: HashMap::new(),
        trees: HashMap::new(),
        builds: HashMap::new(),
        tally: BTreeMap::new(),
        hourly: BTreeMap::new(),
    };
    {
        let mut insert = transaction.prepare_cached(INSERT)?;
        for record in records {
            insertion.record(&mut insert, record)?;
        }
        for record in only_sums {
            insertion.without_row(record)?;
        }
    }
    insertion.finish()
}

/// The number after the last record's. It repeats numbers of deleted records only if no record is left.
fn next_id(transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
    let mut last = transaction.prepare_cached("SELECT coalesce(max(id), 0) + 1 FROM event")?;
    last.query_row([], |row| row.get(0))
}

const INSERT: &str = "
INSERT INTO event (id, at_us, kind, operation, instance, action_key, action, command, input_root, principal,
    tool, invocation, mnemonic, target, configuration, worker, cached, miss, exit_code, failure, message,
    queued_us, inputs_us, sandbox_us, set_up_us, run_us, end_us, outputs_us, total_us, user_us, system_us,
    max_resident_bytes, read_bytes, written_bytes, timeout_us, memory_bytes, cpu_cores, pids_max, outputs,
    output_bytes, result, times)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
    ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39, ?40, ?41, ?42)";

struct Insertion<'a, 'c> {
    transaction: &'a Transaction<'c>,
    names: &'a mut Names,
    next_id: i64,
    /// The last record that uses each name of the batch.
    used: HashMap<i64, i64>,
    /// The input trees of the batch, each with its last record.
    trees: HashMap<Digest, (InputTotals, i64)>,
    builds: HashMap<i64, Build>,
    tally: BTreeMap<Group, Sums>,
    hourly: BTreeMap<Group, Sums>,
}

impl Insertion<'_, '_> {
    fn record(
        &mut self,
        insert: &mut CachedStatement<'_>,
        record: &Record,
    ) -> rusqlite::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        let origin = &record.origin;
        let instance = self.name(id, &record.instance)?;
        let principal = self.name(id, origin.principal.as_str())?;
        let tool = self.name(id, origin.tool.as_str())?;
        let invocation = self.name(id, origin.invocation.as_str())?;
        let mnemonic = self.name(id, origin.mnemonic.as_str())?;
        let target = self.name(id, origin.target.as_str())?;
        let configuration = self.name(id, origin.configuration.as_str())?;
        let worker = self.name(id, &record.worker)?;
        let failure = match &record.failure {
            Some(failure) => self.name(id, failure)?,
            None => None,
        };
        let Stages {
            queued_us,
            inputs_us,
            sandbox_us,
            set_up_us,
            run_us,
            end_us,
            outputs_us,
            total_us,
        } = record.stages;
        let usage = record.usage;
        let of_usage = |field: fn(&Usage) -> u64| usage.as_ref().map(|usage| signed(field(usage)));
        let Limits { timeout_us, memory_bytes, cpu_cores, pids_max } = record.limits;
        insert.execute(params![
            id,
            signed(record.at_us),
            kind_number(record.kind),
            Some(&record.operation).filter(|name| !name.is_empty()),
            instance,
            record::index_key(&record.action),
            record::encode(&record.action),
            record.command.as_ref().map(record::encode),
            record.input_root.as_ref().map(record::encode),
            principal,
            tool,
            invocation,
            mnemonic,
            target,
            configuration,
            worker,
            record.cached,
            record.miss.map(miss_number),
            record.exit_code,
            failure,
            record.message,
            queued_us.map(signed),
            inputs_us.map(signed),
            sandbox_us.map(signed),
            set_up_us.map(signed),
            run_us.map(signed),
            end_us.map(signed),
            outputs_us.map(signed),
            total_us.map(signed),
            of_usage(|it| it.user_us),
            of_usage(|it| it.system_us),
            of_usage(|it| it.max_resident_bytes),
            of_usage(|it| it.read_bytes),
            of_usage(|it| it.written_bytes),
            timeout_us.map(signed),
            memory_bytes.map(signed),
            cpu_cores,
            pids_max,
            signed(record.outputs),
            signed(record.output_bytes),
            record.result.as_deref(),
            signed(record.times),
        ])?;
        if let (Some(root), Some(inputs)) = (record.input_root, record.inputs) {
            self.trees.insert(root, (inputs, id));
        }
        self.add_up(id, record, invocation, mnemonic.unwrap_or(0), [tool, instance, principal]);
        Ok(())
    }

    /// Adds a record without a row to the sums. It has the number of the record before it.
    fn without_row(&mut self, record: &Record) -> rusqlite::Result<()> {
        let id = self.next_id - 1;
        let origin = &record.origin;
        let tool = self.name(id, origin.tool.as_str())?;
        let instance = self.name(id, &record.instance)?;
        let principal = self.name(id, origin.principal.as_str())?;
        let invocation = self.name(id, origin.invocation.as_str())?;
        let mnemonic = self.name(id, origin.mnemonic.as_str())?;
        self.add_up(id, record, invocation, mnemonic.unwrap_or(0), [tool, instance, principal]);
        Ok(())
    }

    /// Adds the record to the sums.
    fn add_up(
        &mut self,
        id: i64,
        record: &Record,
        invocation: Option<i64>,
        mnemonic: i64,
        [tool, instance, principal]: [Option<i64>; 3],
    ) {
        let miss = record.miss.map_or(HIT, miss_number);
        let kind = kind_number(record.kind);
        let rest = (mnemonic, kind, miss, record.has_failed());
        let group = |first: i64| (first, rest.0, rest.1, rest.2, rest.3);
        let sums = Sums {
            events: signed(record.times),
            run_us: record.stages.run_us.map_or(0, signed),
            output_bytes: signed(record.output_bytes),
        }
        .bounded();
        let hour = signed(record.at_us / HOUR_US);
        add(self.hourly.entry(group(hour)).or_default(), sums);
        let Some(invocation) = invocation else { return };
        add(self.tally.entry(group(invocation)).or_default(), sums);
        let first_us = signed(record.at_us);
        let last_us = signed(record.at_us.saturating_add(record.total_us().unwrap_or(0)));
        let build = self.builds.entry(invocation).or_insert(Build {
            tool,
            instance,
            principal,
            first_us,
            last_us,
            last_event: id,
        });
        build.first_us = build.first_us.min(first_us);
        build.last_us = build.last_us.max(last_us);
        build.last_event = id;
    }

    /// The number of a name that record `id` uses; `None` for the empty one.
    fn name(&mut self, id: i64, text: &str) -> rusqlite::Result<Option<i64>> {
        if text.is_empty() {
            return Ok(None);
        }
        let number = match self.names.0.get(text) {
            Some(number) => *number,
            None => self.new_name(id, text)?,
        };
        self.used.insert(number, id);
        Ok(Some(number))
    }

    fn new_name(&mut self, id: i64, text: &str) -> rusqlite::Result<i64> {
        if self.names.0.len() >= NAMES_MAX {
            self.names.forget();
        }
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO name (text, last_event) VALUES (?1, ?2)
             ON CONFLICT (text) DO UPDATE SET last_event = ?2 RETURNING id",
        )?;
        let number = insert.query_row(params![text, id], |row| row.get(0))?;
        self.names.0.insert(text.to_owned(), number);
        Ok(number)
    }

    fn finish(self) -> rusqlite::Result<()> {
        let mut update =
            self.transaction.prepare_cached("UPDATE name SET last_event = ?2 WHERE id = ?1")?;
        for (name, last_event) in self.used {
            update.execute([name, last_event])?;
        }
        let mut tree = self.transaction.prepare_cached(
            "INSERT INTO tree (digest, files, bytes, last_event) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (digest) DO UPDATE SET last_event = ?4",
        )?;
        for (root, (InputTotals { files, bytes }, last_event)) in self.trees {
            tree.execute(params![record::encode(&root), signed(files), signed(bytes), last_event])?;
        }
        let mut build = self.transaction.prepare_cached(
            "INSERT INTO invocation (name, tool, instance, principal, first_us, last_us, last_event)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (name) DO UPDATE SET first_us = min(first_us, ?5), last_us = max(last_us, ?6),
                 last_event = ?7",
        )?;
        for (name, of) in self.builds {
            let Build { tool, instance, principal, first_us, last_us, last_event } = of;
            build
                .execute(params![name, tool, instance, principal, first_us, last_us, last_event])?;
        }
        add_to(self.transaction, ADD_TO_TALLY, self.tally)?;
        add_to(self.transaction, ADD_TO_HOURLY, self.hourly)
    }
}

const ADD_TO_TALLY: &str = "
INSERT INTO tally (invocation, mnemonic, kind, miss, failed, events, run_us, output_bytes)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT DO UPDATE SET events = events + ?6, run_us = min(run_us + ?7, 1 << 61),
    output_bytes = min(output_bytes + ?8, 1 << 61)";

const ADD_TO_HOURLY: &str = "
INSERT INTO hourly (hour, mnemonic, kind, miss, failed, events, run_us, output_bytes)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT DO UPDATE SET events = events + ?6, run_us = min(run_us + ?7, 1 << 61),
    output_bytes = min(output_bytes + ?8, 1 << 61)";

fn add_to(
    transaction: &Transaction<'_>,
    statement: &str,
    groups: BTreeMap<Group, Sums>,
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(statement)?;
    for ((first, mnemonic, kind, miss, failed), sums) in groups {
        let Sums { events, run_us, output_bytes } = sums;
        statement.execute(params![
            first,
            mnemonic,
            kind,
            miss,
            failed,
            events,
            run_us,
            output_bytes
        ])?;
    }
    Ok(())
}

fn add(to: &mut Sums, sums: Sums) {
    *to = Sums {
        events: to.events + sums.events,
        run_us: to.run_us + sums.run_us,
        output_bytes: to.output_bytes + sums.output_bytes,
    }
    .bounded();
}

/// The number of a hit in the column `miss` of the sums.
pub(crate) const HIT: i64 = 0;

/// The number of a reason in the database.
pub(crate) fn miss_number(miss: Miss) -> i64 {
    match miss {
        Miss::Absent => 1,
        Miss::Incomplete => 2,
        Miss::Skipped => 3,
        Miss::Uncacheable => 4,
        Miss::Failed => 5,
        Miss::OtherEnvironment => 6,
    }
}

/// The reason of that number.
pub(crate) fn miss_of(number: i64) -> Option<Miss> {
    Miss::ALL.into_iter().find(|miss| miss_number(*miss) == number)
}

/// The number of a kind in the database.
pub(crate) fn kind_number(kind: Kind) -> i64 {
    match kind {
        Kind::Execution => 0,
        Kind::Lookup => 1,
    }
}

/// SQLite's integers are signed.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
