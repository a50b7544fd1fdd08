//! Questions to the database.
//!
//! Every question that a page asks reads a bounded number of rows through an index; a test explains each
//! of them. Sums come from the tables in which the writer keeps them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use events::{InputTotals, Limits, Miss, Origin, Stages, Usage};
use model::Digest;
use parking_lot::Mutex;
use rusqlite::{Connection, Params, Row, params};

use crate::batch::{HOUR_US, kind_number, miss_of, signed};
use crate::record::{self, Kind, Record};
use crate::schema;

/// Rows of one answer at most.
pub const ROWS_MAX: u32 = 1000;

/// Runs of a mnemonic from which its median is taken: the last ones, and few enough to be read at once.
const MEDIAN_OF: u32 = 301;

/// Records that a search for an output looks through: the last ones, which takes some 20 ms.
const OUTPUTS_SEARCHED: u32 = 20_000;

/// Records that a search for executions looks through: the last ones, which is a large build or two.
const EXECUTIONS_SEARCHED: u32 = 100_000;

/// An error of asking.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database can't be opened or read.
    #[error("the history cannot be read")]
    Read(#[source] rusqlite::Error),
    /// The content of the database is wrong.
    #[error("the history is broken")]
    Broken(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        if schema::is_broken(&error) { Self::Broken(error) } else { Self::Read(error) }
    }
}

/// A part of a list: this many rows after the one with that key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The key of the last row of the part before; `None` for the first part.
    pub after: Option<i64>,
    /// Rows at most; [`ROWS_MAX`] is the bound.
    pub limit: u32,
}

impl Page {
    /// The first rows.
    pub fn first(limit: u32) -> Self {
        Self { after: None, limit }
    }

    fn before(self) -> i64 {
        self.after.unwrap_or(i64::MAX)
    }

    fn limit(self) -> u32 {
        self.limit.min(ROWS_MAX)
    }
}

/// One build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Its name, by the client.
    pub name: String,
    /// The client program.
    pub tool: String,
    /// The instance of its first record.
    pub instance: String,
    /// The principal of its first record.
    pub principal: String,
    /// The first request, in microseconds since 1970.
    pub first_us: u64,
    /// The last answer, in microseconds since 1970.
    pub last_us: u64,
    /// The number of its last record.
    pub last_event: i64,
}

/// The sum of a group of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The kind of action.
    pub mnemonic: String,
    /// Execution or lookup.
    pub kind: Kind,
    /// The reason why the result was not in the cache; `None` if it was.
    pub miss: Option<Miss>,
    /// Whether there was no good result.
    pub failed: bool,
    /// The number of records.
    pub events: u64,
    /// The time of the commands, in microseconds.
    pub run_us: u64,
    /// The size of the output files, in bytes.
    pub output_bytes: u64,
}

/// An input tree of actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The digest of its root directory.
    pub root: Digest,
    /// Its size.
    pub totals: InputTotals,
    /// The number of the last record of an action that has it.
    pub last_event: i64,
}

/// A connection for questions, opened when the first is asked. It asks one at a time.
pub struct Reader {
    directory: PathBuf,
    generation: Arc<AtomicI64>,
    connection: Mutex<Option<(i64, Connection)>>,
}

/// The columns of a record, in the order of [`record_of`].
macro_rules! columns {
    () => {
        "id, kind, at_us, operation, (SELECT text FROM name WHERE id = instance), action, command, input_root,
         (SELECT text FROM name WHERE id = principal), (SELECT text FROM name WHERE id = tool),
         (SELECT text FROM name WHERE id = invocation), (SELECT text FROM name WHERE id = mnemonic),
         (SELECT text FROM name WHERE id = target), (SELECT text FROM name WHERE id = configuration),
         (SELECT text FROM name WHERE id = worker), cached, miss, exit_code,
         (SELECT text FROM name WHERE id = failure), message, queued_us, inputs_us, sandbox_us, set_up_us,
         run_us, end_us, outputs_us, total_us, user_us, system_us, max_resident_bytes, read_bytes,
         written_bytes, timeout_us, memory_bytes, cpu_cores, pids_max, outputs, output_bytes, result, times,
         (SELECT files FROM tree WHERE digest = input_root),
         (SELECT bytes FROM tree WHERE digest = input_root)"
    };
}

