//! The daemon's notifications to systemd, and the sockets that it inherits.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use testkit::wait::PATIENCE;
use testkit::{Client, DigestFunction, Kit, Outcome, proto, skip};
use tonic::transport::{Channel, Endpoint};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    readiness_life_and_end_are_told,
    a_manager_that_is_gone_is_no_reason_to_fail,
    inherited_sockets_are_served,
    an_inherited_file_that_is_no_socket_is_refused,
    systemd_starts_the_daemon_with_the_first_client,
    events_go_to_the_journal_with_their_fields,
}

async fn readiness_life_and_end_are_told(kit: Kit) -> Outcome {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let hear = || -> anyhow::Result<String> {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).context("the daemon is silent")?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let (mut command, _root) = kit.daemon().command()?;
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000");
    let mut daemon = command.spawn()?;
    assert_eq!(hear()?, "READY=1");
    for _ in 0..3 {
        assert_eq!(hear()?, "WATCHDOG=1");
    }
    let id = Pid::from_raw(i32::try_from(daemon.id())?).context("a process has an id")?;
    kill_process(id, Signal::TERM)?;
    let mut said = HashSet::new();
    while !said.contains("STOPPING=1") {
        said.insert(hear()?);
    }
    assert!(daemon.wait()?.success());
    Ok(())
}

async fn a_manager_that_is_gone_is_no_reason_to_fail(kit: Kit) -> Outcome {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let (mut command, _root) = kit.daemon().command()?;
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000");
    let mut daemon = command.spawn()?;
    manager.recv(&mut [0; 256]).context("the daemon is silent")?;
    drop(manager);
    std::fs::remove_file(&path)?;
    let id = Pid::from_raw(i32::try_from(daemon.id())?).context("a process has an id")?;
    kill_process(id, Signal::TERM)?;
    assert!(daemon.wait()?.success());
    Ok(())
}

/// Executes the words with descriptors 3 and 4 of systemd's socket activation (sd_listen_fds(3)), which this
/// gets as standard input and output.
const AS_SYSTEMD: &str = "exec 3<&0 4<&1 0</dev/null 1>/dev/null; \
                          LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" \"$@\"";

/// `serve` as a child that inherits two files in systemd's way.
fn serve_with(kit: &Kit, root: &Path, first: OwnedFd, second: OwnedFd) -> anyhow::Result<Child> {
    let mut command = Command::new("sh");
    command.args(["-c", AS_SYSTEMD]).arg(kit.binary());
    command.args(["serve", "--http=off", "--root"]).arg(root);
    command.env("ACTIOND_CONFIG", "/dev/null");
    command.stdin(first).stdout(second).stderr(Stdio::piped());
    Ok(command.spawn()?)
}

/// Whether the server at the other end answers a call that needs the right to read.
async fn answers(channel: Channel) -> anyhow::Result<bool> {
    let message = proto::FindMissingBlobsRequest {
        digest_function: DigestFunction::Sha256.to_proto(),
        ..proto::FindMissingBlobsRequest::default()
    };
    Ok(Client::on(channel).cas().find_missing_blobs(message).await.is_ok())
}

async fn inherited_sockets_are_served(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM inherits no sockets")?;
    let directory = kit.daemon().directory()?;
    let path = directory.path().join("socket");
    let (tcp, unix) = (TcpListener::bind("127.0.0.1:0")?, UnixListener::bind(&path)?);
    let address = tcp.local_addr()?;
    // Clients that come before the daemon wait for it.
    let early = std::net::TcpStream::connect(address)?;
    let root = directory.path().join("root");
    let mut daemon = serve_with(&kit, &root, tcp.into(), unix.into())?;
    let over_tcp = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
    assert!(answers(over_tcp).await?);
    let over_unix = Endpoint::from_shared(format!("unix://{}", path.display()))?.connect().await?;
    assert!(answers(over_unix).await?);
    drop(early);
    let id = Pid::from_raw(i32::try_from(daemon.id())?).context("a process has an id")?;
    kill_process(id, Signal::TERM)?;
    assert!(daemon.wait()?.success());
    assert!(path.exists(), "the socket's file is systemd's");
    Ok(())
}

