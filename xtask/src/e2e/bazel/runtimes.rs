//! C libraries and shells of the runtime image, and an image that was imported.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::client::Bazel;
use crate::{
    daemon::Daemon,
    e2e::{Place, session::Session, steps::step},
    process,
};

/// A shell's library, and the line in which it names its version.
type Shell = (&'static str, &'static str);

/// The library that a program of Debian 12 is too new for.
const OLDER: &str = "glibc2.31";

/// Libraries with a shell. The image may lack [`OLDER`], as Debian 11 is no longer supported and will
/// leave the mirrors; it always has the others.
const SHELLS: [Shell; 3] = [
    (OLDER, "release version 2.31"),
    ("glibc2.36", "release version 2.36"),
    ("glibc2.41", "release version 2.41"),
];

/// How Bazel ends when the server refuses an action.
const REFUSED: i32 = 34;

/// Programs that need a C library, and libstdc++ with exceptions, to run.
const PROGRAM: &str = r#"
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <gnu/libc-version.h>

int main(int, char** arguments) try {
    std::ofstream output(arguments[1]);
    output << "ran with glibc " << gnu_get_libc_version() << std::endl;
    throw std::runtime_error("caught");
} catch (const std::exception& error) {
    return std::string(error.what()) == "caught" ? 0 : 1;
}
"#;

pub(super) fn run(place: &Place) -> Result<()> {
    let mut flag = std::ffi::OsString::from("--runtime-image=");
    flag.push(&place.runtime_image);
    let mut server = place.start_daemon(&[flag])?;
    let mut bazel = Bazel::open(place, "runtimes", &server)?;
    compile(place, &bazel.workspace().join("program"))?;
    let shells = shells(place)?;
    let outcome = steps(place, &shells, &mut server, &mut bazel);
    outcome.with_context(|| server.log_tail())?;
    step("SIGTERM ends the server in order, and nothing of it is left", || {
        server.stop()?;
        Ok("no process, mount or loop device".into())
    })
}

/// Compiles the program against Debian 12's glibc.
fn compile(place: &Place, program: &Path) -> Result<()> {
    let folder = place.scratch.join("compiler");
    fs::create_dir(&folder)?;
    fs::write(folder.join("program.cc"), PROGRAM)?;
    let words = ["g++", "-o", "program", "program.cc"].map(str::to_owned);
    let finished = Session::open(&place.debian_12_root, &folder)?.run("/client", &words)?;
    ensure!(finished.exit_code == 0, "g++: {}", finished.stderr);
    fs::copy(folder.join("program"), program)?;
    Ok(())
}

/// Those of [`SHELLS`] that are in the image, which is also the one in the release.
fn shells(place: &Place) -> Result<Vec<Shell>> {
    let mut doctor = Command::new(&place.release);
    let said =
        process::output(doctor.arg("doctor").arg("--root").arg(place.scratch.join("doctor")))?;
    let (present, absent): (Vec<_>, Vec<_>) =
        SHELLS.into_iter().partition(|(name, _)| said.contains(name));
    for (name, _) in absent {
        ensure!(name == OLDER, "the image lacks {name}");
        println!("  SKIPPED: steps with {name}, which no mirror had when the image was made");
    }
    Ok(present)
}

