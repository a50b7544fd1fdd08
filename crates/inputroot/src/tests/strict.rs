//! The limits of an action on its inputs, and its rights beside them.

use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::bench::{Bench, View, as_action};
use crate::tree_fixture::TreeFixture;

fn fixture() -> TreeFixture {
    TreeFixture::new()
        .file("file", b"content")
        .executable("d/tool", b"tool")
        .file("d/e/file", b"other")
        .directory("empty")
        .symlink("link", "file")
}

/// Fails if an attempt succeeds.
#[track_caller]
pub(super) fn refused<T>(what: &str, result: Result<T, Errno>) {
    match result {
        Ok(_) => panic!("{what} succeeded"),
        Err(
            Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::BUSY | Errno::NOTSUP | Errno::XDEV,
        ) => {}
        Err(errno) => panic!("{what} failed for another reason: {errno}"),
    }
}

pub(super) fn inputs_cannot_be_changed(bench: &Bench) {
    let tree = bench.tree(fixture());
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        for file in ["file", "d/tool", "d/e/file"] {
            contents_are_safe(view, file);
            attributes_are_safe(view, file);
            no_other_name(view, file);
        }
        assert_eq!(view.read("file").unwrap(), b"content");
        assert_eq!(view.read("d/tool").unwrap(), b"tool");
    });
    presented.discard();
}

/// An action arranges its own view as it likes, and what it cannot write stays so.
pub(super) fn names_are_the_actions_own(bench: &Bench) {
    let tree = bench.tree(fixture());
    for _ in 0..2 {
        let presented = bench.present(&tree);
        as_action(&presented, |view| {
            assert_eq!(view.list(".").unwrap(), ["d", "empty", "file", "link"]);
            if bench.moves_files() {
                view.rename("file", "moved").unwrap();
                contents_are_safe(view, "moved");
                attributes_are_safe(view, "moved");
                assert_eq!(view.read("moved").unwrap(), b"content");
                view.write("file", b"own").unwrap();
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(view.root, "file", view.root, "moved", exchange).unwrap();
                assert_eq!(view.read("file").unwrap(), b"content");
                view.rename("moved", "file").unwrap();
                view.write("file", b"more").unwrap();
                view.unlink("d/e/file").unwrap();
                view.rmdir("d/e").unwrap();
            }
            view.rename("d/tool", "tool").unwrap();
            contents_are_safe(view, "tool");
            attributes_are_safe(view, "tool");
            bench.move_directory(view, "d", "moved-directory");
            view.unlink("link").unwrap();
            view.symlink("elsewhere", "link").unwrap();
            view.rmdir("empty").unwrap();
            view.write("empty", b"a file now").unwrap();
            let mut expected = vec!["empty", "file", "link", "moved-directory", "tool"];
            expected.sort_unstable();
            assert_eq!(view.list(".").unwrap(), expected);
        });
        presented.discard();
    }
}

/// Bazel sends an output directory as an empty input directory, for it to be there.
pub(super) fn an_empty_directory_is_the_actions_own(bench: &Bench) {
    let tree = bench.tree(fixture().directory("out/deep"));
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        for path in ["empty", "out/deep", "out", "."] {
            let stat = view.stat(path).unwrap();
            assert_eq!((stat.st_uid, stat.st_gid), (65534, 65534), "{path}");
            assert_eq!(stat.st_mode & 0o7777, 0o755, "{path}");
            let chmod = |mode| {
                let mode = Mode::from_raw_mode(mode);
                rustix::fs::chmodat(view.root, path, mode, AtFlags::empty())
            };
            chmod(0o700).unwrap();
            assert_eq!(view.stat(path).unwrap().st_mode & 0o7777, 0o700, "{path}");
            chmod(0o755).unwrap();
            let time = Timespec { tv_sec: 1, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(view.root, path, &times, AtFlags::empty()).unwrap();
            assert_eq!(view.stat(path).unwrap().st_mtime, 1, "{path}");
        }
        view.rmdir("empty").unwrap();
        view.mkdir("empty").unwrap();
        view.write("empty/file", b"x").unwrap();
        bench.move_directory(view, "out/deep", "moved");
        view.mkdir("other").unwrap();
        view.rename("other", "out/deep").unwrap();
        view.mkdir("over").unwrap();
        view.write("over/file", b"x").unwrap();
        view.rename("over", "moved").unwrap();
        assert_eq!(view.list("moved").unwrap(), ["file"]);
    });
    presented.discard();
}

