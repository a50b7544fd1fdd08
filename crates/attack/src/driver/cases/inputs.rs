//! Ways to change what others read.

use anyhow::ensure;

use crate::case::{Case, Need, calls, steps};
use crate::world::{INPUT, World};

const REFUSED: &str = "EACCES|EPERM|EROFS";
/// Those, and the ways in which a link or a rename can be impossible.
const IMPOSSIBLE: &str = "EACCES|EPERM|EROFS|EXDEV|EBUSY|EINVAL";

pub(super) const CASES: &[Case] = &[
    calls("open-for-writing", "openat AT '/execroot/input' WRONLY").fails(REFUSED),
    calls("open-for-both", "openat AT '/execroot/input' RDWR").fails(REFUSED),
    calls("open-and-truncate", "openat AT '/execroot/input' RDONLY|TRUNC").fails(REFUSED),
    calls("append", "openat AT '/execroot/input' WRONLY|APPEND").fails(REFUSED),
    calls("truncate", "truncate '/execroot/input' 0").fails(REFUSED),
    calls("write-the-running-program", "openat AT '/execroot/{program}' WRONLY").fails("EACCES|ETXTBSY|EROFS"),
    calls("change-the-mode", "fchmodat AT '/execroot/input' 0666 ; openat AT '/execroot/input' WRONLY")
        .needs(Need::OwnUser)
        .fails(REFUSED),
    calls(
        "change-the-mode-by-descriptor",
        "openat AT '/execroot/input' RDONLY ; fchmod $1 0666 ; openat AT '/execroot/input' RDWR",
    )
    .needs(Need::OwnUser)
    .fails(REFUSED),
    calls("make-it-executable", "fchmodat AT '/execroot/input' 0777")
        .needs(Need::OwnUser)
        .fails(REFUSED),
    calls("make-it-set-user-id", "fchmodat AT '/execroot/{program}' 04777")
        .needs(Need::OwnUser)
        .fails(REFUSED),
    calls("change-the-owner", "fchownat AT '/execroot/input' 65534 65534 0")
        .needs(Need::OwnUser)
        .fails(REFUSED),
    calls("change-the-time", "utimensat AT '/execroot/input' 0 0 ; openat AT '/execroot/input' WRONLY")
        .fails(REFUSED),
    calls("set-an-attribute", "setxattr '/execroot/input' 'user.x' 'y' 1 0").fails(REFUSED),
    calls("set-an-attribute-of-overlays", "setxattr '/execroot/input' 'trusted.overlay.redirect' '/x' 2 0")
        .fails("EPERM|EROFS"),
    calls("remove-an-attribute", "removexattr '/execroot/input' 'trusted.overlay.redirect'")
        .fails("EPERM|EROFS"),
    calls("set-a-security-attribute", "setxattr '/execroot/input' 'security.capability' &20 20 0")
        .fails("EPERM|EROFS|EINVAL"),
    calls("set-a-flag", "openat AT '/execroot/input' RDONLY ; ioctl $1 SETFLAGS #10000000")
        .fails("EPERM|EACCES|EROFS|ENOTTY"),
    // The names of inputs are the action's own to change. A new name leads to the same file,
    // which it still cannot write; `every-blob-is-as-it-was` and the cases after it look at what
    // others see.
    calls(
        "move-and-write",
        "renameat2 AT '/execroot/input' AT '/execroot/own' 0 ; openat AT '/execroot/own' WRONLY ; \
         openat AT '/execroot/input' WRONLY",
    )
    .fails("EACCES|EPERM|EROFS|ENOENT"),
    calls(
        "exchange-and-write",
        "openat AT '/execroot/own' WRONLY|CREAT 0666 ; renameat2 AT '/execroot/own' AT '/execroot/input' EXCHANGE ; \
         openat AT '/execroot/own' RDONLY|TRUNC ; ftruncate $3 0",
    )
    .fails("EACCES|EPERM|EROFS|EBADF|EINVAL"),
    calls(
        "move-the-directory-and-write",
        "renameat2 AT '/execroot/directory' AT '/execroot/own' 0 ; openat AT '/execroot/own/nested' WRONLY",
    )
    // Where directories of inputs can't be moved, nothing is there.
    .fails("EACCES|EPERM|EROFS|ENOENT"),
    calls("move-and-change-the-mode", "renameat2 AT '/execroot/input' AT '/execroot/own' 0 ; fchmodat AT '/execroot/own' 0666")
        .needs(Need::OwnUser)
        .fails("EACCES|EPERM|EROFS|ENOENT"),
    calls("remove-the-root", "unlinkat AT '/execroot' REMOVEDIR").fails(IMPOSSIBLE),
    calls("move-the-root-away", "renameat2 AT '/execroot' AT '/tmp/gone' 0").fails(IMPOSSIBLE),
    calls("map-for-writing", "openat AT '/execroot/input' RDONLY ; mmap 0 4096 3 1 $1 0").fails("EACCES"),
    calls("write-a-reader", "openat AT '/execroot/input' RDONLY ; write $1 'pwned' 5").fails("EBADF"),
    calls("truncate-a-reader", "openat AT '/execroot/input' RDONLY ; ftruncate $1 0").fails("EINVAL|EBADF"),
    calls("punch-a-hole", "openat AT '/execroot/input' RDONLY ; fallocate $1 3 0 4096").fails("EBADF"),
    calls(
        "copy-into-a-reader",
        "openat AT '/execroot/input' RDONLY ; openat AT '/etc/passwd' RDONLY ; copy_file_range $2 0 $1 0 10 0",
    )
    .fails("EBADF|EXDEV"),
    calls("reopen-a-reader", "openat AT '/execroot/input' RDONLY ; openat AT '/proc/self/fd/3' RDWR")
        .fails(REFUSED),
    calls("open-a-path-and-reopen", "openat AT '/execroot/input' PATH ; openat AT '/proc/self/fd/3' RDWR")
        .fails(REFUSED),
    calls("lease", "openat AT '/execroot/input' RDONLY ; fcntl $1 1024 1")
        .needs(Need::OwnUser)
        .fails("EACCES|EPERM|EAGAIN"),
    calls("link-and-write", "linkat AT '/execroot/input' AT '/execroot/own' 0 ; openat AT '/execroot/own' RDWR")
        .fails("EACCES|ENOENT"),
    calls(
        "link-by-descriptor",
        "openat AT '/execroot/input' RDONLY ; linkat $1 '' AT '/execroot/own' EMPTY_PATH ; openat AT '/execroot/own' RDWR",
    )
    .fails("EACCES|ENOENT"),
    steps("every-blob-is-as-it-was", |world| Box::pin(every_blob_is_as_it_was(world))),
    steps("names-that-change-change-no-blob", |world| Box::pin(moved_names(world))),
    steps("inputs-that-may-change-change-no-blob", |world| Box::pin(mutable_inputs(world))),
    steps("blobs-of-an-action-that-runs-stay", |world| Box::pin(blobs_in_use_stay(world))),
];

