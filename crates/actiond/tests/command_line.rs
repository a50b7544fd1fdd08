//! The command line: what it refuses, and what it says then.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testkit::eventually;
use testkit::{Kit, Outcome};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    help_names_every_flag,
    unknown_flags_are_refused,
    values_that_are_none_are_refused,
    serve_for_a_root_of_another_user_fails,
    a_root_in_use_is_refused,
    a_root_of_another_version_is_refused,
    a_root_of_another_user_is_refused,
    an_address_in_use_is_refused,
    a_port_for_everybody_is_refused,
    a_runtime_root_that_is_not_there_is_refused,
    a_host_root_that_is_none_is_refused,
    flags_take_their_value_either_way,
    completions_are_scripts_for_their_shell,
    the_log_is_json_where_that_is_asked_for,
    the_lines_for_bazel_have_the_address,
    doctor_tells_what_is_here,
    doctor_for_a_root_of_another_user_fails,
    doctor_tells_that_a_tmpfs_is_lost,
    doctor_leaves_nothing_behind,
    a_helper_on_its_own_ends,
    a_reader_that_goes_away_ends_a_verb_without_noise,
    a_reader_that_goes_away_ends_no_server,
}

fn run(kit: &Kit, arguments: &[&str]) -> anyhow::Result<Output> {
    Ok(Command::new(kit.binary()).args(arguments).output()?)
}

