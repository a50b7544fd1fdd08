//! The release's Debian package, installed in a clean Debian and used as its users would.

use std::{ffi::OsString, fs};

use anyhow::{Context, Result, ensure};

use super::client::Bazel;
use crate::{
    daemon::Daemon,
    e2e::{
        Place,
        installed::{Installed, STATE},
        steps::step,
    },
    vm,
};

/// Genrules with the shells of two C libraries, which are in the executable.
const TARGETS: [&str; 2] = ["//:words_glibc2_36", "//:words_glibc2_41"];

pub(super) fn run(place: &Place) -> Result<()> {
    check_with_tools(place)?;
    let mut installed = None;
    step("it installs in a clean Debian 13, which has all that it depends on", || {
        let clean =
            Installed::new(&place.clean_root, &place.package, &place.scratch.join("clean"))?;
        ensure!(clean.run(&["dpkg", "--audit"])?.is_empty(), "dpkg is not content");
        let version = clean.run(&["linux-actiond", "--version"])?;
        installed = Some(clean);
        Ok(version.trim().to_owned())
    })?;
    let installed = installed.context("it was installed")?;
    step("doctor lists the runtimes in the executable", || {
        let said = installed.run(&["linux-actiond", "doctor", "--root=/tmp/doctor"])?;
        ensure!(said.contains("glibc2.36") && said.contains("glibc2.41"), "{said}");
        Ok("glibc2.36 and others".into())
    })?;
    serve(place, &installed)?;
    step("purged, it leaves nothing but its store", || {
        installed.run(&["dpkg", "--purge", "actiond"])?;
        for path in ["/usr/bin/linux-actiond", "/usr/lib/systemd/system/actiond.service"] {
            ensure!(!installed.path(path).exists(), "{path} is left");
        }
        ensure!(installed.state().join("cas").exists(), "the store is gone");
        Ok("no program, no unit".into())
    })?;
    serve_vm(place)
}

/// Starts the daemon as the unit does, and builds.
fn serve(place: &Place, installed: &Installed) -> Result<()> {
    let command = installed.unit_command()?;
    let folder = place.scratch.join("serve");
    fs::create_dir(&folder)?;
    let mut server = Daemon::start_command(command, STATE.into(), &folder)?;
    let mut bazel = Bazel::open(place, "runtimes", &server)?;
    step("the unit's command serves a build with what is in the executable", || {
        let report = bazel.build(&TARGETS).with_context(|| server.log_tail())?;
        ensure!(report.remote() == TARGETS.len() as u64, "Bazel says {report:?}");
        Ok(format!("{} actions, {}", report.remote(), server.strategy()?))
    })?;
    step("a second start extracts nothing", || {
        server.kill()?;
        server.restart()?;
        let times = server.events_with("runtimes extracted")?;
        ensure!(times == 1, "extracted {times} times\n{}", server.log_tail());
        Ok("extracted once".into())
    })?;
    step("SIGTERM ends it in order, and nothing of it is left", || {
        server.stop()?;
        Ok("no process, mount or loop device".into())
    })
}

/// The verdict of the distribution's own tools on the package's files.
fn check_with_tools(place: &Place) -> Result<()> {
    let tools = Installed::new(&place.tools_root, &place.package, &place.scratch.join("tools"))?;
    step("systemd takes the unit, and finds the manual page that it names", || {
        let units = ["actiond.service", "actiond.socket"];
        let said = tools.run(&[&["systemd-analyze", "verify"], &units[..]].concat())?;
        ensure!(said.is_empty(), "{said}");
        // Without a session there is no such folder, which units of users name things after.
        let user = ["env", "XDG_RUNTIME_DIR=/tmp", "systemd-analyze", "--user", "verify"];
        let said = tools.run(&[&user[..], &["actiond.service", "actiond-vm.service"]].concat())?;
        ensure!(said.is_empty(), "{said}");
        Ok("systemd-analyze says nothing".into())
    })?;
    step("AppArmor's parser takes the profile", || {
        ensure!(tools.path("/etc/apparmor.d/linux-actiond").exists(), "it was not installed");
        // Compiled, and neither loaded into this machine's kernel nor cached.
        let words = ["apparmor_parser", "--skip-kernel-load", "--skip-cache"];
        tools.run(&[&words[..], &["/etc/apparmor.d/linux-actiond"]].concat())?;
        Ok("compiled".into())
    })?;
    step("the manual page renders, and bash reads the completions", || {
        let page = tools.run(&["man", "--warnings", "linux-actiond"])?;
        ensure!(page.contains("serve-vm"), "{page}");
        let completions = "/usr/share/bash-completion/completions/linux-actiond";
        tools.run(&["bash", "-n", completions])?;
        Ok(format!("{} lines", page.lines().count()))
    })
}

/// The same program's other way to serve, with nothing but what it carries.
fn serve_vm(place: &Place) -> Result<()> {
    let folder = place.scratch.join("vm");
    fs::create_dir(&folder)?;
    let place = Place { scratch: folder.clone(), ..place.clone() };
    let state = folder.join("state");
    let mut command = vec![place.release.clone().into_os_string(), "serve-vm".into()];
    command.extend(vm::FLAGS.map(OsString::from));
    command.extend(["--root".into(), state.clone().into()]);
    let server = Daemon::start_command(command, state, &folder)?;
    let mut bazel = Bazel::open(&place, "runtimes", &server)?;
    step("serve-vm boots the guest in the executable, and that builds too", || {
        let report = bazel.build(&TARGETS).with_context(|| server.log_tail())?;
        ensure!(report.remote() == TARGETS.len() as u64, "Bazel says {report:?}");
        Ok(format!("{} actions", report.remote()))
    })?;
    step("SIGTERM stops the guest in order, and nothing of it is left", || {
        server.stop()?;
        Ok("no process, mount or loop device".into())
    })
}
