//! The outputs that the worker finds when the action is over.

use std::os::fd::AsFd;

use model::{Mtime, NodeProperties, RelPath};
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::bench::{Bench, View, as_action, path};
use super::contents::{own, with_properties};
use crate::staging::{NamedEntry, OutputEntry, OutputError, OutputFile, OutputView};
use crate::strategies::{Attachment, PresentRequest};
use crate::tree_fixture::TreeFixture;

fn fixture() -> TreeFixture {
    TreeFixture::new()
        .file("file", b"content")
        .executable("d/tool", b"tool")
        .symlink("d/link", "../file")
        .directory("d/e")
}

/// An entry in a few words.
fn describe(entry: &OutputEntry) -> String {
    match entry {
        OutputEntry::File(OutputFile::Input { executable, .. }) => format!("input {executable}"),
        OutputEntry::File(OutputFile::Staged(file)) if file.must_copy() => "copy".to_owned(),
        OutputEntry::File(OutputFile::Staged(_)) => "move".to_owned(),
        OutputEntry::Directory => "directory".to_owned(),
        OutputEntry::Symlink(target) => format!("-> {}", String::from_utf8_lossy(target)),
        OutputEntry::Special => "special".to_owned(),
    }
}

#[track_caller]
fn expect(view: &OutputView, at: &str, expected: &str) {
    let found = view.entry(&path(at)).expect("the outputs can be read");
    assert_eq!(found.as_ref().map_or("nothing".to_owned(), describe), expected, "at {at:?}");
}

#[track_caller]
fn expect_list(view: &OutputView, at: &str, expected: &[&str]) {
    let found = view.read_dir(&path(at), 100).expect("the directory can be read");
    let line = |found: &NamedEntry| {
        format!("{} {}", String::from_utf8_lossy(&found.name), describe(&found.entry))
    };
    assert_eq!(found.iter().map(line).collect::<Vec<_>>(), expected, "in {at:?}");
}

/// The kind of an executable input among the outputs: a copy of it is a real file, which tells nothing
/// of where it comes from.
fn tool(bench: &Bench) -> &'static str {
    if bench.moves_files() { "input true" } else { "copy" }
}

pub(super) fn what_a_strict_action_made(bench: &Bench) {
    let tree = bench.tree(fixture());
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        view.write("out", b"x").unwrap();
        view.write("d/e/out", b"x").unwrap();
        view.symlink("dangling", "d/new-link").unwrap();
        view.mkdir("made").unwrap();
        view.mkdir("made/below").unwrap();
        view.write("made/b", b"").unwrap();
        view.write("made/a", b"").unwrap();
    });
    let view = presented.outputs();
    expect(&view, "", "directory");
    expect(&view, "file", "input false");
    expect(&view, "d/tool", tool(bench));
    expect(&view, "d/link", "-> ../file");
    expect(&view, "d", "directory");
    expect(&view, "out", "move");
    expect(&view, "d/e/out", "move");
    expect(&view, "d/new-link", "-> dangling");
    expect(&view, "made", "directory");
    expect(&view, "absent", "nothing");
    expect(&view, "absent/below", "nothing");
    expect(&view, "file/below", "nothing");
    expect(&view, "out/below", "nothing");
    expect_list(&view, "", &["d directory", "file input false", "made directory", "out move"]);
    expect_list(
        &view,
        "d",
        &[
            "e directory",
            "link -> ../file",
            "new-link -> dangling",
            &format!("tool {}", tool(bench)),
        ],
    );
    expect_list(&view, "made", &["a move", "b move", "below directory"]);
    expect_list(&view, "made/below", &[]);
    for no_directory in ["file", "out", "absent", "d/link"] {
        let error = view.read_dir(&path(no_directory), 100).unwrap_err();
        assert!(matches!(error, OutputError::NotADirectory { .. }), "{error}");
    }
    drop(view);
    presented.discard();
}

pub(super) fn what_a_mutating_action_made(bench: &Bench) {
    let tree = bench.tree(fixture());
    let presented = bench.present_mutable(&tree);
    as_action(&presented, |view| {
        view.write("out", b"x").unwrap();
        view.write("file", b"changed").unwrap();
        bench.move_directory(view, "d", "moved");
        view.write("moved/out", b"x").unwrap();
        view.unlink("moved/link").unwrap();
    });
    let view = presented.outputs();
    expect(&view, "out", "move");
    expect(&view, "d", "nothing");
    expect(&view, "moved/out", "move");
    expect(&view, "moved/link", "nothing");
    let listed = view.read_dir(&path("moved"), 100).unwrap();
    let names: Vec<_> = listed.iter().map(|entry| entry.name.as_slice()).collect();
    assert_eq!(names, [b"e".as_slice(), b"out", b"tool"]);
    // Changed and moved inputs have the content that the action saw, wherever it is.
    for (at, content) in [("file", b"changed".as_slice()), ("moved/tool", b"tool")] {
        assert_eq!(content_of(bench, &view, at), content);
    }
    drop(view);
    presented.discard();
}

