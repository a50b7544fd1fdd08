//! A journaled ext4 of its own for whatever tests write, seen by them alone and gone with them.
//!
//! The daemon's behaviour depends on the file system of its state, so tests bring their own: a sparse
//! image, loop-mounted in a private mount namespace. The image is unlinked as soon as it is
//! mounted. The kernel then keeps it for as long as a process lives in the namespace, and frees the
//! mount, the loop device and the space with the last one, however that one ends.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{process, workspace};

/// Tests read this to learn where their state may go.
pub(crate) const STATE_VARIABLE: &str = "ACTIOND_TEST_STATE_DIR";

/// The image is sparse: this bounds what tests can write, and costs nothing before they do.
const IMAGE_BYTES: u64 = 16 << 30;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// An existing folder; the volume is mounted over its `mounted` child.
    folder: PathBuf,
    /// The program to become, and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// A command that runs `program` as root with a state volume; arguments are added by the caller.
pub(crate) fn command(program: &Path) -> Result<Command> {
    let folder = workspace::target().join("state-volume");
    fs::create_dir_all(folder.join("mounted"))
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let mut command = process::as_root("unshare");
    command.args(["--mount", "--propagation", "private", "--"]);
    command.arg(process::this_program()?).arg("in-state-volume").arg(folder).arg("--").arg(program);
    Ok(command)
}

/// Mounts the volume, then becomes the program. Runs as root in a mount namespace of its own.
pub(crate) fn enter(arguments: &Arguments) -> Result<()> {
    let mounted = arguments.folder.join("mounted");
    let image = Image::make(&arguments.folder)?;
    process::run(
        Command::new("mount")
            .args(["-t", "ext4", "-o", "loop,discard,nosuid,nodev,noatime"])
            .arg(&image.0)
            .arg(&mounted),
    )
    .context("a state volume needs a loop device and the right to mount")?;
    drop(image);
    let mounted = reachable(&mounted)?;
    let (program, rest) = arguments.program.split_first().context("no program")?;
    Err(process::become_program(Command::new(program).args(rest).env(STATE_VARIABLE, &mounted)))
}

/// The volume at a path by which every user reaches it, for daemons that ordinary users start: the checkout
/// may be in a directory that only its owner enters.
fn reachable(mounted: &Path) -> Result<PathBuf> {
    let is_open = |directory: &Path| {
        fs::metadata(directory).is_ok_and(|status| status.permissions().mode() & 0o001 != 0)
    };
    if mounted.ancestors().skip(1).all(is_open) {
        return Ok(mounted.to_owned());
    }
    let unused = |place: &&Path| place.is_dir() && !mounted.starts_with(place);
    let place = PLACES.map(Path::new).into_iter().find(unused).context("there is no /mnt")?;
    process::run(Command::new("mount").arg("--bind").arg(mounted).arg(place))?;
    Ok(place.to_owned())
}

/// Directories that every system has for mounts.
const PLACES: [&str; 2] = ["/mnt", "/media"];

/// An image file that is unlinked when this goes, mounted or not.
struct Image(PathBuf);

impl Image {
    fn make(folder: &Path) -> Result<Self> {
        let path = folder.join(format!("{}.img", std::process::id()));
        let file =
            fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let image = Self(path);
        file.set_len(IMAGE_BYTES)?;
        file.write_at(&[0], 0)?;
        let options =
            ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"];
        process::run(Command::new("mkfs.ext4").args(options).arg(&image.0))?;
        Ok(image)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("xtask: cannot remove {}: {error}", self.0.display());
        }
    }
}