const BY_ID: &str = concat!("SELECT ", columns!(), " FROM event WHERE id = ?1");
const RECENT: &str =
    concat!("SELECT ", columns!(), " FROM event WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
const RECENT_EXECUTIONS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM event WHERE id > (SELECT max(id) FROM event) - ?1 AND kind = 0 ORDER BY id DESC LIMIT ?2"
);
const OF_ACTION: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM event WHERE action_key = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"
);
const OF_TARGET: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM event WHERE target = (SELECT id FROM name WHERE text = ?1) AND id < ?2
      ORDER BY id DESC LIMIT ?3"
);
const SLOWEST_OF_INVOCATION: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM event WHERE invocation = (SELECT id FROM name WHERE text = ?1)
      AND total_us IS NOT NULL ORDER BY total_us DESC, id DESC LIMIT ?2"
);
const FAILED_OF_INVOCATION: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM event WHERE invocation = (SELECT id FROM name WHERE text = ?1) AND kind = 0
      AND (failure IS NOT NULL OR exit_code IS NOT 0) AND id < ?2 ORDER BY id DESC LIMIT ?3"
);
const OF_OUTPUT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM event WHERE id > (SELECT max(id) FROM event) - ?2 AND result IS NOT NULL
      AND instr(result, CAST(?1 AS BLOB)) > 0 ORDER BY id DESC LIMIT ?3"
);
const RUNS_OF_MNEMONIC: &str = "
SELECT run_us FROM event WHERE mnemonic = (SELECT id FROM name WHERE text = ?1) AND run_us IS NOT NULL
ORDER BY id DESC LIMIT ?2";
const INVOCATIONS: &str = "
SELECT (SELECT text FROM name WHERE id = invocation.name), (SELECT text FROM name WHERE id = tool),
    (SELECT text FROM name WHERE id = instance), (SELECT text FROM name WHERE id = principal),
    first_us, last_us, last_event
FROM invocation WHERE last_event < ?1 ORDER BY last_event DESC LIMIT ?2";
const INVOCATION: &str = "
SELECT (SELECT text FROM name WHERE id = invocation.name), (SELECT text FROM name WHERE id = tool),
    (SELECT text FROM name WHERE id = instance), (SELECT text FROM name WHERE id = principal),
    first_us, last_us, last_event
FROM invocation WHERE name = (SELECT id FROM name WHERE text = ?1)";
const TALLY: &str = "
SELECT (SELECT text FROM name WHERE id = mnemonic), kind, miss, failed, events, run_us, output_bytes
FROM tally WHERE invocation = (SELECT id FROM name WHERE text = ?1) ORDER BY events DESC";
const HOURLY: &str = "
SELECT (SELECT text FROM name WHERE id = mnemonic), kind, miss, failed, sum(events),
    min(total(run_us), 2305843009213693952.0), min(total(output_bytes), 2305843009213693952.0)
FROM hourly WHERE hour >= ?1 GROUP BY mnemonic, kind, miss, failed";
const LARGEST_TREES: &str = "
SELECT digest, files, bytes, last_event FROM tree WHERE bytes >= 0 ORDER BY bytes DESC LIMIT ?1";
const RECENT_TREES: &str = "
SELECT digest, files, bytes, last_event FROM tree WHERE last_event > 0 ORDER BY last_event DESC LIMIT ?1";
const TARGETS: &str = "
SELECT text FROM name WHERE text >= ?1 AND text < ?2
    AND EXISTS (SELECT 1 FROM event WHERE target = name.id) ORDER BY text LIMIT ?3";

impl Reader {
    /// A reader of the database in `directory`, which no server has open; `None` if the directory has no database.
    pub fn open(directory: &Path) -> Option<Self> {
        schema::file(directory).is_file().then(|| Self::new(directory, Arc::default()))
    }

