//! The inputs of sequences, and a plain directory with the same.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use inputroot::StrategyName;
use model::proto::Message as _;
use model::{Digest, proto};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use testkit::{Client, Tree};

use crate::listing::PROGRAM;
use crate::program::Arguments;

/// The user of actions.
const USER: u32 = 65534;

/// The time of all inputs, 2000-01-01.
const MODIFIED_SECONDS: i64 = 946_684_800;

/// An entry of the input root.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input {
    Directory(&'static str),
    File(&'static str, &'static str),
    Executable(&'static str, &'static str),
    Symlink(&'static str, &'static str),
}

/// The directory that a sequence runs in outside of any sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// A directory of the file system of the store.
    Plain,
    /// The same below an overlay that has `userxattr`, in which rename(2) of a directory that is in the lower
    /// layer fails with EXDEV.
    Overlay,
}

impl Ground {
    /// The ground on which all calls of a sequence have the results that they have with `strategy`.
    pub(crate) fn like(strategy: StrategyName) -> Self {
        match strategy {
            StrategyName::TmpfsOverlay | StrategyName::LinkOverlay => Self::Overlay,
            StrategyName::ActiondFs
            | StrategyName::ErofsFile
            | StrategyName::ErofsLoop
            | StrategyName::Bind => Self::Plain,
        }
    }
}

/// Whether inputs are files of the store. Those have the times, the links, and unless they are executables the
/// modes of blobs.
pub(crate) fn shows_the_store(strategy: StrategyName) -> bool {
    match strategy {
        StrategyName::Bind | StrategyName::LinkOverlay => true,
        StrategyName::ActiondFs
        | StrategyName::ErofsFile
        | StrategyName::ErofsLoop
        | StrategyName::TmpfsOverlay => false,
    }
}

/// Mounts an overlay on `root` in a mount namespace of its own, and runs a program in it as another user.
const IN_AN_OVERLAY: &str = r#"set -e
place=$1 user=$2; shift 2
layers="lowerdir=$place/lower,upperdir=$place/upper,workdir=$place/work"
mount -t overlay overlay -o "$layers,userxattr,index=off,xino=off" "$place/root"
cd "$place/root"
exec setpriv --reuid "$user" --regid "$user" --clear-groups -- "$@""#;

/// Parents first. Without the files whose modes differ in a plain directory; with `bind` those are mounts as
/// well, which can't be moved. No two files are of one content: to `cp -a` that would be hard links with `bind`.
pub(crate) fn inputs(strategy: StrategyName) -> impl DoubleEndedIterator<Item = Input> {
    let all = [
        Input::Directory("out"),
        Input::Directory("empty"),
        Input::Directory("empty/deep"),
        Input::Directory("d"),
        Input::Directory("d/sub"),
        Input::Executable("d/in", "content\n"),
        Input::Executable("d/tool", "the content\n"),
        Input::Executable("d/sub/b", "one\ntwo\nthree\n"),
        Input::File("d/data", "data of an input, not executable\n"),
        Input::File("d/sub/data", "more data\n"),
        Input::File("d/sub/A", ""),
        Input::Symlink("link", "d"),
    ];
    let has_store_modes = shows_the_store(strategy);
    all.into_iter().filter(move |input| {
        !(has_store_modes && matches!(input, Input::File(_, content) if !content.is_empty()))
    })
}

impl Input {
    fn add_to(self, tree: &mut Tree) {
        match self {
            Self::Directory(path) => tree.directory(path),
            Self::File(path, content) => tree.file(path, content),
            Self::Executable(path, content) => tree.executable(path, content),
            Self::Symlink(path, target) => tree.symlink(path, target),
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Directory(path)
            | Self::File(path, _)
            | Self::Executable(path, _)
            | Self::Symlink(path, _) => path,
        }
    }

    fn make_below(self, root: &Path) -> std::io::Result<()> {
        let path = root.join(self.path());
        let file = |content, mode| {
            fs::write(&path, content)?;
            fs::set_permissions(&path, Permissions::from_mode(mode))
        };
        match self {
            Self::Directory(_) => make_directory(&path),
            Self::File(_, content) => file(content, 0o644),
            Self::Executable(_, content) => file(content, 0o755),
            Self::Symlink(_, target) => {
                symlink(target, &path)?;
                lchown(&path, Some(USER), Some(USER))
            }
        }
    }
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))?;
    chown(path, Some(USER), Some(USER))
}