async fn an_inherited_file_that_is_no_socket_is_refused(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM inherits no sockets")?;
    let directory = kit.daemon().directory()?;
    let tcp = TcpListener::bind("127.0.0.1:0")?;
    let file = std::fs::File::open("/dev/null")?;
    let root = directory.path().join("root");
    let daemon = serve_with(&kit, &root, tcp.into(), file.into())?;
    let output = daemon.wait_with_output()?;
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("using the inherited descriptor 4"), "{said}");
    Ok(())
}

async fn systemd_starts_the_daemon_with_the_first_client(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM inherits no sockets")?;
    const PROGRAM: &str = "systemd-socket-activate";
    if Command::new(PROGRAM).arg("--version").output().is_err() {
        return skip(format!("no {PROGRAM}"));
    }
    let directory = kit.daemon().directory()?;
    let path = directory.path().join("socket");
    let mut activator = Command::new(PROGRAM)
        .arg(format!("--listen={}", path.display()))
        .args(["--setenv=ACTIOND_CONFIG=/dev/null", "--"])
        .arg(kit.binary())
        .args(["serve", "--http=off", "--root"])
        .arg(directory.path().join("root"))
        .stderr(Stdio::null())
        .spawn()?;
    let outcome = async {
        // Between bind(2) and listen(2) the socket has a path and refuses clients.
        let endpoint = Endpoint::from_shared(format!("unix://{}", path.display()))?;
        let mut channel = None;
        testkit::eventually_async("the socket takes clients", async || {
            channel = endpoint.connect().await.ok();
            Ok(channel.is_some())
        })
        .await?;
        assert!(answers(channel.context("a channel")?).await?);
        Ok(())
    };
    let outcome = outcome.await;
    // It has become the daemon.
    let id = Pid::from_raw(i32::try_from(activator.id())?).context("a process has an id")?;
    kill_process(id, Signal::TERM)?;
    activator.wait()?;
    outcome
}

/// Executes the words where the directory of a journald is that of the test, and where standard error is connected
/// to the journal, as systemd says it.
const WITH_JOURNAL: &str = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
                            mount --bind \"$0\" /run/systemd/journal && \
                            JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && \
                            export JOURNAL_STREAM && exec \"$@\"";

async fn events_go_to_the_journal_with_their_fields(kit: Kit) -> Outcome {
    kit.only_on_the_host("the log of a guest is that of its host")?;
    let directory = tempfile::tempdir()?;
    let everybody = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(directory.path(), everybody(0o755))?;
    let path = directory.path().join("socket");
    let journald = UnixDatagram::bind(&path)?;
    std::fs::set_permissions(&path, everybody(0o666))?;
    journald.set_read_timeout(Some(PATIENCE))?;
    let place = directory.path().display().to_string();
    let words = ["unshare", "--mount", "sh", "-c", WITH_JOURNAL, &place];
    let (mut command, _root) = kit.daemon().flag("--http=off").through(words).command()?;
    let mut daemon = command.spawn()?;
    let mut buffer = vec![0; 1 << 16];
    // The fields that the entry with that message has, one a line where none has a newline.
    let mut entry_with = |message: &str| loop {
        let length = journald.recv(&mut buffer).context("the daemon is silent")?;
        let entry = String::from_utf8(buffer[..length].to_vec())?;
        if entry.lines().any(|line| line.starts_with(&format!("MESSAGE={message}"))) {
            return anyhow::Ok(entry);
        }
    };
    let entry = entry_with("input roots strategy=")?;
    for line in ["PRIORITY=6", "SYSLOG_IDENTIFIER=linux-actiond", "ACTIOND_MODULE=actiond::serve"] {
        assert!(entry.lines().any(|it| it == line), "{line} in {entry}");
    }
    assert!(entry.lines().any(|it| it.starts_with("ACTIOND_STRATEGY=")), "{entry}");
    // The program's own words, which are no events, stay on standard error.
    let mut said = BufReader::new(daemon.stderr.take().context("standard error is a pipe")?);
    let mut output = String::new();
    while !output.contains("serving on ") {
        assert!(said.read_line(&mut output)? > 0, "{output}");
    }
    let id = Pid::from_raw(i32::try_from(daemon.id())?).context("a process has an id")?;
    kill_process(id, Signal::TERM)?;
    entry_with("draining")?;
    said.read_to_string(&mut output)?;
    assert!(daemon.wait()?.success());
    assert!(!output.contains("input roots") && !output.contains("draining"), "twice: {output}");
    Ok(())
}