    pub(crate) fn new(directory: &Path, generation: Arc<AtomicI64>) -> Self {
        Self { directory: directory.to_owned(), generation, connection: Mutex::new(None) }
    }

    /// The record of that number.
    ///
    /// # Errors
    /// [`ReadError`] when the database cannot be read; so for all others.
    pub fn record(&self, id: i64) -> Result<Option<Record>, ReadError> {
        Ok(self.records(BY_ID, [id])?.pop())
    }

    /// The last records, the latest first. The key is the number.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn recent(&self, page: Page) -> Result<Vec<Record>, ReadError> {
        self.records(RECENT, params![page.before(), page.limit()])
    }

    /// The last executions, the latest first. A build that finds everything in the cache records lookups alone, so this
    /// looks through more records than it returns, and through a bounded number of them.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn recent_executions(&self, limit: u32) -> Result<Vec<Record>, ReadError> {
        self.records(RECENT_EXECUTIONS, params![EXECUTIONS_SEARCHED, limit.min(ROWS_MAX)])
    }

    /// The records of an action, the latest first. The key is the number.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn of_action(&self, action: &Digest, page: Page) -> Result<Vec<Record>, ReadError> {
        let key = record::index_key(action);
        let mut records = self.records(OF_ACTION, params![key, page.before(), page.limit()])?;
        // The index has only a part of the digest.
        records.retain(|record| record.action == *action);
        Ok(records)
    }

    /// The records of a target, the latest first. The key is the number.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn of_target(&self, target: &str, page: Page) -> Result<Vec<Record>, ReadError> {
        self.records(OF_TARGET, params![target, page.before(), page.limit()])
    }

    /// Records among the last 20,000 whose result has an output with this in its path, the latest first. A result
    /// that is too large to be recorded is not found.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn of_output(&self, part_of_path: &str, limit: u32) -> Result<Vec<Record>, ReadError> {
        let found = (part_of_path, OUTPUTS_SEARCHED, limit.min(ROWS_MAX));
        self.records(OF_OUTPUT, found)
    }

    /// The executions of a build that took longest, the longest first.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn slowest_of(&self, invocation: &str, limit: u32) -> Result<Vec<Record>, ReadError> {
        self.records(SLOWEST_OF_INVOCATION, params![invocation, limit.min(ROWS_MAX)])
    }

    /// The executions of a build that came to no good result, the latest first. The key is the number.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn failed_of(&self, invocation: &str, page: Page) -> Result<Vec<Record>, ReadError> {
        self.records(FAILED_OF_INVOCATION, params![invocation, page.before(), page.limit()])
    }

    /// The median of the time of the last commands of that mnemonic, in microseconds, and of how many.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn median_run_us(&self, mnemonic: &str) -> Result<Option<(u64, usize)>, ReadError> {
        let mut times =
            self.query(RUNS_OF_MNEMONIC, params![mnemonic, MEDIAN_OF], |row| unsigned(row, 0))?;
        times.sort_unstable();
        Ok(times.get(times.len() / 2).map(|median| (*median, times.len())))
    }

    /// The last builds, the latest first. The key is [`Invocation::last_event`].
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn invocations(&self, page: Page) -> Result<Vec<Invocation>, ReadError> {
        self.query(INVOCATIONS, params![page.before(), page.limit()], invocation_of)
    }

    /// The build of that name.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn invocation(&self, name: &str) -> Result<Option<Invocation>, ReadError> {
        Ok(self.query(INVOCATION, [name], invocation_of)?.pop())
    }

    /// The sums of a build.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn tally_of(&self, invocation: &str) -> Result<Vec<Tally>, ReadError> {
        self.query(TALLY, [invocation], tally_of)
    }

    /// The sums of everything in the hours since that time, in microseconds since 1970.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn tally_since(&self, since_us: u64) -> Result<Vec<Tally>, ReadError> {
        self.query(HOURLY, [signed(since_us / HOUR_US)], tally_of)
    }

    /// The input trees that take most space, the largest first.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn largest_trees(&self, limit: u32) -> Result<Vec<Tree>, ReadError> {
        self.trees(LARGEST_TREES, limit)
    }

    /// The input trees of the last actions, the latest first.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn recent_trees(&self, limit: u32) -> Result<Vec<Tree>, ReadError> {
        self.trees(RECENT_TREES, limit)
    }

    fn trees(&self, sql: &str, limit: u32) -> Result<Vec<Tree>, ReadError> {
        let trees = self.query(sql, [limit.min(ROWS_MAX)], tree_of)?;
        Ok(trees.into_iter().flatten().collect())
    }

    /// Targets whose names begin with `prefix`.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn targets(&self, prefix: &str, limit: u32) -> Result<Vec<String>, ReadError> {
        let end = format!("{prefix}\u{10ffff}");
        self.query(TARGETS, params![prefix, end, limit.min(ROWS_MAX)], |row| row.get(0))
    }

    fn records(&self, sql: &str, parameters: impl Params) -> Result<Vec<Record>, ReadError> {
        let records = self.query(sql, parameters, record_of)?;
        // A digest that is not one was never written here.
        Ok(records.into_iter().flatten().collect())
    }

    fn query<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, ReadError> {
        let mut place = self.connection.lock();
        let generation = self.generation.load(Ordering::Acquire);
        if place.as_ref().is_none_or(|(opened, _)| *opened != generation) {
            // The old one first: its files are deleted.
            *place = None;
            *place = Some((generation, schema::open_to_read(&self.directory)?));
        }
        let Some((_, connection)) = place.as_ref() else { return Ok(Vec::new()) };
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(parameters)?;
        let mut answer = Vec::new();
        while let Some(row) = rows.next()? {
            answer.push(read(row)?);
        }
        Ok(answer)
    }
}

