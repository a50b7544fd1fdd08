//! `replay --shell`: a person at a terminal, in the sandbox of an action.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;
use testkit::{Action, Client, Daemon, Kit, Outcome, eventually, eventually_async};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_shell_has_the_view_of_the_action,
    the_window_has_a_size_and_can_change_it,
    an_interrupt_reaches_the_program_and_not_the_shell,
    the_end_of_the_input_ends_the_shell,
    input_that_is_no_terminal_is_sent,
    much_output_arrives_whole,
    a_client_that_goes_away_kills_the_shell,
    a_shell_takes_a_slot_and_nothing_outlives_it,
    a_shell_can_be_killed_by_its_operation,
    the_terminal_is_no_way_out,
    the_terminal_is_what_it_was_in_the_end,
    a_view_without_a_shell_says_so,
    only_the_owner_may_open_one,
}

/// A client whose standard streams are a terminal of the test.
struct Person {
    terminal: File,
    /// Kept open, so that the terminal has modes to look at after the client's end.
    clients_end: OwnedFd,
    seen: Arc<Mutex<String>>,
    child: Child,
}

impl Person {
    /// Opens a shell in the sandbox of that action.
    fn opens(kit: &Kit, daemon: &Daemon, action: &str, flags: &[&str]) -> anyhow::Result<Self> {
        Self::opens_at("dumb", kit, daemon, action, flags)
    }