/// A place for plain directories, and the program that runs in them.
pub(crate) struct Plain {
    place: tempfile::TempDir,
    program: Vec<u8>,
    digest: Digest,
}

impl Plain {
    /// `place` is where daemons keep their state.
    pub(crate) fn new(place: tempfile::TempDir) -> anyhow::Result<Self> {
        fs::set_permissions(place.path(), Permissions::from_mode(0o755))?;
        // Symbols are most of it.
        let stripped = place.path().join("stripped");
        let this = std::env::current_exe()?;
        let strip = Command::new("strip").arg("-o").arg(&stripped).arg(&this).status();
        let is_stripped = strip.is_ok_and(|status| status.success());
        let program = fs::read(if is_stripped { stripped } else { this })?;
        let digest = Digest::of(model::DigestFunction::Sha256, &program);
        let copy = place.path().join(PROGRAM);
        fs::write(&copy, &program)?;
        fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
        make_directory(&place.path().join("scratch"))?;
        Ok(Self { place, program, digest })
    }

    pub(crate) fn scratch(&self) -> String {
        self.place.path().join("scratch").display().to_string()
    }

    /// Uploads the input root, and gives its digest.
    pub(crate) async fn input_tree(
        &self,
        client: &Client,
        strategy: StrategyName,
    ) -> anyhow::Result<Digest> {
        if !client.missing(&[self.digest]).await?.is_empty() {
            let name = client.upload_name(&self.digest);
            client.write(&name, &self.program, 1 << 20).await?;
        }
        let mut tree = Tree::new();
        inputs(strategy).for_each(|input| input.add_to(&mut tree));
        let mut blobs = BTreeMap::new();
        let root = tree.encode(self.digest.function(), &mut blobs);
        let mut root = proto::Directory::decode(blobs[&root].as_slice())?;
        root.files.push(proto::FileNode {
            name: PROGRAM.to_owned(),
            digest: Some(self.digest.to_proto()),
            is_executable: true,
            node_properties: None,
        });
        client.put_all(blobs.into_values()).await?;
        client.put(root.encode_to_vec()).await
    }

    /// Runs the program as the user of actions in a new directory, and gives what it said.
    pub(crate) fn run(
        &self,
        strategy: StrategyName,
        ground: Ground,
        arguments: &Arguments,
    ) -> anyhow::Result<String> {
        let place = self.place.path();
        let root = place.join("root");
        make_directory(&root)?;
        let mut made = vec![root.clone()];
        let inputs_root = match ground {
            Ground::Plain => root.clone(),
            Ground::Overlay => {
                for name in ["lower", "upper", "work"] {
                    let layer = place.join(name);
                    make_directory(&layer)?;
                    made.push(layer);
                }
                set_input_time(&place.join("upper"))?;
                place.join("lower")
            }
        };
        make_inputs(strategy, &inputs_root)?;
        let mut command = match ground {
            Ground::Plain => {
                let mut command = Command::new(place.join(PROGRAM));
                command.current_dir(&root).uid(USER).gid(USER);
                command
            }
            Ground::Overlay => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation=private", "sh", "-c", IN_AN_OVERLAY, "sh"]);
                command.arg(place).arg(USER.to_string()).arg(place.join(PROGRAM));
                command
            }
        };
        let output = command
            .args(arguments.words())
            .stdin(Stdio::null())
            .output()
            .context("starting the program as another user")?;
        let said = String::from_utf8(output.stdout)?;
        ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        for directory in made {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("removing {}", directory.display()))?;
        }
        Ok(said)
    }
}

fn make_inputs(strategy: StrategyName, root: &Path) -> anyhow::Result<()> {
    for input in inputs(strategy) {
        input.make_below(root).with_context(|| format!("making {input:?}"))?;
    }
    // Inner ones first, for they change the time of the directory that they are in.
    for path in inputs(strategy).rev().map(Input::path).chain(["."]) {
        set_input_time(&root.join(path))?;
    }
    Ok(())
}

fn set_input_time(path: &Path) -> anyhow::Result<()> {
    let time = Timespec { tv_sec: MODIFIED_SECONDS, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .with_context(|| format!("setting the time of {}", path.display()))
}
