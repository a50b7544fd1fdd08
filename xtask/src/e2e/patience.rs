//! Waiting for a state.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

/// The bound on every wait. It only ends waits that would never end.
const PATIENCE: Duration = Duration::from_secs(300);

/// Asks `done` again and again. Returns false if it was never true.
pub(super) fn within_patience(mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        if Instant::now() > deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(true)
}
