//! The units of the package, and scopes of an ordinary user, under a real systemd.
//!
//! They start services and change files in `/etc`, so they run only in a VM that is made for them and thrown away
//! after that: `cargo xtask e2e user` boots one (`xtask/src/kernel/user.rs`), with the units at the package's paths.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use testkit::{Client, Kit, Outcome, eventually, expect_bounds, skip};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    the_system_unit_bounds_actions_and_reloads,
    the_socket_unit_starts_the_daemon,
    the_user_unit_bounds_actions_and_reloads,
    a_scope_of_a_user_bounds_actions_of_serve,
    a_scope_of_a_user_bounds_actions_of_run,
}

/// The environment variable that says that this machine may be changed.
const VARIABLE: &str = "ACTIOND_TEST_SYSTEMD";

/// The ordinary user, who has a login and subordinate ids.
const USER: &str = "builder";

/// The port of the units.
const PORT: u16 = 8980;

/// Skips the case on a machine that was not made for it; makes the user.
fn in_the_vm(kit: &Kit) -> Outcome {
    kit.only_on_the_host("the units start `serve`")?;
    kit.only_as_root("systemd starts the daemons")?;
    if std::env::var_os(VARIABLE).is_none() {
        skip("it changes the machine's services: `cargo xtask e2e user` runs it in a VM")?;
    }
    if !Path::new("/home").join(USER).exists() {
        said(Command::new("useradd").args(["--create-home", "--shell=/bin/bash", USER]))?;
        // The user's own systemd goes on between logins.
        said(Command::new("loginctl").args(["enable-linger", USER]))?;
    }
    Ok(())
}

/// Runs a command that must succeed, and gives its standard output.
fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}\n{}", output.status, all_of(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn all_of(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A shell of a login of the user, with a session as logind makes it, for `script`.
fn login(script: &str) -> Command {
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--wait", "--pipe", "--collect"]);
    command.args([&format!("--uid={USER}"), "--property=PAMName=login"]);
    command.args(["bash", "-c", &format!("cd /home/{USER} && export HOME=$PWD; {script}")]);
    command
}

/// A unit of the system or of the user.
struct Unit {
    name: &'static str,
    is_of_user: bool,
}

impl Unit {
    fn systemctl(&self, verb: &str) -> Outcome {
        let name = self.name;
        let outcome = if self.is_of_user {
            said(&mut login(&format!("systemctl --user {verb} {name}")))
        } else {
            said(Command::new("systemctl").args([verb, name]))
        };
        outcome.map(drop).with_context(|| self.log().unwrap_or_default())
    }

    /// The lines that the unit has written to the journal.
    fn log(&self) -> anyhow::Result<String> {
        let field = if self.is_of_user { "_SYSTEMD_USER_UNIT" } else { "_SYSTEMD_UNIT" };
        let words = ["--no-pager", "--output=cat", "--all"];
        said(Command::new("journalctl").args(words).arg(format!("{field}={}", self.name)))
    }

    /// Ends it, and checks that it ended as it should.
    fn stop(&self) -> Outcome {
        self.systemctl("stop")?;
        let verb = format!("show --property=Result --value {}", self.name);
        let result = if self.is_of_user {
            said(&mut login(&format!("systemctl --user {verb}")))?
        } else {
            said(Command::new("systemctl").args(verb.split(' ')))?
        };
        ensure!(result.trim() == "success", "{} ended with {result}{}", self.name, self.log()?);
        Ok(())
    }

    /// Has it read a configuration file again that sets `stream_limit_bytes`, which can change, and `jobs`, which can't.
    async fn reloads(&self, file: &str, client: &Client) -> Outcome {
        let talk = client.action("head -c 5000 /dev/zero").do_not_cache();
        talk.run().await?.succeeded().await?;
        let running = client.action("sleep 5; echo on").do_not_cache();
        let write_and_reload = async {
            let text = "stream_limit_bytes = \"1k\"\njobs = 1\n";
            self.write(file, text)?;
            self.systemctl("reload")?;
            eventually("the configuration is read again", || {
                Ok(self.log()?.contains("the configuration was read again"))
            })
            .await
        };
        let (running, reloaded) = tokio::join!(running.run(), write_and_reload);
        reloaded.with_context(|| self.log().unwrap_or_default())?;
        // The signal is for the daemon alone.
        assert_eq!(running?.succeeded().await?.stdout().await?, "on\n");
        let log = self.log()?;
        let expected = r#"now=["stream_limit_bytes"] after_restart=["jobs"]"#;
        assert!(log.contains(expected), "no {expected} in\n{log}");
        assert_eq!(talk.run().await?.code(), Code::ResourceExhausted, "{log}");
        Ok(())
    }

    /// Writes a file of the unit's owner.
    fn write(&self, path: &str, text: &str) -> Outcome {
        // A login may have the umask 002, and a configuration that a group can change is refused.
        let script = format!(
            "mkdir -p \"$(dirname {path})\" && printf '{text}' > {path} && chmod go-w {path}"
        );
        if self.is_of_user {
            said(&mut login(&script)).map(drop)
        } else {
            said(Command::new("bash").args(["-c", &script])).map(drop)
        }
    }
}

