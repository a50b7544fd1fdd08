//! A Debian root in which the package is installed, and which programs are run in.
//!
//! The root that is kept is never written to: what the package manager changes goes to a layer above
//! it, which goes with the suite's folder. All mounts are in the test's own mount namespace.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::process;

/// The store's path in the unit.
pub(super) const STATE: &str = "/var/lib/actiond";

/// The path of the package while it is installed.
const PACKAGE: &str = "/actiond.deb";

/// Enters the root `$0` and becomes the words after it. The process stays the one that it was, so
/// that signals for it are for the program. It is no chroot, in which there are no user namespaces.
const ENTER: &str = r#"cd "$0" && pivot_root . mnt && cd / && umount --lazy /mnt && exec "$@""#;

/// Before the root and a program of it.
const ENTERING: [&str; 8] =
    ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", ENTER];

/// After the root: the program knows nothing of ours.
const ENVIRONMENT: [&str; 3] =
    ["env", "--ignore-environment", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"];

/// A root with the package in it.
pub(super) struct Installed {
    root: PathBuf,
    /// The root's content at [`STATE`].
    state: PathBuf,
}

impl Installed {
    /// Lays a layer over the Debian root at `below` and installs the package there, with the package
    /// manager of that root, which refuses one whose dependencies are not there.
    pub(super) fn new(below: &Path, package: &Path, folder: &Path) -> Result<Self> {
        let [root, layer, work, state] =
            ["root", "layer", "work", "state"].map(|it| folder.join(it));
        for folder in [&root, &layer, &work, &state] {
            fs::create_dir_all(folder)?;
        }
        let layers = [("lowerdir", below), ("upperdir", &layer), ("workdir", &work)];
        let options = layers.map(|(name, path)| format!("{name}={}", path.display())).join(",");
        mount(&["-t", "overlay", "overlay", "-o", &options], &root)?;
        let installed = Self { root, state };
        installed.mount_what_systems_have()?;
        fs::copy(package, installed.path(PACKAGE))?;
        installed.run(&["dpkg", "--install", PACKAGE])?;
        Ok(installed)
    }

    /// This machine's devices and pseudo file systems, and a store that is not on overlayfs.
    fn mount_what_systems_have(&self) -> Result<()> {
        for path in ["/dev", "/proc", "/sys"] {
            mount(&["--rbind", path], &self.path(path))?;
        }
        for path in ["/run", "/tmp"] {
            mount(&["-t", "tmpfs", "tmpfs"], &self.path(path))?;
        }
        fs::create_dir_all(self.path(STATE))?;
        mount(&["--bind", &self.state.display().to_string()], &self.path(STATE))
    }

    /// Runs a program of the root, which must succeed, and gives what it printed.
    pub(super) fn run(&self, words: &[&str]) -> Result<String> {
        let [program, arguments @ ..] = ENTERING;
        let mut command = Command::new(program);
        command.args(arguments).arg(&self.root).args(ENVIRONMENT).args(words);
        let output = command.output().context("cannot start unshare")?;
        let said =
            [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
        let said = said.concat();
        ensure!(output.status.success(), "{}: {}\n{said}", words.join(" "), output.status);
        Ok(said)
    }

    /// The command that the unit has, with nothing in place of `$ACTIOND_FLAGS`.
    pub(super) fn unit_command(&self) -> Result<Vec<OsString>> {
        let unit = fs::read_to_string(self.path("/usr/lib/systemd/system/actiond.service"))?;
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart="));
        let words = line.context("the unit starts nothing")?.split_whitespace();
        let (variable, words): (Vec<_>, Vec<_>) = words.partition(|word| *word == "$ACTIOND_FLAGS");
        ensure!(variable.len() == 1, "the unit takes no flags");
        let mut command = ENTERING.map(OsString::from).to_vec();
        command.push(self.root.clone().into());
        command.extend(ENVIRONMENT.iter().chain(&words).map(OsString::from));
        Ok(command)
    }

    /// A file of the root, seen from here.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The store's folder, seen from here.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }
}

/// `mount` with these arguments at `place`.
fn mount(arguments: &[&str], place: &Path) -> Result<()> {
    process::run(Command::new("mount").args(arguments).arg(place))
}
