//! A child process that can be waited for along with other things.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::sync::watch;

/// A child, and a thread that sees it end.
#[derive(Debug)]
pub(super) struct ChildProcess {
    child: Child,
    descriptor: Arc<OwnedFd>,
    /// Closed when the child has ended.
    ended: watch::Receiver<()>,
}

impl ChildProcess {
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        match watch_end(&child) {
            Ok((descriptor, ended)) => Ok(Self { child, descriptor, ended }),
            Err(error) => {
                // No other process could wait for it.
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// The pipes to it.
    pub(super) fn streams(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its end; can be given up and called again.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        while self.ended.changed().await.is_ok() {}
        self.child.wait()
    }

    /// Sends a signal; one to a process that has ended is lost.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.descriptor, signal);
    }
}

fn watch_end(child: &Child) -> io::Result<(Arc<OwnedFd>, watch::Receiver<()>)> {
    let descriptor = Arc::new(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?);
    let (alive, ended) = watch::channel(());
    let watched = Arc::clone(&descriptor);
    thread::Builder::new().name("wait".into()).spawn(move || {
        // It stays to be waited for, so that no other process gets its number.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::PidFd(watched.as_fd()), options), Err(Errno::INTR)) {}
        drop(alive);
    })?;
    Ok((descriptor, ended))
}
