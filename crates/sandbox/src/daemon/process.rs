//! A helper as the daemon sees it: a child process and a socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use inputroot::HostUser;
use runtimes::Rootfs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::daemon::config::Config;
use crate::daemon::error::RunError;
use crate::daemon::oom_score::OomScore;
use crate::daemon::view;
use crate::plan::step::StepName;
use crate::protocol::message::{Request, Response};
use crate::protocol::packet::{self, PacketError};

/// The helper's name in a list of processes.
const NAME: &str = "actiond-sandbox-helper";

/// The time that a helper has to end once nobody talks to it any more: it kills
/// what runs, waits for that, and takes a few mounts down.
const FAREWELL: Duration = Duration::from_secs(5);

/// A helper that is set up. Ends, with all that runs in it, when dropped.
#[derive(Debug)]
pub(crate) struct HelperProcess {
    socket: Option<OwnedFd>,
    child: Child,
    oom_score: OomScore,
    /// The user of its actions, if no other helper's have it, with the user namespace in which it is theirs.
    user: Option<(u32, OwnedFd)>,
}

impl HelperProcess {
    /// Starts a helper and waits until it lives in the root that `view` describes.
    pub(crate) fn start(
        view: &Rootfs,
        config: &Config,
        user: Option<u32>,
    ) -> Result<Self, RunError> {
        let (setup, mounts) = view::setup(view, config, user)?;
        let spawn_failed = |errno| RunError::new(StepName::Spawn, errno);
        let (ours, theirs) = packet::pair().map_err(spawn_failed)?;
        // Without a `pre_exec` the standard library spawns without copying the
        // daemon's memory.
        let program = sys::mount::descriptor_path(&config.helper.program);
        let child = Command::new(program)
            .arg0(NAME)
            .args(&*config.helper.args)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| {
                spawn_failed(error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
            })?;
        let oom_score = OomScore::of(child.id());
        let mut helper = Self { socket: Some(ours), child, oom_score, user: None };
        let mounts: Vec<_> = mounts.iter().map(AsFd::as_fd).collect();
        helper.send(&Request::Setup(setup), &mounts)?;
        let mut answer = packet::receive(helper.socket()?)
            .and_then(|packet| packet.ok_or(Errno::PIPE.into()))?;
        match answer.message {
            Response::Ready => {
                // Nothing has run in it yet, so it tells the truth.
                let namespace = answer.descriptors.pop();
                let namespace = namespace.ok_or(RunError::new(StepName::Protocol, Errno::PROTO))?;
                helper.user = user.map(|id| (id, namespace));
                Ok(helper)
            }
            Response::Failed(failed) => Err(failed.into()),
            Response::Runs | Response::Started(_) | Response::Finished(_) => {
                Err(RunError::new(StepName::Protocol, Errno::PROTO))
            }
        }
    }

    /// Readable when the helper says something or is gone.
    pub(crate) fn socket(&self) -> Result<BorrowedFd<'_>, PacketError> {
        self.socket.as_ref().map(AsFd::as_fd).ok_or(PacketError::Socket(Errno::PIPE))
    }

    pub(crate) fn send(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), PacketError> {
        packet::send(self.socket()?, request, descriptors)
    }

    /// The next response; an error if the helper is gone.
    pub(crate) fn receive(&self) -> Result<Response, PacketError> {
        let packet = packet::receive(self.socket()?)?.ok_or(Errno::PIPE)?;
        Ok(packet.message)
    }

    /// The user of its actions on the host, if no other helper's have it.
    pub(crate) fn user(&self) -> Option<HostUser<'_>> {
        self.user.as_ref().map(|(id, namespace)| HostUser { id: *id, namespace: namespace.as_fd() })
    }

    /// Its place in the order in which processes are killed when memory runs out.
    pub(crate) fn oom_score(&self) -> &OomScore {
        &self.oom_score
    }

    /// Whether it has said something, or is gone; does not wait.
    pub(crate) fn has_news(&self) -> bool {
        let Ok(socket) = self.socket() else { return true };
        let mut events = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        poll(&mut events, Some(&Timespec::default())) != Ok(0)
    }

    /// Waits for the process's end; false if that does not come.
    fn wait_bounded(&mut self) -> bool {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            return false;
        };
        let timeout = Timespec { tv_sec: FAREWELL.as_secs() as i64, tv_nsec: 0 };
        let mut events = [PollFd::new(&pidfd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut events, Some(&timeout))) == Ok(1)
    }
}

impl Drop for HelperProcess {
    fn drop(&mut self) {
        self.socket = None;
        if !self.wait_bounded() {
            tracing::warn!(pid = self.child.id(), "a sandbox helper does not end and is killed");
            // PID 1 of its sandbox dies with it, and all the rest with that.
            let _ = self.child.kill();
            if !self.wait_bounded() {
                // It hangs in the kernel: not to be reaped is the lesser evil.
                return;
            }
        }
        let _ = self.child.wait();
    }
}
