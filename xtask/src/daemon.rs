//! The daemon under test, as an operator runs it, and what it says of itself in its log.

use std::{
    ffi::{OsStr, OsString},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use launch::ReservedAddress;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    daemon_log::{self, Event, FINISHED},
    leftovers,
    vm::Artifacts,
};

/// The bound on every wait for the daemon and its guest. It only ends waits that would never end, so it is
/// long enough for a machine that is busy with builds and other guests.
const PATIENCE: Duration = Duration::from_secs(300);

/// Messages that are stored as blobs are smaller than this in our workspaces.
const SMALL_BLOB_BYTES: u64 = 4096;

pub(crate) struct Daemon {
    /// The program and its arguments.
    command: Vec<OsString>,
    address: ReservedAddress,
    state: PathBuf,
    log: PathBuf,
    /// The mount table before its first start.
    mounts: String,
    process: Option<Child>,
}

/// An action that the daemon ran to its end, or answered from its cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FinishedAction {
    pub(crate) digest: String,
    pub(crate) exit_code: i32,
    pub(crate) cached: bool,
}

impl Daemon {
    /// Starts `program` with these flags of `serve`, and with its state and its log in `folder`: on
    /// this machine, or in a VM that is made of `vm`.
    pub(crate) fn start(
        program: &Path,
        folder: &Path,
        flags: &[OsString],
        vm: Option<&Artifacts>,
    ) -> Result<Self> {
        let state = folder.join("state");
        let words = match vm {
            Some(vm) => vm.serve_command(program, &state, flags),
            None => {
                let words: [&OsStr; 4] =
                    [program.as_os_str(), "serve".as_ref(), "--root".as_ref(), state.as_ref()];
                [&words.map(OsString::from), flags].concat()
            }
        };
        Self::start_command(words, state, folder)
    }

    /// Starts a command that serves, with its log in `folder` and its store at `state`. Tells it where
    /// to listen, and to log as JSON.
    pub(crate) fn start_command(
        mut command: Vec<OsString>,
        state: PathBuf,
        folder: &Path,
    ) -> Result<Self> {
        let address = ReservedAddress::new()?;
        // The attacks delete blobs, which anonymous callers may not do by default.
        let rights = if command.iter().any(|word| word == "serve") { "?anonymous=all" } else { "" };
        command.extend(["--listen".into(), format!("{}{rights}", address.get()).into()]);
        command.push("--log-format=json".into());
        let mut daemon = Self {
            command,
            address,
            state,
            log: folder.join("daemon.log"),
            mounts: leftovers::mounts()?,
            process: None,
        };
        daemon.restart()?;
        Ok(daemon)
    }