/// A pipe whose reader is gone, as behind `| head` when that has ended.
fn without_reader() -> anyhow::Result<Stdio> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    Ok(writer.into())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// That the command fails by itself, and says something with `expected` in it.
fn refuses(output: &Output, expected: &str) {
    let stderr = text(&output.stderr);
    assert!(!output.status.success(), "{stderr}");
    assert!(output.status.code().is_some(), "it was killed: {:?}", output.status);
    assert!(stderr.contains(expected), "`{expected}` in: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

async fn help_names_every_flag(kit: Kit) -> Outcome {
    let output = run(&kit, &["serve", "--help"])?;
    assert!(output.status.success());
    let help = text(&output.stdout);
    for flag in [
        "--listen",
        "--listen-mode",
        "--token-file",
        "--insecure",
        "--root",
        "--name",
        "--ac-update",
        "--read-only",
        "--jobs",
        "--queue-limit",
        "--runtime-root",
        "--allow-host-rootfs[=<DIR>]",
        "--input-root-strategy",
        "--action-ids",
        "--platform",
        "--unknown-properties",
        "--tmp-bytes",
        "--shm-bytes",
        "--stream-limit-bytes",
        "--default-timeout-ms",
        "--max-timeout-ms",
        "--orphan-grace-ms",
        "--drain-timeout-ms",
        "--print-bazelrc",
        "--log",
        "--log-format",
    ] {
        assert!(help.contains(flag), "{flag} in {help}");
    }
    let overview = text(&run(&kit, &["--help"])?.stdout);
    assert!(overview.contains("serve") && overview.contains("doctor"));
    assert!(!overview.contains("helper"), "the hidden word is not shown");
    Ok(())
}

async fn completions_are_scripts_for_their_shell(kit: Kit) -> Outcome {
    for shell in ["bash", "fish", "zsh"] {
        let output = run(&kit, &["completions", shell])?;
        let script = text(&output.stdout);
        assert!(output.status.success(), "{shell}");
        for word in ["serve", "input-root-strategy", "bazelrc-out", "doctor"] {
            assert!(script.contains(word), "{word} in {script}");
        }
    }
    let syntax = format!("bash -n <('{}' completions bash)", kit.binary().display());
    let output = Command::new("bash").args(["-c", &syntax]).output()?;
    assert!(output.status.success(), "{}", text(&output.stderr));
    refuses(&run(&kit, &["completions", "cmd"])?, "cmd");
    Ok(())
}

async fn unknown_flags_are_refused(kit: Kit) -> Outcome {
    refuses(&run(&kit, &["serve", "--no-such-flag"])?, "--no-such-flag");
    refuses(&run(&kit, &["no-such-verb"])?, "no-such-verb");
    refuses(&run(&kit, &[])?, "Usage");
    Ok(())
}

async fn values_that_are_none_are_refused(kit: Kit) -> Outcome {
    for flag in [
        "--listen=here",
        "--name=",
        "--ac-update=maybe",
        "--name=two words",
        "--jobs=0",
        "--jobs=-1",
        "--jobs=many",
        "--queue-limit=x",
        "--input-root-strategy=magic",
        "--tmp-bytes=much",
        "--drain-timeout-ms=1s",
        "--log-format=xml",
    ] {
        let name = flag.split('=').next().unwrap_or_default();
        refuses(&run(&kit, &["serve", flag])?, name);
    }
    let (mut command, _directory) = kit.daemon().flag("--log=[").command()?;
    refuses(&command.output()?, "log filter");
    Ok(())
}

async fn serve_for_a_root_of_another_user_fails(kit: Kit) -> Outcome {
    let (mut command, _directory) = kit.daemon().command()?;
    refuses(&unprivileged(&mut command)?, "Permission denied");
    Ok(())
}

/// Runs `command` as nobody.
fn unprivileged(command: &mut Command) -> anyhow::Result<Output> {
    // The binary may be below a directory that nobody may enter.
    let copy = tempfile::Builder::new().prefix("actiond-binary-").tempdir()?;
    std::fs::set_permissions(copy.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let binary = copy.path().join("linux-actiond");
    // By another process: a file that this one has written can't be executed as
    // long as a child that another thread has just forked holds it open.
    let copied = Command::new("cp").arg(command.get_program()).arg(&binary).status()?;
    anyhow::ensure!(copied.success(), "copying the binary");
    let mut copied = Command::new(&binary);
    copied.args(command.get_args()).env("HOME", copy.path()).uid(65534).gid(65534);
    Ok(copied.output()?)
}

async fn a_root_in_use_is_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let root = format!("--root={}", daemon.root().display());
    let output = run(&kit, &["serve", "--listen=127.0.0.1:0", &root])?;
    refuses(&output, &daemon.root().display().to_string());
    daemon.client().put("the first one serves on").await?;
    Ok(())
}

async fn a_root_of_another_version_is_refused(kit: Kit) -> Outcome {
    let mut daemon = kit.daemon().start().await?;
    daemon.terminate()?;
    daemon.wait()?;
    std::fs::write(daemon.root().join("version"), "actiond store 999\n")?;
    let root = format!("--root={}", daemon.root().display());
    let output = run(&kit, &["serve", "--listen=127.0.0.1:0", &root])?;
    refuses(&output, "actiond store 999");
    Ok(())
}

async fn a_root_of_another_user_is_refused(kit: Kit) -> Outcome {
    let directory = tempfile::tempdir()?;
    std::os::unix::fs::chown(directory.path(), Some(65534), Some(65534))?;
    let root = format!("--root={}", directory.path().display());
    let output = run(&kit, &["serve", "--listen=127.0.0.1:0", &root])?;
    refuses(&output, &directory.path().display().to_string());
    Ok(())
}

async fn a_port_for_everybody_is_refused(kit: Kit) -> Outcome {
    let (mut command, _root) = kit.daemon().command()?;
    refuses(&command.arg("--listen=0.0.0.0:0").output()?, "?anonymous=RIGHTS");
    Ok(())
}

async fn an_address_in_use_is_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let directory = tempfile::tempdir()?;
    let root = format!("--root={}", directory.path().join("root").display());
    let listen = format!("--listen={}", daemon.address());
    let output = run(&kit, &["serve", &listen, &root])?;
    refuses(
        &output,
        &format!("another program listens on {}; --listen=127.0.0.1:0", daemon.address()),
    );
    Ok(())
}

async fn a_runtime_root_that_is_not_there_is_refused(kit: Kit) -> Outcome {
    let (mut command, _directory) = kit.daemon().flag("--runtime-root=/no/such/dir").command()?;
    refuses(&command.output()?, "/no/such/dir");
    Ok(())
}

async fn a_host_root_that_is_none_is_refused(kit: Kit) -> Outcome {
    let empty = tempfile::tempdir()?;
    let flag = format!("--allow-host-rootfs={}", empty.path().display());
    let (mut command, _directory) = kit.daemon().flag(flag).command()?;
    refuses(&command.output()?, &empty.path().display().to_string());
    Ok(())
}

async fn flags_take_their_value_either_way(kit: Kit) -> Outcome {
    let daemon = kit.daemon().flag("--jobs").flag("1").flag("--queue-limit=5").start().await?;
    daemon.client().put("it serves").await?;
    Ok(())
}

async fn the_log_is_json_where_that_is_asked_for(kit: Kit) -> Outcome {
    // The later of two formats counts: `serve-vm` puts its own before the operator's.
    let daemon = kit.daemon().flag("--log-format=text").flag("--log-format=json").host_rootfs();
    let daemon = daemon.flag("--log=info,store=off").start().await?;
    daemon.client().action("exit 3").run().await?;
    let finished = || {
        let log = daemon.log();
        let mut objects = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        objects.find(|event: &serde_json::Value| event["message"] == "action finished")
    };
    eventually("the action is logged", || Ok(finished().is_some())).await?;
    let event = finished().unwrap_or_default();
    assert_eq!((&event["level"], &event["exit_code"]), (&"INFO".into(), &3.into()), "{event}");
    assert_eq!(event["cached"], false, "{event}");
    assert!(event["total_us"].is_u64() && event["timestamp"].is_string(), "{event}");
    Ok(())
}

async fn the_lines_for_bazel_have_the_address(kit: Kit) -> Outcome {
    let flags = ["--allow-host-rootfs", "--print-bazelrc"];
    let (mut command, _directory) = kit.daemon().flag(flags[0]).flag(flags[1]).command()?;
    let mut daemon = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut lines = BufReader::new(daemon.stdout.take().context("stdout is piped")?).lines();
    // All of it is for the file: what is not a line for Bazel is a comment.
    let mut comments = Vec::new();
    let found = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let address = line.strip_prefix("build --remote_executor=grpc://").map(str::to_owned);
        comments.extend(address.is_none().then_some(line));
        address
    });
    let next = lines.next().transpose()?;
    let connected = found.as_ref().map(TcpStream::connect);
    daemon.kill()?;
    daemon.wait()?;
    ensure!(matches!(connected, Some(Ok(_))), "{found:?} can't be connected to: {connected:?}");
    ensure!(next.is_some_and(|line| line.ends_with("=rootfs=host")), "rootfs=host is not there");
    let is_comment = |line: &String| line.is_empty() || line.starts_with('#');
    ensure!(comments.iter().all(is_comment), "Bazel can't read {comments:?}");
    Ok(())
}

