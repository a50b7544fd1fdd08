//! The verb `run`: one command with a server, in all ways in which it can end.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Output, Stdio};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testkit::harness::{self, Case};
use testkit::{Client, Kit, Outcome, StartAs, eventually, skip};
use tonic::transport::Endpoint;

/// The first argument of this binary where it is the command, and a client of the server.
const CLIENT: &str = "--client";

macro_rules! cases {
    ($($case:ident),+ $(,)?) => { vec![$(Case::new(stringify!($case), $case)),+] };
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(CLIENT) {
        return be_client();
    }
    let cases = cases![
        the_command_has_a_server_that_leaves_nothing,
        a_store_that_is_kept_has_the_results,
        the_exit_status_is_that_of_the_command,
        the_exit_status_is_kept_without_a_reader,
        signals_are_passed_on,
        a_terminal_interrupts_the_command_once,
        a_server_that_can_not_start_is_told,
        a_server_that_dies_is_told,
        the_server_ends_with_who_started_it,
        the_lines_for_bazel_are_written,
        a_shared_server_goes_on,
        flags_of_serve_are_checked_before,
    ];
    harness::run(env!("CARGO_BIN_EXE_linux-actiond"), cases)
}

/// Runs an action on the server of the environment.
fn be_client() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run_action())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run_action() -> anyhow::Result<()> {
    let place = std::env::var("ACTIOND_ENDPOINT")?;
    let uri = match place.strip_prefix("unix:") {
        Some(path) => format!("unix://{path}"),
        None => place.replace("grpc://", "http://"),
    };
    let client = Client::on(Endpoint::from_shared(uri)?.connect().await?);
    let run = client.action("echo hello > out").with_programs().output("out").run().await?;
    println!("{} {}", run.succeeded().await?.file("out").await?.trim(), run.from_cache());
    Ok(())
}

/// A place for temporary files, and the command line of `run` with these flags and this command.
struct Scene {
    place: tempfile::TempDir,
    command: Command,
}

impl Scene {
    fn new(kit: &Kit, flags: &[&str], words: &[&str]) -> anyhow::Result<Self> {
        kit.only_on_the_host("this verb starts `serve`")?;
        let place = kit.daemon().directory()?;
        let mut command = program(kit);
        command.arg("run").args(flags).arg("--").args(words);
        command.env("ACTIOND_CONFIG", "/dev/null").env("TMPDIR", place.path());
        command.stdin(Stdio::null());
        Ok(Self { place, command })
    }

    /// With this binary as the command, which is a client.
    fn with_client(kit: &Kit, flags: &[&str]) -> anyhow::Result<Self> {
        let this = std::env::current_exe()?;
        let mut scene = Self::new(kit, flags, &[])?;
        // The user who runs it may not be able to reach it by its path, and has this descriptor.
        if kit.start_as().is_some() {
            let script = "exec \"$0\" \"$@\" 8< \"$CLIENT\"";
            let mut command = Command::new("bash");
            command.args(["-c", script]).arg(scene.command.get_program());
            command.args(scene.command.get_args()).env("CLIENT", this);
            for (name, value) in scene.command.get_envs() {
                command.env(name, value.unwrap_or_default());
            }
            command.stdin(Stdio::null());
            scene.command = command;
            scene.command.args(["/proc/self/fd/8", CLIENT]);
        } else {
            scene.command.arg(this).arg(CLIENT);
        }
        Ok(scene)
    }

    fn run(&mut self) -> anyhow::Result<Output> {
        Ok(self.command.output()?)
    }

    /// Starts it, and waits until the command has printed a line.
    fn start(&mut self) -> anyhow::Result<Child> {
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("a pipe")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "{line:?}: {:?}", child.wait_with_output());
        Ok(child)
    }

    fn is_empty(&self) -> anyhow::Result<bool> {
        Ok(std::fs::read_dir(self.place.path())?.next().is_none())
    }
}

/// The daemon's program, started as the kit does it.
fn program(kit: &Kit) -> Command {
    let words = kit.words();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// The words as one line for a shell.
fn quoted(words: &[OsString]) -> String {
    let quote = |word: &OsString| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn expect(output: &Output, code: i32, parts: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "`{part}` in: {stderr}");
    }
}

async fn the_command_has_a_server_that_leaves_nothing(kit: Kit) -> Outcome {
    let mut scene = Scene::with_client(&kit, &["--allow-host-rootfs"])?;
    let output = scene.run()?;
    let line = "linux-actiond: 1 action, 0 from the cache, 6 bytes of outputs; ";
    expect(&output, 0, &[line, " s, exit status 0\n"]);
    assert_eq!(text(&output.stdout), "hello false\n");
    assert!(!text(&output.stderr).contains("serving on"), "{}", text(&output.stderr));
    assert!(scene.is_empty()?);
    Ok(())
}

