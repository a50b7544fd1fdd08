//! A running QEMU.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{PidfdFlags, Signal};
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use super::LauncherCommand;
use super::command_line::{Launch, Transport};
use crate::console::{LastWords, log_lines};
use crate::mux;
use crate::vmm::{BoxFuture, ConnectError, Ended, GuestStream, Machine};

/// A machine that QEMU runs. Dropping it kills QEMU.
pub(super) struct Qemu {
    pidfd: OwnedFd,
    ended: watch::Receiver<Option<Ended>>,
    words: Arc<LastWords>,
    connector: Connector,
    tasks: [AbortHandle; 3],
}

enum Connector {
    Vsock { cid: u32 },
    Mux(mux::Opener),
}

impl Qemu {
    /// Starts QEMU through the launcher. Needs a tokio runtime.
    pub(super) async fn start(launcher: &LauncherCommand, launch: &Launch) -> io::Result<Self> {
        let (mux, their_mux) = StdUnixStream::pair()?;
        let (console, their_console) = StdUnixStream::pair()?;
        let (messages, their_messages) = StdUnixStream::pair()?;
        let mut command = Command::new(&launcher.program);
        command
            .args(&launcher.arguments)
            .arg(std::process::id().to_string())
            .arg(serde_json::to_string(launch)?)
            .stdin(Stdio::from(OwnedFd::from(their_mux)))
            .stdout(Stdio::from(OwnedFd::from(their_console)))
            .stderr(Stdio::from(OwnedFd::from(their_messages)))
            // A terminal's Ctrl-C is for us, who stop the guest in order.
            .process_group(0);
        let words = Arc::new(LastWords::new());
        let errors = Arc::new(LastWords::new());
        let (pidfd, ended) = spawn(command, Arc::clone(&words), Arc::clone(&errors)).await?;
        let (opener, driver) = mux::host(from_std(mux)?);
        let console = from_std(console)?;
        let messages = from_std(messages)?;
        let console_words = Arc::clone(&words);
        let tasks = [
            tokio::spawn(async move { log_lines(console, &console_words, log_guest).await })
                .abort_handle(),
            tokio::spawn(async move { log_lines(messages, &errors, log_qemu).await })
                .abort_handle(),
            // The end of the mux is the end of QEMU, which is noticed by itself.
            tokio::spawn(async move { drop(driver.await) }).abort_handle(),
        ];
        let connector = match launch.transport {
            Transport::Vsock { cid } => Connector::Vsock { cid },
            Transport::Mux => Connector::Mux(opener),
        };
        Ok(Self { pidfd, ended, words, connector, tasks })
    }

    /// The guest's console output.
    pub(super) fn last_words(&self) -> &LastWords {
        &self.words
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Machine for Qemu {
    fn connect(&self, port: u32) -> BoxFuture<'_, Result<Box<dyn GuestStream>, ConnectError>> {
        Box::pin(async move {
            match &self.connector {
                Connector::Vsock { cid } => connect_vsock(*cid, port).await,
                Connector::Mux(opener) => match opener.open(port).await {
                    Ok(stream) => Ok(Box::new(stream) as Box<dyn GuestStream>),
                    Err(mux::OpenError::TooMany) => Err(ConnectError::TooMany),
                    Err(mux::OpenError::Gone) => Err(ConnectError::Ended),
                    Err(mux::OpenError::Refused) => Err(ConnectError::Refused {
                        port,
                        source: io::ErrorKind::ConnectionRefused.into(),
                    }),
                },
            }
        })
    }

    fn ended(&self) -> BoxFuture<'_, Ended> {
        let mut ended = self.ended.clone();
        Box::pin(async move {
            match ended.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
                Ok(Some(ended)) => ended,
                // The waiting thread is gone without a word: it panicked.
                _ => Ended { description: "the VMM was lost".to_owned() },
            }
        })
    }

    fn kill(&self) {
        // An error means that it has ended.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

async fn connect_vsock(cid: u32, port: u32) -> Result<Box<dyn GuestStream>, ConnectError> {
    let refused = |source| ConnectError::Refused { port, source };
    // Blocks for two seconds at most (vsock(7), SO_VM_SOCKETS_CONNECT_TIMEOUT).
    let connecting = tokio::task::spawn_blocking(move || sys::vsock::connect(cid, port));
    let socket = connecting.await.map_err(|error| refused(io::Error::other(error)))?;
    let socket = socket.map_err(|errno| refused(errno.into()))?;
    // Only its reading, writing and shutting down is used, which is the same for all sockets.
    let stream = from_std(StdUnixStream::from(socket)).map_err(refused)?;
    Ok(Box::new(stream))
}

fn from_std(stream: StdUnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Starts `command` on a thread that lives until it ends: the launcher ties its life to the thread
/// that started it, and tokio's may end early.
async fn spawn(
    mut command: Command,
    words: Arc<LastWords>,
    errors: Arc<LastWords>,
) -> io::Result<(OwnedFd, watch::Receiver<Option<Ended>>)> {
    let (started, start) = oneshot::channel();
    let (end, ended) = watch::channel(None);
    std::thread::Builder::new().name("vmm".to_owned()).spawn(move || {
        let spawned = command.spawn().and_then(|child| Ok((pidfd_of(&child)?, child)));
        // The other ends of its streams: open in the child only, so that its end closes them.
        drop(command);
        let mut child = match spawned {
            Ok((pidfd, child)) => {
                // A caller that no longer waits has dropped the machine, and with it the pidfd:
                // then the child has nobody to talk to, and ends by that.
                let _ = started.send(Ok(pidfd));
                child
            }
            Err(error) => return drop(started.send(Err(error))),
        };
        let description = describe(child.wait(), &words, &errors);
        end.send_replace(Some(Ended { description }));
    })?;
    let pidfd = start.await.map_err(|_| io::Error::other("the thread of the VMM was lost"))??;
    Ok((pidfd, ended))
}

fn pidfd_of(child: &Child) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_child(child);
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// One line about an end, with the words that explain it best.
fn describe(status: io::Result<ExitStatus>, words: &LastWords, errors: &LastWords) -> String {
    let status = match status {
        // `-no-reboot`: the guest has switched itself off, or panicked.
        Ok(status) if status.success() => "the guest switched itself off".to_owned(),
        Ok(status) => format!("the VMM ended with {status}"),
        Err(error) => format!("waiting for the VMM: {error}"),
    };
    match (errors.summary(), words.summary()) {
        (Some(error), _) => format!("{status}: {error}"),
        (None, Some(words)) => format!("{status}; the guest's last words: {words}"),
        (None, None) => status,
    }
}

fn log_guest(line: &str) {
    tracing::info!(target: "guest", "guest: {line}");
}

/// The output of the launcher and QEMU.
fn log_qemu(line: &str) {
    tracing::warn!(target: "qemu", "{line}");
}