    /// The same at a terminal of another kind.
    fn opens_at(
        kind: &str,
        kit: &Kit,
        daemon: &Daemon,
        action: &str,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        unlockpt(&terminal)?;
        let flags_of_end = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let clients_end = ioctl_tiocgptpeer(&terminal, flags_of_end)?;
        resize(&terminal, 33, 101)?;
        // The terminal is that of the client's session, which the kernel tells of its size.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(kit.binary()).args(["replay", action, "--shell"]);
        command.args(flags).arg("--root").arg(daemon.root());
        command.env_remove("ACTIOND_TOKEN").env("TERM", kind);
        command.stdin(clients_end.try_clone()?).stdout(clients_end.try_clone()?);
        let child = command.stderr(clients_end.try_clone()?).spawn().context("setsid")?;
        let terminal = File::from(terminal);
        let seen = Arc::<Mutex<String>>::default();
        let (mut reader, shown) = (terminal.try_clone()?, Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Ok(Self { terminal, clients_end, seen, child })
    }

    fn types(&mut self, text: &str) -> Outcome {
        self.terminal.write_all(text.as_bytes()).context("typing")
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    async fn sees(&self, text: &str) -> Outcome {
        let seen = eventually(text, || Ok(self.seen().contains(text))).await;
        seen.with_context(|| format!("{:?}", self.seen()))
    }

    /// The exit code of the client.
    async fn leaves(&mut self) -> anyhow::Result<i32> {
        let ended = eventually("the client ends", || Ok(self.child.try_wait()?.is_some())).await;
        ended.with_context(|| format!("{:?}", self.seen()))?;
        self.child.wait()?.code().context("an exit code")
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &impl std::os::fd::AsFd, rows: u16, columns: u16) -> Outcome {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

async fn start(kit: &Kit) -> anyhow::Result<Daemon> {
    kit.only_on_the_host("the socket of the owner is in the guest")?;
    kit.daemon().host_rootfs().flag("--http=off").flag("--jobs=1").start().await
}

fn copy(client: &Client) -> Action {
    client.action("cat src/in > out").input("src/in", "content").env("NAME", "value").output("out")
}

/// An action that was uploaded, by its digest.
async fn uploaded(daemon: &Daemon) -> anyhow::Result<String> {
    Ok(copy(&daemon.client()).upload().await?.to_string())
}

/// The running and queued actions.
fn actions(kit: &Kit, daemon: &Daemon) -> anyhow::Result<Vec<Value>> {
    let mut command = Command::new(kit.binary());
    let output = command.args(["ps", "--json", "--root"]).arg(daemon.root()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

async fn nothing_runs(kit: &Kit, daemon: &Daemon) -> Outcome {
    eventually("the slot is free", || Ok(actions(kit, daemon)?.is_empty())).await?;
    daemon.client().action("echo free").run().await?.succeeded().await?;
    Ok(())
}

async fn a_shell_has_the_view_of_the_action(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let action = copy(&daemon.client());
    action.run().await?.succeeded().await?;
    let digest = action.encode().0.to_string();
    let mut person = Person::opens(&kit, &daemon, &digest, &[])?;
    person.sees("the command of the action is: ").await?;
    person.types(
        "cat src/in; echo \" [$NAME] $(id -u) $((1 + 1)) $TERM\"; pwd; test -t 0 && echo a t''ty\n",
    )?;
    person.sees("content [value] 65534 2 dumb").await?;
    person.sees("/execroot").await?;
    person.sees("a tty").await?;
    // The limits of actions hold, and what the command makes is not in the cached result.
    person.types("echo other > out; mount -t tmpfs x /tmp || echo no m''ount; exit 7\n")?;
    person.sees("no mount").await?;
    assert_eq!(person.leaves().await?, 7, "{:?}", person.seen());
    let modes = tcgetattr(&person.clients_end)?;
    assert!(modes.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO), "not raw any more");
    let again = action.run().await?;
    assert!(again.from_cache());
    assert_eq!(again.file("out").await?, "content");
    nothing_runs(&kit, &daemon).await
}

async fn the_window_has_a_size_and_can_change_it(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let digest = uploaded(&daemon).await?;
    let mut person = Person::opens(&kit, &daemon, &digest, &[])?;
    // In one process group with its programs. The signal goes to the group in the foreground, which is not the shell's own while
    // it runs a program.
    person.types(
        "sh -c 'trap \"echo resized to \\$(stty size)\" WINCH; echo size $(stty size); while :; do sleep 0.1; done'\n",
    )?;
    person.sees("size 33 101").await?;
    resize(&person.terminal, 44, 77)?;
    person.sees("resized to 44 77").await?;
    person.types("\u{3}")?;
    person.types("exit 0\n")?;
    assert_eq!(person.leaves().await?, 0);
    Ok(())
}

async fn an_interrupt_reaches_the_program_and_not_the_shell(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let digest = uploaded(&daemon).await?;
    let mut person = Person::opens(&kit, &daemon, &digest, &[])?;
    person.types("(echo be''fore; exec sleep 600)\n")?;
    person.sees("before").await?;
    person.types("\u{3}")?;
    person.types("echo code $?\n")?;
    person.sees("code 130").await?;
    // Job control: Ctrl-Z stops a program, and the shell goes on.
    person.types("(echo sle''eping; exec sleep 600)\n")?;
    person.sees("sleeping").await?;
    person.types("\u{1a}")?;
    person.types("jobs; kill %1; exit 3\nexit 3\n")?;
    assert_eq!(person.leaves().await?, 3, "{:?}", person.seen());
    Ok(())
}

async fn the_end_of_the_input_ends_the_shell(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let digest = uploaded(&daemon).await?;
    let mut person = Person::opens(&kit, &daemon, &digest, &[])?;
    // The shell's own editor takes what is typed before cat runs, and knows no end of the input.
    person.types("echo re''ady; cat; echo $((40 + 2)) after\n")?;
    person.sees("ready").await?;
    person.types("line\n\u{4}")?;
    // Nor may the end come before the editor, which begins with a prompt.
    let prompts =
        || Ok(person.seen().rsplit_once("42 after").is_some_and(|(_, it)| it.contains("$ ")));
    eventually("a prompt", prompts).await.with_context(|| format!("{:?}", person.seen()))?;
    person.types("\u{4}")?;
    assert_eq!(person.leaves().await?, 0, "{:?}", person.seen());
    Ok(())
}

/// The output and the exit code of a client whose streams are pipes.
fn piped(
    kit: &Kit,
    daemon: &Daemon,
    words: &[&str],
    input: impl AsRef<[u8]>,
) -> anyhow::Result<(String, String, Option<i32>)> {
    let mut command = Command::new(kit.binary());
    command.arg("replay").args(words).arg("--shell").env_remove("ACTIOND_TOKEN");
    if !words.iter().any(|word| word.starts_with("--server")) {
        command.arg("--root").arg(daemon.root());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // A client that is refused may be gone before it has read this.
    let _ = child.stdin.take().context("a pipe")?.write_all(input.as_ref());
    let output = child.wait_with_output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((text(output.stdout), text(output.stderr), output.status.code()))
}

async fn input_that_is_no_terminal_is_sent(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let digest = uploaded(&daemon).await?;
    let check = |input: &[u8], expected: &str, expected_code: i32| -> Outcome {
        let (stdout, stderr, code) = piped(&kit, &daemon, &[&digest], input)?;
        let input = String::from_utf8_lossy(input.get(..input.len().min(100)).unwrap_or_default());
        ensure!(stdout == expected, "{input:?}: {stdout:?}\n{stderr}");
        ensure!(code == Some(expected_code), "{input:?}: {code:?}\n{stderr}");
        Ok(())
    };
    check(b"cat src/in; echo \" [$NAME]\"\nfalse\n", "content [value]\n", 1)?;
    // The last line has no end, and all of the output is in one order.
    check(b"echo a; echo b >&2; echo c > /dev/stderr; tty; exit 5", "a\nb\nc\nnot a tty\n", 5)?;
    // Bytes that a terminal would take for keys.
    check(
        b"exec cat\na\x03b\x04c\x1ad\x00\r\x11\x13\x7fe",
        "a\u{3}b\u{4}c\u{1a}d\0\r\u{11}\u{13}\u{7f}e",
        0,
    )?;
    let much = [b"exec wc -c\n".as_slice(), &vec![b'x'; 3 << 20]].concat();
    check(&much, "3145728\n", 0)?;
    let unread = [b"exec 0<&-; echo a; exit 6\n".as_slice(), &vec![b'x'; 3 << 20]].concat();
    check(&unread, "a\n", 6)?;
    check(b"", "", 0)
}

async fn much_output_arrives_whole(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let digest = uploaded(&daemon).await?;
    // The end comes right behind the output.
    let (stdout, stderr, code) = piped(&kit, &daemon, &[&digest], "exec seq 100000 400000\n")?;
    assert_eq!(code, Some(0), "{stderr}");
    let expected: String = (100_000..=400_000).map(|number| format!("{number}\n")).collect();
    assert!(stdout == expected, "{} bytes of {}", stdout.len(), expected.len());
    // On a terminal as well.
    let mut person = Person::opens(&kit, &daemon, &digest, &[])?;
    person.types("exec seq 100000 200000\n")?;
    assert_eq!(person.leaves().await?, 0);
    person.sees("\n200000\r\n").await?;
    let seen = person.seen();
    let numbers = seen.lines().filter(|line| line.parse::<u32>().is_ok()).count();
    assert_eq!(numbers, 100_001);
    Ok(())
}

async fn a_client_that_goes_away_kills_the_shell(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let digest = uploaded(&daemon).await?;
    for text in ["echo a$((1 + 1)); sleep 600\n", "yes a$((1 + 1))\n"] {
        let mut person = Person::opens(&kit, &daemon, &digest, &[])?;
        person.types(text)?;
        person.sees("a2").await?;
        assert_eq!(actions(&kit, &daemon)?.len(), 1);
        // `setsid --wait` is the parent of the client.
        let children = format!("/proc/{0}/task/{0}/children", person.child.id());
        for child in std::fs::read_to_string(children)?.split_whitespace() {
            let pid = rustix::process::Pid::from_raw(child.parse()?).context("a process")?;
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        }
        drop(person);
        nothing_runs(&kit, &daemon).await?;
    }
    Ok(())
}

async fn a_shell_takes_a_slot_and_nothing_outlives_it(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let digest = uploaded(&daemon).await?;
    let mut person = Person::opens(&kit, &daemon, &digest, &[])?;
    person.types("echo a$((1 + 1))\n")?;
    person.sees("a2").await?;
    let client = daemon.client();
    let mut waiting = client.action("echo waited").start().await?;
    let queued = async || {
        let actions = actions(&kit, &daemon)?;
        Ok(actions.len() == 2 && actions[1]["running_for_us"].is_null())
    };
    eventually_async("the other action waits", queued).await?;
    let (_, stderr, code) = piped(&kit, &daemon, &[&digest], "")?;
    ensure!(
        code == Some(1) && stderr.contains("as many shells as the server has slots"),
        "{stderr}"
    );
    // A program that ignores the end of its terminal ends with the sandbox.
    person.types("trap '' HUP; (trap '' HUP; sleep 600) & disown; exit 0\n")?;
    assert_eq!(person.leaves().await?, 0, "{:?}", person.seen());
    while waiting.message().await?.is_some_and(|operation| !operation.done) {}
    nothing_runs(&kit, &daemon).await
}

async fn a_shell_can_be_killed_by_its_operation(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let digest = uploaded(&daemon).await?;
    let mut person = Person::opens(&kit, &daemon, &digest, &[])?;
    person.types("echo a$((1 + 1)); trap '' INT TERM HUP; sleep 600\n")?;
    person.sees("a2").await?;
    let name = actions(&kit, &daemon)?[0]["operation"].as_str().context("a name")?.to_owned();
    let mut command = Command::new(kit.binary());
    let killed = command.args(["kill", &name, "--root"]).arg(daemon.root()).status()?;
    assert!(killed.success());
    assert_eq!(person.leaves().await?, 1);
    person.sees("the shell was ended").await?;
    nothing_runs(&kit, &daemon).await
}

/// The attempts of a hostile action with the terminal that it has.
async fn the_terminal_is_no_way_out(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let digest = uploaded(&daemon).await?;
    let mut person = Person::opens(&kit, &daemon, &digest, &[])?;
    // TIOCSTI puts words into the input, TIOCSETD loads line disciplines of the kernel, TIOCCONS takes the console.
    for (name, number, argument) in
        [("sti", "0x5412", "\"x\""), ("setd", "0x5423", "pack(\"i\", 3)"), ("cons", "0x541d", "0")]
    {
        person.types(&format!(
            "perl -e '$v = {argument}; print ioctl(STDIN, {number}, $v) ? \"open\" : \"closed\", \" {name}\\n\"'\n"
        ))?;
        person.sees(&format!("closed {name}")).await?;
    }
    // The file system of the terminal is not in sight: neither are others in it, nor does it have a path.
    person.types("echo pts $(ls /dev/pts) end; tty || echo no p''ath; : < /dev/stdin && echo opened an''ew\n")?;
    person.sees("pts ptmx end").await?;
    person.sees("no path").await?;
    person.sees("opened anew").await?;
    person.types("exit\n")?;
    assert_eq!(person.leaves().await?, 0);
    assert!(!person.seen().contains("open s"), "{:?}", person.seen());
    Ok(())
}

/// Programs that end in the middle of their work leave modes behind.
async fn the_terminal_is_what_it_was_in_the_end(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let digest = uploaded(&daemon).await?;
    let mut person = Person::opens_at("xterm", &kit, &daemon, &digest, &[])?;
    person.types("stty -echo; printf '\\033[?1003h\\033]0;never ended'; exit 0\n")?;
    assert_eq!(person.leaves().await?, 0, "{:?}", person.seen());
    // The client may have left before all of its output is read.
    let is_mended = || {
        let seen = person.seen();
        let after = seen.rsplit_once("\u{1b}]0;never ended").map_or("", |it| it.1);
        Ok(after.contains('\u{18}') && after.contains("\u{1b}[?1003l"))
    };
    let mended = eventually("the title ends, and the mouse is silent", is_mended).await;
    mended.with_context(|| format!("{:?}", person.seen()))?;
    let modes = tcgetattr(&person.clients_end)?;
    assert!(modes.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
    Ok(())
}

async fn a_view_without_a_shell_says_so(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let client = daemon.client();
    let bare = client.bare_action(["./tool"]);
    let bare = bare.executable("tool", testkit::elf::exit_with(7));
    let digest = bare.upload().await?.to_string();
    let (_, stderr, code) = piped(&kit, &daemon, &[&digest], "")?;
    ensure!(code == Some(127) && stderr.contains("--with-tools"), "{code:?} {stderr}");
    let (stdout, stderr, code) =
        piped(&kit, &daemon, &[&digest, "--with-tools"], "./tool; echo code $?\n")?;
    ensure!(code == Some(0) && stdout.contains("code 7"), "{stdout}\n{stderr}");
    // An Action that is not there.
    let gone = client.digest(b"gone").to_string();
    let (_, stderr, code) = piped(&kit, &daemon, &[&gone], "")?;
    ensure!(code == Some(1) && stderr.contains("evicted, or never uploaded"), "{stderr}");
    let (_, stderr, code) = piped(&kit, &daemon, &[&digest, "--json"], "")?;
    ensure!(code == Some(1) && stderr.contains("--json"), "{stderr}");
    let (_, stderr, code) = piped(&kit, &daemon, &[&digest, "--keep=/nowhere"], "")?;
    ensure!(code == Some(2) && stderr.contains("--keep"), "{stderr}");
    Ok(())
}

async fn only_the_owner_may_open_one(kit: Kit) -> Outcome {
    // At its port everybody has all rights, as the tests have it.
    let daemon = start(&kit).await?;
    let digest = uploaded(&daemon).await?;
    let server = format!("--server={}", daemon.address());
    let (_, stderr, code) = piped(&kit, &daemon, &[&digest, &server], "exit\n")?;
    ensure!(code == Some(1) && stderr.contains("only the owner of the server"), "{stderr}");
    let (_, stderr, code) = piped(&kit, &daemon, &[&digest], "exit 5\n")?;
    ensure!(code == Some(5), "{stderr}");
    Ok(())
}
