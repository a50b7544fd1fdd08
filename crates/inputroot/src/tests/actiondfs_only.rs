//! Promises and dangers of actiondfs alone: the kernel itself reads the store.
//!
//! `kernel/actiondfs/test/vm` has hundreds of cases of the kind. These are here to see that the
//! strategy sets up what those were tested with.

use model::{Digest, Directory};
use rustix::io::Errno;

use super::bench::{Bench, as_action};
use crate::probe::Variant;
use crate::tree_fixture::TreeFixture;

fn bench() -> Bench {
    Bench::open(Variant::ActiondFs).expect("asked for where it works")
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
    for function in bench.strategy().functions().iter() {
        let tree = bench.tree(TreeFixture::with_function(function));
        assert!(Directory::empty(function).is_empty() && tree.root_digest().is_empty_blob());
        let presented = bench.present(&tree);
        as_action(&presented, |view| assert_eq!(view.list(".").unwrap(), [""; 0]));
        presented.discard();
    }
    bench.finish();
}
