//! Bazel's build events, which unlike its messages are meant for programs.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The runners of one invocation's actions, and the outcome of its tests.
#[derive(Debug, Default)]
pub(in crate::e2e) struct Report {
    /// The number of spawns of each runner, by the name that Bazel gives it.
    runners: BTreeMap<String, u64>,
    pub(super) tests: Vec<TestRun>,
}

/// One attempt of one shard of a test.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TestRun {
    pub(super) label: String,
    /// `PASSED`, `FAILED`, `TIMEOUT`, …
    pub(super) status: String,
    /// The runner's name, empty when the result was not run for.
    pub(super) strategy: String,
    pub(super) cached_remotely: bool,
}

impl Report {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("no build events at {}", path.display()))?;
        let mut report = Self::default();
        for line in text.lines() {
            report.take(&serde_json::from_str(line)?);
        }
        Ok(report)
    }

    fn take(&mut self, event: &Value) {
        if let Some(runners) = event["buildMetrics"]["actionSummary"]["runnerCount"].as_array() {
            self.runners = runners.iter().filter_map(runner).collect();
        }
        let result = &event["testResult"];
        if result.is_object() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            self.tests.push(TestRun {
                label: text(&event["id"]["testResult"]["label"]),
                status: text(&result["status"]),
                strategy: text(&result["executionInfo"]["strategy"]),
                cached_remotely: result["executionInfo"]["cachedRemotely"] == true,
            });
        }
    }

    /// Spawns that the server ran, or joined to one that was running.
    pub(in crate::e2e) fn remote(&self) -> u64 {
        self.ran_by("remote")
    }

    /// Spawns whose result came from the action cache.
    pub(in crate::e2e) fn cache_hits(&self) -> u64 {
        self.ran_by("remote cache hit")
    }

    /// Spawns of a runner, by the name that Bazel gives it.
    pub(super) fn ran_by(&self, runner: &str) -> u64 {
        self.runners.get(runner).copied().unwrap_or_default()
    }

    /// Fails when anything ran on the client: Bazel's own bookkeeping (`internal`) aside, every
    /// spawn must have been the server's.
    pub(super) fn ensure_nothing_ran_locally(&self) -> Result<()> {
        let ours = ["total", "internal", "remote", "remote cache hit"];
        let others: Vec<_> =
            self.runners.keys().filter(|name| !ours.contains(&name.as_str())).collect();
        ensure!(
            others.is_empty(),
            "there are other runners than the remote one: {:?}",
            self.runners
        );
        Ok(())
    }
}

fn runner(value: &Value) -> Option<(String, u64)> {
    Some((value["name"].as_str()?.to_owned(), value["count"].as_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(runners: &[(&str, u64)]) -> Report {
        let runners: Vec<_> = runners
            .iter()
            .map(|(name, count)| serde_json::json!({"name": name, "count": count}))
            .collect();
        let mut report = Report::default();
        report.take(
            &serde_json::json!({"buildMetrics": {"actionSummary": {"runnerCount": runners}}}),
        );
        report
    }

    #[test]
    fn runners_are_counted() {
        let report =
            report(&[("total", 30), ("internal", 4), ("remote", 20), ("remote cache hit", 6)]);
        assert_eq!((report.remote(), report.cache_hits()), (20, 6));
        report.ensure_nothing_ran_locally().unwrap();
    }

    #[test]
    fn a_local_runner_is_refused() {
        for name in ["local", "linux-sandbox", "processwrapper-sandbox", "worker"] {
            report(&[("remote", 3), (name, 1)]).ensure_nothing_ran_locally().unwrap_err();
        }
    }
}