/// Outputs are what the action left, not what the tree has.
pub(super) fn what_a_strict_action_moved(bench: &Bench) {
    let fixture = fixture().file("a/x", b"content of a").file("b/x", b"content of b");
    let fixture = fixture.directory("out").directory("gone").directory("new").directory("linked");
    let tree = bench.tree(fixture.file("kept/below/x", b"kept"));
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        view.rmdir("gone").unwrap();
        view.rmdir("new").unwrap();
        view.mkdir("new").unwrap();
        view.write("new/out", b"x").unwrap();
        view.rmdir("out").unwrap();
        view.write("out", b"x").unwrap();
        view.rmdir("linked").unwrap();
        view.symlink("d", "linked").unwrap();
        bench.move_directory(view, "a", "c");
        bench.move_directory(view, "b", "a");
        view.write("a/out", b"x").unwrap();
        view.unlink("d/link").unwrap();
        view.rename("d/tool", "tool").unwrap();
        view.write("kept/out", b"x").unwrap();
    });
    let view = presented.outputs();
    expect(&view, "gone", "nothing");
    expect(&view, "new", "directory");
    expect_list(&view, "new", &["out move"]);
    expect(&view, "out", "move");
    expect(&view, "linked", "-> d");
    expect(&view, "linked/e", "nothing");
    expect(&view, "b", "nothing");
    expect(&view, "b/x", "nothing");
    expect(&view, "d/link", "nothing");
    expect(&view, "d/tool", "nothing");
    expect_list(&view, "d", &["e directory"]);
    expect_list(&view, "kept", &["below directory", "out move"]);
    expect(&view, "kept/below/x", "input false");
    expect_list(&view, "kept/below", &["x input false"]);
    let inputs = [("a/x", "content of b"), ("c/x", "content of a"), ("tool", "tool")];
    for (at, content) in inputs {
        assert_eq!(content_of(bench, &view, at), content.as_bytes(), "{at}");
    }
    let listed = view.read_dir(&path("a"), 100).unwrap();
    let names: Vec<_> = listed.iter().map(|entry| entry.name.as_slice()).collect();
    assert_eq!(names, [b"out".as_slice(), b"x"]);
    drop(view);
    presented.discard();
}

/// The content that the store would take for the file.
fn content_of(bench: &Bench, view: &OutputView, at: &str) -> Vec<u8> {
    match view.entry(&path(at)).unwrap() {
        Some(OutputEntry::File(OutputFile::Input { digest, .. })) => bench.blob(&digest),
        Some(OutputEntry::File(OutputFile::Staged(file))) => {
            let flags = rustix::fs::OFlags::RDONLY;
            let open = rustix::fs::openat(file.directory(), file.name(), flags, Mode::empty());
            let mut found = Vec::new();
            std::io::Read::read_to_end(&mut std::fs::File::from(open.unwrap()), &mut found)
                .unwrap();
            found
        }
        other => panic!("{at} is no file: {other:?}"),
    }
}

pub(super) fn nothing_is_found_through_symlinks(bench: &Bench) {
    let tree = bench.tree(fixture().symlink("to-root", "/").symlink("to-d", "d"));
    for mutable in [false, true] {
        let request = PresentRequest { mutable, ..PresentRequest::default() };
        let presented = bench.present_with(&tree, &request);
        as_action(&presented, |view| {
            view.symlink("/etc", "etc").unwrap();
            view.symlink("/proc/self/root/etc", "d/magic").unwrap();
            view.symlink("../..", "d/up").unwrap();
        });
        let view = presented.outputs();
        for through in ["to-root/etc/passwd", "to-d/tool", "etc/passwd", "d/magic/passwd", "d/up/d"]
        {
            expect(&view, through, "nothing");
        }
        expect(&view, "etc", "-> /etc");
        let error = view.read_dir(&path("etc"), 100).unwrap_err();
        assert!(matches!(error, OutputError::NotADirectory { .. }), "{error}");
        drop(view);
        presented.discard();
    }
}

pub(super) fn special_files(bench: &Bench) {
    let tree = bench.tree(fixture());
    for mutable in [false, true] {
        let request = PresentRequest { mutable, ..PresentRequest::default() };
        let presented = bench.present_with(&tree, &request);
        as_action(&presented, |view| {
            let mode = Mode::from_raw_mode(0o666);
            for (name, kind) in [("fifo", FileType::Fifo), ("d/socket", FileType::Socket)] {
                rustix::fs::mknodat(view.root, name, kind, mode, 0).unwrap();
            }
            let device = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(view.root, "null", FileType::CharacterDevice, mode, device)
                .unwrap_err();
        });
        let view = presented.outputs();
        expect(&view, "fifo", "special");
        expect(&view, "d/socket", "special");
        drop(view);
        presented.discard();
    }
}

