//! The module for Bazel in `packaging/bazel`, as a project uses it: platforms, execution properties, and a
//! toolchain that goes with one platform.

use std::{ffi::OsString, fs};

use anyhow::{Context, Result, ensure};

use super::client::Bazel;
use crate::{
    e2e::{Place, copy_folder, steps::step},
    workspace,
};

pub(super) fn run(place: &Place) -> Result<()> {
    let flag = |name: &str, path: &std::path::Path| {
        let mut flag = OsString::from(name);
        flag.push(path);
        flag
    };
    let flags = [
        flag("--runtime-image=", &place.runtime_image),
        flag("--allow-host-rootfs=", &place.host_root()?),
    ];
    let server = place.start_daemon(&flags)?;
    let client = place.scratch.join("client");
    fs::create_dir_all(&client)?;
    copy_folder(&workspace::root().join("packaging/bazel"), &client.join("actiond"))?;
    let mut bazel = Bazel::open(place, "module", &server)?;
    steps(&mut bazel).with_context(|| server.log_tail())?;
    step("SIGTERM ends the server in order, and nothing of it is left", || {
        server.stop()?;
        Ok("no process, mount or loop device".into())
    })
}

fn steps(bazel: &mut Bazel) -> Result<()> {
    let read = |bazel: &Bazel, path: &str| -> Result<String> {
        fs::read_to_string(bazel.output(path)?).with_context(|| path.to_owned())
    };
    step("every target has the platform that it and its toolchains ask for, in one build", || {
        let report = bazel.build(&["//..."])?;
        ensure!(report.remote() == 3, "Bazel says {report:?}");
        let words = read(bazel, "words.txt")?;
        ensure!(words.starts_with("apple\npear\n") && words.contains("version 2.41"), "{words}");
        let versions = read(bazel, "versions.txt")?;
        ensure!(versions.contains("release version 2.36"), "{versions}");
        let compiler = read(bazel, "on_the_host.txt")?;
        // Bazel's strict PATH begins with /bin, which is /usr/bin.
        ensure!(compiler == "/bin/g++\n", "{compiler}");
        Ok("glibc 2.41, glibc 2.36, the host".into())
    })?;
    step("limits of a target and of a platform of one's own hold", || {
        bazel.fails_with(1, "build", &["//:limited"])?;
        let crowded = "--extra_execution_platforms=//:crowded";
        bazel.fails_with(1, "build", &[crowded, "//:forks"])?;
        bazel.build(&["//:forks"])?;
        Ok("64 MiB, 4 processes".into())
    })?;
    step("properties that contradict each other fail before anything is sent", || {
        bazel.edit(
            "BUILD.bazel",
            "exec_properties(memory",
            "exec_properties(host = True, shell = True, memory",
        )?;
        let said = bazel.gives_up(&["//:limited"])?;
        let reason = "an action has one root file system, not both host and libc";
        ensure!(said.contains(reason), "{said}");
        Ok(reason.into())
    })
}