/// A record of [`columns`]; `None` if its digest is malformed.
fn record_of(row: &Row<'_>) -> rusqlite::Result<Option<Record>> {
    let name = |index| {
        Ok::<String, rusqlite::Error>(row.get::<_, Option<String>>(index)?.unwrap_or_default())
    };
    let printable = |index| Ok::<_, rusqlite::Error>(name(index)?.as_str().into());
    let number = |index| {
        let value: Option<i64> = row.get(index)?;
        Ok::<_, rusqlite::Error>(value.map(i64::cast_unsigned))
    };
    let digest = |index| {
        let bytes: Option<Vec<u8>> = row.get(index)?;
        Ok::<_, rusqlite::Error>(bytes.and_then(|bytes| record::decode(&bytes)))
    };
    let Some(action) = digest(5)? else { return Ok(None) };
    let origin = Origin {
        principal: printable(8)?,
        tool: printable(9)?,
        invocation: printable(10)?,
        mnemonic: printable(11)?,
        target: printable(12)?,
        configuration: printable(13)?,
        trace: None,
    };
    let stages = Stages {
        queued_us: number(20)?,
        inputs_us: number(21)?,
        sandbox_us: number(22)?,
        set_up_us: number(23)?,
        run_us: number(24)?,
        end_us: number(25)?,
        outputs_us: number(26)?,
        total_us: number(27)?,
    };
    let inputs = match (number(41)?, number(42)?) {
        (Some(files), Some(bytes)) => Some(InputTotals { files, bytes }),
        _ => None,
    };
    let usage = match number(28)? {
        Some(user_us) => Some(Usage {
            user_us,
            system_us: number(29)?.unwrap_or(0),
            max_resident_bytes: number(30)?.unwrap_or(0),
            read_bytes: number(31)?.unwrap_or(0),
            written_bytes: number(32)?.unwrap_or(0),
        }),
        None => None,
    };
    let limits = Limits {
        timeout_us: number(33)?,
        memory_bytes: number(34)?,
        cpu_cores: row.get(35)?,
        pids_max: row.get(36)?,
    };
    Ok(Some(Record {
        id: row.get(0)?,
        kind: kind_of(row.get(1)?),
        at_us: unsigned(row, 2)?,
        operation: name(3)?,
        instance: name(4)?,
        action,
        command: digest(6)?,
        input_root: digest(7)?,
        inputs,
        origin,
        worker: name(14)?,
        times: unsigned(row, 40)?,
        cached: row.get(15)?,
        miss: row.get::<_, Option<i64>>(16)?.and_then(miss_of),
        exit_code: row.get(17)?,
        failure: row.get(18)?,
        message: row.get(19)?,
        stages,
        usage,
        limits,
        outputs: unsigned(row, 37)?,
        output_bytes: unsigned(row, 38)?,
        result: row.get::<_, Option<Vec<u8>>>(39)?.map(Bytes::from),
    }))
}