/// `doctor`, for a root that is not there yet.
fn doctor(kit: &Kit) -> anyhow::Result<(Command, tempfile::TempDir)> {
    let directory = tempfile::tempdir()?;
    let mut command = Command::new(kit.binary());
    command.arg("doctor").arg("--root").arg(directory.path().join("not/yet/there"));
    Ok((command, directory))
}

async fn doctor_tells_what_is_here(kit: Kit) -> Outcome {
    let (mut command, _directory) = doctor(&kit)?;
    let output = command.output()?;
    let report = text(&output.stdout);
    assert!(output.status.success(), "{report}");
    for feature in
        ["root", "namespaces", "system call filters", "input roots", "a sandbox", "cgroup"]
    {
        assert!(report.contains(feature), "{feature} in {report}");
    }
    assert!(report.contains("serve can run here"), "{report}");
    // Each absent feature has its cost and its remedy.
    let absent = report.lines().filter(|line| line.starts_with("NO")).count();
    assert_eq!(report.matches("without it:").count(), absent, "{report}");
    assert_eq!(report.matches("to get it:").count(), absent, "{report}");
    Ok(())
}

async fn doctor_for_a_root_of_another_user_fails(kit: Kit) -> Outcome {
    let (mut command, _directory) = doctor(&kit)?;
    let output = unprivileged(&mut command)?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    refuses(&output, "Permission denied");
    Ok(())
}

