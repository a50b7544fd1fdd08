//! recc before the compiler of a Ninja file: with every compilation on the server, and with the cache only.

use std::fs;

use anyhow::{Result, ensure};

use super::{
    surroundings::{Surroundings, WORKSPACE, edit},
    tree,
};
use crate::e2e::{Place, steps::step};

/// Four compilations and a link.
pub(in crate::e2e) const COMMANDS: usize = 5;

/// Its metrics, a line for each event.
pub(in crate::e2e) const METRICS: &str = "/client/metrics";

pub(super) fn run(place: &Place) -> Result<()> {
    let mut here = Surroundings::open(place, Some("ninja"))?;
    step("Ninja builds the program without a server, to compare with", || {
        here.run(&["ninja"])?;
        fs::rename(here.workspace().join("out"), here.path("local"))?;
        Ok("out/report.txt".into())
    })?;
    step(
        "every compilation and the link run on the server, with the outputs of the local build",
        || {
            here.put_recc_before_the_compiler(&[])?;
            let (ran, hits) = here.build_with_recc()?;
            ensure!((ran, hits) == (COMMANDS, 0), "{ran} commands ran, {hits} were hits");
            let compared = tree::ensure_equal(&here.path("local"), &here.workspace().join("out"))?;
            Ok(format!("{ran} commands, {compared} equal files"))
        },
    )?;
    step("a second build is served from the action cache", || {
        let (ran, hits) = here.build_with_recc()?;
        ensure!((ran, hits) == (0, COMMANDS), "{ran} commands ran, {hits} were hits");
        Ok(format!("{hits} hits, none run"))
    })?;
    step("an error of the compiler is told as it is", || {
        let words = ["ninja", "out/shout.o"];
        edit(&here.workspace().join("shout.cc"), "return shouted;", "return shouted")?;
        let (ran, finished) = here.counting(|here| here.ends_with(1, &words))?;
        ensure!(ran == 1 && finished.stdout.contains("expected"), "{ran}: {}", finished.stdout);
        edit(&here.workspace().join("shout.cc"), "return shouted", "return shouted;")?;
        Ok("one compilation ran and failed".into())
    })?;
    step("with the cache only, what was compiled here is a hit the next time", || {
        here.put_recc_before_the_compiler(&["CACHE_ONLY=1", "CACHE_UPLOAD_LOCAL_BUILD=1"])?;
        edit(&here.workspace().join("main.cc"), "lines: ", "rows: ")?;
        let (ran, hits) = here.build_with_recc()?;
        ensure!((ran, hits) == (0, COMMANDS - 2), "{ran} commands ran, {hits} were hits");
        let (ran, hits) = here.build_with_recc()?;
        ensure!((ran, hits) == (0, COMMANDS), "{ran} commands ran, {hits} were hits");
        let report = fs::read_to_string(here.workspace().join("out/report.txt"))?;
        ensure!(report == "ROWS: 3\n", "the report says {report:?}");
        Ok(format!("{hits} hits, two of them of results that recc uploaded"))
    })?;
    here.close()
}

/// The line of Ninja's file that puts recc before the compiler, with more settings of recc.
pub(in crate::e2e) fn compiler(url: &str, more: &[&str]) -> String {
    let (server, root) = (format!("SERVER={url}"), format!("PROJECT_ROOT={WORKSPACE}"));
    let metrics = format!("METRICS_FILE={METRICS}");
    let settings =
        [&server, &root, "REMOTE_PLATFORM_rootfs=host", "LINK=1", "ENABLE_METRICS=1", &metrics];
    let settings = settings.into_iter().chain(more.iter().copied());
    let settings: Vec<_> = settings.map(|it| format!("RECC_{it}")).collect();
    format!("cxx = env {} recc /usr/bin/g++\n", settings.join(" "))
}

impl Surroundings {
    fn put_recc_before_the_compiler(&self, more: &[&str]) -> Result<()> {
        let line = compiler(&self.url(), more);
        Ok(fs::write(self.workspace().join("compiler.ninja"), line)?)
    }

    /// Builds from nothing, and gives the numbers of commands that ran on the server and that were hits.
    fn build_with_recc(&mut self) -> Result<(usize, usize)> {
        self.run(&["rm", "-rf", "out", ".ninja_log", ".ninja_deps", METRICS])?;
        let (ran, _) = self.counting(|here| here.run(&["ninja"]))?;
        let metrics = fs::read_to_string(self.path("metrics"))?;
        let hits = metrics.lines().filter(|line| line.contains("action_cache_hit:1"));
        Ok((ran, hits.count()))
    }
}
