//! Ways to change what others read.

use anyhow::ensure;

use crate::case::{Case, calls, steps};
use crate::world::{INPUT, World};

const REFUSED: &str = "EACCES|EPERM|EROFS";
/// Those, and the ways in which a link or a rename can be impossible.
const IMPOSSIBLE: &str = "EACCES|EPERM|EROFS|EXDEV|EBUSY|EINVAL";

pub(super) const CASES: &[Case] = &[
    calls("open-for-writing", "openat AT '/workspace/input' WRONLY").fails(REFUSED),
    calls("open-for-both", "openat AT '/workspace/input' RDWR").fails(REFUSED),
    calls("open-and-truncate", "openat AT '/workspace/input' RDONLY|TRUNC").fails(REFUSED),
    calls("append", "openat AT '/workspace/input' WRONLY|APPEND").fails(REFUSED),
    calls("truncate", "truncate '/workspace/input' 0").fails(REFUSED),
    calls("write-the-running-program", "openat AT '/workspace/{program}' WRONLY").fails("EACCES|ETXTBSY|EROFS"),
    // actiondfs says yes to changes of modes and times and does nothing, for the sake of tools that
    // make them in passing: what counts is that nothing can be done afterwards that could not before.
    calls("change-the-mode", "fchmodat AT '/workspace/input' 0666 ; openat AT '/workspace/input' WRONLY")
        .fails(REFUSED),
    calls(
        "change-the-mode-by-descriptor",
        "openat AT '/workspace/input' RDONLY ; fchmod $1 0666 ; openat AT '/workspace/input' RDWR",
    )
    .fails(REFUSED),
    calls("make-it-executable", "fchmodat AT '/workspace/input' 0777").fails(REFUSED),
    calls("make-it-set-user-id", "fchmodat AT '/workspace/{program}' 04777").fails(REFUSED),
    calls("change-the-owner", "fchownat AT '/workspace/input' 65534 65534 0").fails(REFUSED),
    calls("change-the-time", "utimensat AT '/workspace/input' 0 0 ; openat AT '/workspace/input' WRONLY")
        .fails(REFUSED),
    calls("set-an-attribute", "setxattr '/workspace/input' 'user.x' 'y' 1 0").fails(REFUSED),
    calls("set-an-attribute-of-overlays", "setxattr '/workspace/input' 'trusted.overlay.redirect' '/x' 2 0")
        .fails("EPERM|EROFS"),
    calls("remove-an-attribute", "removexattr '/workspace/input' 'trusted.overlay.redirect'")
        .fails("EPERM|EROFS"),
    calls("set-a-security-attribute", "setxattr '/workspace/input' 'security.capability' &20 20 0")
        .fails("EPERM|EROFS|EINVAL"),
    calls("set-a-flag", "openat AT '/workspace/input' RDONLY ; ioctl $1 SETFLAGS #10000000")
        .fails("EPERM|EACCES|EROFS|ENOTTY"),
    calls("delete", "unlinkat AT '/workspace/input' 0").fails(IMPOSSIBLE),
    calls("delete-below", "unlinkat AT '/workspace/directory/nested' 0").fails(IMPOSSIBLE),
    calls("move-away", "renameat2 AT '/workspace/input' AT '/workspace/gone' 0").fails(IMPOSSIBLE),
    calls("move-the-directory-away", "renameat2 AT '/workspace/directory' AT '/workspace/gone' 0")
        .fails(IMPOSSIBLE),
    calls(
        "replace-by-rename",
        "openat AT '/workspace/own' WRONLY|CREAT 0666 ; renameat2 AT '/workspace/own' AT '/workspace/input' 0",
    )
    .fails(IMPOSSIBLE),
    calls(
        "exchange",
        "openat AT '/workspace/own' WRONLY|CREAT 0666 ; renameat2 AT '/workspace/own' AT '/workspace/input' EXCHANGE",
    )
    .fails(IMPOSSIBLE),
    calls(
        "change-the-mode-of-a-directory",
        "fchmodat AT '/workspace/directory' 0777 ; unlinkat AT '/workspace/directory/nested' 0",
    )
    .fails(IMPOSSIBLE),
    calls("change-the-mode-of-the-root", "fchmodat AT '/workspace' 0777 ; unlinkat AT '/workspace/input' 0")
        .fails(IMPOSSIBLE),
    calls("map-for-writing", "openat AT '/workspace/input' RDONLY ; mmap 0 4096 3 1 $1 0").fails("EACCES"),
    calls("write-a-reader", "openat AT '/workspace/input' RDONLY ; write $1 'pwned' 5").fails("EBADF"),
    calls("truncate-a-reader", "openat AT '/workspace/input' RDONLY ; ftruncate $1 0").fails("EINVAL|EBADF"),
    calls("punch-a-hole", "openat AT '/workspace/input' RDONLY ; fallocate $1 3 0 4096").fails("EBADF"),
    calls(
        "copy-into-a-reader",
        "openat AT '/workspace/input' RDONLY ; openat AT '/etc/passwd' RDONLY ; copy_file_range $2 0 $1 0 10 0",
    )
    .fails("EBADF|EXDEV"),
    calls("reopen-a-reader", "openat AT '/workspace/input' RDONLY ; openat AT '/proc/self/fd/3' RDWR")
        .fails(REFUSED),
    calls("open-a-path-and-reopen", "openat AT '/workspace/input' PATH ; openat AT '/proc/self/fd/3' RDWR")
        .fails(REFUSED),
    calls("lease", "openat AT '/workspace/input' RDONLY ; fcntl $1 1024 1").fails("EACCES|EPERM|EAGAIN"),
    calls("link-and-write", "linkat AT '/workspace/input' AT '/workspace/own' 0 ; openat AT '/workspace/own' RDWR")
        .fails("EACCES|ENOENT"),
    calls(
        "link-by-descriptor",
        "openat AT '/workspace/input' RDONLY ; linkat $1 '' AT '/workspace/own' EMPTY_PATH ; openat AT '/workspace/own' RDWR",
    )
    .fails("EACCES|ENOENT"),
    steps("every-blob-is-as-it-was", |world| Box::pin(every_blob_is_as_it_was(world))),
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

/// An action that may change its inputs changes copies.
async fn mutable_inputs(world: &World) -> anyhow::Result<()> {
    let script = "openat AT '/workspace/input' RDWR ; write $1 'PWNED' 5 ; \
        openat AT '/workspace/directory/nested' WRONLY|TRUNC ; write $3 'PWNED' 5 ; \
        fchmod $3 0777 ; renameat2 AT '/workspace/directory' AT '/workspace/moved' 0";
    let action = world.ready(&["calls", script]).await?.property("mutates_inputs", "true");
    let run = world.run(&action).await?;
    let said = run.succeeded().await?.stdout().await?;
    ensure!(said.ends_with("renameat2 0\n"), "the action could not change its inputs: {said}");
    every_blob_is_as_it_was(world).await?;
    let read =
        "openat AT '/workspace/directory/nested' RDONLY ; openat AT '/workspace/moved' RDONLY";
    let said = world.say(&["calls", read]).await?;
    ensure!(
        said == "openat 3\nopenat ENOENT\n",
        "the next action sees what the last one did: {said}"
    );
    Ok(())
}

/// Whoever may delete blobs may not take them from under an action.
async fn blobs_in_use_stay(world: &World) -> anyhow::Result<()> {
    let action = world.ready(&["sleep"]).await?.timeout(std::time::Duration::from_millis(500));
    let running = async { world.run(&action).await };
    let deleting = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        world.client.try_delete(&[world.input]).await
    };
    let (run, deleted) = tokio::join!(running, deleting);
    run?;
    // A server of another kind has no such method.
    ensure!(!matches!(deleted.as_deref(), Ok([tonic::Code::Ok])), "an input was deleted");
    every_blob_is_as_it_was(world).await
}