/// The tmpfs is mounted in a namespace of the command's own.
async fn doctor_tells_that_a_tmpfs_is_lost(kit: Kit) -> Outcome {
    let directory = tempfile::tempdir()?;
    let mount = "mount -t tmpfs none \"$1\" && exec \"$0\" doctor --root \"$1/root\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-c", mount]);
    let output = command.arg(kit.binary()).arg(directory.path()).output()?;
    let report = text(&output.stdout);
    let line = report.lines().find(|line| line.contains("survives a power loss"));
    let says_no = line.is_some_and(|line| line.starts_with("NO") && line.ends_with("a tmpfs"));
    assert!(output.status.success() && says_no, "{report}{}", text(&output.stderr));
    assert!(report.contains("lost at the next boot"), "{report}");
    Ok(())
}

async fn doctor_leaves_nothing_behind(kit: Kit) -> Outcome {
    let (mut command, directory) = doctor(&kit)?;
    command.output()?;
    assert_eq!(std::fs::read_dir(directory.path())?.count(), 0);
    Ok(())
}

async fn a_helper_on_its_own_ends(kit: Kit) -> Outcome {
    // The hidden word without a daemon behind it: an end, and no harm.
    let mut command = Command::new(kit.binary());
    let output = command.arg("sandbox-helper").stdin(std::process::Stdio::null()).output()?;
    assert!(!output.status.success());
    Ok(())
}

async fn a_reader_that_goes_away_ends_a_verb_without_noise(kit: Kit) -> Outcome {
    let directory = tempfile::tempdir()?;
    let root = format!("--root={}", directory.path().join("root").display());
    for words in [
        &["bazelrc"][..],
        &["completions", "bash"],
        &["config", "check"],
        &["config", "show"],
        &["doctor", &root],
        &["serve", "--help"],
    ] {
        let mut command = Command::new(kit.binary());
        command.args(words).env("ACTIOND_CONFIG", "/dev/null").stdout(without_reader()?);
        let output = command.stderr(Stdio::piped()).spawn()?.wait_with_output()?;
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{words:?}: {stderr}");
    }
    // Nor does a message change the exit status.
    let mut command = Command::new(kit.binary());
    let status = command.args(["config", "check", "--config=/nowhere"]).stderr(without_reader()?);
    assert_eq!(status.status()?.code(), Some(1));
    Ok(())
}

async fn a_reader_that_goes_away_ends_no_server(kit: Kit) -> Outcome {
    let (mut command, directory) = kit.daemon().flag("--print-bazelrc").command()?;
    let mut daemon = command.stdout(without_reader()?).stderr(without_reader()?).spawn()?;
    let root = format!("--root={}", directory.path().join("root").display());
    let answers = || Ok(run(&kit, &["ps", &root])?.status.success());
    let served = eventually("the server answers", answers).await;
    // Its log lines meet the same pipe.
    kill_process(Pid::from_child(&daemon), Signal::HUP)?;
    let serves_on = served.is_ok() && answers()? && daemon.try_wait()?.is_none();
    kill_process(Pid::from_child(&daemon), Signal::TERM)?;
    let status = daemon.wait()?;
    served?;
    ensure!(serves_on, "it ended: {status}");
    ensure!(status.success(), "{status}");
    Ok(())
}
