//! The deletion of records that are old or take too much space.

use rusqlite::{Connection, Params};

use crate::batch::HOUR_US;

/// Records that one transaction deletes. Readers wait for none of it, and the log that SQLite writes ahead
/// stays small.
const DELETED_AT_A_TIME: i64 = 5_000;

/// Deletes records of requests before `before_us`. Returns their number.
pub(crate) fn delete_older(connection: &mut Connection, before_us: i64) -> rusqlite::Result<u64> {
    let mut deleted = 0;
    loop {
        let some = delete(connection, OLDEST_BEFORE, [DELETED_AT_A_TIME, before_us])?;
        if some == 0 {
            break;
        }
        deleted += some;
    }
    connection
        .execute("DELETE FROM hourly WHERE hour < ?1", [before_us / HOUR_US.cast_signed()])?;
    Ok(deleted)
}

const OLDEST_BEFORE: &str = "
DELETE FROM event WHERE id IN (SELECT id FROM event ORDER BY id LIMIT ?1) AND at_us < ?2";

const OLDEST: &str = "DELETE FROM event WHERE id IN (SELECT id FROM event ORDER BY id LIMIT ?1)";

/// Deletes the oldest records until the database takes `bytes_max` at most. Returns their number.
pub(crate) fn delete_over(connection: &mut Connection, bytes_max: u64) -> rusqlite::Result<u64> {
    let mut deleted = 0;
    while used_bytes(connection)? > bytes_max {
        // A part, so that there is room for a while; never all, however large they are.
        let records: i64 = connection.query_row(
            "SELECT coalesce(max(id) - min(id) + 1, 0) FROM event",
            [],
            |row| row.get(0),
        )?;
        let some = delete(connection, OLDEST, [(records / 16 + 1).min(DELETED_AT_A_TIME)])?;
        if some == 0 {
            break;
        }
        deleted += some;
    }
    Ok(deleted)
}

/// Runs a statement that deletes records, and deletes what only they needed.
fn delete(
    connection: &mut Connection,
    statement: &str,
    parameters: impl Params,
) -> rusqlite::Result<u64> {
    let transaction = connection.transaction()?;
    let deleted = transaction.prepare_cached(statement)?.execute(parameters)?;
    if deleted > 0 {
        let first: Option<i64> =
            transaction.query_row("SELECT min(id) FROM event", [], |row| row.get(0))?;
        let first = first.unwrap_or(i64::MAX);
        for statement in [
            "DELETE FROM tally WHERE invocation IN
                 (SELECT name FROM invocation WHERE last_event < ?1)",
            "DELETE FROM invocation WHERE last_event < ?1",
            "DELETE FROM tree WHERE last_event < ?1",
            // `hourly` has no record behind it, and keeps its mnemonics.
            "DELETE FROM name WHERE last_event < ?1
                 AND id NOT IN (SELECT mnemonic FROM hourly)",
        ] {
            transaction.prepare_cached(statement)?.execute([first])?;
        }
    }
    transaction.commit()?;
    Ok(deleted as u64)
}

/// Gives the space of deleted records back to the file system.
pub(crate) fn shrink(connection: &Connection) -> rusqlite::Result<()> {
    let mut vacuum = connection.prepare("PRAGMA incremental_vacuum")?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Gives free pages back to the file system as long as the database is larger than `bytes_max`, and not those that the
/// next records use.
pub(crate) fn shrink_to(connection: &Connection, bytes_max: u64) -> rusqlite::Result<()> {
    let page = pragma(connection, "page_size")?;
    let over = (pragma(connection, "page_count")? * page).saturating_sub(bytes_max);
    if over > 0 {
        let mut vacuum =
            connection.prepare(&format!("PRAGMA incremental_vacuum({})", over.div_ceil(page)))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

/// The space of what is in the database, in bytes. The file may be larger: it has room for new records.
pub(crate) fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pages = pragma(connection, "page_count")? - pragma(connection, "freelist_count")?;
    Ok(pages * pragma(connection, "page_size")?)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}
