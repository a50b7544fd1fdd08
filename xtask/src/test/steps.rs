//! The steps of all tests: one after the other, some with parts beside them, and how long each took.
//!
//! A step prints to the terminal. A [`Part`] that runs beside it is a process of its own, whose lines go to
//! a file: lines of two builds between each other could not be read. The file is printed when the part
//! fails, after the step.

use std::{
    fmt, fs,
    path::PathBuf,
    process::{Command, ExitStatus},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::Part;
use crate::{process, workspace};

/// The steps so far.
pub(super) struct Steps {
    begun: Instant,
    done: Vec<Step>,
    /// Clients that are left out, for the parts.
    skipped: Vec<String>,
}

/// A step that was taken, failed or not.
struct Step {
    name: &'static str,
    time: Duration,
    /// Whether it ran beside the steps before it in the table.
    is_beside: bool,
}

impl Steps {
    /// No step yet. Parts leave these clients out.
    pub(super) fn begin(skipped: &[String]) -> Self {
        Self { begun: Instant::now(), done: Vec::new(), skipped: skipped.to_vec() }
    }

    /// Takes one step.
    pub(super) fn take<T>(
        &mut self,
        name: &'static str,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let begun = Instant::now();
        let result = act();
        self.done.push(Step { name, time: begun.elapsed(), is_beside: false });
        result
    }

    /// Takes one step while these parts run, and waits for all of it. A part that fails ends no other.
    pub(super) fn take_beside<T>(
        &mut self,
        parts: &[Part],
        name: &'static str,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.take_all_beside(parts, |steps| steps.take(name, act))
    }

    /// Takes several steps while these parts run, and waits for all of it. A part that fails ends no other.
    pub(super) fn take_all_beside<T>(
        &mut self,
        parts: &[Part],
        take: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let skipped = &self.skipped;
        let command = |part: Part| Ok((part.name(), part.command(skipped)?, part.log()?));
        let commands = parts.iter().copied().map(command);
        let commands = commands.collect::<Result<Vec<_>>>()?;
        thread::scope(|scope| {
            let running: Vec<Beside<'_>> = commands
                .into_iter()
                .map(|(name, mut command, log)| {
                    println!("test: beside what follows: {name} ({})", log.display());
                    let runner = scope.spawn(move || {
                        let begun = Instant::now();
                        let status = command.status();
                        (status, begun.elapsed())
                    });
                    Beside { name, log, runner }
                })
                .collect();
            let result = take(self);
            let parts: Vec<Result<()>> = running.into_iter().map(|it| self.finish(it)).collect();
            let value = result?;
            parts.into_iter().collect::<Result<()>>()?;
            Ok(value)
        })
    }

    fn finish(&mut self, beside: Beside<'_>) -> Result<()> {
        let Beside { name, log, runner } = beside;
        let (status, time) = runner.join().expect("it only waits for a process");
        self.done.push(Step { name, time, is_beside: true });
        let status = status.with_context(|| format!("{name}: cannot start"))?;
        tell(name, status, &fs::read(&log).unwrap_or_default());
        ensure!(status.success(), "{name} failed: {status}; see {}", log.display());
        Ok(())
    }
}

/// A part that runs.
struct Beside<'scope> {
    name: &'static str,
    log: PathBuf,
    runner: ScopedJoinHandle<'scope, (std::io::Result<ExitStatus>, Duration)>,
}

/// Prints what is worth telling of a part that has ended: all of it if it failed.
fn tell(name: &str, status: ExitStatus, log: &[u8]) {
    let log = String::from_utf8_lossy(log);
    if !status.success() {
        println!("test: {name} failed; its output:\n{log}");
    }
    for line in worth_telling(&log).filter(|_| status.success()) {
        println!("{line}");
    }
}

/// The report must show what was left out, also if all else is well, and how many attacks were made.
fn worth_telling(log: &str) -> impl Iterator<Item = &str> {
    let is_left_out = |line: &str| line.contains("SKIPPED") || line.starts_with("skipped ");
    log.lines().filter(move |line| is_left_out(line) || line.contains(" passed, "))
}

impl Part {
    /// A process that makes it without these clients, with its output in its log.
    fn command(self, skipped: &[String]) -> Result<Command> {
        let log = fs::File::create(self.log()?)?;
        let mut command = Command::new(process::this_program()?);
        let value = self.to_possible_value().expect("no part is left out");
        command.args(["test-part", value.get_name()]);
        command.args(skipped.iter().flat_map(|client| ["--skip", client]));
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn log(self) -> Result<PathBuf> {
        let folder = workspace::target().join("test-parts");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let value = self.to_possible_value().expect("no part is left out");
        Ok(folder.join(value.get_name()).with_extension("log"))
    }
}

impl fmt::Display for Steps {
    /// A table with a row per step, and the time that passed until now. Parts that ran beside a step are
    /// indented below it, and their times are not added.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, time: Duration| {
            let seconds = time.as_secs();
            writeln!(formatter, "test: {name:<40} {:>3}:{:02} min", seconds / 60, seconds % 60)
        };
        for Step { name, time, is_beside } in &self.done {
            let name = if *is_beside { format!("  beside: {name}") } else { (*name).to_owned() };
            row(&name, *time)?;
        }
        row("all", self.begun.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &'static str, seconds: u64, is_beside: bool) -> Step {
        Step { name, time: Duration::from_secs(seconds), is_beside }
    }

    #[test]
    fn a_step_that_fails_is_in_the_table_too() {
        let mut steps = Steps::begin(&[]);
        steps.done.push(step("building", 61, false));
        steps.done.push(step("kernel", 59, true));
        assert!(steps.take("attacks", || -> Result<()> { anyhow::bail!("breach") }).is_err());
        let table = steps.to_string();
        let rows: Vec<String> =
            table.lines().map(|it| it.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "test: building 1:01 min",
            "test: beside: kernel 0:59 min",
            "test: attacks 0:00 min",
            "test: all 0:00 min",
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn what_was_skipped_is_told() {
        let skipped = "darwin: SKIPPED: no sources";
        let attack = "skipped  denial/inodes  takes long";
        let all = "704 passed, 0 failed, 2 skipped";
        let log = ["built", skipped, "held     denial/files  2 ms", attack, all, "done"].join("\n");
        assert_eq!(worth_telling(&log).collect::<Vec<_>>(), [skipped, attack, all]);
    }

    #[test]
    fn parts_leave_out_what_was_left_out() {
        let command = Part::Vms.command(&["vm".into(), "bazel".into()]).unwrap();
        let words: Vec<_> = command.get_args().map(|it| it.to_str().unwrap()).collect();
        assert_eq!(words, ["test-part", "vms", "--skip", "vm", "--skip", "bazel"]);
    }

    #[test]
    fn parts_have_logs_of_their_own() {
        let logs: Vec<_> = Part::value_variants().iter().map(|part| part.log().unwrap()).collect();
        let distinct: std::collections::BTreeSet<_> = logs.iter().collect();
        assert_eq!(distinct.len(), logs.len());
    }
}