pub(super) fn listings_are_bounded(bench: &Bench) {
    let tree = bench.tree(fixture());
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        view.mkdir("made").unwrap();
        for number in 0..100 {
            view.write(&format!("made/{number}"), b"").unwrap();
        }
    });
    let view = presented.outputs();
    assert_eq!(view.read_dir(&path("made"), 100).unwrap().len(), 100);
    let error = view.read_dir(&path("made"), 99).unwrap_err();
    assert!(matches!(error, OutputError::TooManyEntries { .. }), "{error}");
    let error = view.read_dir(&path("d"), 2).unwrap_err();
    assert!(matches!(error, OutputError::TooManyEntries { .. }), "{error}");
    drop(view);
    presented.discard();
}

pub(super) fn unreadable_directories_are_read(bench: &Bench) {
    let tree = bench.tree(fixture());
    for mutable in [false, true] {
        let request = PresentRequest { mutable, ..PresentRequest::default() };
        let presented = bench.present_with(&tree, &request);
        as_action(&presented, |view| {
            view.mkdir("made").unwrap();
            view.write("made/out", b"x").unwrap();
            for (name, mode) in [("made/out", 0o000), ("made", 0o000)] {
                let mode = Mode::from_raw_mode(mode);
                rustix::fs::chmodat(view.root, name, mode, AtFlags::empty()).unwrap();
            }
        });
        let view = presented.outputs();
        expect(&view, "made/out", "move");
        expect_list(&view, "made", &["out move"]);
        drop(view);
        presented.discard();
    }
}

pub(super) fn made_directories(bench: &Bench) {
    let tree = bench.tree(fixture());
    let wanted = ["d/e", "d/e/new/deep", "out", "out/a", "out/b/c", ""].map(path);
    let request = PresentRequest { make_directories: &wanted, ..PresentRequest::default() };
    let presented = bench.present_with(&tree, &request);
    as_action(&presented, |view| {
        for made in ["d/e/new", "d/e/new/deep", "out", "out/a", "out/b", "out/b/c"] {
            let stat = view.stat(made).unwrap();
            assert_eq!((stat.st_uid, stat.st_mode & 0o7777), (65534, 0o755), "{made}");
            view.write(&format!("{made}/file"), b"x").unwrap();
        }
        for input in [".", "d", "d/e"] {
            let stat = view.stat(input).unwrap();
            assert_eq!((stat.st_uid, stat.st_mode & 0o7777), (65534, 0o755), "{input}");
        }
        assert_eq!(view.list("d").unwrap(), ["e", "link", "tool"]);
        assert_eq!(view.read("d/tool").unwrap(), b"tool");
        rustix::fs::chmodat(view.root, "out", Mode::from_raw_mode(0o700), AtFlags::empty())
            .unwrap();
    });
    let view = presented.outputs();
    expect_list(&view, "out", &["a directory", "b directory", "file move"]);
    drop(view);
    presented.discard();
}

pub(super) fn made_directories_in_a_mutable_root(bench: &Bench) {
    let tree = bench.tree(fixture());
    let wanted = ["d/new", "out/a"].map(path);
    let request = PresentRequest { mutable: true, make_directories: &wanted, ..Default::default() };
    let presented = bench.present_with(&tree, &request);
    as_action(&presented, |view| {
        for made in [".", "d", "d/new", "out", "out/a"] {
            let stat = view.stat(made).unwrap();
            assert_eq!((stat.st_uid, stat.st_mode & 0o7777), (65534, 0o755), "{made}");
        }
        assert_eq!(view.read("d/tool").unwrap(), b"tool");
        view.write("d/tool", b"changed").unwrap();
        bench.move_directory(view, "d", "moved");
        assert_eq!(view.list("moved").unwrap(), ["e", "link", "new", "tool"]);
    });
    presented.discard();
}

pub(super) fn obstructed_directories(bench: &Bench) {
    let tree = bench.tree(fixture());
    for (wanted, obstacle) in [
        ("file", "file"),
        ("file/below", "file"),
        ("d/tool/a/b", "d/tool"),
        ("d/link", "d/link"),
        ("d/link/below", "d/link"),
    ] {
        let wanted = [path(wanted)];
        let request = PresentRequest { make_directories: &wanted, ..PresentRequest::default() };
        match bench.strategy().present(&tree, &request) {
            Err(crate::PresentError::Obstructed { obstacle: found, .. }) => {
                assert_eq!(found, path(obstacle));
            }
            other => panic!("{wanted:?}: {other:?}"),
        }
    }
}

