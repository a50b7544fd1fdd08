//! The caches of others, each built or fetched at one version into the user's cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{e2e::UPSTREAM, npm, process, setup, workspace};

/// Programs of others, and a script.
pub(crate) struct Servers {
    pub(super) bazel_remote: PathBuf,
    pub(super) bb_storage: PathBuf,
    /// Speaks S3.
    s3: PathBuf,
    /// Speaks as Azure Blob Storage; for node.
    azure: PathBuf,
}

impl Servers {
    /// Builds and fetches what the user's cache does not have.
    pub(crate) fn provide() -> Result<Self> {
        Self::find()
            .with_context(|| format!("no caches of others; `--skip {UPSTREAM}` leaves them out"))
    }

    fn find() -> Result<Self> {
        Ok(Self {
            bazel_remote: bazel_remote()?,
            bb_storage: bb_storage()?,
            s3: s3_server()?,
            azure: azure_server()?,
        })
    }

    /// Names them to the tests of the daemon, which are skipped where no server is named.
    pub(crate) fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs([
            ("ACTIOND_TEST_BAZEL_REMOTE", &self.bazel_remote),
            ("ACTIOND_TEST_BB_STORAGE", &self.bb_storage),
            ("ACTIOND_TEST_S3_SERVER", &self.s3),
            ("ACTIOND_TEST_AZURE_SERVER", &self.azure),
        ])
    }
}

/// A Go module and its version.
type Module = (&'static str, &'static str);

const BAZEL_REMOTE: Module = ("github.com/buchgr/bazel-remote/v2", "v2.6.1");

const BB_STORAGE: Module =
    ("github.com/buildbarn/bb-storage", "v0.0.0-20260805174928-33530b6bb903");

/// The stubs of `ByteStream` that bb_storage imports.
const BYTE_STREAM: Module =
    ("google.golang.org/genproto/googleapis/bytestream", "v0.0.0-20260526163538-3dc84a4a5aaa");

/// They register with gRPC's own server only. Buildbarn, which wraps it, makes its own stubs with Bazel.
const REGISTERS: (&str, &str) = (
    "func RegisterByteStreamServer(s *grpc.Server,",
    "func RegisterByteStreamServer(s grpc.ServiceRegistrar,",
);

/// The crate of the server that speaks S3, and its version.
const S3_SERVER: (&str, &str) = ("s3s-fs", "0.14.1");

/// The server that speaks S3, built once for each version.
fn s3_server() -> Result<PathBuf> {
    let (package, version) = S3_SERVER;
    let home = workspace::cache()?.join("servers").join(format!("{package}-{version}"));
    let program = home.join("bin").join(package);
    if !program.is_file() {
        println!("e2e upstream: building {package} {version}");
        let install = ["install", "--locked", "--version", version, "--features", "binary"];
        let mut cargo = process::cargo();
        process::run(cargo.args(install).arg("--root").arg(&home).arg(package))?;
    }
    Ok(program)
}

/// bazel-remote, built once for each version.
fn bazel_remote() -> Result<PathBuf> {
    built_once("bazel-remote", BAZEL_REMOTE, |folder, program| {
        // In the module's own folder, whose `go.sum` has the hashes of all that it imports.
        let source = download(BAZEL_REMOTE, folder)?;
        go(&source, &["build", "-mod=readonly"], program, ".")
    })
}

/// Microsoft's emulator of Azure Blob Storage, fetched once for each list of versions.
fn azure_server() -> Result<PathBuf> {
    npm::ensure_node(UPSTREAM)?;
    Ok(npm::provide("azure", &[])?.join("node_modules/azurite/dist/src/blob/main.js"))
}

/// Buildbarn's storage, built once for each version.
fn bb_storage() -> Result<PathBuf> {
    built_once("bb_storage", BB_STORAGE, |folder, program| {
        // In a copy of the module, for the hashes in its `go.sum`, with other stubs.
        let (source, stubs) = (folder.join("source"), folder.join("bytestream"));
        for (module, copy) in [(BB_STORAGE, &source), (BYTE_STREAM, &stubs)] {
            if copy.exists() {
                fs::remove_dir_all(copy)?;
            }
            let words = ["--recursive", "--no-preserve=mode", "--no-target-directory"];
            process::run(Command::new("cp").args(words).arg(download(module, folder)?).arg(copy))?;
        }
        let file = stubs.join("bytestream.pb.go");
        let text = fs::read_to_string(&file)?;
        ensure!(text.contains(REGISTERS.0), "the stubs of ByteStream have changed");
        fs::write(&file, text.replace(REGISTERS.0, REGISTERS.1))?;
        let replace = format!("-replace={}=../bytestream", BYTE_STREAM.0);
        process::run(go_command().current_dir(&source).args(["mod", "edit", &replace]))?;
        go(&source, &["build", "-mod=mod"], program, "./cmd/bb_storage")?;
        fs::remove_dir_all(&source)?;
        Ok(fs::remove_dir_all(&stubs)?)
    })
}

/// The program of that name, which `build` makes in a folder of its own unless it is there.
fn built_once(
    name: &str,
    (module, version): Module,
    build: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let folder = workspace::cache()?.join("servers").join(format!("{name}-{version}"));
    let program = folder.join(name);
    if program.is_file() {
        return Ok(program);
    }
    setup::ensure(&setup::GO)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    println!("e2e upstream: building {module} {version}");
    let unfinished = folder.join("unfinished");
    build(&folder, &unfinished).with_context(|| format!("building {name}"))?;
    fs::rename(&unfinished, &program)
        .with_context(|| format!("cannot rename {}", unfinished.display()))?;
    Ok(program)
}

/// Fetches a module, and gives the folder of its sources, which is read-only.
fn download((module, version): Module, folder: &Path) -> Result<PathBuf> {
    let mut download = go_command();
    download.args(["mod", "download", "-json", &format!("{module}@{version}")]);
    let answer = process::output(download.current_dir(folder));
    let answer = answer.with_context(|| format!("fetching {module}"))?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("what go says")?;
    let source = answer["Dir"].as_str().with_context(|| format!("go names no folder of {module}"));
    Ok(PathBuf::from(source?))
}

fn go(source: &Path, words: &[&str], program: &Path, package: &str) -> Result<()> {
    let mut go = go_command();
    go.current_dir(source).args(words).arg("-o").arg(program).arg(package);
    process::run(&mut go)
}

/// The command of Go. A module may ask for a newer release than the distribution's, which fetches that one then.
fn go_command() -> Command {
    let mut go = Command::new("go");
    if std::env::var_os("GOTOOLCHAIN").is_none() {
        go.env("GOTOOLCHAIN", "auto");
    }
    go
}
