//! Judging answers.

use anyhow::{Context as _, bail, ensure};
use testkit::google::rpc;
use tonic::{Code, Status};

/// The refusal that a call must end with; any code of `codes` will do.
pub(crate) fn refused<T>(result: Result<T, Status>, codes: &[Code]) -> anyhow::Result<Status> {
    match result {
        Ok(_) => bail!("the call succeeds, and {codes:?} is what should come of it"),
        Err(status) if codes.contains(&status.code()) => Ok(status),
        Err(status) => {
            let wrong = format!("{:?} in place of {codes:?}", status.code());
            Err(anyhow::Error::from(status).context(wrong))
        }
    }
}

/// The same where any error will do but that the server broke or lacks the method.
pub(crate) fn refused_somehow<T>(result: Result<T, Status>) -> anyhow::Result<Status> {
    match result {
        Ok(_) => bail!("the call succeeds, and should be refused"),
        Err(status) if matches!(status.code(), Code::Internal | Code::Unimplemented) => {
            Err(anyhow::Error::from(status).context("the server gives up in place of refusing"))
        }
        Err(status) => Ok(status),
    }
}

/// The code of one item of a batch.
pub(crate) fn item_code(status: Option<&rpc::Status>) -> Code {
    status.map_or(Code::Ok, |status| Code::from(status.code))
}

/// Fails unless both are equal.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    actual: T,
    expected: T,
) -> anyhow::Result<()> {
    ensure!(actual == expected, "{what}: {actual:?} in place of {expected:?}");
    Ok(())
}

/// Fails unless both are the same bytes, and does not print them.
pub(crate) fn same_bytes(what: &str, actual: &[u8], expected: &[u8]) -> anyhow::Result<()> {
    ensure!(
        actual == expected,
        "{what}: other content, of {} bytes in place of {}",
        actual.len(),
        expected.len()
    );
    Ok(())
}

/// The one element of a list.
pub(crate) fn only<T>(mut list: Vec<T>, what: &str) -> anyhow::Result<T> {
    ensure!(list.len() == 1, "{} {what} in place of one", list.len());
    list.pop().with_context(|| format!("one {what}"))
}
