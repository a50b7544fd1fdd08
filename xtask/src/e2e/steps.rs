//! A suite's report of its checks: one sentence a step, with its evidence.

use anyhow::{Context, Result};

/// Runs one step. It prints its sentence and the evidence it gives back, or fails with the sentence.
pub(super) fn step(sentence: &str, act: impl FnOnce() -> Result<String>) -> Result<()> {
    let evidence = act().with_context(|| format!("FAILED: {sentence}"))?;
    println!("  ok: {sentence} ({evidence})");
    Ok(())
}