fn client_at(port: u16) -> Client {
    Client::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

async fn the_system_unit_bounds_actions_and_reloads(kit: Kit) -> Outcome {
    in_the_vm(&kit)?;
    let unit = Unit { name: "actiond.service", is_of_user: false };
    unit.write("/etc/default/actiond", "ACTIOND_FLAGS=--allow-host-rootfs\n")?;
    unit.systemctl("start")?;
    let client = client_at(PORT);
    expect_bounds(&client).await.with_context(|| unit.log().unwrap_or_default())?;
    unit.reloads("/etc/actiond/config.toml", &client).await?;
    unit.stop()?;
    std::fs::remove_file("/etc/actiond/config.toml")?;
    assert!(!Path::new("/sys/fs/cgroup/system.slice/actiond.service").exists(), "a cgroup is left");
    Ok(())
}

/// Runs after the test of the service, whose flags it has.
async fn the_socket_unit_starts_the_daemon(kit: Kit) -> Outcome {
    in_the_vm(&kit)?;
    let service = Unit { name: "actiond.service", is_of_user: false };
    let socket = Unit { name: "actiond.socket", is_of_user: false };
    service.write("/etc/default/actiond", "ACTIOND_FLAGS=--allow-host-rootfs\n")?;
    socket.systemctl("start")?;
    let is_active =
        || Command::new("systemctl").args(["is-active", "--quiet", service.name]).status();
    assert!(!is_active()?.success(), "the daemon runs before a client came");
    let run = client_at(PORT).action("echo served").do_not_cache().run().await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "served\n");
    assert!(is_active()?.success() && Path::new("/run/actiond.sock").exists());
    socket.systemctl("stop")?;
    service.stop()
}

async fn the_user_unit_bounds_actions_and_reloads(kit: Kit) -> Outcome {
    in_the_vm(&kit)?;
    let unit = Unit { name: "actiond.service", is_of_user: true };
    unit.write(".config/actiond/flags", "ACTIOND_FLAGS=--allow-host-rootfs\n")?;
    unit.systemctl("start")?;
    let log = unit.log()?;
    assert!(log.contains("cgroups for actions"), "{log}");
    let client = client_at(PORT);
    expect_bounds(&client).await.with_context(|| unit.log().unwrap_or_default())?;
    said(&mut login("test -S $XDG_RUNTIME_DIR/actiond.sock"))?;
    unit.reloads(".config/actiond/config.toml", &client).await?;
    unit.stop()?;
    said(&mut login("rm .config/actiond/config.toml")).map(drop)
}

/// The words of the README before a command, and a name.
fn scope(name: &str) -> String {
    format!("systemd-run --user --scope --unit={name} -p Delegate=yes linux-actiond")
}

/// A command of the user in a scope, with the output that it has written so far in a file.
struct InScope {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl InScope {
    fn start(name: &str, words: &str) -> anyhow::Result<Self> {
        let output = tempfile::NamedTempFile::new()?;
        let mut command = login(&format!("{} {words} 2>&1", scope(name)));
        command.stdin(Stdio::null()).stderr(output.reopen()?).stdout(output.reopen()?);
        Ok(Self { child: command.spawn()?, output })
    }

    fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.output.path())?)
    }

    /// Waits until it has written `words`; fails if it ends before.
    async fn says(&mut self, words: &str) -> Outcome {
        let (child, output) = (&mut self.child, self.output.path());
        eventually(words, || {
            let log = std::fs::read_to_string(output)?;
            let has_ended = child.try_wait()?;
            ensure!(has_ended.is_none() || log.contains(words), "it ended, {has_ended:?}:\n{log}");
            Ok(log.contains(words))
        })
        .await
    }
}

async fn a_scope_of_a_user_bounds_actions_of_serve(kit: Kit) -> Outcome {
    in_the_vm(&kit)?;
    let mut serve =
        InScope::start("tested-serve", "serve --allow-host-rootfs --listen=127.0.0.1:8990")?;
    serve.says("serving on 127.0.0.1:8990").await?;
    serve.says("cgroups for actions").await?;
    expect_bounds(&client_at(8990)).await.with_context(|| serve.log().unwrap_or_default())?;
    said(&mut login("systemctl --user stop tested-serve.scope"))?;
    serve.child.wait()?;
    Ok(())
}

async fn a_scope_of_a_user_bounds_actions_of_run(kit: Kit) -> Outcome {
    in_the_vm(&kit)?;
    // The command waits, as a build would run, for the file that ends it.
    let command = "sh -c \"echo begun; while ! test -e done; do sleep 0.1; done; cat /proc/self/cgroup; exit 7\"";
    let flags = "run --log=info --allow-host-rootfs --listen=127.0.0.1:8991";
    let mut run = InScope::start("tested-run", &format!("{flags} -- {command}"))?;
    run.says("begun").await?;
    expect_bounds(&client_at(8991)).await.with_context(|| run.log().unwrap_or_default())?;
    said(&mut login("touch done"))?;
    let status = run.child.wait()?;
    let log = run.log()?;
    assert_eq!(status.code(), Some(7), "{log}");
    assert!(log.contains("cgroups for actions"), "{log}");
    assert!(log.contains("/tested-run.scope/actiond-run\n"), "the command is elsewhere:\n{log}");
    Ok(())
}
