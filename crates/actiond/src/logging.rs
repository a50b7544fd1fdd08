//! The log on standard error: one line an event, for people and for `journald`.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// Starts logging what passes `filter`.
///
/// # Errors
/// When `filter` is none.
pub fn start(filter: &str) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(filter).with_context(|| format!("`{filter}` is no log filter"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    Ok(())
}
