//! The input root as root: the sandbox's own mounts in it, and how the action gets there.
//!
//! Cases of other groups are tried there too, see `ALSO_IN_THE_ROOT`.

use prost::Message as _;
use testkit::proto::{Directory, DirectoryNode, NodeProperties, NodeProperty};
use testkit::{Action, Digest};
use tonic::Code;

use crate::case::{Case, Need, calls, program, steps};
use crate::judge::code_of;
use crate::world::World;

/// A mount of the sandbox's own, which can't be moved, removed or changed.
const FIXED: &str = "EBUSY|EROFS|EACCES|EPERM|EXDEV";

pub(super) const CASES: &[Case] = &[
    // Mounts of the sandbox's own.
    calls("move-dev-away", "renameat2 AT '/dev' AT '/gone' 0").at_the_root().fails(FIXED),
    calls("move-proc-away", "renameat2 AT '/proc' AT '/gone' 0").at_the_root().fails(FIXED),
    calls("move-tmp-away", "renameat2 AT '/tmp' AT '/gone' 0").at_the_root().fails(FIXED),
    calls("remove-dev", "unlinkat AT '/dev' REMOVEDIR").at_the_root().fails(FIXED),
    calls("remove-proc", "unlinkat AT '/proc' REMOVEDIR").at_the_root().fails(FIXED),
    calls("remove-tmp", "unlinkat AT '/tmp' REMOVEDIR").at_the_root().fails(FIXED),
    calls("exchange-proc", "mkdirat AT '/own' 0777 ; renameat2 AT '/proc' AT '/own' EXCHANGE")
        .at_the_root()
        .fails(FIXED),
    calls("uncover-dev", "umount2 '/dev' 2").at_the_root().fails("EPERM"),
    calls("uncover-an-entry-of-proc", "umount2 '/proc/keys' 2").at_the_root().fails("EPERM"),
    calls("create-in-dev", "openat AT '/dev/new' WRONLY|CREAT 0666")
        .at_the_root()
        .fails("EROFS|EACCES"),
    calls("make-a-device-in-the-root", "mknodat AT '/memory' CHAR|0666 0x101")
        .at_the_root()
        .fails("EPERM"),
    calls(
        "read-a-covered-entry",
        "openat AT '/proc/keys' RDONLY ; read $1 &64 64 ; openat AT '/proc/keys/x' RDONLY",
    )
    .at_the_root()
    .fails("ENOTDIR|ENOENT"),
    // The root that was there before.
    calls("the-root-of-others", "openat AT '/' PATH ; openat $1 'execroot' RDONLY")
        .at_the_root()
        .fails("ENOENT"),
    calls("the-etc-of-others", "openat AT '/etc/passwd' RDONLY").at_the_root().fails("ENOENT"),
    calls(
        "the-mount-behind-the-root",
        "openat AT '/proc/self/root/../..' PATH ; openat $1 'execroot' RDONLY",
    )
    .at_the_root()
    .fails("ENOENT"),
    // Mount points that are symlinks. PID 1 has rights that the action lacks.
    mount_point("dev-is-a-symlink-to-the-host", &[("dev", "{directory}")]),
    mount_point("dev-is-a-symlink-to-the-root", &[("dev", "/")]),
    mount_point("proc-is-a-symlink-upwards", &[("proc", "../../../../proc")]),
    mount_point("proc-is-a-symlink-to-itself", &[("proc", "proc")]),
    mount_point("tmp-is-a-symlink-to-the-devices", &[("tmp", "dev")]),
    mount_point("tmp-is-a-symlink-to-pid-1", &[("tmp", "/proc/1/root/tmp")]),
    // Outputs where the inputs are covered.
    output("an-output-in-tmp", &["tmp/out"]),
    output("an-output-that-is-tmp", &["tmp"]),
    output("an-output-in-shared-memory", &["dev/shm/out"]),
    output("an-output-in-proc", &["proc/1/root"]),
    calls(
        "files-of-tmp-are-no-outputs",
        "openat AT '/tmp/left' WRONLY|CREAT 0666 ; write $1 'left' 4",
    )
    .at_the_root()
    .declares(&["."]),
    // Properties and modes that rule the place out.
    program("the-input-root-and-another-root", &["nothing"])
        .properties(&[("libc", "glibc")])
        .at_the_root()
        .refused(&[Code::FailedPrecondition, Code::InvalidArgument]),
    steps("an-input-root-that-is-closed", |world| Box::pin(closed(world, 0o700)))
        .needs(Need::OwnUser),
    steps("write-changes-without-end", |world| Box::pin(many_changes(world))),
    steps("write-changes-at-long-paths", |world| Box::pin(change_at_a_long_path(world))),
    steps("an-input-root-that-is-closed-to-all", |world| Box::pin(closed(world, 0))),
];