fn contents_are_safe(view: &View<'_>, file: &str) {
    for flags in [
        OFlags::WRONLY,
        OFlags::RDWR,
        OFlags::WRONLY | OFlags::APPEND,
        OFlags::RDONLY | OFlags::TRUNC,
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC,
    ] {
        refused("opening for writing", view.open(file, flags));
    }
    let open = view.open(file, OFlags::RDONLY).unwrap();
    let again = format!("/proc/thread-self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
    let reopened = rustix::fs::open(&*again, OFlags::RDWR, Mode::empty());
    refused("reopening for writing", reopened);
    let path_only = view.open(file, OFlags::PATH).unwrap();
    let again = format!("/proc/thread-self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&path_only));
    refused("reopening for writing", rustix::fs::open(&*again, OFlags::RDWR, Mode::empty()));
    assert_eq!(rustix::fs::ftruncate(&open, 0).unwrap_err(), Errno::INVAL);
    assert_eq!(rustix::io::write(&open, b"x").unwrap_err(), Errno::BADF);
}

fn attributes_are_safe(view: &View<'_>, path: &str) {
    let root = view.root;
    let before = view.stat(path).unwrap();
    let mode = Mode::from_raw_mode(0o4777);
    refused("chmod u+s", rustix::fs::chmodat(root, path, mode, AtFlags::empty()));
    let (user, group) = (Some(Uid::from_raw(65534)), Some(Gid::from_raw(65534)));
    refused("chown", rustix::fs::chownat(root, path, user, group, AtFlags::empty()));
    let mode = Mode::from_raw_mode(0o666);
    refused("chmod", rustix::fs::chmodat(root, path, mode, AtFlags::empty()));
    let time = Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    refused("utimensat", rustix::fs::utimensat(root, path, &times, AtFlags::empty()));
    let open = view.open(path, OFlags::RDONLY).unwrap();
    // A well-formed set of file capabilities (version 2), so that only the right to set it lacks.
    let capabilities = [0, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0];
    for (name, value) in [
        ("user.mine", b"value".as_slice()),
        ("trusted.overlay.redirect", b"/etc/shadow"),
        ("security.capability", &capabilities),
    ] {
        refused(name, rustix::fs::fsetxattr(&open, name, value, XattrFlags::empty()));
    }
    refused("fchmod", rustix::fs::fchmod(&open, mode));
    let after = view.stat(path).unwrap();
    let attributes = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime);
    assert_eq!(attributes(&after), attributes(&before), "attributes of {path}");
}

/// A second name would outlive the view of one, where the kernel lets it be made.
fn no_other_name(view: &View<'_>, file: &str) {
    let protected = std::fs::read_to_string("/proc/sys/fs/protected_hardlinks");
    if protected.is_ok_and(|value| value.trim() == "1") {
        refused("linking to it", view.link(file, "linked"));
    } else {
        eprintln!("SKIPPED: hard links to inputs: fs.protected_hardlinks is off here");
    }
}

/// In a process of its own, because mapping memory is not done in safe code.
pub(super) fn inputs_cannot_be_mapped_for_writing(bench: &Bench) {
    let tree = bench.tree(fixture());
    let presented = bench.present(&tree);
    let input = as_action(&presented, |view| view.open("file", OFlags::RDONLY).unwrap());
    let script = "import mmap, os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
mmap.mmap(0, 0, mmap.MAP_PRIVATE)[0] = 88
try:
    mmap.mmap(0, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
except PermissionError:
    sys.exit(42)
";
    let mut python = Command::new("python3");
    python.arg("-c").arg(script).stdin(Stdio::from(input));
    match python.status() {
        Ok(status) => assert_eq!(status.code(), Some(42)),
        Err(error) => eprintln!("SKIPPED: mapping an input for writing: no python3: {error}"),
    }
    presented.discard();
}

pub(super) fn new_files_beside_inputs_everywhere(bench: &Bench) {
    let tree = bench.tree(fixture());
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        for directory in [".", "d", "d/e", "empty"] {
            let new = format!("{directory}/new");
            view.write(&new, new.as_bytes()).unwrap();
            assert_eq!(view.read(&new).unwrap(), new.as_bytes());
            view.mkdir(&format!("{directory}/made")).unwrap();
            view.write(&format!("{directory}/made/file"), b"x").unwrap();
            view.symlink("nowhere", &format!("{directory}/sym")).unwrap();
        }
        assert_eq!(view.list("d").unwrap(), ["e", "made", "new", "sym", "tool"]);
    });
    presented.discard();
}

pub(super) fn own_files_can_be_changed(bench: &Bench) {
    let tree = bench.tree(fixture());
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        view.write("d/own", b"first").unwrap();
        view.write("d/own", b"second").unwrap();
        rustix::fs::chmodat(view.root, "d/own", Mode::from_raw_mode(0o700), AtFlags::empty())
            .unwrap();
        view.link("d/own", "linked").unwrap();
        view.rename("d/own", "d/e/moved").unwrap();
        assert_eq!(view.read("d/e/moved").unwrap(), b"second");
        view.unlink("d/e/moved").unwrap();
        view.mkdir("own").unwrap();
        view.rename("own", "d/own").unwrap();
        view.rmdir("d/own").unwrap();
        assert_eq!(view.list("d").unwrap(), ["e", "tool"]);
    });
    presented.discard();
}
