use clap::Parser;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::testing::{FakeVmm, Script};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    arguments: Arguments,
}

fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
    let words = ["serve-vm"].iter().chain(words);
    Cli::try_parse_from(words).map(|cli| cli.arguments)
}

#[test]
fn the_defaults_are_those_that_are_documented() {
    let arguments = parse(&[]).unwrap();
    assert_eq!(arguments.listen.to_string(), "127.0.0.1:8980");
    assert_eq!(arguments.root, Path::new("/tmp/actiond-vm"));
    assert_eq!(arguments.cas_image_size_mib, 32_768);
    assert_eq!((arguments.memory_mib, arguments.cpus), (512, 2));
    assert_eq!((arguments.start_timeout_ms, arguments.connect_timeout_ms), (30_000, 60_000));
    assert_eq!(arguments.actiondfs_stats_path, None);
}

#[test]
fn flags_come_in_both_forms() {
    for words in
        [&["--memory-mib", "1024", "--root", "/a"][..], &["--memory-mib=1024", "--root=/a"]]
    {
        let arguments = parse(words).unwrap();
        assert_eq!(arguments.memory_mib, 1024);
        assert_eq!(arguments.root, Path::new("/a"));
    }
    for words in [&["--worker-flag", "--jobs=4"][..], &["--worker-flag=--jobs=4"]] {
        assert_eq!(parse(words).unwrap().worker_flags, ["--jobs=4".parse().unwrap()]);
    }
    assert!(parse(&["--worker-flag=two words"]).is_err());
    assert!(parse(&["--cpus=0"]).is_err());
    assert!(parse(&["--memory-mib=64"]).is_err());
}

/// The outcome of `serve-vm` with those flags in the directory `root`.
async fn check(root: &Path, words: &[&str]) -> String {
    let mut arguments = parse(words).unwrap();
    arguments.listen = "127.0.0.1:0".parse().unwrap();
    arguments.root = root.to_owned();
    arguments.cas_image_size_mib = 256;
    let (vmm, _machines) = FakeVmm::new(&[Script::FailToStart]);
    let error = serve(arguments, Payloads::default(), vmm, "test").await.unwrap_err();
    chain::Chain(&error).to_string()
}

#[tokio::test]
async fn failures_name_their_cause() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    let said = check(path, &[]).await;
    assert_eq!(said, "this program carries no kernel: give one with --kernel");
    let said = check(path, &["--kernel=/nowhere"]).await;
    assert!(said.starts_with("the kernel at /nowhere: No such file"), "{said}");
    let files = ["--kernel=/proc/self/exe", "--initramfs=/nowhere"];
    assert!(check(path, &files).await.starts_with("the initramfs at /nowhere"));

    let kernel = path.join("kernel");
    std::fs::write(&kernel, "a kernel").unwrap();
    let kernel = kernel.to_str().unwrap();
    let (kernel, initramfs) = (format!("--kernel={kernel}"), format!("--initramfs={kernel}"));
    let said = check(path, &[&kernel, &initramfs]).await;
    assert_eq!(said, "starting the VM: no such luck");

    let flag = format!("--worker-flag=--log={}", "x".repeat(600));
    let said = check(path, &[&kernel, &initramfs, &flag, &flag]).await;
    assert_eq!(said, "all --worker-flag together may have 1024 bytes");

    let held = CasImage::open(&path.join("cas.ext4"), 256).unwrap();
    let said = check(path, &[&kernel, &initramfs]).await;
    assert!(said.ends_with("cas.ext4 is in use by another VM"), "{said}");
    drop(held);
}

#[tokio::test]
async fn a_root_that_others_can_write_to_is_refused() {
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(check(root.path(), &[]).await.contains("can be written by others"));
}

#[test]
fn the_root_is_made_for_us_alone() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("a/b");
    make_root(&root).unwrap();
    assert_eq!(root.metadata().unwrap().mode() & 0o777, 0o700);
    make_root(&root).unwrap();
}
