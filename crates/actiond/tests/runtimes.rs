//! Runtime images: given by a flag, carried by the executable, seen by actions.

use std::env::consts::ARCH;
use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use backhand::{FilesystemWriter, NodeHeader};
use testkit::{Action, Client, Kit, Outcome, elf};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_library_comes_from_the_image,
    a_shell_comes_with_its_library,
    names_that_do_not_exist_are_refused_with_those_that_do,
    runtimes_hide_no_input,
    a_broken_image_is_refused_at_the_start,
    the_image_shows_nowhere_and_is_given_back,
    the_executable_carries_runtimes,
    an_executable_without_runtimes_says_so,
}

/// The answers of the image's programs, by their origin.
const LIBRARY: i32 = 71;
const SHELL_LIBRARY: i32 = 72;
const SHELL: i32 = 73;

/// An image with the C library `toy1`, which has a shell, and `toy2`, which has none.
fn write_image(path: &Path) -> Outcome {
    let runtime = |name: &str, shell| serde_json::json!({ "name": name, "source": "test", "shell": shell, "packages": [] });
    let manifest = serde_json::json!({
        "format": 1,
        "architecture": ARCH,
        "runtimes": [runtime("toy1", true), runtime("toy2", false)],
    });
    let program = |code: i32| elf::exit_with(u8::try_from(code).unwrap_or(u8::MAX));
    let files = [
        ("manifest.json".to_owned(), manifest.to_string().into_bytes()),
        ("common/root/etc/common".to_owned(), b"common".to_vec()),
        (format!("libc/toy1/{ARCH}/root/usr/lib/program"), program(LIBRARY)),
        (format!("libc/toy2/{ARCH}/root/usr/lib/program"), program(LIBRARY)),
        (format!("shell/toy1/{ARCH}/root/usr/lib/program"), program(SHELL_LIBRARY)),
        (format!("shell/toy1/{ARCH}/root/usr/bin/bash"), program(SHELL)),
    ];
    let mut writer = FilesystemWriter::default();
    let zstd = backhand::compression::Compressor::Zstd;
    writer.set_compressor(backhand::FilesystemCompressor::new(zstd, None)?);
    writer.set_root_mode(0o755);
    let header = NodeHeader { permissions: 0o755, ..NodeHeader::default() };
    for (path, content) in files {
        writer.push_dir_all(Path::new(&path).parent().context("a file")?, header)?;
        writer.push_file(Cursor::new(content), &path, header)?;
    }
    writer.write(fs::File::create(path)?)?;
    Ok(())
}

/// A directory with the image as `image`.
fn image() -> anyhow::Result<(tempfile::TempDir, String)> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("image");
    write_image(&path)?;
    let flag = format!("--runtime-image={}", path.display());
    Ok((directory, flag))
}

fn with_libc(client: &Client, program: &str, libc: &str) -> Action {
    client.bare_action([program]).property("libc", libc)
}

async fn a_library_comes_from_the_image(kit: Kit) -> Outcome {
    let (_directory, flag) = image()?;
    let daemon = kit.daemon().flag(flag).start().await?;
    let client = daemon.client();
    for name in ["toy1", "toy2"] {
        for program in ["/usr/lib/program", "/lib/program"] {
            let run = with_libc(&client, program, name).run().await?;
            assert_eq!(run.exit_code()?, LIBRARY, "{program} {name}");
        }
    }
    for nothing in ["", "none"] {
        let run = with_libc(&client, "/lib/program", nothing).run().await?;
        assert_eq!(run.exit_code()?, 127, "no runtime, so no program: {nothing:?}");
    }
    Ok(())
}

async fn a_shell_comes_with_its_library(kit: Kit) -> Outcome {
    let (_directory, flag) = image()?;
    let daemon = kit.daemon().flag(flag).start().await?;
    let client = daemon.client();
    let exit_code = async |action: Action| -> anyhow::Result<i32> {
        action.property("requires-bash", "").run().await?.exit_code()
    };
    assert_eq!(exit_code(with_libc(&client, "/bin/bash", "toy1")).await?, SHELL);
    assert_eq!(exit_code(with_libc(&client, "/usr/bin/bash", "toy1")).await?, SHELL);
    assert_eq!(exit_code(with_libc(&client, "/lib/program", "toy1")).await?, SHELL_LIBRARY);
    assert_eq!(exit_code(client.bare_action(["/bin/bash"])).await?, SHELL);
    let run = with_libc(&client, "/bin/bash", "toy1").run().await?;
    assert_eq!(run.exit_code()?, 127, "no shell unless it is asked for");
    let stderr = run.stderr().await?;
    assert!(stderr.contains("`requires-bash`"), "it says what to ask for: {stderr}");
    let run = with_libc(&client, "/bin/bash", "toy2").property("requires-bash", "").run().await?;
    assert_eq!(run.code(), Code::InvalidArgument);
    assert!(run.message().contains("toy2"), "{}", run.message());
    Ok(())
}

