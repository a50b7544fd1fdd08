//! Runs checks, some at a time, and keeps their order.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};

use crate::areas::Selected;
use crate::check::Verdict;
use crate::server::Server;

/// The longest that a check may take: it ends calls that are never answered. The longest check waits for
/// an action of a few seconds, and a busy server needs many times that.
const PATIENCE: Duration = Duration::from_secs(120);

/// A check with its verdict.
pub(crate) struct Checked {
    pub(crate) check: Selected,
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
}

/// Runs `checks`, `jobs` at once.
pub(crate) async fn all(server: &Server, checks: &[Selected], jobs: usize) -> Vec<Checked> {
    let one = |check: &Selected| one(server.clone(), *check);
    stream::iter(checks).map(one).buffered(jobs.max(1)).collect().await
}

async fn one(server: Server, check: Selected) -> Checked {
    let started = Instant::now();
    let outcome = tokio::time::timeout(PATIENCE, (check.check.steps)(server)).await;
    let verdict = match outcome {
        Ok(outcome) => Verdict::of(outcome),
        Err(_) => Verdict::Failed(format!("no end after {} s", PATIENCE.as_secs())),
    };
    Checked { check, verdict, took: started.elapsed() }
}
