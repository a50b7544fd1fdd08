//! Outputs that are not what they seem.

use anyhow::ensure;
use testkit::Run;
use tonic::Code;

use crate::case::{Case, calls, program, steps};
use crate::world::World;

/// The content of an output whose writers go on.
const AS_IT_WAS: &str = "as it was when the action ended";

pub(super) const CASES: &[Case] = &[
    calls("a-symlink-to-the-host", "symlinkat '{canary}' AT '/execroot/out'")
        .leaves(&["out"], &["symlink out -> {canary}"]),
    calls("a-symlink-to-pid-1", "symlinkat '/proc/1/root/etc/shadow' AT '/execroot/out'")
        .leaves(&["out"], &["symlink out -> /proc/1/root/etc/shadow"]),
    calls(
        "below-a-symlink-to-the-host",
        "unlinkat AT '/execroot/d' REMOVEDIR ; symlinkat '{directory}' AT '/execroot/d'",
    )
    .leaves(&["d/canary"], &[]),
    calls(
        "below-a-symlink-to-the-root",
        "unlinkat AT '/execroot/d' REMOVEDIR ; symlinkat '/proc/self/root/etc' AT '/execroot/d'",
    )
    .leaves(&["d/passwd"], &[]),
    calls(
        "below-a-symlink-upwards",
        "unlinkat AT '/execroot/d' REMOVEDIR ; symlinkat '../../../..' AT '/execroot/d'",
    )
    .leaves(&["d/etc/passwd"], &[]),
    program("below-an-input-symlink", &["nothing"])
        .links(&[("link", "{directory}")])
        .declares(&["link/canary"])
        .refused(&[Code::InvalidArgument]),
    calls("a-directory-with-a-symlink-out", "mkdirat AT '/execroot/out' 0777 ; symlinkat '{directory}' AT '/execroot/out/d'")
        .leaves(&["out"], &["directory out"]),
    calls("a-pipe", "mknodat AT '/execroot/out' FIFO|0666 0")
        .declares(&["out"])
        .refused(&[Code::InvalidArgument]),
    calls("a-pipe-in-a-directory", "mkdirat AT '/execroot/out' 0777 ; mknodat AT '/execroot/out/p' FIFO|0666 0")
        .declares(&["out"])
        .refused(&[Code::InvalidArgument]),
    calls("a-whiteout", "mknodat AT '/execroot/out' CHAR|0666 0").declares(&["out"]),
    calls(
        "a-whiteout-by-rename",
        "openat AT '/execroot/out' WRONLY|CREAT 0666 ; renameat2 AT '/execroot/out' AT '/execroot/other' WHITEOUT",
    )
    .declares(&["out", "other"]),
    calls("a-set-user-id-file", "openat AT '/execroot/out' WRONLY|CREAT 0777 ; write $1 '#!/x' 4 ; fchmod $1 06777")
        .leaves(&["out"], &["file out"]),
    calls("a-file-of-mode-zero", "openat AT '/execroot/out' WRONLY|CREAT 0 ; write $1 'zero' 4")
        .leaves(&["out"], &["file out"]),
    calls("a-directory-of-mode-zero", "mkdirat AT '/execroot/out' 0777 ; openat AT '/execroot/out/f' WRONLY|CREAT 0 ; fchmodat AT '/execroot/out' 0")
        .leaves(&["out"], &["directory out"]),
    calls("a-file-with-attributes", "openat AT '/execroot/out' WRONLY|CREAT 0666 ; fsetxattr $1 'user.x' 'y' 1 0")
        .leaves(&["out"], &["file out"]),
    calls("a-file-with-flags", "openat AT '/execroot/out' RDWR|CREAT 0666 ; write $1 'flags' 5 ; ioctl $1 SETFLAGS #ca000800")
        .leaves(&["out"], &["file out"]),
    calls("a-file-of-a-project", "openat AT '/execroot/out' RDWR|CREAT 0666 ; ioctl $1 FSSETXATTR &28").fails("EPERM"),
    calls("a-file-with-blocks-beyond-its-end", "openat AT '/execroot/out' WRONLY|CREAT 0666 ; fallocate $1 1 0 0x1000000 ; write $1 'x' 1")
        .leaves(&["out"], &["file out"]),
    calls(
        "a-link-to-another-output",
        "openat AT '/execroot/one' WRONLY|CREAT 0666 ; write $1 'linked' 6 ; linkat AT '/execroot/one' AT '/execroot/two' 0",
    )
    .leaves(&["one", "two"], &["file one", "file two"]),
    calls("a-name-that-is-no-text", "mkdirat AT '/execroot/out' 0777 ; openat AT #2f65786563726f6f742f6f75742fff00 WRONLY|CREAT 0666")
        .declares(&["out"])
        .refused(&[Code::InvalidArgument])
        // Its path is in bytes.
        .only_beside_a_root(),
    calls("a-target-that-is-no-text", "symlinkat #ff00 AT '/execroot/out'")
        .declares(&["out"])
        .refused(&[Code::InvalidArgument]),
    program("deeper-than-any-path", &["deep", "/execroot/out", "3000"])
        .declares(&["out"])
        .refused(&[Code::InvalidArgument]),
    program("deeper-than-any-path-and-not-declared", &["deep", "/execroot/hidden", "3000"])
        .leaves(&[], &[]),
    program("a-file-of-eight-terabytes", &["sparse", "/execroot/out", "8796093022208"])
        .prints("EFBIG"),
    program("a-file-of-exabytes", &["sparse", "/execroot/out", "9223372036854775807"]).prints("EFBIG"),
    steps("written-on-by-those-left", |world| Box::pin(written_on(world, "write-on"))),
    steps("written-on-by-a-descriptor-in-flight", |world| Box::pin(written_on(world, "descriptor-in-flight"))),
    steps("swapped-while-it-is-collected", |world| Box::pin(swapped(world))),
];

/// The output is what it was at the end, and stays so.
async fn written_on(world: &World, program: &str) -> anyhow::Result<()> {
    for _ in 0..5 {
        let action = world.ready(&[program, "/execroot/out"]).await?.output("out");
        let run = world.run(&action).await?;
        run.succeeded().await?;
        let before = whole_file(&run).await?;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        ensure!(whole_file(&run).await? == before, "an output changed after its action");
        // `write-on` may have written within the action's own life.
        let is_as_expected = before == AS_IT_WAS || before.starts_with("PWNED");
        ensure!(is_as_expected, "{before:?} is what neither wrote");
    }
    Ok(())
}

/// The output; an error if it is not what its digest says.
async fn whole_file(run: &Run) -> anyhow::Result<String> {
    run.file("out").await
}

/// The output at the end is a file, a symlink or a directory, and whole.
async fn swapped(world: &World) -> anyhow::Result<()> {
    for _ in 0..10 {
        let words = ["swap-on", "/execroot/out", "{canary}"];
        let run = world.run(&world.ready(&words).await?.output("out")).await?;
        let link = world.substitute("symlink out -> {canary}");
        let outputs = run.succeeded().await?.outputs()?;
        match outputs.as_slice() {
            [] => {}
            [output] if output == "file out" => {
                let content = whole_file(&run).await?;
                ensure!(
                    matches!(content.as_str(), "" | "a file"),
                    "{content:?} is not the action's"
                );
            }
            [output] if *output == link || output == "directory out" => {}
            other => anyhow::bail!("the output is {other:?}"),
        }
    }
    Ok(())
}
