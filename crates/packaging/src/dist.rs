//! The parts of a release: the standalone binary and the Debian package around it.
//!
//! Everything is made from its inputs alone, with one time for all: the same inputs give the same
//! bytes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use embedded::Payload;

use crate::debian::{self, Contents, Description};
use crate::elf;
use crate::recipe::Architecture;

const SERVICE: &str = include_str!("../files/actiond.service");
const SOCKET: &str = include_str!("../files/actiond.socket");
const USER_SERVICE: &str = include_str!("../files/actiond-user.service");
const USER_VM_SERVICE: &str = include_str!("../files/actiond-vm.service");
const APPARMOR: &str = include_str!("../files/apparmor");
const GRAFANA_BOARD: &str = include_str!("../../../packaging/monitoring/grafana-board.json");
const ALERTS: &str = include_str!("../../../packaging/monitoring/alerts.yml");
const LICENSE: &str = include_str!("../../../LICENSE");
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("../files/postinst")),
    ("prerm", include_str!("../files/prerm")),
    ("postrm", include_str!("../files/postrm")),
];

const DESCRIPTION: &str = "remote execution worker and cache
One daemon that speaks the Remote Execution API, keeps a content-addressed
store and an action cache, and runs every action in a sandbox of its own.
It carries the C libraries that actions can ask for.";

/// The directory in which a shell looks for completions, by the name of the generated file.
const COMPLETIONS: [(&str, &str); 3] = [
    ("linux-actiond.bash", "usr/share/bash-completion/completions/linux-actiond"),
    ("linux-actiond.fish", "usr/share/fish/vendor_completions.d/linux-actiond.fish"),
    ("_linux-actiond", "usr/share/zsh/vendor-completions/_linux-actiond"),
];

/// The input of a release.
#[derive(Debug, Clone)]
pub struct Options {
    /// `linux-actiond`, stripped.
    pub executable: PathBuf,
    /// The payloads of the executable, a file for each.
    pub payloads: Vec<(Payload, PathBuf)>,
    /// A folder with `*.1` manual pages and the files of [`COMPLETIONS`], made from the flags.
    pub documents: PathBuf,
    /// The release's version.
    pub version: String,
    /// The architecture of the executable and the image.
    pub architecture: Architecture,
    /// The release's time, in seconds since 1970.
    pub time_s: u64,
    /// The folder for the release.
    pub output: PathBuf,
}

/// Makes the release.
///
/// # Errors
/// When something can't be read or written, or the executable is not what it should be.
pub fn run(options: &Options) -> Result<()> {
    let plain = read(&options.executable)?;
    let mut executable = plain.clone();
    for (payload, path) in &options.payloads {
        executable = elf::add_section(&executable, payload.elf_section(), &read(path)?)
            .with_context(|| options.executable.display().to_string())?;
    }
    let architecture = options.architecture.debian_name();
    let depends = elf::debian_dependencies(&plain)?;
    let contents = contents(options, &executable)?;
    let description = Description {
        name: "actiond",
        version: &options.version,
        architecture,
        depends: &depends,
        suggests: options.architecture.qemu_package(),
        description: DESCRIPTION,
    };
    let package = debian::package(&description, &contents, options.time_s)?;

    let name = format!("actiond_{}_{architecture}.deb", options.version);
    write(&options.output.join(name), &package, 0o644)?;
    write(&options.output.join("linux-actiond"), &executable, 0o755)?;
    write(&options.output.join("actiond.service"), SERVICE.as_bytes(), 0o644)?;
    write(&options.output.join("actiond.socket"), SOCKET.as_bytes(), 0o644)?;
    write(&options.output.join("actiond-user.service"), USER_SERVICE.as_bytes(), 0o644)?;
    write(&options.output.join("actiond-vm.service"), USER_VM_SERVICE.as_bytes(), 0o644)?;
    write(&options.output.join("apparmor"), APPARMOR.as_bytes(), 0o644)
}

fn contents(options: &Options, executable: &[u8]) -> Result<Contents> {
    let mut contents = Contents::default();
    contents.program("usr/bin/linux-actiond", executable);
    contents.file("usr/lib/systemd/system/actiond.service", SERVICE);
    contents.file("usr/lib/systemd/system/actiond.socket", SOCKET);
    contents.file("usr/lib/systemd/user/actiond.service", USER_SERVICE);
    contents.file("usr/lib/systemd/user/actiond-vm.service", USER_VM_SERVICE);
    contents.file("usr/share/actiond/apparmor", APPARMOR);
    contents.file("usr/share/actiond/grafana-board.json", GRAFANA_BOARD);
    contents.file("usr/share/actiond/alerts.yml", ALERTS);
    contents.file("usr/share/doc/actiond/copyright", LICENSE);
    for (name, place) in COMPLETIONS {
        contents.file(place, read(&options.documents.join(name))?);
    }
    for page in manual_pages(&options.documents)? {
        let name = page.file_name().context("a page has a name")?.to_string_lossy();
        let place = format!("usr/share/man/man1/{name}.gz");
        contents.file(&place, debian::gzip(&read(&page)?)?);
    }
    contents.scripts.extend(SCRIPTS);
    Ok(contents)
}

fn manual_pages(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|it| it == "1")).collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let context = || format!("writing {}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).with_context(context)?;
    fs::write(path, content).with_context(context)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, mode).with_context(context)
}
