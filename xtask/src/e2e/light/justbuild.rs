//! justbuild, which speaks the Remote Execution API where it is told to be compatible.

use anyhow::{Result, ensure};

use super::{surroundings::Surroundings, tree};
use crate::e2e::{Place, session::Finished, steps::step};

/// The actions of the target `all`.
const ACTIONS: usize = 3;

/// Has actions find the tools of the root.
const FOR_THE_SERVER: [&str; 2] = ["--compatible", "--remote-execution-property=rootfs:host"];

pub(super) fn run(place: &Place) -> Result<()> {
    let mut here = Surroundings::open(place, Some("justbuild"))?;
    step("justbuild builds without a server, to compare with", || {
        here.justbuild(0, "install", "cache-local", &["--output-dir=/client/local", "all"])?;
        Ok("three actions".into())
    })?;
    step("every action runs on the server, and the outputs are those of the local build", || {
        let (ran, said) = here.counting(|here| here.install("cache", "/client/remote"))?;
        ensure!(ran == ACTIONS, "{ran} actions ran:\n{said}");
        let compared = tree::ensure_equal(&here.path("local"), &here.path("remote"))?;
        Ok(format!("{ran} actions, {compared} equal files and directories"))
    })?;
    step("another client's build is served from the action cache", || {
        let (ran, said) =
            here.counting(|here| here.install("cache-of-another", "/client/again"))?;
        let hits = format!("{ACTIONS} actions, {ACTIONS} cache hits");
        ensure!(ran == 0 && said.contains(&hits), "{ran} actions ran:\n{said}");
        tree::ensure_equal(&here.path("local"), &here.path("again"))?;
        Ok(format!("{ACTIONS} hits, none run"))
    })?;
    step("an action that fails is told with its exit code and its streams", || {
        let finished = here.on_the_server(1, "build", "cache", &["fails"])?;
        for part in ["exit code 7", "words on stderr"] {
            ensure!(finished.stderr.contains(part), "{part:?} is not in:\n{}", finished.stderr);
        }
        Ok("exit code 7".into())
    })?;
    step("its own protocol is refused with the flag that helps", || {
        let address = format!("--remote-execution-address={}", here.server.address());
        let words = [&address, FOR_THE_SERVER[1], "--output-dir=/client/native", "all"];
        let finished = here.justbuild(1, "install", "cache-native", &words)?;
        ensure!(finished.stderr.contains("`--compatible`"), "{}", finished.stderr);
        Ok("git's hashes".into())
    })?;
    here.close()
}

impl Surroundings {
    fn justbuild(
        &mut self,
        exit_code: i32,
        verb: &str,
        cache: &str,
        words: &[&str],
    ) -> Result<Finished> {
        let cache = format!("--local-build-root=/client/{cache}");
        let first = ["justbuild", verb, "--plain-log", &cache];
        self.ends_with(exit_code, &[&first[..], words].concat())
    }

    fn on_the_server(
        &mut self,
        exit_code: i32,
        verb: &str,
        cache: &str,
        words: &[&str],
    ) -> Result<Finished> {
        let address = format!("--remote-execution-address={}", self.server.address());
        let words = [&[address.as_str()], &FOR_THE_SERVER[..], words].concat();
        self.justbuild(exit_code, verb, cache, &words)
    }

    /// Builds all on the server, and gives what was said.
    fn install(&mut self, cache: &str, folder: &str) -> Result<String> {
        let folder = format!("--output-dir={folder}");
        Ok(self.on_the_server(0, "install", cache, &[&folder, "all"])?.stderr)
    }
}