async fn a_store_that_is_kept_has_the_results(kit: Kit) -> Outcome {
    let kept = kit.daemon().directory()?;
    let root = format!("--root={}", kept.path().join("root").display());
    // And at a port.
    let flags = ["--allow-host-rootfs", &root, "--listen=127.0.0.1:0"];
    for (said, told) in [
        ("hello false\n", "1 action, 0 from the cache, 6 bytes"),
        ("hello true\n", "0 actions, 1 from the cache, 0 bytes"),
    ] {
        let output = Scene::with_client(&kit, &flags)?.run()?;
        expect(&output, 0, &[told]);
        assert_eq!(text(&output.stdout), said);
    }
    Ok(())
}

async fn the_exit_status_is_that_of_the_command(kit: Kit) -> Outcome {
    for (words, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 3"], 3),
        (&["sh", "-c", "exit 255"], 255),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["no-such-command"], 127),
        (&["/etc/passwd"], 126),
        // Flags behind the command are the command's.
        (&["sh", "-c", "exit $#", "sh", "--shared", "--", "--root=/"], 3),
    ] {
        let mut scene = Scene::new(&kit, &[], words)?;
        expect(&scene.run()?, code, &[&format!("exit status {code}\n")]);
        assert!(scene.is_empty()?, "{words:?}");
    }
    Ok(())
}

/// As behind `2>&1 | head`, when that has ended.
async fn the_exit_status_is_kept_without_a_reader(kit: Kit) -> Outcome {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut scene = Scene::new(&kit, &["--log=info"], &["sh", "-c", "exit 3"])?;
    let status = scene.command.stdout(writer.try_clone()?).stderr(writer).status()?;
    assert_eq!(status.code(), Some(3), "{status}");
    assert!(scene.is_empty()?);
    Ok(())
}

async fn signals_are_passed_on(kit: Kit) -> Outcome {
    for (name, signal) in
        [("TERM", Signal::TERM), ("INT", Signal::INT), ("HUP", Signal::HUP), ("QUIT", Signal::QUIT)]
    {
        let script = format!("trap 'exit 5' {name}; echo ready; while :; do sleep 0.01; done");
        let mut scene = Scene::new(&kit, &[], &["sh", "-c", &script])?;
        let child = scene.start()?;
        kill_process(Pid::from_child(&child), signal)?;
        expect(&child.wait_with_output()?, 5, &["exit status 5"]);
        assert!(scene.is_empty()?, "{name}");
    }
    Ok(())
}

/// The terminal sends SIGINT to the command too; passed on, it would come twice.
async fn a_terminal_interrupts_the_command_once(kit: Kit) -> Outcome {
    if Command::new("script").arg("--version").output().is_err() {
        return skip("there is no script(1), which makes a terminal");
    }
    if kit.start_as() == Some(StartAs::Container) {
        return skip("the container's process ids are others than this test's");
    }
    let place = kit.daemon().directory()?;
    let counter = place.path().join("counter");
    // SIGTERM comes after what was passed on before, and is passed on as well.
    let inner = format!(
        "n=0; trap 'n=$((n + 1)); echo $n > {0}' INT; trap 'exit $((n + 10))' TERM; \
         echo $PPID > {0}.pid; while :; do sleep 0.01; done",
        counter.display()
    );
    let run = Scene::new(&kit, &[], &["sh", "-c", "$INNER"])?;
    let line = format!("exec {} run -- sh -c \"$INNER\"", quoted(&kit.words()));
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("INNER", inner);
    terminal
        .env("ACTIOND_CONFIG", "/dev/null")
        .env("TMPDIR", run.place.path())
        .env("SHELL", "/bin/sh");
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let pid_file = counter.with_extension("pid");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    eventually("the command runs", || Ok(read(&pid_file).ends_with('\n'))).await?;
    let mut keys = terminal.stdin.take().context("a keyboard")?;
    keys.write_all(b"\x03")?;
    eventually("it is interrupted", || Ok(read(&counter).ends_with('\n'))).await?;
    let run = read(&pid_file).trim().parse().ok().and_then(Pid::from_raw).context("a process")?;
    kill_process(run, Signal::TERM)?;
    let output = terminal.wait_with_output()?;
    assert_eq!(output.status.code(), Some(11), "{}", text(&output.stdout));
    drop(keys);
    Ok(())
}

async fn a_server_that_can_not_start_is_told(kit: Kit) -> Outcome {
    let mut scene = Scene::new(&kit, &["--root=/proc/nowhere"], &["sh", "-c", "echo ran"])?;
    let output = scene.run()?;
    expect(&output, 125, &["/proc/nowhere", "the server did not start"]);
    assert_eq!(text(&output.stdout), "", "the command did not run");
    assert!(scene.is_empty()?);
    Ok(())
}