async fn names_that_do_not_exist_are_refused_with_those_that_do(kit: Kit) -> Outcome {
    let (_directory, flag) = image()?;
    let daemon = kit.daemon().flag(flag).start().await?;
    for name in ["toy3", "../toy1", "toy1/x86_64"] {
        let run = with_libc(&daemon.client(), "/lib/program", name).run().await?;
        assert_eq!(run.code(), Code::InvalidArgument);
        assert!(run.message().contains("toy1, toy2"), "{}", run.message());
    }
    Ok(())
}

async fn runtimes_hide_no_input(kit: Kit) -> Outcome {
    const INPUT: i32 = 74;
    let (_directory, flag) = image()?;
    let daemon = kit.daemon().flag(flag).start().await?;
    let client = daemon.client();
    for path in ["lib/program", "usr/lib/program", "etc/common"] {
        let action = with_libc(&client, path, "toy1");
        let run = action.executable(path, elf::exit_with(u8::try_from(INPUT)?)).run().await?;
        assert_eq!(run.exit_code()?, INPUT, "{path}");
    }
    Ok(())
}

/// The message of a daemon that does not start.
fn complaint(kit: &Kit, flags: &[String]) -> anyhow::Result<String> {
    let builder = flags.iter().fold(kit.daemon(), |builder, flag| builder.flag(flag));
    let (mut command, _root) = builder.command()?;
    let output = command.output()?;
    ensure!(!output.status.success(), "it started");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn a_broken_image_is_refused_at_the_start(kit: Kit) -> Outcome {
    let (directory, flag) = image()?;
    let path = directory.path().join("image");
    let whole = fs::read(&path)?;
    for (content, expected) in [(&b"no image"[..], "no SquashFS"), (&whole[..300], "cut off")] {
        fs::write(&path, content)?;
        let said = complaint(&kit, std::slice::from_ref(&flag))?;
        assert!(said.contains(expected), "{said}");
    }
    let both = [flag, "--runtime-root=/".to_owned()];
    assert!(complaint(&kit, &both)?.contains("cannot be used with"));
    Ok(())
}

async fn the_image_shows_nowhere_and_is_given_back(kit: Kit) -> Outcome {
    let (directory, flag) = image()?;
    let image = directory.path().join("image");
    let mut daemon = kit.daemon().flag(flag).start().await?;
    let run = with_libc(&daemon.client(), "/lib/program", "toy1").run().await?;
    assert_eq!(run.exit_code()?, LIBRARY);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let root = daemon.root().to_str().context("a plain path")?;
    assert!(!mounts.contains(root), "the mount shows on the machine");
    assert_eq!(loop_devices_of(&image)?, 1);
    daemon.kill()?;
    let given_back = || loop_devices_of(&image).map(|devices| devices == 0);
    testkit::eventually("the loop device is free", given_back).await
}

/// How many loop devices have this file.
fn loop_devices_of(image: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    for device in fs::read_dir("/sys/block")? {
        let backing = fs::read_to_string(device?.path().join("loop/backing_file"));
        count += usize::from(backing.is_ok_and(|name| Path::new(name.trim_end()) == image));
    }
    Ok(count)
}

async fn the_executable_carries_runtimes(kit: Kit) -> Outcome {
    let directory = tempfile::tempdir()?;
    let image = directory.path().join("image");
    write_image(&image)?;
    let executable = directory.path().join("linux-actiond");
    let section = format!(".actiond.runtimes={}", image.display());
    let mut objcopy = Command::new("objcopy");
    objcopy.arg("--add-section").arg(section).arg(kit.binary()).arg(&executable);
    ensure!(objcopy.status().context("objcopy, of binutils")?.success(), "objcopy failed");
    let kit = Kit::new(&executable);
    assert!(doctor_on_runtimes(&kit)?.contains("toy1, toy2"));
    let mut daemon = kit.daemon().start().await?;
    let run = with_libc(&daemon.client(), "/lib/program", "toy1").run().await?;
    assert_eq!(run.exit_code()?, LIBRARY);
    let embedded = daemon.root().join("embedded");
    let names = |directory: &Path| -> anyhow::Result<Vec<_>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    };
    let extracted = names(&embedded)?;
    assert_eq!(extracted.len(), 1);
    assert!(fs::read(&extracted[0])? == fs::read(&image)?);
    daemon.kill()?;
    fs::write(&extracted[0], "spoilt")?;
    let successor = daemon.successor().start().await?;
    let action = with_libc(&successor.client(), "/lib/program", "toy1");
    assert_eq!(action.do_not_cache().run().await?.exit_code()?, LIBRARY, "it was mended");
    assert_eq!(names(&embedded)?, extracted);
    Ok(())
}

async fn an_executable_without_runtimes_says_so(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    assert!(daemon.log().contains("no runtimes"), "{}", daemon.log());
    assert!(!daemon.root().join("embedded").exists(), "nothing is extracted");
    assert!(doctor_on_runtimes(&kit)?.contains("none"));
    Ok(())
}

/// The report of `doctor` on the runtimes in the executable.
fn doctor_on_runtimes(kit: &Kit) -> anyhow::Result<String> {
    let root = tempfile::tempdir()?;
    let output =
        Command::new(kit.binary()).arg("doctor").arg("--root").arg(root.path()).output()?;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = report.lines().find(|line| line.contains("runtimes in this binary"));
    Ok(line.with_context(|| format!("nothing on runtimes: {report}"))?.to_owned())
}
