//! The action sees the tree as it is.

use model::{DigestFunction, Mtime, NodeProperties};
use rustix::io::Errno;

use super::bench::{Bench, as_action};
use super::strict::refused;
use crate::access::MODIFIED_SECONDS;
use crate::tree_fixture::TreeFixture;

pub(super) fn every_kind_of_entry(bench: &Bench) {
    let tree = bench.tree(
        TreeFixture::new()
            .file("file", b"content")
            .executable("bin/tool", b"#!/bin/sh\n")
            .symlink("link", "bin/tool")
            .directory("empty"),
    );
    for (mutable, owner) in [(false, 0), (true, 65534)] {
        let request = crate::PresentRequest { mutable, ..Default::default() };
        let presented = bench.present_with(&tree, &request);
        as_action(&presented, |view| {
            assert_eq!(view.list(".").unwrap(), ["bin", "empty", "file", "link"]);
            assert_eq!(view.list("empty").unwrap(), [""; 0]);
            assert_eq!(view.read("file").unwrap(), b"content");
            assert_eq!(view.readlink("link").unwrap(), b"bin/tool");
            assert_eq!(view.read("link").unwrap(), b"#!/bin/sh\n");
            for (path, mode, owner) in [
                (".", 0o755, 65534),
                ("empty", 0o755, 65534),
                ("bin", 0o755, 65534),
                ("link", 0o777, 65534),
                ("file", bench.file_mode(mutable), owner),
                ("bin/tool", 0o755, owner),
            ] {
                let stat = view.stat(path).unwrap();
                assert_eq!(stat.st_mode & 0o7777, mode, "mode of {path}");
                assert_eq!((stat.st_uid, stat.st_gid), (owner, owner), "owner of {path}");
            }
            for path in ["empty", "file", "bin/tool"] {
                if !bench.has_fixed_times() {
                    break;
                }
                assert_eq!(view.stat(path).unwrap().st_mtime, MODIFIED_SECONDS as i64, "{path}");
            }
        });
        presented.discard();
    }
}

/// A time and a mode of a client's own.
pub(super) fn own(seconds: i64, unix_mode: u16) -> NodeProperties {
    NodeProperties {
        mtime: Some(Mtime { seconds, nanos: 123_456_789 }),
        unix_mode: Some(unix_mode),
    }
}

/// Files, symlinks and directories with node properties, and others beside them.
pub(super) fn with_properties() -> TreeFixture {
    let time_alone = NodeProperties { unix_mode: None, ..own(1_600_000_000, 0) };
    TreeFixture::new()
        .file("dir/plain", b"plain")
        .file("dir/file", b"content")
        .executable("dir/tool", b"#!/bin/sh\n")
        .file("dir/secret", b"secret")
        .file("dir/empty", b"")
        .file("dir/time", b"time")
        .symlink("dir/link", "file")
        .properties("dir", own(1_500_000_000, 0o700))
        .properties("dir/file", own(1_400_000_000, 0o444))
        .properties("dir/tool", own(-5, 0o555))
        .properties("dir/secret", own(1, 0o600))
        .properties("dir/empty", own(2, 0o640))
        .properties("dir/time", time_alone)
        .properties("dir/link", own(3, 0o777))
}

pub(super) fn times_and_modes_of_clients(bench: &Bench) {
    let tree = bench.tree(with_properties());
    for mutable in [false, true] {
        let request = crate::PresentRequest { mutable, ..Default::default() };
        let presented = bench.present_with(&tree, &request);
        as_action(&presented, |view| {
            for (path, seconds, strict_mode, mutable_mode) in [
                ("dir", 1_500_000_000, 0o700, 0o700),
                ("dir/file", 1_400_000_000, 0o444, 0o444),
                ("dir/tool", -5, 0o555, 0o555),
                // Its owner may read it, and a strict action is not its owner.
                ("dir/secret", 1, 0o604, 0o600),
                ("dir/empty", 2, 0o640, 0o640),
                ("dir/time", 1_600_000_000, 0o644, 0o644),
                ("dir/link", 3, 0o777, 0o777),
            ] {
                let stat = view.stat(path).unwrap();
                let mode = if mutable { mutable_mode } else { strict_mode };
                assert_eq!(stat.st_mode & 0o7777, mode, "mode of {path}");
                assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (seconds, 123_456_789), "{path}");
            }
            for (path, content) in [
                ("dir/plain", &b"plain"[..]),
                ("dir/file", b"content"),
                ("dir/link", b"content"),
                ("dir/tool", b"#!/bin/sh\n"),
                ("dir/secret", b"secret"),
                ("dir/empty", b""),
                ("dir/time", b"time"),
            ] {
                assert_eq!(view.read(path).unwrap(), content, "{path}");
            }
            if !mutable {
                for path in ["dir/file", "dir/secret", "dir/tool", "dir/empty"] {
                    refused(path, view.write(path, b"x"));
                }
            }
            view.write("dir/new", b"x").unwrap();
        });
        presented.discard();
    }
}

pub(super) fn an_empty_tree(bench: &Bench) {
    let tree = bench.tree(TreeFixture::new());
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        assert_eq!(view.list(".").unwrap(), [""; 0]);
        view.write("new", b"x").unwrap();
    });
    presented.discard();
}