/// A mount point that is a symlink.
const fn mount_point(name: &'static str, links: &'static [(&'static str, &'static str)]) -> Case {
    program(name, &["nothing"]).links(links).at_the_root().refused(&[Code::InvalidArgument])
}

/// An output where the sandbox has something of its own.
const fn output(name: &'static str, outputs: &'static [&'static str]) -> Case {
    program(name, &["nothing"]).declares(outputs).at_the_root().refused(&[Code::InvalidArgument])
}

/// PID 1 may not overrule modes, and says so in words that help.
async fn closed(world: &World, unix_mode: u32) -> anyhow::Result<()> {
    let mut root = world.root();
    root.node_properties =
        Some(NodeProperties { unix_mode: Some(unix_mode), ..NodeProperties::default() });
    let empty = world.client.put(Directory::default().encode_to_vec()).await?;
    let mount_points = ["dev", "proc", "tmp"]
        .map(|name| DirectoryNode { name: name.to_owned(), digest: Some(empty.to_proto()) });
    root.directories.extend(mount_points);
    let root = put(world, root).await?;
    let action = world.action(&["nothing"]).property("rootfs", "input-root").input_root(root);
    refused(world, &action, "unix_mode").await
}

/// The properties of a directory that is closed for writes, or open, with all below it.
fn closed_for_writes(closed: bool) -> Option<NodeProperties> {
    let property = NodeProperty { name: "SubtreeReadOnly".to_owned(), value: closed.to_string() };
    Some(NodeProperties { properties: vec![property], ..NodeProperties::default() })
}

/// Stores an input root.
async fn put(world: &World, mut root: Directory) -> anyhow::Result<Digest> {
    root.directories.sort_by(|one, other| one.name.cmp(&other.name));
    world.client.put(root.encode_to_vec()).await
}

/// Fails unless the action is INVALID_ARGUMENT for the reason that these words name.
async fn refused(world: &World, action: &Action, words: &str) -> anyhow::Result<()> {
    let (code, message) = code_of(world.run(action).await)?;
    anyhow::ensure!(
        code == Code::InvalidArgument && message.contains(words),
        "{code:?}: {message}"
    );
    Ok(())
}

/// Each change from closed to open and back is a mount.
async fn many_changes(world: &World) -> anyhow::Result<()> {
    let mut below = Directory::default();
    for number in 0..MANY {
        below.node_properties = closed_for_writes(number % 2 == 0);
        let digest = world.client.put(below.encode_to_vec()).await?;
        // Each directory has the one before it twice, so that the tree doubles on each level.
        let twice = ["a", "b"]
            .map(|name| DirectoryNode { name: name.to_owned(), digest: Some(digest.to_proto()) });
        below = Directory { directories: twice.into(), ..Directory::default() };
    }
    let mut root = world.root();
    root.directories.extend(below.directories);
    let root = put(world, root).await?;
    refused(world, &world.action(&["nothing"]).input_root(root), "SubtreeReadOnly").await
}

/// A path that fits into a path of Linux, and not with the place of the input root before it.
async fn change_at_a_long_path(world: &World) -> anyhow::Result<()> {
    let mut below = Directory { node_properties: closed_for_writes(true), ..Directory::default() };
    // 15 names of 255 bytes with their slashes, and one of 246: 4086 bytes.
    let names = std::iter::once("e".repeat(246)).chain(std::iter::repeat_n("d".repeat(255), 15));
    for name in names {
        let digest = world.client.put(below.encode_to_vec()).await?;
        let node = DirectoryNode { name, digest: Some(digest.to_proto()) };
        below = Directory { directories: vec![node], ..Directory::default() };
    }
    let mut root = world.root();
    root.directories.extend(below.directories);
    let root = put(world, root).await?;
    refused(world, &world.action(&["nothing"]).input_root(root), "4085 bytes").await
}

/// Levels of directories, of which each doubles the changes.
const MANY: usize = 12;
