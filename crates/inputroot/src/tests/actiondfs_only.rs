//! What only actiondfs promises, or is exposed to: the kernel itself reads what is in the store.
//!
//! `kernel/actiondfs/test/vm` has hundreds of cases of the kind. These are here to see that the
//! strategy sets up what those were tested with.

use model::{Digest, DigestFunction, Directory};
use rustix::fs::{AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;

use super::bench::{Bench, as_action};
use crate::probe::Variant;
use crate::tree_fixture::TreeFixture;

fn bench() -> Bench {
    Bench::open(Variant::ActiondFs).expect("asked for where it works")
}

/// Tools tell their users what the kernel told them, and some do something else then.
#[test]
#[ignore = "only in our own guest's kernel: cargo xtask kernel contract"]
fn changes_of_inputs_are_told_erofs() {
    let bench = bench();
    let fixture = TreeFixture::new().file("file", b"content").file("d/e", b"");
    let tree = bench.tree(fixture.directory("empty").symlink("link", "file"));
    let presented = bench.present(&tree);
    as_action(&presented, |view| {
        view.write("own", b"own").unwrap();
        let chmod = |mode| {
            let mode = Mode::from_raw_mode(mode);
            rustix::fs::chmodat(view.root, "file", mode, AtFlags::empty())
        };
        let (user, group) = (Some(Uid::from_raw(65534)), Some(Gid::from_raw(65534)));
        for (what, result) in [
            ("write", view.write("file", b"x")),
            ("unlink", view.unlink("file")),
            ("unlink", view.unlink("link")),
            ("rmdir", view.rmdir("empty")),
            ("rmdir", view.rmdir("d")),
            ("rename from", view.rename("file", "moved")),
            ("rename from", view.rename("d", "moved")),
            ("rename over", view.rename("own", "file")),
            ("chmod +x", chmod(0o777)),
            ("chown", rustix::fs::chownat(view.root, "file", user, group, AtFlags::empty())),
        ] {
            assert_eq!(result, Err(Errno::ROFS), "{what}");
        }
        assert_eq!(view.link("file", "linked"), Err(Errno::XDEV));
        [0o444, 0o644, 0o000].into_iter().for_each(|mode| chmod(mode).unwrap());
    });
    presented.discard();
    bench.finish();
}

/// The directory `d` of a tree with one more file in it, so that no other test has it cached.
fn directory(salt: &str) -> (TreeFixture, Digest) {
    let fixture = TreeFixture::new().file(&format!("d/{salt}"), salt.as_bytes());
    let (tree, _) = TreeFixture::new().file(salt, salt.as_bytes()).build();
    (fixture.file("file", b"content"), tree.root_digest())
}

/// The store checks what it takes in; what a disk makes of it later is not in its hands.
#[test]
#[ignore = "only in our own guest's kernel: cargo xtask kernel contract"]
fn a_damaged_directory_is_an_error_and_hides_nothing_else() {
    let bench = bench();
    let garbage = |digest: &Digest| vec![0xff; usize::try_from(digest.size_bytes()).unwrap()];
    type Damage<'a> = &'a dyn Fn(&Digest) -> Option<Vec<u8>>;
    let cases: [(&str, Errno, Damage<'_>); 4] = [
        ("missing", Errno::IO, &|_| None),
        ("cut", Errno::IO, &|digest| Some(garbage(digest)[1..].to_vec())),
        ("emptied", Errno::IO, &|_| Some(Vec::new())),
        ("overwritten", Errno::INVAL, &|digest| Some(garbage(digest))),
    ];
    for (what, errno, damage) in cases {
        let (fixture, below) = directory(what);
        let tree = bench.tree(fixture);
        bench.damage(&below, damage(&below).as_deref());
        let presented = bench.present(&tree);
        as_action(&presented, |view| {
            assert_eq!(view.list("d").unwrap_err(), errno, "{what}");
            assert_eq!(view.read(&format!("d/{what}")).unwrap_err(), errno, "{what}");
            assert_eq!(view.read("file").unwrap(), b"content");
            view.write("out", b"x").unwrap();
        });
        presented.discard();
    }
    bench.finish();
}

/// A root that is the digest of nothing has no blob.
#[test]
#[ignore = "only in our own guest's kernel: cargo xtask kernel contract"]
fn the_empty_root_needs_no_blob() {
    let bench = bench();
    for function in DigestFunction::ALL {
        let tree = bench.tree(TreeFixture::with_function(function));
        assert!(Directory::empty(function).is_empty() && tree.root_digest().is_empty_blob());
        let presented = bench.present(&tree);
        as_action(&presented, |view| assert_eq!(view.list(".").unwrap(), [""; 0]));
        presented.discard();
    }
    bench.finish();
}