pub(super) fn many_entries_in_one_directory(bench: &Bench) {
    let names: Vec<String> = (0..3000).map(|number| format!("file-{number:05}")).collect();
    // A blob for every tenth name is enough.
    let content = |name: &str| name.as_bytes()[..name.len() - 1].to_vec();
    let fixture = names
        .iter()
        .fold(TreeFixture::new(), |tree, name| tree.file(&format!("d/{name}"), &content(name)));
    let tree = bench.tree(fixture);
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        assert_eq!(view.list("d").unwrap(), names);
        for name in names.iter().step_by(97) {
            assert_eq!(view.read(&format!("d/{name}")).unwrap(), content(name));
        }
        assert_eq!(view.stat("d/file-03000").unwrap_err(), Errno::NOENT);
    });
    presented.discard();
}

pub(super) fn names_of_all_kinds(bench: &Bench) {
    let long = "n".repeat(255);
    let mut names =
        ["-", "+a", "!", "...", "..a", ".-", ".a", "a b", "\u{1}\n", "ünïcode", "\\", &long];
    names.sort_unstable();
    let fixture =
        names.iter().fold(TreeFixture::new(), |tree, name| tree.file(name, name.as_bytes()));
    let tree = bench.tree(fixture);
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        assert_eq!(view.list(".").unwrap(), names);
        for name in names {
            assert_eq!(view.read(name).unwrap(), name.as_bytes());
        }
    });
    presented.discard();
}

pub(super) fn a_deep_tree(bench: &Bench) {
    let directory = vec!["d"; 120].join("/");
    let file = format!("{directory}/file");
    let tree = bench.tree(TreeFixture::new().file(&file, b"deep"));
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        assert_eq!(view.read(&file).unwrap(), b"deep");
        view.write(&format!("{directory}/new"), b"x").unwrap();
    });
    presented.discard();
}

pub(super) fn sizes_around_blocks(bench: &Bench) {
    let sizes = [1, 4095, 4096, 4097, 1 << 20];
    let content = |size: usize| (0..size).map(|i| (i % 251) as u8).collect::<Vec<_>>();
    let fixture = sizes
        .iter()
        .fold(TreeFixture::new(), |tree, &size| tree.file(&size.to_string(), &content(size)));
    let tree = bench.tree(fixture);
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        for size in sizes {
            let name = size.to_string();
            assert_eq!(view.stat(&name).unwrap().st_size, size as i64);
            assert!(view.read(&name).unwrap() == content(size), "content of {size} bytes");
        }
    });
    presented.discard();
}

pub(super) fn long_symlinks(bench: &Bench) {
    let lengths = [1, 4063, 4064, 4065, 4095];
    let fixture = lengths.iter().fold(TreeFixture::new(), |tree, &length| {
        tree.symlink(&length.to_string(), &"t".repeat(length))
    });
    let tree = bench.tree(fixture);
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        for length in lengths {
            assert_eq!(view.readlink(&length.to_string()).unwrap().len(), length);
        }
    });
    presented.discard();
}

pub(super) fn blake3(bench: &Bench) {
    let fixture = TreeFixture::with_function(DigestFunction::Blake3);
    let tree = bench.tree(fixture.file("d/file", b"content"));
    let presented = bench.present(&tree);
    as_action(&presented, |view| assert_eq!(view.read("d/file").unwrap(), b"content"));
    presented.discard();
}

pub(super) fn the_same_tree_by_the_other_digest_function(bench: &Bench) {
    let functions = bench.strategy().functions();
    let presented: Vec<_> = functions
        .iter()
        .map(|function| {
            let fixture = TreeFixture::with_function(function).file("d/file", b"content");
            bench.present(&bench.tree(fixture.directory("empty")))
        })
        .collect();
    for root in &presented {
        as_action(root, |view| {
            assert_eq!(view.read("d/file").unwrap(), b"content");
            assert_eq!(view.list("empty").unwrap(), [""; 0]);
            view.write("empty/out", b"x").unwrap();
        });
    }
    presented.into_iter().for_each(crate::Presented::discard);
}

pub(super) fn a_missing_blob_is_seen_and_not_opened(bench: &Bench) {
    let tree = bench.tree(TreeFixture::new().file("lost", b"to be lost").file("kept", b"kept"));
    bench.lose(b"to be lost");
    let Ok(presented) = bench.strategy().present(&tree, &Default::default()) else {
        return; // A strategy may notice it at once.
    };
    as_action(&presented, |view| {
        assert_eq!(view.stat("lost").unwrap().st_size, 10);
        assert!(view.read("lost").is_err());
        assert_eq!(view.read("kept").unwrap(), b"kept");
    });
    presented.discard();
}

pub(super) fn an_empty_file_needs_no_blob(bench: &Bench) {
    let tree = bench.tree(TreeFixture::new().file("empty", b"").executable("d/tool", b""));
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        assert_eq!(view.read("empty").unwrap(), b"");
        assert_eq!(view.stat("empty").unwrap().st_mode & 0o7777, 0o644);
        assert_eq!(view.stat("d/tool").unwrap().st_mode & 0o7777, 0o755);
        refused("writing", view.write("empty", b"x"));
    });
    presented.discard();
}

pub(super) fn equal_directories_at_many_places(bench: &Bench) {
    let fixture = ["a", "b", "c/a", "c/b"].iter().fold(TreeFixture::new(), |tree, place| {
        tree.file(&format!("{place}/x/file"), b"same").directory(&format!("{place}/y"))
    });
    let tree = bench.tree(fixture);
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        view.write("a/x/new", b"only here").unwrap();
        assert_eq!(view.list("a/x").unwrap(), ["file", "new"]);
        for place in ["b", "c/a", "c/b"] {
            assert_eq!(view.list(&format!("{place}/x")).unwrap(), ["file"]);
            assert_eq!(view.list(&format!("{place}/y/..")).unwrap(), ["x", "y"]);
        }
    });
    presented.discard();
}