    /// Starts it again with the same flags on the same root.
    pub(crate) fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the daemon still runs");
        let log = fs::File::options().create(true).append(true).open(&self.log)?;
        let begin = usize::try_from(log.metadata()?.len())?;
        // A session of its own shows what is left of it; and it must not outlive a killed test.
        let child = Command::new("setsid")
            .args(["setpriv", "--pdeathsig", "KILL", "--"])
            .args(&self.command)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the daemon")?;
        self.process = Some(child);
        self.wait_until_it_serves(begin)
    }

    /// Waits until the log says, after its first `begin` bytes, that the daemon serves. A connection
    /// would say less: `serve-vm` listens before its guest has booted.
    fn wait_until_it_serves(&mut self, begin: usize) -> Result<()> {
        let (address, mut ended, mut serves) = (self.address().to_string(), None, false);
        within_patience(|| {
            // Before the log is read: a daemon that has ended says no more.
            ended = self.process.as_mut().map(Child::try_wait).transpose()?.flatten();
            let log = fs::read(&self.log)?;
            let log = String::from_utf8_lossy(&log[begin..]);
            serves = daemon_log::places(&log).any(|place| place == address);
            Ok(serves || ended.is_some())
        })?;
        if let Some(status) = ended {
            self.process = None;
            bail!("the daemon ended: {status}\n{}", self.log_tail());
        }
        ensure!(serves, "it never serves on {address}\n{}", self.log_tail());
        Ok(())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address.get()
    }

    /// The address of the place that `--listen` among its flags names, as the daemon says it.
    pub(crate) fn own_place(&self) -> Result<SocketAddr> {
        let (log, added) = (self.log()?, self.address().to_string());
        let places = daemon_log::places(&log).filter(|place| *place != added);
        let place = places.last().with_context(|| self.log_tail())?;
        place.parse().with_context(|| format!("the address {place:?}"))
    }

    /// The directory of its store.
    pub(crate) fn root(&self) -> &Path {
        &self.state
    }

    /// Its process.
    pub(crate) fn id(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the daemon does not run")?.id())
    }

    /// SIGKILL: no chance to put anything in order. Nothing may be left all the same.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut child = self.process.take().context("the daemon does not run")?;
        child.kill()?;
        child.wait()?;
        self.ensure_nothing_is_left(child.id())
    }

    /// SIGKILL for the machine that it has booted, and for nothing else of it.
    pub(crate) fn kill_vmm(&self) -> Result<()> {
        let processes = leftovers::processes_of_session(self.id()?)?;
        let vmm = processes.iter().find_map(|process| process.split_once(" (qemu"));
        let (id, _) = vmm.with_context(|| format!("no VMM among {processes:?}"))?;
        kill_process(Pid::from_raw(id.parse()?).context("a process has an id")?, Signal::KILL)?;
        Ok(())
    }

    /// SIGTERM, which it must follow in order and in time.
    pub(crate) fn stop(mut self) -> Result<()> {
        let mut child = self.process.take().context("the daemon does not run")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process has an id")?;
        kill_process(pid, Signal::TERM)?;
        let mut status = None;
        within_patience(|| {
            status = child.try_wait()?;
            Ok(status.is_some())
        })?;
        match status {
            Some(status) if status.success() => self.ensure_nothing_is_left(child.id()),
            Some(status) => bail!("the daemon ended with {status} on SIGTERM\n{}", self.log_tail()),
            None => {
                child.kill()?;
                bail!("the daemon does not end on SIGTERM\n{}", self.log_tail())
            }
        }
    }

    /// No process, no mount and no loop device of a daemon that has ended. The kernel takes a moment
    /// to tear a namespace down, so this waits for it.
    fn ensure_nothing_is_left(&self, session: u32) -> Result<()> {
        let mut left = Vec::new();
        within_patience(|| {
            left = leftovers::processes_of_session(session)?;
            left.extend(leftovers::loop_devices_below(&self.state)?);
            Ok(left.is_empty())
        })?;
        ensure!(left.is_empty(), "the daemon is gone and left {left:?}");
        let mounts = leftovers::mounts()?;
        ensure!(mounts == self.mounts, "the daemon is gone and left mounts:\n{mounts}");
        Ok(())
    }

    /// The events of its log, over all restarts.
    fn events(&self) -> Result<Vec<Event>> {
        Ok(daemon_log::events(&self.log()?).collect())
    }

    /// Its whole log, over all restarts.
    pub(crate) fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))
    }

    /// Every action in the log, over all restarts.
    pub(crate) fn finished_actions(&self) -> Result<Vec<FinishedAction>> {
        Ok(self.events()?.iter().filter_map(FinishedAction::of).collect())
    }

    /// The number of events in the log, over all restarts, whose message contains these words.
    pub(crate) fn events_with(&self, words: &str) -> Result<usize> {
        Ok(self.events()?.iter().filter(|event| event.message().contains(words)).count())
    }

    /// Waits for an event whose message contains these words, and gives what follows them.
    pub(crate) fn wait_for_event(&self, words: &str) -> Result<String> {
        let mut rest = None;
        within_patience(|| {
            rest = daemon_log::after(&self.log()?, words);
            Ok(rest.is_some())
        })?;
        rest.with_context(|| format!("the log never says {words:?}\n{}", self.log_tail()))
    }

    /// The input root strategy that its log names.
    pub(crate) fn strategy(&self) -> Result<String> {
        let events = self.events()?;
        let name = events.iter().find_map(|event| event.text("strategy"));
        Ok(name.context("the daemon's log names no input root strategy")?.to_owned())
    }

    /// Waits until that many actions were really run, and gives how many there are by then.
    pub(crate) fn wait_for_executions(&self, count: usize) -> Result<usize> {
        let mut executions = 0;
        within_patience(|| {
            executions = self.executions()?;
            Ok(executions >= count)
        })?;
        ensure!(executions >= count, "only {executions} actions ran\n{}", self.log_tail());
        Ok(executions)
    }

    /// The number of actions that were run, not answered from the cache.
    pub(crate) fn executions(&self) -> Result<usize> {
        Ok(self.finished_actions()?.iter().filter(|action| !action.cached).count())
    }

    /// Whether the store holds a small blob, such as a directory's or a tree's, with all these words.
    pub(crate) fn has_blob_naming(&self, words: &[&str]) -> Result<bool> {
        let holds = |blob: &[u8], word: &str| {
            blob.windows(word.len()).any(|window| window == word.as_bytes())
        };
        for shard in fs::read_dir(self.state.join("cas/blobs/sha256"))? {
            for blob in fs::read_dir(shard?.path())? {
                let blob = blob?;
                if blob.metadata()?.len() > SMALL_BLOB_BYTES {
                    continue;
                }
                let content = fs::read(blob.path())?;
                if words.iter().all(|word| holds(&content, word)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The end of the log, for a message.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(40)..];
        format!("the daemon's log ends with:\n{}", tail.join("\n"))
    }
}

/// Asks `done` again and again until it is true or [`PATIENCE`] is at its end.
fn within_patience(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.process.is_some() {
            let _already_gone = self.kill();
        }
    }
}

impl FinishedAction {
    /// The action that an event is about; `None` for events about anything else.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        if event.message() != FINISHED {
            return None;
        }
        Some(Self {
            digest: event.text("digest")?.to_owned(),
            exit_code: event.number("exit_code")?.try_into().ok()?,
            cached: event.flag("cached")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_actions_are_read() {
        let check = |line: &str, expected: Option<FinishedAction>| {
            assert_eq!(FinishedAction::of(&Event::parse(line)), expected);
        };
        let finished =
            r#"{"message":"action finished","digest":"ab12/3","exit_code":7,"cached":false}"#;
        let expected = FinishedAction { digest: "ab12/3".into(), exit_code: 7, cached: false };
        check(finished, Some(expected));
        check(r#"{"message":"action finished","digest":"ab12/3"}"#, None);
        check(
            r#"{"message":"action failed","digest":"ab12/3","exit_code":0,"cached":false}"#,
            None,
        );
        check("linux-actiond: serving on 127.0.0.1:8980", None);
    }
}
