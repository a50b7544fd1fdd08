//! The image as bytes, and as `fsck.erofs` sees it. What the kernel makes of it is tested with the
//! strategies that mount it.

use std::fmt::Write as _;
use std::process::Command;

use model::{Digest, DigestFunction, InputTree};

use super::build;
use crate::access::Access;
use crate::tree_fixture::TreeFixture;

fn image(tree: &InputTree, access: Access) -> Vec<u8> {
    let mut image = Vec::new();
    build(tree, access, &mut image).expect("the tree has an image");
    image
}

/// Has the reference implementation read every inode and every name of an image.
fn check_with_fsck(tree: &InputTree) {
    for access in [Access::Strict, Access::Mutable] {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), image(tree, access)).expect("writing the image");
        let output = match Command::new("fsck.erofs").arg(file.path()).output() {
            Ok(output) => output,
            Err(error) => {
                eprintln!("SKIPPED: fsck.erofs (Debian: erofs-utils) does not run: {error}");
                return;
            }
        };
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        let _ = write!(said, "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}");
    }
}

fn numbered(count: usize, name_bytes: usize) -> TreeFixture {
    (0..count).fold(TreeFixture::new(), |tree, number| {
        tree.file(&format!("{number:0name_bytes$}"), b"content")
    })
}

#[test]
fn an_empty_tree() {
    check_with_fsck(&TreeFixture::new().build().0);
}

#[test]
fn every_kind_of_entry() {
    let tree = TreeFixture::new()
        .file("file", b"content")
        .executable("tool", b"#!/bin/sh\n")
        .file("empty", b"")
        .symlink("link", "file")
        .directory("directory/below")
        .file("directory/file", b"other content");
    check_with_fsck(&tree.build().0);
}

#[test]
fn blake3_redirects_to_its_own_folder() {
    let (tree, _) = TreeFixture::with_function(DigestFunction::Blake3).file("f", b"x").build();
    let hash = Digest::of(DigestFunction::Blake3, b"x").hex();
    let redirect = format!("overlay.redirect/blake3/{}/{hash}", &hash[..2]);
    let image = image(&tree, Access::Strict);
    assert!(image.windows(redirect.len()).any(|window| window == redirect.as_bytes()));
    check_with_fsck(&tree);
}

#[test]
fn names_that_sort_before_the_dots() {
    let tree = ["!", "+x", "-", "-long-name", ".-", ".a", "...", "..a", "0", "\u{1}"]
        .into_iter()
        .fold(TreeFixture::new(), |tree, name| {
            tree.file(name, b"x").file(&format!("d/{name}"), b"y")
        });
    check_with_fsck(&tree.build().0);
}

#[test]
fn directories_around_every_border_of_the_layout() {
    // With 20 bytes an entry, "." and ".." included: a tail that is behind the inode or not, and
    // blocks that are full to the last byte or not.
    for count in [0, 1, 90, 100, 101, 102, 103, 200, 202, 203, 204, 205, 300, 305, 307, 310, 1000] {
        check_with_fsck(&numbered(count, 8).build().0);
    }
    for count in [1, 7, 8, 15, 16, 17, 32] {
        check_with_fsck(&numbered(count, 255).build().0);
    }
}

#[test]
fn a_root_that_does_not_fit_in_the_first_block() {
    // 2048 bytes of entries behind an inode at 1184 just fit; with a second directory the
    // alignment of what follows is exercised too.
    let tree = (0..100).fold(TreeFixture::new(), |tree, number| {
        tree.file(&format!("{number:08}"), b"x").file(&format!("d/{number:08}"), b"x")
    });
    check_with_fsck(&tree.build().0);
}

#[test]
fn many_directories() {
    let tree = (0..70_000)
        .fold(TreeFixture::new(), |tree, number| tree.directory(&format!("{number:05}")));
    check_with_fsck(&tree.build().0);
}

#[test]
fn symlink_targets_of_all_lengths() {
    let tree = [1, 31, 32, 33, 2000, 4000, 4063, 4064, 4065, 4094, 4095].into_iter().fold(
        TreeFixture::new(),
        |tree, length| {
            tree.symlink(&format!("s{length}"), &"t".repeat(length))
                .file(&format!("t{length}"), b"x")
        },
    );
    check_with_fsck(&tree.build().0);
}

#[test]
fn sizes_of_files() {
    let sizes = [1, 4095, 4096, 4097, 8192, 8193, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 1 << 43];
    let tree = sizes
        .into_iter()
        .fold(TreeFixture::new(), |tree, size| tree.phantom(&format!("f{size}"), size));
    check_with_fsck(&tree.build().0);
}

#[test]
fn a_file_beyond_the_format_is_refused() {
    let (tree, _) = TreeFixture::new().phantom("f", (1 << 43) + 1).build();
    let error = build(&tree, Access::Strict, &mut Vec::new()).expect_err("8 TiB is the limit");
    assert!(matches!(error, super::ImageError::FileTooLarge { .. }), "{error}");
}

#[test]
fn the_image_is_a_function_of_the_tree_and_the_access() {
    let tree = || numbered(300, 12).directory("d").symlink("l", "t").build().0;
    assert_eq!(image(&tree(), Access::Strict), image(&tree(), Access::Strict));
    assert_ne!(image(&tree(), Access::Strict), image(&tree(), Access::Mutable));
    // Nothing of what the buffer held before shows.
    let mut reused = vec![0xAA; 1 << 20];
    build(&tree(), Access::Strict, &mut reused).expect("the tree has an image");
    assert_eq!(reused, image(&tree(), Access::Strict));
}
