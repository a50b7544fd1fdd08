//! Bazel on the socket in the file system that `linux-actiond run` listens on unless it is told otherwise.
//!
//! Debian builds Bazel without the native library that Netty needs for such sockets. Netty's own build of it, of
//! the version that the client's root has, comes from Maven Central and lies beside the workspace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::client::Bazel;
use crate::{
    arch::Arch,
    e2e::{Place, steps::step},
    process, setup, workspace,
};

/// The lines that `run` writes, as the client and as the server name their file.
const LINES: &str = "/client/server.bazelrc";
const LINES_BELOW_SCRATCH: &str = "client/server.bazelrc";

/// The library's folder, as the client names it and below the scratch folder.
const LIBRARY: &str = "/client/native";
const LIBRARY_BELOW_SCRATCH: &str = "client/native";

/// The plugin that fetches one file; its version is pinned, and Maven checks what it gets.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy";

/// The line of the workspace that `run` writes too. Bazel 7 ends with an exception if it has a property twice.
const TWICE: &str = "build --remote_default_exec_properties=rootfs=host\n";

/// Test runs of `//...`, as in the suite `cpp`.
const TEST_RUNS: usize = 9;

pub(super) fn run(place: &Place) -> Result<()> {
    if Arch::host() != Arch::X86_64 {
        println!("  SKIPPED: Netty {} has no library for this machine", netty_version(place)?);
        return Ok(());
    }
    let library = native_library(&netty_version(place)?)?;
    let folder = place.scratch.join(LIBRARY_BELOW_SCRATCH);
    fs::create_dir_all(&folder)?;
    fs::copy(&library, folder.join(library.file_name().context("the library has a name")?))?;
    // The client has it under the same name: the lines name the socket.
    let sockets = PathBuf::from(format!("/tmp/actiond-e2e-{}", std::process::id()));
    fs::create_dir(&sockets)?;
    let outcome = steps(place, &sockets);
    let _removed = fs::remove_dir_all(&sockets);
    outcome
}

fn steps(place: &Place, sockets: &Path) -> Result<()> {
    let store = place.scratch.join("store");
    step("`run -- bazel test //...` on a socket in the file system", || {
        let mut bazel = open(place, sockets, &store)?;
        bazel.edit(".bazelrc", TWICE, "")?;
        let report = bazel.test(&["//..."])?;
        ensure!(report.remote() > 0 && report.tests.len() == TEST_RUNS, "Bazel says {report:?}");
        let lines = fs::read_to_string(place.scratch.join(LINES_BELOW_SCRATCH))?;
        let remote = format!("--remote_executor=unix:{}/", sockets.display());
        ensure!(lines.contains(&remote), "no {remote} in {lines}");
        bazel.expunge()?;
        let again = bazel.test(&["//..."])?;
        ensure!(again.remote() == 0 && again.cache_hits() > 0, "Bazel says {again:?}");
        bazel.expunge()?;
        let status = bazel.close()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(format!(
            "{} actions, {TEST_RUNS} test runs, then {} hits",
            report.remote(),
            again.cache_hits()
        ))
    })?;
    step("the socket is gone with the command", || {
        let left = fs::read_dir(sockets)?.count();
        ensure!(left == 0, "{left} files are left");
        Ok("nothing is left".into())
    })
}

fn open(place: &Place, sockets: &Path, store: &Path) -> Result<Bazel> {
    let mut rootfs = std::ffi::OsString::from("--allow-host-rootfs=");
    rootfs.push(place.host_root()?);
    let mut command = Command::new(&place.daemon);
    command.args(["run", "--root"]).arg(store).arg(rootfs).args(&place.daemon_flags);
    command.arg("--bazelrc-out").arg(place.scratch.join(LINES_BELOW_SCRATCH));
    command.args(["--", "bwrap"]).env("TMPDIR", sockets);
    let lines = format!("import {LINES}\nstartup --host_jvm_args=-Djava.library.path={LIBRARY}\n");
    Bazel::open_sharing(command, sockets, place, "cpp", &lines)
}

/// The version of Netty in the client's root, by the name of its file there.
fn netty_version(place: &Place) -> Result<String> {
    for entry in fs::read_dir(place.client_root.join("usr/share/java"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let version = name.strip_prefix("netty-transport-native-epoll-");
        if let Some(version) = version.and_then(|rest| rest.strip_suffix(".jar")) {
            return Ok(version.to_owned());
        }
    }
    bail!("the client's root has no Netty with a version in its name")
}

/// The library of that version, fetched once.
fn native_library(version: &str) -> Result<PathBuf> {
    let home = workspace::cache()?.join("netty").join(version);
    let library = home.join("libnetty_transport_native_epoll_x86_64.so");
    if !library.exists() {
        setup::ensure(&[setup::Need {
            program: "mvn",
            package: "maven",
            why: "fetches the library that Bazel needs for sockets in the file system",
        }])?;
        println!("e2e: fetching Netty's native library {version}");
        let unfinished = workspace::cache()?.join("netty/unfinished");
        fs::create_dir_all(&unfinished)?;
        let artifact =
            format!("-Dartifact=io.netty:netty-transport-native-epoll:{version}:jar:linux-x86_64");
        let mut output = std::ffi::OsString::from("-DoutputDirectory=");
        output.push(&unfinished);
        process::run(
            Command::new("mvn")
                .args(["--batch-mode", "--quiet", "--strict-checksums", COPY, &artifact])
                .arg(output),
        )?;
        let jar = format!("netty-transport-native-epoll-{version}-linux-x86_64.jar");
        process::run(
            Command::new("python3")
                .args(["-m", "zipfile", "-e", &jar, "."])
                .current_dir(&unfinished),
        )?;
        let name = library.file_name().context("the library has a name")?;
        fs::create_dir_all(&home)?;
        fs::rename(unfinished.join("META-INF/native").join(name), &library)
            .context("the archive has no such library")?;
        fs::remove_dir_all(&unfinished)?;
    }
    Ok(library)
}
