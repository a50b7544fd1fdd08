//! The tables, the indexes, and how connections are opened.
//!
//! Names that repeat (targets, mnemonics, invocations, …) stand once in `name`, so that a record takes some
//! 500 bytes. Sums for pages that show many records are kept as records come: by build in `invocation` and
//! `tally`, by hour in `hourly`. An input tree, which many actions have, stands once in `tree`, with its size.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// The number of the format. A database with another number is deleted and started anew.
const VERSION: i64 = 3;

/// Everything in the database.
const TABLES: &str = "
CREATE TABLE name (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE,
    last_event INTEGER NOT NULL
) STRICT;

CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    at_us INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    operation TEXT,
    instance INTEGER,
    action_key INTEGER NOT NULL,
    action BLOB NOT NULL,
    command BLOB,
    input_root BLOB,
    principal INTEGER,
    tool INTEGER,
    invocation INTEGER,
    mnemonic INTEGER,
    target INTEGER,
    configuration INTEGER,
    worker INTEGER,
    times INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    miss INTEGER,
    exit_code INTEGER,
    failure INTEGER,
    message TEXT,
    queued_us INTEGER,
    inputs_us INTEGER,
    sandbox_us INTEGER,
    set_up_us INTEGER,
    run_us INTEGER,
    end_us INTEGER,
    outputs_us INTEGER,
    total_us INTEGER,
    user_us INTEGER,
    system_us INTEGER,
    max_resident_bytes INTEGER,
    read_bytes INTEGER,
    written_bytes INTEGER,
    timeout_us INTEGER,
    memory_bytes INTEGER,
    cpu_cores INTEGER,
    pids_max INTEGER,
    outputs INTEGER NOT NULL,
    output_bytes INTEGER NOT NULL,
    result BLOB
) STRICT;
CREATE INDEX event_by_action ON event (action_key);
CREATE INDEX event_by_target ON event (target) WHERE target IS NOT NULL;
CREATE INDEX event_by_invocation ON event (invocation, total_us) WHERE total_us IS NOT NULL;
CREATE INDEX event_by_mnemonic ON event (mnemonic) WHERE run_us IS NOT NULL;
CREATE INDEX event_failed ON event (invocation)
    WHERE kind = 0 AND (failure IS NOT NULL OR exit_code IS NOT 0);

CREATE TABLE invocation (
    name INTEGER PRIMARY KEY,
    tool INTEGER,
    instance INTEGER,
    principal INTEGER,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    last_event INTEGER NOT NULL
) STRICT;
CREATE INDEX invocation_by_last_event ON invocation (last_event);

CREATE TABLE tree (
    digest BLOB PRIMARY KEY,
    files INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    last_event INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tree_by_bytes ON tree (bytes);
CREATE INDEX tree_by_last_event ON tree (last_event);

CREATE TABLE tally (
    invocation INTEGER NOT NULL,
    mnemonic INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    miss INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    events INTEGER NOT NULL,
    run_us INTEGER NOT NULL,
    output_bytes INTEGER NOT NULL,
    PRIMARY KEY (invocation, mnemonic, kind, miss, failed)
) STRICT, WITHOUT ROWID;

CREATE TABLE hourly (
    hour INTEGER NOT NULL,
    mnemonic INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    miss INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    events INTEGER NOT NULL,
    run_us INTEGER NOT NULL,
    output_bytes INTEGER NOT NULL,
    PRIMARY KEY (hour, mnemonic, kind, miss, failed)
) STRICT, WITHOUT ROWID;
";

/// The name of the database in the root directory's `history`.
const FILE: &str = "events.db";

/// The time for which a connection waits for another: a commit takes milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of pages after which the log that SQLite writes ahead is merged into the database: 4 MiB.
const CHECKPOINT_PAGES: u32 = 1024;

/// The space for that log, which the limit of the history includes, in bytes.
pub(crate) const LOG_BYTES: u32 = 6 << 20;

/// An error of opening the database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The directory cannot be made.
    #[error("cannot create {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The files of a broken database cannot be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The database was written by another version.
    #[error("{} has version {found}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// SQLite can't open it.
    #[error("cannot open {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// Whether another database in its place would work.
    pub(crate) fn is_broken(&self) -> bool {
        match self {
            Self::Version { .. } => true,
            Self::Database { source, .. } => is_broken(source),
            Self::Directory { .. } | Self::Remove { .. } => false,
        }
    }
}

/// Whether the error says that the content of the database is wrong, and not that the disk is full or that
/// another connection is at work.
pub(crate) fn is_broken(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            // SQLITE_ERROR, which is `Unknown` here, is a table or a column that is missing.
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown
        ),
        // A value of another type than its column has.
        rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..) => {
            true
        }
        rusqlite::Error::SqlInputError { .. } => true,
        _ => false,
    }
}

/// The path of the database below `directory`.
pub(crate) fn file(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// Opens the database in `directory` for writing; makes it if it is missing.
pub(crate) fn open_to_write(directory: &Path) -> Result<Connection, OpenError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    match builder.create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(OpenError::Directory { path: directory.to_owned(), source: error });
        }
        _ => {}
    }
    let path = file(directory);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let opened = Connection::open_with_flags(&path, flags);
    let database = |source| OpenError::Database { path: path.clone(), source };
    let connection = opened.map_err(database)?;
    // It names what is built, as the store does, and is as private as that. The directory keeps others out
    // until then.
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))
        .map_err(|source| OpenError::Directory { path: path.clone(), source })?;
    prepare(&connection).map_err(database)?;
    match version(&connection).map_err(database)? {
        VERSION => Ok(connection),
        0 => {
            let made = format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;");
            connection.execute_batch(&made).map_err(database)?;
            Ok(connection)
        }
        found => Err(OpenError::Version { path, found }),
    }
}

/// Opens the database in `directory` for reading. It must exist.
pub(crate) fn open_to_read(directory: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(file(directory), flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// The database and the files that SQLite may make beside it. The database is the last.
pub(crate) fn files(directory: &Path) -> [PathBuf; 4] {
    ["-wal", "-shm", "-journal", ""].map(|suffix| {
        let mut name = file(directory).into_os_string();
        name.push(suffix);
        name.into()
    })
}

/// Removes the database and the files beside it.
pub(crate) fn remove(directory: &Path) -> Result<(), OpenError> {
    for path in files(directory) {
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Remove { path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Before the first table: space of deleted records can then be given back.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Records of the last seconds may be lost with the machine's power. The database stays whole.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    // A large transaction makes a large log, of which only this much is kept.
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    connection.pragma_update(None, "trusted_schema", false)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
