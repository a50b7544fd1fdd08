//! The outcome of a case: success, a failure, or the reason why it can't run here.

/// The outcome of a case.
pub type Outcome = anyhow::Result<()>;

/// A reason not to run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Skipped(pub(crate) String);

/// Ends a case that can't run here, as in `return skip("no KVM")`.
///
/// # Errors
/// Always: that is how the harness knows.
pub fn skip(reason: impl Into<String>) -> Outcome {
    Err(Skipped(reason.into()).into())
}
