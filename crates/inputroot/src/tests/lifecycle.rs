//! Input roots one after the other and side by side.

use rustix::fs::{Mode, OFlags, XattrFlags};

use super::bench::{Bench, View, as_action};
use crate::tree_fixture::TreeFixture;

fn fixture() -> TreeFixture {
    TreeFixture::new().file("file", b"content").file("d/file", b"other")
}

pub(super) fn a_used_root_is_as_new_for_the_next_action(bench: &Bench) {
    let tree = bench.tree(fixture());
    // More often than there are staging directories at the start, so that used ones come back.
    for _ in 0..40 {
        let presented = bench.present(&tree);
        as_action(&presented, |view| {
            assert_eq!(view.list(".").unwrap(), ["d", "file"]);
            assert_eq!(view.list("d").unwrap(), ["file"]);
            for path in [".", "d"] {
                let stat = view.stat(path).unwrap();
                assert_eq!((stat.st_uid, stat.st_mode & 0o7777), (65534, 0o755), "{path}");
                let open = view.open(path, OFlags::RDONLY).unwrap();
                let mut names = [0; 256];
                let length = rustix::fs::flistxattr(&open, &mut names).unwrap_or(0);
                assert_eq!(String::from_utf8_lossy(&names[..length]), "", "{path}");
                // Ignored where the file system has none.
                let flags = XattrFlags::empty();
                let _ = rustix::fs::fsetxattr(&open, "user.mine", b"x", flags);
                rustix::fs::fchmod(&open, Mode::from_raw_mode(0o3700)).unwrap();
            }
            view.write("d/out", b"x").unwrap();
            view.mkdir("made").unwrap();
            view.write("made/out", b"x").unwrap();
        });
        presented.discard();
    }
}

/// [`Bench::finish`] looks at the size of what is kept.
pub(super) fn a_root_that_grew_is_replaced(bench: &Bench) {
    let tree = bench.tree(fixture());
    // More than there are at the start, so that all of them are used.
    let roots: Vec<_> = (0..10).map(|_| bench.present(&tree)).collect();
    for root in roots {
        as_action(&root, |view| {
            for number in 0..600 {
                view.write(&format!("{number:0>240}"), b"").unwrap();
            }
        });
        root.discard();
    }
}

pub(super) fn two_actions_on_one_tree_do_not_see_each_other(bench: &Bench) {
    let tree = bench.tree(fixture());
    let roots = [bench.present(&tree), bench.present_mutable(&tree), bench.present(&tree)];
    for (number, root) in roots.iter().enumerate() {
        let out = format!("out-{number}");
        as_action(root, |view| view.write(&out, b"x").unwrap());
    }
    as_action(&roots[1], |view| view.write("file", b"changed").unwrap());
    for (number, root) in roots.iter().enumerate() {
        as_action(root, |view| {
            assert_eq!(view.list(".").unwrap(), ["d", "file", &format!("out-{number}")]);
            let expected = if number == 1 { b"changed" } else { b"content" };
            assert_eq!(view.read("file").unwrap(), expected);
        });
    }
    roots.into_iter().for_each(|root| root.discard());
}

pub(super) fn deep_and_wide_leftovers_go_away(bench: &Bench) {
    let tree = bench.tree(fixture());
    for mutable in [false, true] {
        let request = crate::PresentRequest { mutable, ..Default::default() };
        let presented = bench.present_with(&tree, &request);
        as_action(&presented, |view| {
            for number in 0..500 {
                view.write(&format!("d/{number}"), b"x").unwrap();
            }
            deeper(view, 400);
        });
        presented.discard();
    }
}

/// Makes a directory in a directory, and so on, with modes of zero all the way.
fn deeper(view: &View<'_>, levels: usize) {
    let mut above = view.open(".", OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&above, "level", Mode::from_raw_mode(0o700)).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let below = rustix::fs::openat(&above, "level", flags, Mode::empty()).unwrap();
        rustix::fs::fchmod(&above, Mode::empty()).ok();
        above = below;
    }
}

pub(super) fn many_at_once(bench: &Bench) {
    let trees: Vec<_> = (0..4)
        .map(|number| bench.tree(fixture().file(&format!("number-{number}"), b"x")))
        .collect();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let trees = &trees;
            scope.spawn(move || {
                for round in 0..10 {
                    let number = (worker + round) % trees.len();
                    let presented = bench.present(&trees[number]);
                    let input = format!("number-{number}");
                    as_action(&presented, |view| {
                        assert_eq!(view.list(".").unwrap(), ["d", "file", &input]);
                        view.write("out", b"x").unwrap();
                    });
                    presented.discard();
                }
            });
        }
    });
}
