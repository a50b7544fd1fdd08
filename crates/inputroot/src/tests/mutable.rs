//! The rights of a mutating action. After every test, the bench checks that the blobs are as they were.

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::bench::{Bench, as_action};
use crate::tree_fixture::TreeFixture;

fn fixture() -> TreeFixture {
    TreeFixture::new()
        .file("file", b"content")
        .executable("d/tool", b"tool")
        .file("d/e/file", b"other")
        .file("empty", b"")
        .symlink("link", "file")
}

pub(super) fn inputs_can_be_changed(bench: &Bench) {
    let tree = bench.tree(fixture());
    let presented = bench.present_mutable(&tree);
    as_action(&presented, |view| {
        view.write("file", b"changed").unwrap();
        assert_eq!(view.read("file").unwrap(), b"changed");
        view.write("empty", b"filled").unwrap();
        let mode = Mode::from_raw_mode(0o700);
        rustix::fs::chmodat(view.root, "d/tool", mode, AtFlags::empty()).unwrap();
        assert_eq!(view.stat("d/tool").unwrap().st_mode & 0o7777, 0o700);
        assert_eq!(view.read("d/tool").unwrap(), b"tool");
        view.unlink("d/e/file").unwrap();
        assert_eq!(view.stat("d/e/file").unwrap_err(), Errno::NOENT);
        view.rmdir("d/e").unwrap();
        view.unlink("link").unwrap();
        view.symlink("elsewhere", "link").unwrap();
        view.rename("file", "d/moved").unwrap();
        assert_eq!(view.read("d/moved").unwrap(), b"changed");
        assert_eq!(view.list(".").unwrap(), ["d", "empty", "link"]);
    });
    presented.discard();
}

pub(super) fn directories_of_inputs_can_be_moved(bench: &Bench) {
    let tree = bench.tree(fixture());
    let presented = bench.present_mutable(&tree);
    as_action(&presented, |view| {
        bench.move_directory(view, "d", "moved");
        assert_eq!(view.read("moved/e/file").unwrap(), b"other");
        assert_eq!(view.stat("d").unwrap_err(), Errno::NOENT);
        view.mkdir("d").unwrap();
        assert_eq!(view.list("d").unwrap(), [""; 0]);
    });
    presented.discard();
}

pub(super) fn the_next_action_sees_the_inputs_as_they_were(bench: &Bench) {
    let tree = bench.tree(fixture());
    for _ in 0..3 {
        let presented = bench.present_mutable(&tree);
        as_action(&presented, |view| {
            assert_eq!(view.list(".").unwrap(), ["d", "empty", "file", "link"]);
            assert_eq!(view.read("file").unwrap(), b"content");
            assert_eq!(view.stat(".").unwrap().st_mode & 0o7777, 0o755);
            view.write("file", b"changed").unwrap();
            view.unlink("d/tool").unwrap();
            rustix::fs::chmodat(view.root, ".", Mode::from_raw_mode(0o700), AtFlags::empty())
                .unwrap();
        });
        presented.discard();
    }
    let strict = bench.present(&tree);
    as_action(&strict, |view| {
        assert_eq!(view.read("file").unwrap(), b"content");
        assert_eq!(view.stat(".").unwrap().st_mode & 0o7777, 0o755);
    });
    strict.discard();
}