async fn a_server_that_dies_is_told(kit: Kit) -> Outcome {
    let script =
        "for p in $(cat /proc/$PPID/task/*/children); do [ $p = $$ ] || kill -9 $p; done; exit 4";
    let mut scene = Scene::new(&kit, &[], &["sh", "-c", script])?;
    expect(&scene.run()?, 4, &["the server did not say what it did", "exit status 4"]);

    let script = format!("({script}); echo ready; exec cat");
    let mut scene = Scene::new(&kit, &[], &["sh", "-c", &script])?;
    scene.command.stdin(Stdio::piped());
    let mut child = scene.start()?;
    // The command ends with its standard input, after the end of the server was told.
    let stdin = child.stdin.take();
    let mut lines = BufReader::new(child.stderr.take().context("a pipe")?).lines();
    let told = "the server has ended before the command: signal: 9";
    let is_told = lines.find(|line| line.as_ref().map_or(true, |line| line.contains(told)));
    is_told.context("the end of the server was not told")??;
    drop(stdin);
    assert_eq!(child.wait()?.code(), Some(0));
    Ok(())
}

async fn the_server_ends_with_who_started_it(kit: Kit) -> Outcome {
    let mut scene = Scene::new(&kit, &[], &["sh", "-c", "echo ready; exec cat"])?;
    scene.command.stdin(Stdio::piped());
    let mut child = scene.start()?;
    // The command, which is no business of the server's, ends with its standard input.
    let stdin = child.stdin.take();
    let place = scene.place.path().to_str().context("a path of UTF-8")?.to_owned();
    let is_there = || Ok(has_process_with(&place));
    ensure!(is_there()?, "the server's command line has its root");
    kill_process(Pid::from_child(&child), Signal::KILL)?;
    eventually("the server ends", || is_there().map(|there: bool| !there)).await?;
    drop(stdin);
    child.wait()?;
    Ok(())
}

/// Whether a process has these words on its command line.
fn has_process_with(words: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .map(|process| process.path().join("cmdline"))
        .any(|path| std::fs::read(path).is_ok_and(|line| text(&line).contains(words)))
}

async fn the_lines_for_bazel_are_written(kit: Kit) -> Outcome {
    let place = kit.daemon().directory()?;
    let path = place.path().join("bazelrc");
    let flag = format!("--bazelrc-out={}", path.display());
    let script = format!("cat {}; echo $ACTIOND_ENDPOINT", path.display());
    let mut scene = Scene::new(&kit, &[&flag, "--allow-host-rootfs"], &["sh", "-c", &script])?;
    let output = scene.run()?;
    expect(&output, 0, &[]);
    let said = text(&output.stdout);
    let lines: Vec<_> = said.lines().filter(|line| !line.starts_with('#')).collect();
    let [executor, rootfs, .., endpoint] = lines[..] else { anyhow::bail!("{said}") };
    assert!(said.contains("# give linux-actiond --listen=127.0.0.1:0"), "{said}");
    assert_eq!(executor, format!("build --remote_executor={endpoint}"));
    assert!(endpoint.starts_with("unix:/") && endpoint.ends_with("/socket"), "{endpoint}");
    assert_eq!(rootfs, "build --remote_default_exec_properties=rootfs=host");
    // One that can't be written is a failure before the command.
    let mut scene = Scene::new(&kit, &["--bazelrc-out=/proc/x"], &["echo", "ran"])?;
    let output = scene.run()?;
    expect(&output, 125, &["writing /proc/x"]);
    assert_eq!(text(&output.stdout), "");
    assert!(scene.is_empty()?);
    Ok(())
}

async fn a_shared_server_goes_on(kit: Kit) -> Outcome {
    let mut daemon = kit.daemon().host_rootfs().start().await?;
    let listen = format!("--listen={}", daemon.address());
    let flags = ["--shared", listen.as_str()];
    for said in ["hello false\n", "hello true\n"] {
        let output = Scene::with_client(&kit, &flags)?.run()?;
        let told = format!("on the server at {}", daemon.address());
        expect(&output, 0, &[&told, "exit status 0"]);
        assert_eq!(text(&output.stdout), said);
    }
    daemon.terminate()?;
    daemon.wait()?;
    let output = Scene::new(&kit, &flags, &["echo", "ran"])?.run()?;
    expect(&output, 125, &["--shared: no server is at 127.0.0.1:", "or leave out --shared"]);
    assert_eq!(text(&output.stdout), "");
    Ok(())
}

async fn flags_of_serve_are_checked_before(kit: Kit) -> Outcome {
    for (flags, said) in [
        (&["--jobs=0"][..], "--jobs"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--log=["], "log filter"),
        (&["--tls-cert=x"], "--tls-key"),
    ] {
        let output = Scene::new(&kit, flags, &["echo", "ran"])?.run()?;
        assert!(!output.status.success() && output.stdout.is_empty(), "{flags:?}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
    let mut command = Command::new(kit.binary());
    let help = text(&command.args(["run", "--help"]).output()?.stdout);
    for part in ["--shared", "--bazelrc-out <FILE>", "--root <DIR>", "a temporary one", "<COMMAND>"]
    {
        assert!(help.contains(part), "{part} in {help}");
    }
    assert!(!help.contains("/tmp/actiond") && !help.contains("--tls-cert"), "{help}");
    Ok(())
}
