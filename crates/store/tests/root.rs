//! Tests of the directories that become a store and of those that are refused.

mod common;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use common::{SHA256, open, options};
use store::{OpenError, Store};

fn refused(root: &Path) -> OpenError {
    match Store::open(root, options(common::BOOT)) {
        Ok(_) => panic!("{root:?} was taken for a store"),
        Err(error) => error,
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn a_new_root_gets_all_its_directories() {
    let parent = common::temp_dir();
    let root = parent.path().join("not/there/yet");
    let store = open(&root);
    let mode = |path: &str| fs::metadata(root.join(path)).expect("there").mode() & 0o7777;
    assert_eq!(mode(""), 0o700);
    for function in ["sha256", "blake3"] {
        for shard in ["00", "9f", "ff"] {
            assert_eq!(mode(&format!("cas/blobs/{function}/{shard}")), 0o700);
            assert_eq!(mode(&format!("ac/{function}/{shard}")), 0o700);
        }
    }
    assert_eq!(store.work_dir(), root.join("work"));
    let version = fs::read_to_string(root.join("version")).expect("a version file");
    assert_eq!(version, "actiond store 1\n");
}

#[test]
fn an_empty_directory_that_others_may_read_is_closed_to_them() {
    let root = common::temp_dir();
    chmod(root.path(), 0o755);
    let _store = open(root.path());
    let mode = fs::metadata(root.path()).expect("there").mode();
    assert_eq!(mode & 0o7777, 0o700);
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let root = common::temp_dir();
    drop(open(root.path()));
    chown(root.path(), Some(1234), None).expect("chown");
    let error = refused(root.path());
    assert!(matches!(error, OpenError::NotOwned { owner: 1234, us: 0, .. }));
    let message = error.to_string();
    assert!(message.contains("1234"), "{message}");
    assert!(message.contains(&root.path().display().to_string()), "{message}");
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    for mode in [0o770, 0o702, 0o1777] {
        let root = common::temp_dir();
        chmod(root.path(), mode);
        let error = refused(root.path());
        assert!(matches!(error, OpenError::Exposed { .. }), "{error}");
    }
}

#[test]
fn a_directory_with_something_else_in_it_is_refused_and_left_alone() {
    let root = common::temp_dir();
    fs::write(root.path().join("thesis.tex"), "years of work").expect("a file");
    let error = refused(root.path());
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    assert_eq!(common::files(root.path()).len(), 1);
}

#[test]
fn another_version_is_refused_and_left_alone() {
    for version in ["actiond store 2\n", "", "actiond store 1", "\u{0}binary"] {
        let root = common::temp_dir();
        let store = open(root.path());
        fs::write(store.work_dir().join("file"), "still here").expect("a file");
        drop(store);
        fs::write(root.path().join("version"), version).expect("a version file");
        let error = refused(root.path());
        assert!(matches!(error, OpenError::Version { .. }), "{error}");
        assert!(root.path().join("work/file").exists());
    }
}

#[test]
fn the_message_names_both_versions() {
    let root = common::temp_dir();
    drop(open(root.path()));
    fs::write(root.path().join("version"), "actiond store 2\n").expect("a version file");
    let message = refused(root.path()).to_string();
    assert!(message.contains("actiond store 2"), "{message}");
    assert!(message.contains("actiond store 1"), "{message}");
}

#[test]
fn a_root_in_use_is_refused_and_names_the_process() {
    let root = common::temp_dir();
    let store = open(root.path());
    let error = refused(root.path());
    let us = std::process::id();
    assert!(matches!(error, OpenError::InUse { pid: Some(pid), .. } if pid == us));
    assert!(error.to_string().contains(&us.to_string()), "{error}");
    drop(store);
    drop(open(root.path()));
}

#[test]
fn a_stale_lock_file_is_no_obstacle() {
    let root = common::temp_dir();
    drop(open(root.path()));
    fs::write(root.path().join("lock"), "1\n").expect("a lock file");
    let _store = open(root.path());
    let pid = fs::read_to_string(root.path().join("lock")).expect("a lock file");
    assert_eq!(pid, format!("{}\n", std::process::id()));
}

#[test]
fn a_root_that_was_made_half_is_completed() {
    let root = common::temp_dir();
    fs::write(root.path().join("lock"), "").expect("a lock file");
    fs::create_dir(root.path().join("tmp")).expect("a directory");
    fs::write(root.path().join("tmp/version"), "acti").expect("half a file");
    let store = open(root.path());
    fs::remove_dir(root.path().join("cas/blobs/sha256/7f")).expect("an empty shard");
    drop(store);
    let store = open(root.path());
    let digest = store.cas().put(SHA256, b"abc").expect("stored");
    assert!(store.cas().contains(&digest));
}

#[test]
fn work_and_tmp_are_emptied_whatever_is_in_them() {
    let root = common::temp_dir();
    let outside = common::temp_dir();
    fs::write(outside.path().join("precious"), "not ours").expect("a file");
    let store = open(root.path());
    let work = store.work_dir().to_owned();
    drop(store);

    fs::create_dir_all(work.join("a/b/c")).expect("directories");
    fs::write(work.join("a/b/c/file"), "x").expect("a file");
    symlink(outside.path(), work.join("a/link")).expect("a symlink");
    symlink(outside.path(), work.join("link")).expect("a symlink");
    symlink("/proc/self/root", work.join("a/b/root")).expect("a symlink");
    let fifo = CString::new(work.join("a/fifo").as_os_str().as_bytes()).expect("a path");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .expect("a pipe");
    for name in 0..3000 {
        fs::write(work.join(format!("a/b/{name}")), "").expect("a file");
        fs::create_dir(work.join(format!("lifted-{name}"))).expect("a directory");
    }
    fs::write(root.path().join("tmp/entry-0"), "torn").expect("a file");
    chmod(&work.join("a/b/c"), 0);
    chown(work.join("a/b/c"), Some(65534), Some(65534)).expect("chown");
    chmod(&work.join("a"), 0o1777);

    let store = open(root.path());
    assert_eq!(fs::read_dir(store.work_dir()).expect("a directory").count(), 0);
    assert_eq!(common::files(&root.path().join("tmp")).len(), 0);
    assert!(outside.path().join("precious").exists());
}

#[test]
fn work_is_emptied_of_nests_deeper_than_any_path() {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    let root = common::temp_dir();
    let store = open(root.path());
    let name = "n".repeat(200);
    let mut directory = store.work_dirfd().try_clone_to_owned().expect("a descriptor");
    for _ in 0..2_000 {
        mkdirat(&directory, &name, Mode::RWXU).expect("a directory");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        directory = openat(&directory, &name, flags, Mode::empty()).expect("a directory");
    }
    drop(directory);
    drop(store);
    let store = open(root.path());
    assert_eq!(fs::read_dir(store.work_dir()).expect("a directory").count(), 0);
}
