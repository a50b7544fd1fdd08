//! `replay --shell`: this terminal as that of a shell in an action's sandbox.
//!
//! While it lasts, this terminal is raw: each key goes to the sandbox's terminal, which makes signals of Ctrl-C and
//! the end of the input of Ctrl-D. Where standard input is no terminal, the shell has none either: it reads a script
//! from a pipe, byte by byte as it is, up to its end.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use ::proto::actiond::internal::v1::run_shell_request::{Part, Start};
use ::proto::actiond::internal::v1::run_shell_response::{End, Part as Answer};
use ::proto::actiond::internal::v1::shell_client::ShellClient;
use ::proto::actiond::internal::v1::{RunShellRequest, ShellSize};
use anyhow::{Context as _, bail};
use chain::visible;
use model::{Digest, proto};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::{content, show};
use crate::output::tell;
use crate::server::{self, Server};

/// Messages of input that wait for the server; then nothing more is read.
const REQUESTS_WAITING: usize = 4;

/// Bytes of input in a message.
const INPUT_BYTES: usize = 4 << 10;

/// The exit code of sh(1) and of the sandbox when there is no program of that name.
const NOT_FOUND: i32 = 127;

/// Undoes what a program in the sandbox may have left in a terminal: an unfinished sequence, another character set,
/// colours, the alternate screen, a hidden cursor, reports of the mouse, of focus and of pastes, and other keys.
const RESET: &[u8] = b"\x18\x1b(B\x0f\x1b[0m\x1b[?1047l\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\
    \x1b[?2004l\x1b[?1l\x1b>";

/// The part of exit codes that this program has for itself.
const FAILED: u8 = 1;

/// Opens the shell `action`, which was made of the action `original` with that command, and returns how it ends.
pub(crate) fn shell(
    server: &Server,
    instance: &str,
    action: &Digest,
    original: &Digest,
    command: &proto::Command,
) -> anyhow::Result<ExitCode> {
    tell(format_args!("linux-actiond: a shell in the sandbox of {}", show::name(original)));
    let line = content::command_line(&command.arguments);
    tell(format_args!("linux-actiond: the command of the action is: {line}"));
    let (requests, receiver) = mpsc::channel(REQUESTS_WAITING);
    let start = Start {
        instance_name: instance.to_owned(),
        action_digest: Some(action.to_proto()),
        digest_function: action.function().to_proto(),
        size: window(),
    };
    requests.try_send(request(Part::Start(start))).context("starting the call")?;
    let End { exit_code, status, message } = server.wait(talk(server, requests, receiver))?;
    let status = status.unwrap_or_default();
    if status.code != 0 {
        let hint = match Code::from(status.code) {
            Code::FailedPrecondition => "; a build that needs the blobs uploads them again",
            _ => "",
        };
        bail!("the shell was ended: {}{hint}", visible(&status.message));
    }
    if !message.is_empty() {
        tell(format_args!("linux-actiond: {}", visible(&message)));
    }
    if exit_code == NOT_FOUND {
        tell(
            "linux-actiond: if the root file system of the action has no shell, --with-tools shows it the host's",
        );
    }
    Ok(u8::try_from(exit_code).map_or(ExitCode::from(FAILED), ExitCode::from))
}

fn request(part: Part) -> RunShellRequest {
    RunShellRequest { part: Some(part) }
}

/// Talks until the action ends, and returns its end.
async fn talk(
    server: &Server,
    requests: mpsc::Sender<RunShellRequest>,
    receiver: mpsc::Receiver<RunShellRequest>,
) -> anyhow::Result<End> {
    let said = server::said("execute");
    let mut signals = Signals::listen()?;
    let mut client = ShellClient::new(server.channel());
    let answers = client.run(ReceiverStream::new(receiver)).await;
    let mut answers = answers.map_err(&said)?.into_inner();
    let _raw = Raw::enter();
    // The thread has the only strong sender, so that the end of the input is the end of the requests.
    let sizes = requests.downgrade();
    read_input(requests)?;
    loop {
        tokio::select! {
            answer = answers.message() => match answer.map_err(&said)?.and_then(|it| it.part) {
                Some(Answer::Operation(_)) => {}
                Some(Answer::Output(bytes)) => show_output(&bytes)?,
                Some(Answer::End(end)) => return Ok(end),
                None => bail!("the server ended the call without an answer"),
            },
            _ = signals.resized.recv() => {
                if let (Some(requests), Some(size)) = (sizes.upgrade(), window()) {
                    // A size that finds no place is followed by another one, or by none that matters.
                    let _ = requests.try_send(request(Part::Size(size)));
                }
            }
            // The call ends with this program, and the shell with that.
            _ = signals.terminate.recv() => bail!("interrupted; the shell was ended"),
            _ = signals.interrupt.recv() => bail!("interrupted; the shell was ended"),
            _ = signals.hang_up.recv() => bail!("this terminal is gone; the shell was ended"),
        }
    }
}

/// Writes to standard output. A failure ends the call, and the terminal becomes what it was.
fn show_output(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).context("writing to standard output")
}

/// Sends standard input from a thread of its own, which ends with the program.
fn read_input(requests: mpsc::Sender<RunShellRequest>) -> anyhow::Result<()> {
    let read = move || {
        let mut buffer = [0; INPUT_BYTES];
        let mut stdin = std::io::stdin().lock();
        while let Ok(count @ 1..) = stdin.read(&mut buffer) {
            let bytes = buffer.get(..count).unwrap_or_default().to_vec();
            if requests.blocking_send(request(Part::Input(bytes.into()))).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("input".into()).spawn(read).context("reading the input")?;
    Ok(())
}

/// The size of this terminal, if standard input is one.
fn window() -> Option<ShellSize> {
    let size = tcgetwinsize(std::io::stdin()).ok()?;
    Some(ShellSize { rows: size.ws_row.into(), columns: size.ws_col.into() })
}

/// The signals that end the session or change the terminal's size. A raw terminal sends Ctrl-C as a byte, not as a signal.
struct Signals {
    resized: Signal,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self {
            resized: listen(SignalKind::window_change())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }
}

/// This terminal as it was, which it becomes again in the end.
struct Raw(Option<Termios>);

impl Raw {
    /// Makes standard input raw, if it is a terminal.
    fn enter() -> Self {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Self(None);
        }
        let Ok(before) = tcgetattr(&stdin) else { return Self(None) };
        let mut raw = before.clone();
        raw.make_raw();
        let made = tcsetattr(&stdin, OptionalActions::Now, &raw);
        Self(made.is_ok().then_some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let mut stdout = std::io::stdout();
            let knows_sequences =
                std::env::var("TERM").is_ok_and(|it| !matches!(&*it, "" | "dumb"));
            if knows_sequences && stdout.is_terminal() {
                let _ = stdout.write_all(RESET).and_then(|()| stdout.flush());
            }
            // Input that nobody has read is dropped: an action may have asked the terminal for an answer that
            // would come as typed text to the shell that started this program.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, before);
        }
    }
}