async fn every_blob_is_as_it_was(world: &World) -> anyhow::Result<()> {
    let content = world.client.get(&world.input).await?;
    ensure!(
        content == INPUT.as_bytes(),
        "the input is {:?} now",
        String::from_utf8_lossy(&content)
    );
    Ok(())
}

/// An action that moves, replaces and removes its inputs does so in its own view.
async fn moved_names(world: &World) -> anyhow::Result<()> {
    let script = "openat AT '/execroot/own' WRONLY|CREAT 0666 ; write $1 'PWNED' 5 ; \
        renameat2 AT '/execroot/own' AT '/execroot/input' 0 ; \
        unlinkat AT '/execroot/directory/nested' 0 ; \
        renameat2 AT '/execroot/directory' AT '/execroot/moved' 0";
    world.run(&world.ready(&["calls", script]).await?).await?.succeeded().await?;
    every_blob_is_as_it_was(world).await?;
    let read = "openat AT '/execroot/directory/nested' RDONLY ; openat AT '/execroot/moved' RDONLY";
    let said = world.say(&["calls", read]).await?;
    ensure!(
        said == "openat 3\nopenat ENOENT\n",
        "the next action sees what the last one did: {said}"
    );
    Ok(())
}

/// An action that may change its inputs changes copies.
async fn mutable_inputs(world: &World) -> anyhow::Result<()> {
    let script = "openat AT '/execroot/input' RDWR ; write $1 'PWNED' 5 ; \
        openat AT '/execroot/directory/nested' WRONLY|TRUNC ; write $3 'PWNED' 5 ; \
        fchmod $3 0777 ; renameat2 AT '/execroot/directory' AT '/execroot/moved' 0";
    let action = world.ready(&["calls", script]).await?.property("mutates_inputs", "true");
    let run = world.run(&action).await?;
    let said = run.succeeded().await?.stdout().await?;
    // Where directories of inputs can't be moved, the rest of it was done.
    let is_done =
        ["renameat2 0\n", "fchmod 0\nrenameat2 EXDEV\n"].iter().any(|it| said.ends_with(it));
    ensure!(is_done, "the action could not change its inputs: {said}");
    every_blob_is_as_it_was(world).await?;
    let read = "openat AT '/execroot/directory/nested' RDONLY ; openat AT '/execroot/moved' RDONLY";
    let said = world.say(&["calls", read]).await?;
    ensure!(
        said == "openat 3\nopenat ENOENT\n",
        "the next action sees what the last one did: {said}"
    );
    Ok(())
}

/// A client that may delete blobs can't delete the inputs of an action that runs.
async fn blobs_in_use_stay(world: &World) -> anyhow::Result<()> {
    let action = world.ready(&["sleep"]).await?;
    let started = world.start(&action).await?;
    let deleted = world.client.try_delete(&[world.input]).await;
    world.stop(started).await?;
    // A server of another kind has no such method.
    ensure!(!matches!(deleted.as_deref(), Ok([tonic::Code::Ok])), "an input was deleted");
    every_blob_is_as_it_was(world).await
}