pub(super) fn an_interrupt_leaves_nothing(bench: &Bench) {
    let tree = bench.tree(fixture());
    let wanted: Vec<_> = (0..300).map(|number| path(&format!("made/{number}"))).collect();
    let asked = std::cell::Cell::new(0);
    let at_second = || {
        asked.set(asked.get() + 1);
        asked.get() == 2
    };
    let request = PresentRequest {
        make_directories: &wanted,
        interrupt: crate::Interrupt::when(&at_second),
        ..PresentRequest::default()
    };
    let interrupted = bench.strategy().present(&tree, &request);
    assert!(matches!(interrupted, Err(crate::PresentError::Interrupted)), "{interrupted:?}");
    assert_eq!(asked.get(), 2, "it ends at once");
}

/// `ln input out`, which the kernel lets an action do where fs.protected_hardlinks is off: overlayfs makes a
/// file without content in the upper directory. Where it is on, root plays the action.
pub(super) fn a_link_to_an_input_has_its_content(bench: &Bench) {
    let tree = bench.tree(fixture());
    let setting = std::fs::read_to_string("/proc/sys/fs/protected_hardlinks");
    let is_protected = setting.is_ok_and(|value| value.trim() == "1");
    let names = [("file", "linked", b"content".as_slice()), ("d/tool", "d/e/linked", b"tool")];
    for mutable in [false, true] {
        let request = PresentRequest { mutable, ..PresentRequest::default() };
        let presented = bench.present_with(&tree, &request);
        let link_all = |view: &View<'_>| names.map(|(name, linked, _)| view.link(name, linked));
        let linked = if is_protected {
            let Attachment::Mount(root) = presented.attachment();
            link_all(&View { root: root.as_fd() })
        } else {
            as_action(&presented, link_all)
        };
        let view = presented.outputs();
        for ((name, linked, content), outcome) in names.iter().zip(linked) {
            match outcome {
                Ok(()) => assert_eq!(content_of(bench, &view, linked), *content, "{linked}"),
                // A mount has no names elsewhere.
                Err(Errno::XDEV) => assert!(!bench.moves_files() && !mutable, "{name}"),
                Err(errno) => panic!("{name}: {errno}"),
            }
            assert_eq!(content_of(bench, &view, name), *content, "{name}");
        }
        drop(view);
        presented.discard();
    }
}

/// The properties of inputs that are outputs as well, and of a directory above a new output.
pub(super) fn times_and_modes(bench: &Bench) {
    let tree = bench.tree(with_properties());
    let made = [path("dir/sub")];
    let request = crate::PresentRequest { make_directories: &made, ..Default::default() };
    let presented = bench.present_with(&tree, &request);
    as_action(&presented, |view| {
        let stat = view.stat("dir").unwrap();
        assert_eq!((stat.st_mode & 0o7777, stat.st_mtime), (0o700, 1_500_000_000));
        view.write("dir/sub/new", b"new").unwrap();
        view.symlink("new", "dir/sub/link").unwrap();
    });
    let outputs = presented.outputs();
    let shown = |entry: &str| match outputs.entry(&path(entry)).unwrap() {
        Some(OutputEntry::File(OutputFile::Input { shown, .. })) => shown,
        Some(OutputEntry::File(OutputFile::Staged(file))) => {
            let stat = rustix::fs::statat(file.directory(), file.name(), AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.unwrap();
            let nanos = u32::try_from(stat.st_mtime_nsec).unwrap();
            NodeProperties {
                mtime: Some(Mtime { seconds: stat.st_mtime, nanos }),
                unix_mode: Some((stat.st_mode & 0o7777) as u16),
            }
        }
        other => panic!("{entry}: {other:?}"),
    };
    assert_eq!(shown("dir/file"), own(1_400_000_000, 0o444));
    assert_eq!(shown("dir/tool"), own(-5, 0o555));
    assert_eq!(shown("dir/secret"), own(1, 0o604));
    assert_eq!(outputs.properties(&path("dir/link")).unwrap(), own(3, 0o777));
    let of_new = shown("dir/sub/new");
    assert_eq!(of_new.unix_mode, Some(0o644));
    assert!(of_new.mtime.unwrap().seconds > 1_700_000_000);
    assert_eq!(outputs.properties(&path("dir/sub")).unwrap().unix_mode, Some(0o755));
    assert!(outputs.properties(&path("nowhere/at/all")).is_err());
    assert!(outputs.properties(&RelPath::root()).unwrap().mtime.is_some());
    presented.discard();
}
