//! The daemon under test, as an operator runs it, and what it says of itself in its log.

use std::{
    ffi::OsString,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a daemon may take to listen, and to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// Messages that are stored as blobs are smaller than this in our workspaces.
const SMALL_BLOB_BYTES: u64 = 4096;

pub(crate) struct Daemon {
    program: PathBuf,
    flags: Vec<OsString>,
    address: SocketAddr,
    state: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

/// One line of the log: an action that the daemon ran to its end, or answered from its cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FinishedAction {
    pub(crate) digest: String,
    pub(crate) exit_code: i32,
    pub(crate) cached: bool,
}

impl Daemon {
    /// Starts `program` with its state and its log in `folder`.
    pub(crate) fn start(program: &Path, folder: &Path, flags: &[OsString]) -> Result<Self> {
        let address = free_address()?;
        let state = folder.join("state");
        let words = ["serve", "--listen", &address.to_string(), "--root"];
        let mut all: Vec<OsString> = words.map(Into::into).into();
        all.push(state.clone().into());
        all.extend_from_slice(flags);
        let mut daemon = Self {
            program: program.to_owned(),
            flags: all,
            address,
            state,
            log: folder.join("daemon.log"),
            process: None,
        };
        daemon.restart()?;
        Ok(daemon)
    }

    /// Starts it again with the same flags on the same root.
    pub(crate) fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the daemon still runs");
        let log = fs::File::options().create(true).append(true).open(&self.log)?;
        // The daemon must not outlive a test that is killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .args(&self.flags)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the daemon")?;
        self.process = Some(child);
        self.wait_until_it_listens()
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) =
                self.process.as_mut().and_then(|child| child.try_wait().transpose()).transpose()?
            {
                self.process = None;
                bail!("the daemon ended: {status}\n{}", self.log_tail());
            }
            ensure!(Instant::now() < deadline, "the daemon does not listen\n{}", self.log_tail());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL: no chance to put anything in order.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut child = self.process.take().context("the daemon does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, which it must follow in order and in time.
    pub(crate) fn stop(mut self) -> Result<()> {
        let child = self.process.as_mut().context("the daemon does not run")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process has an id")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.wait_until_it_ends()?;
        ensure!(status.success(), "the daemon ended with {status} on SIGTERM\n{}", self.log_tail());
        Ok(())
    }

    fn wait_until_it_ends(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let child = self.process.as_mut().context("the daemon does not run")?;
            if let Some(status) = child.try_wait()? {
                self.process = None;
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "the daemon does not end on SIGTERM\n{}",
                self.log_tail()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every action in the log, over all restarts.
    pub(crate) fn finished_actions(&self) -> Result<Vec<FinishedAction>> {
        Ok(fs::read_to_string(&self.log)?.lines().filter_map(finished_action).collect())
    }

    /// How many actions were really run, not answered from the cache.
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

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.process.is_some() {
            let _already_gone = self.kill();
        }
    }
}

/// An address of the loopback that nobody listens on now.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

fn finished_action(line: &str) -> Option<FinishedAction> {
    let (_, fields) = line.split_once("action finished ")?;
    let field = |name: &str| {
        fields.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    Some(FinishedAction {
        digest: field("digest")?.to_owned(),
        exit_code: field("exit_code")?.parse().ok()?,
        cached: field("cached")? == "true",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_read() {
        let line = "2026-01-01T00:00:00Z  INFO worker: action finished digest=ab12/3 exit_code=7 cached=false";
        let expected = FinishedAction { digest: "ab12/3".into(), exit_code: 7, cached: false };
        assert_eq!(finished_action(line), Some(expected));
        assert_eq!(finished_action("INFO listening address=127.0.0.1:8980"), None);
        assert_eq!(finished_action("INFO action finished digest=ab12/3"), None);
    }
}
