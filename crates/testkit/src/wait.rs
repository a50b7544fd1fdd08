//! Waits for a state, with a bound that is generous.

use std::time::Duration;

/// The bound on every wait for a state. It only ends waits that would never end, so it is long enough
/// for a machine that is busy with builds and emulated guests.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Waits until `condition` holds.
///
/// # Errors
/// When it does not come to hold, or can't be checked.
pub async fn eventually(
    what: &str,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    eventually_async(what, async || condition()).await
}

/// Waits until `condition`, which asks a server, holds.
///
/// # Errors
/// When it does not come to hold, or can't be checked.
pub async fn eventually_async(
    what: &str,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await? {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "it never came to be: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
