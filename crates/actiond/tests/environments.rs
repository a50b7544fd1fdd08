//! Results belong to the root file system that they were computed with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use testkit::wait::PATIENCE;
use testkit::{Action, Client, Kit, Outcome, elf, proto};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    an_upgrade_of_the_host_makes_its_results_misses,
    results_of_the_same_root_outlive_a_restart,
    a_clients_own_result_is_served_with_every_root,
}

/// A system with one program, as a package manager installs it.
struct Host(tempfile::TempDir);

impl Host {
    fn new(kit: &Kit) -> anyhow::Result<Self> {
        kit.only_on_the_host("the guest sees no directory of the host")?;
        let host = Self(kit.daemon().directory()?);
        fs::create_dir_all(host.path().join("usr/bin"))?;
        fs::create_dir_all(host.path().join("var/lib/dpkg"))?;
        for directory in ["", "usr", "usr/bin"] {
            let everyone = fs::Permissions::from_mode(0o755);
            fs::set_permissions(host.path().join(directory), everyone)?;
        }
        host.install(0, "cc 1")?;
        Ok(host)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn flag(&self) -> String {
        format!("--allow-host-rootfs={}", self.path().display())
    }

    /// Installs `cc`, which exits with `code`, as dpkg does it: each file under another name, renamed, and
    /// the database at the end.
    fn install(&self, code: u8, status: &str) -> anyhow::Result<()> {
        for (path, content) in [
            ("usr/bin/cc", elf::exit_with(code)),
            ("var/lib/dpkg/status", status.as_bytes().to_vec()),
        ] {
            let (path, new) =
                (self.path().join(path), self.path().join(format!("{path}.dpkg-new")));
            fs::write(&new, content)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
            fs::rename(&new, &path)?;
        }
        Ok(())
    }
}

/// Runs the host's program.
fn cc(client: &Client) -> Action {
    client.bare_action(["/usr/bin/cc"]).property("rootfs", "host")
}

/// Runs a program of the inputs.
fn of_inputs(client: &Client) -> Action {
    client.bare_action(["./tool"]).executable("tool", elf::exit_with(0))
}

async fn an_upgrade_of_the_host_makes_its_results_misses(kit: Kit) -> Outcome {
    let host = Host::new(&kit)?;
    let daemon = kit.daemon().flag(host.flag()).start().await?;
    let (with_host, without) = (cc(&daemon.client()), of_inputs(&daemon.client()));
    for action in [&with_host, &without] {
        action.run().await?.succeeded().await?;
        ensure!(action.run().await?.from_cache(), "it is not cached");
    }
    host.install(3, "cc 2")?;
    let until = Instant::now() + PATIENCE;
    let run = loop {
        let run = with_host.run().await?;
        if !run.from_cache() {
            break run;
        }
        ensure!(Instant::now() < until, "the result of the old program is still served");
    };
    assert_eq!(run.exit_code()?, 3);
    assert_eq!(daemon.client().cached(&with_host.encode().0).await?, None);
    ensure!(without.run().await?.from_cache(), "an action without the host's root runs again");

    // Back again: what matters is what is there, and not that it changed.
    host.install(0, "cc 3")?;
    let until = Instant::now() + PATIENCE;
    while with_host.run().await?.exit_code()? != 0 {
        ensure!(Instant::now() < until, "the new program does not run");
    }
    ensure!(with_host.run().await?.from_cache(), "the new result is not cached");
    Ok(())
}

async fn results_of_the_same_root_outlive_a_restart(kit: Kit) -> Outcome {
    let host = Host::new(&kit)?;
    let mut daemon = kit.daemon().flag(host.flag()).start().await?;
    cc(&daemon.client()).run().await?.succeeded().await?;
    daemon.terminate()?;
    daemon.wait()?;
    let mut next = daemon.successor().start().await?;
    ensure!(cc(&next.client()).run().await?.from_cache(), "it ran again");
    next.terminate()?;
    next.wait()?;

    host.install(3, "cc 2")?;
    let last = next.successor().start().await?;
    assert_eq!(cc(&last.client()).run().await?.exit_code()?, 3, "with the upgrade in between");
    Ok(())
}

async fn a_clients_own_result_is_served_with_every_root(kit: Kit) -> Outcome {
    let host = Host::new(&kit)?;
    let mut daemon = kit.daemon().flag(host.flag()).start().await?;
    let client = &daemon.client();
    let action = cc(client);
    action.upload().await?;
    let (digest, _) = action.encode();
    let result = proto::ActionResult { stdout_raw: "mine".into(), ..Default::default() };
    client.put("mine").await?;
    let message = proto::UpdateActionResultRequest {
        action_digest: Some(digest.to_proto()),
        action_result: Some(result),
        ..Default::default()
    };
    client.action_cache().update_action_result(message).await?;
    daemon.terminate()?;
    daemon.wait()?;
    host.install(3, "cc 2")?;
    let next = daemon.successor().start().await?;
    let run = cc(&next.client()).run().await.context("after the upgrade")?;
    ensure!(run.from_cache() && run.exit_code()? == 0, "it ran");
    Ok(())
}