fn steps(place: &Place, shells: &[Shell], server: &mut Daemon, bazel: &mut Bazel) -> Result<()> {
    step("genrules have the shell of the C library that they name, all in one build", || {
        let targets = shells.iter().map(|(name, _)| format!("//:words_{}", name.replace('.', "_")));
        let targets: Vec<_> = targets.collect();
        let report = bazel.build(&targets.iter().map(String::as_str).collect::<Vec<_>>())?;
        ensure!(usize::try_from(report.remote())? == shells.len(), "Bazel says {report:?}");
        for (name, version) in shells {
            let text = fs::read_to_string(bazel.output(&format!("words_{name}.txt"))?)?;
            let words = format!("{name}:apple\n{name}:pear\n");
            ensure!(text.starts_with(&words) && text.contains(version), "{name}: {text}");
        }
        Ok(shells.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "))
    })?;

    step("a C++ program of Debian 12 runs with its own C library and a newer one", || {
        let report = bazel.build(&["//:with_libc", "//:with_newer_libc"])?;
        ensure!(report.remote() == 2, "Bazel says {report:?}");
        let said = |name: &str| {
            fs::read_to_string(bazel.output(&format!("{name}.txt"))?).context(name.to_owned())
        };
        let (own, newer) = (said("with_libc")?, said("with_newer_libc")?);
        ensure!(own == "ran with glibc 2.36\n" && newer == "ran with glibc 2.41\n", "{own}{newer}");
        Ok("2.36 and 2.41".into())
    })?;

    step("without a C library, or with one that is too old, it fails cleanly", || {
        // 1 blames the target, 34 would blame the server.
        let invocation = bazel.fails_with(1, "build", &["//:without_libc"])?;
        for reason in ["cannot run `./program`: it is dynamically linked", "`libc` ("] {
            ensure!(invocation.stderr().contains(reason), "{}", invocation.stderr());
        }
        if shells.iter().all(|(name, _)| *name != OLDER) {
            return Ok("without the one that is too old".into());
        }
        let invocation = bazel.fails_with(1, "build", &["//:with_older_libc"])?;
        ensure!(invocation.stderr().contains("GLIBC_2.3"), "{}", invocation.stderr());
        Ok("the loader says what it lacks".into())
    })?;

    step("a name that does not exist is refused with those that do", || {
        let invocation = bazel.fails_with(REFUSED, "build", &["//:with_unknown_libc"])?;
        for (name, _) in shells {
            ensure!(invocation.stderr().contains(name), "{}", invocation.stderr());
        }
        Ok("INVALID_ARGUMENT".into())
    })?;

    step("an image that is not there says how to import it; imported, it serves", || {
        let invocation = bazel.fails_with(REFUSED, "build", &["//:in_image"])?;
        let advice = "linux-actiond image import e2e/debian:12";
        ensure!(invocation.stderr().contains(advice), "{}", invocation.stderr());
        let layout = oci_layout(place)?;
        server.kill()?;
        let mut import = Command::new(&place.daemon);
        import.args(["image", "import", "docker://e2e/debian:12"]).arg(&layout);
        process::run(import.arg("--root").arg(server.root()))?;
        server.restart()?;
        let report = bazel.build(&["//:in_image"])?;
        ensure!(report.remote() == 1, "Bazel says {report:?}");
        let text = fs::read_to_string(bazel.output("in_image.txt")?)?;
        ensure!(text == "ran with glibc 2.36\n", "{text}");
        Ok("made of Debian 12's packages".into())
    })
}

/// An OCI image layout with one layer, of Debian 12's packages as they lie in the compiler's root.
fn oci_layout(place: &Place) -> Result<std::path::PathBuf> {
    let folder = place.scratch.join("layout");
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layer = blobs.join("layer");
    process::run(
        Command::new("tar")
            .arg("--create")
            .arg("--gzip")
            .arg("--file")
            .arg(&layer)
            .arg("--directory")
            .arg(&place.debian_12_root)
            .args(["--exclude=./dev/*", "--exclude=./usr/lib/gcc", "--exclude=./var/cache", "."]),
    )?;
    let layer = named_by_digest(&blobs, "layer")?;
    fs::write(blobs.join("config"), "{}")?;
    let config = named_by_digest(&blobs, "config")?;
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    fs::write(blobs.join("manifest"), manifest.to_string())?;
    let manifest = named_by_digest(&blobs, "manifest")?;
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(folder.join("index.json"), index.to_string())?;
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(folder)
}

/// Gives a blob its digest as its name; its descriptor.
fn named_by_digest(blobs: &Path, name: &str) -> Result<serde_json::Value> {
    let path = blobs.join(name);
    let said = process::output(Command::new("sha256sum").arg(&path))?;
    let hash = said.split_whitespace().next().context("sha256sum says nothing")?;
    let size = fs::metadata(&path)?.len();
    fs::rename(&path, blobs.join(hash))?;
    Ok(serde_json::json!({ "digest": format!("sha256:{hash}"), "size": size }))
}