fn invocation_of(row: &Row<'_>) -> rusqlite::Result<Invocation> {
    let name = |index| {
        Ok::<String, rusqlite::Error>(row.get::<_, Option<String>>(index)?.unwrap_or_default())
    };
    Ok(Invocation {
        name: name(0)?,
        tool: name(1)?,
        instance: name(2)?,
        principal: name(3)?,
        first_us: unsigned(row, 4)?,
        last_us: unsigned(row, 5)?,
        last_event: row.get(6)?,
    })
}

fn tally_of(row: &Row<'_>) -> rusqlite::Result<Tally> {
    Ok(Tally {
        mnemonic: row.get::<_, Option<String>>(0)?.unwrap_or_default(),
        kind: kind_of(row.get(1)?),
        miss: miss_of(row.get(2)?),
        failed: row.get(3)?,
        events: unsigned(row, 4)?,
        run_us: sum(row, 5)?,
        output_bytes: sum(row, 6)?,
    })
}

/// A row of `tree`; `None` if its digest is malformed.
fn tree_of(row: &Row<'_>) -> rusqlite::Result<Option<Tree>> {
    let Some(root) = record::decode(&row.get::<_, Vec<u8>>(0)?) else { return Ok(None) };
    let totals = InputTotals { files: unsigned(row, 1)?, bytes: unsigned(row, 2)? };
    Ok(Some(Tree { root, totals, last_event: row.get(3)? }))
}

/// A sum, which SQLite adds as an integer or as a floating point number.
fn sum(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    match row.get_ref(index)? {
        rusqlite::types::ValueRef::Real(value) => Ok(value as u64),
        _ => unsigned(row, index),
    }
}

fn unsigned(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(index)?.max(0).cast_unsigned())
}

fn kind_of(number: i64) -> Kind {
    if number == kind_number(Kind::Lookup) { Kind::Lookup } else { Kind::Execution }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time of a page must not depend on the number of records.
    #[test]
    fn no_question_reads_a_whole_table() {
        let folder = tempfile::tempdir().unwrap();
        let connection = schema::open_to_write(&folder.path().join("history")).unwrap();
        for sql in [
            BY_ID,
            RECENT,
            RECENT_EXECUTIONS,
            OF_ACTION,
            OF_TARGET,
            OF_OUTPUT,
            SLOWEST_OF_INVOCATION,
            FAILED_OF_INVOCATION,
            RUNS_OF_MNEMONIC,
            INVOCATIONS,
            INVOCATION,
            TALLY,
            HOURLY,
            LARGEST_TREES,
            RECENT_TREES,
            TARGETS,
        ] {
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let unbound = vec![rusqlite::types::Null; explain.parameter_count()];
            let plan = explain.query_map(rusqlite::params_from_iter(unbound), |row| row.get(3));
            let plan: Vec<String> = plan.unwrap().collect::<Result<_, _>>().unwrap();
            assert!(!plan.iter().any(|step| step.starts_with("SCAN ")), "{sql}\n{plan:?}");
            let sorts = plan.iter().any(|step| step.contains("USE TEMP B-TREE FOR ORDER BY"));
            // A build has some dozens of groups.
            assert!(!sorts || sql == TALLY, "{sql}\n{plan:?}");
        }
    }
}
