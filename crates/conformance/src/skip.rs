//! The end of a check whose clause does not apply to the server.

/// The reason why a server cannot be asked, such as a feature that it does not announce.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Skip(pub(crate) String);

/// Ends a check whose clause does not apply to the server.
///
/// # Errors
/// Always: the [`Skip`].
pub(crate) fn skip<T>(reason: impl Into<String>) -> anyhow::Result<T> {
    Err(Skip(reason.into()).into())
}
