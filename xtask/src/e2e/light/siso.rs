//! Siso on a Ninja file, with every step on the server.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    surroundings::{Surroundings, edit},
    tree,
};
use crate::e2e::{Place, steps::step};

/// The steps of `out/report.txt`.
const STEPS: usize = 8;

pub(super) fn run(place: &Place) -> Result<()> {
    let mut here = Surroundings::open(place, Some("ninja"))?;
    step("Ninja builds the program without a server, to compare with", || {
        here.run(&["ninja"])?;
        fs::rename(here.workspace().join("out"), here.path("local"))?;
        Ok("out/report.txt".into())
    })?;
    for (function, sentence) in [
        (
            "sha256",
            "Siso runs every step on the server, and the outputs are those of the local build",
        ),
        ("blake3", "the same with BLAKE3, which has results of its own"),
    ] {
        step(sentence, || {
            let flag = format!("-reapi_digest_function={function}");
            let (ran, cached) = here.build_from_nothing(&[&flag])?;
            ensure!((ran, cached) == (STEPS, 0), "{ran} steps ran, {cached} were hits");
            let compared = tree::ensure_equal(&here.path("local"), &here.workspace().join("out"))?;
            Ok(format!("{ran} steps, {compared} equal files"))
        })?;
    }
    step("a second build is served from the action cache", || {
        let (ran, cached) = here.build_from_nothing(&[])?;
        ensure!((ran, cached) == (0, STEPS), "{ran} steps ran, {cached} were hits");
        Ok(format!("{cached} hits, none run"))
    })?;
    step("the same with messages that are compressed with gzip", || {
        let compressed = "-reapi_enable_grpc_compression";
        let (ran, cached) = here.build_from_nothing(&[compressed])?;
        ensure!((ran, cached) == (0, STEPS), "{ran} steps ran, {cached} were hits");
        edit(&here.workspace().join("main.cc"), "lines: ", "words: ")?;
        let (ran, _) = here.build(&[compressed])?;
        edit(&here.workspace().join("main.cc"), "words: ", "lines: ")?;
        ensure!(ran == 3, "{ran} steps ran after a change");
        Ok(format!("{cached} hits, 3 steps after a change"))
    })?;
    step("a build without the bytes goes on from what only the server has", || {
        let minimum = "-output_local_strategy=minimum";
        here.build_from_nothing(&[minimum])?;
        let archive = here.workspace().join("out/libtext.a");
        ensure!(!archive.exists(), "the archive was downloaded");
        edit(&here.workspace().join("main.cc"), "lines: ", "rows: ")?;
        let (ran, _) = here.build(&[minimum])?;
        ensure!(ran == 3 && !archive.exists(), "{ran} steps ran");
        here.build(&["-output_local_strategy=full"])?;
        let report = fs::read_to_string(here.workspace().join("out/report.txt"))?;
        ensure!(report == "ROWS: 3\n", "the report says {report:?}");
        Ok("3 steps after a change, with an archive that was not here".into())
    })?;
    step("a step that fails is told with its exit code and its streams", || {
        let words = here.siso_words(&["out/failed"]);
        let (ran, finished) = here.counting(|here| here.ends_with(1, &as_words(&words)))?;
        for part in ["exit=7", "words on stdout", "words on stderr"] {
            ensure!(finished.stdout.contains(part), "{part:?} is not in:\n{}", finished.stdout);
        }
        ensure!(ran == 1, "{ran} steps ran");
        Ok("exit code 7, with both streams".into())
    })?;
    here.close()
}

impl Surroundings {
    /// The command, with more flags or targets.
    fn siso_words(&self, more: &[&str]) -> Vec<String> {
        let address = self.server.address().to_string();
        let flags = ["siso", "ninja", "-project=none", "-reapi_instance=", "-reapi_insecure"];
        let flags = flags.into_iter().chain(["-strict_remote", "-remote_jobs=8", "-reapi_address"]);
        flags.chain([address.as_str()]).chain(more.iter().copied()).map(str::to_owned).collect()
    }

    /// Builds, and gives the numbers of steps that ran on the server and that were hits.
    fn build(&mut self, flags: &[&str]) -> Result<(usize, usize)> {
        let words = self.siso_words(flags);
        let (ran, _) = self.counting(|here| here.run(&as_words(&words)))?;
        let metrics = fs::read_to_string(self.workspace().join("siso_metrics.json"))?;
        let steps = Steps::read(&metrics)?;
        ensure!(
            steps.remote == ran && steps.other == 0,
            "the server ran {ran} actions, and Siso says {steps:?}"
        );
        Ok((ran, steps.cached))
    }

    /// The same without what Siso knows of earlier builds.
    fn build_from_nothing(&mut self, flags: &[&str]) -> Result<(usize, usize)> {
        self.run(&["bash", "-c", "rm -rf out .siso* .ninja* siso*"])?;
        self.build(flags)
    }
}

fn as_words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// The steps of a build by where their results came from.
#[derive(Debug, Default, PartialEq, Eq)]
struct Steps {
    remote: usize,
    cached: usize,
    other: usize,
}

impl Steps {
    /// Reads Siso's metrics, one JSON object a line: steps, and the build.
    fn read(metrics: &str) -> Result<Self> {
        let mut steps = Self::default();
        for line in metrics.lines() {
            let line: Value = serde_json::from_str(line).context("Siso's metrics")?;
            let is = |name: &str| line[name] == true;
            match () {
                () if line["step_id"].is_null() => {}
                () if is("cached") => steps.cached += 1,
                () if is("is_remote") => steps.remote += 1,
                () => steps.other += 1,
            }
        }
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted() {
        let metrics = r#"{"step_id":"1","rule":"cxx","is_remote":true}
            {"step_id":"2","rule":"cxx","is_remote":true,"cached":true}
            {"step_id":"3","rule":"cxx","is_local":true}
            {"build_id":"4","duration_nanos":5}"#;
        let steps = Steps::read(metrics).unwrap();
        assert_eq!(steps, Steps { remote: 1, cached: 1, other: 1 });
        Steps::read("no JSON").unwrap_err();
    }
}
