//! Images as `fsck.erofs` and our own reader see them. The tests of the strategies mount them.

use std::fmt::Write as _;
use std::process::Command;

use model::{Digest, DigestFunction, InputTree};

use super::{build, read, round_trip};
use crate::access::Access;
use crate::tree_fixture::TreeFixture;

fn image(tree: &InputTree, access: Access) -> Vec<u8> {
    let mut image = Vec::new();
    build(tree, access, &mut image).expect("the tree has an image");
    image
}

/// Has our reader compare the images with the tree, and the reference implementation read every inode
/// and every name of them.
fn check(tree: &InputTree) {
    round_trip(tree).expect("the images are those of the tree");
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
    check(&TreeFixture::new().build().0);
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
    check(&tree.build().0);
}

#[test]
fn every_function_redirects_to_its_own_folder() {
    for function in DigestFunction::ALL {
        let fixture = TreeFixture::with_function(function).file("f", b"x").file("d/g", b"yz");
        let (tree, _) = fixture.file("d/empty", b"").build();
        let hash = Digest::of(function, b"x").hex();
        let redirect = format!("overlay.redirect/{function}/{}/{hash}", &hash[..2]);
        let image = image(&tree, Access::Strict);
        assert!(image.windows(redirect.len()).any(|window| window == redirect.as_bytes()));
        check(&tree);
    }
}

#[test]
fn names_that_sort_before_the_dots() {
    let tree = ["!", "+x", "-", "-long-name", ".-", ".a", "...", "..a", "0", "\u{1}"]
        .into_iter()
        .fold(TreeFixture::new(), |tree, name| {
            tree.file(name, b"x").file(&format!("d/{name}"), b"y")
        });
    check(&tree.build().0);
}

#[test]
fn directories_around_every_border_of_the_layout() {
    // With 20 bytes an entry, "." and ".." included: a tail that is behind the inode or not, and
    // blocks that are full to the last byte or not.
    for count in [0, 1, 90, 100, 101, 102, 103, 200, 202, 203, 204, 205, 300, 305, 307, 310, 1000] {
        check(&numbered(count, 8).build().0);
    }
    for count in [1, 7, 8, 15, 16, 17, 32] {
        check(&numbered(count, 255).build().0);
    }
}

#[test]
fn a_root_that_does_not_fit_in_the_first_block() {
    // 2048 bytes of entries behind an inode at 1184 just fit; with a second directory the
    // alignment of what follows is exercised too.
    let tree = (0..100).fold(TreeFixture::new(), |tree, number| {
        tree.file(&format!("{number:08}"), b"x").file(&format!("d/{number:08}"), b"x")
    });
    check(&tree.build().0);
}

#[test]
fn many_directories() {
    let tree = (0..70_000)
        .fold(TreeFixture::new(), |tree, number| tree.directory(&format!("{number:05}")));
    check(&tree.build().0);
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
    check(&tree.build().0);
}

#[test]
fn sizes_of_files() {
    let sizes = [1, 4095, 4096, 4097, 8192, 8193, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 1 << 43];
    let tree = sizes
        .into_iter()
        .fold(TreeFixture::new(), |tree, size| tree.phantom(&format!("f{size}"), size));
    check(&tree.build().0);
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

/// xorshift64 with a seed that failures name.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn name(&mut self) -> String {
        const PARTS: [&str; 10] = ["a", "b", "-", ".", "..", "ü", "\u{1}", " ", "z", "\u{10ffff}"];
        let longest = [1, 4, 12, 85][self.below(4) as usize];
        let name: String = (0..=self.below(longest))
            .map(|_| PARTS[self.below(PARTS.len() as u64) as usize])
            .collect();
        // Names of one character repeat often; a path of several parts must not be "." or "..".
        let cut = name.char_indices().map(|(at, _)| at).take_while(|at| *at <= 251).last();
        format!("{}{}", &name[..cut.unwrap_or(0)], self.below(300))
    }

    /// A directory to put things in: the root, one that is there, or a new one in one of them.
    fn place(&mut self, places: &mut Vec<String>) -> String {
        let at = self.below(places.len() as u64) as usize;
        let above = places[at].clone();
        if self.below(3) > 0 {
            return above;
        }
        let place = format!("{above}{}/", self.name());
        places.push(place.clone());
        place
    }

    fn tree(&mut self) -> TreeFixture {
        let function = DigestFunction::ALL[self.below(6) as usize];
        let mut fixture = TreeFixture::with_function(function);
        let mut places = vec![String::new()];
        // Names of files, directories and symlinks are apart by their last letter.
        let most = [2, 30, 400][self.below(3) as usize];
        for _ in 0..self.below(most) {
            let place = self.place(&mut places);
            let path = format!("{place}{}", self.name());
            fixture = match self.below(8) {
                0 => fixture.directory(&format!("{path}d")),
                1 => {
                    let length = [1, 30, 4000, 4095][self.below(4) as usize];
                    let target = "t".repeat(1 + self.below(length) as usize);
                    fixture.symlink(&format!("{path}s"), &target)
                }
                2 => fixture.executable(&format!("{path}f"), path.as_bytes()),
                3 => fixture.file(&format!("{path}f"), b""),
                4 => {
                    let bits = 1 + self.below(43);
                    fixture.phantom(&format!("{path}f"), self.below(1 << bits))
                }
                _ => fixture.file(&format!("{path}f"), path.as_bytes()),
            };
        }
        fixture
    }
}

/// A seed that differs from run to run.
fn any_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(()) | 1
}

#[test]
fn random_trees_come_back() {
    let seed = any_seed();
    let mut random = Random(seed);
    for round in 0..200 {
        let tree = random.tree().build().0;
        if let Err(error) = round_trip(&tree) {
            panic!("seed {seed}, round {round}: {}", chain::Chain(&error));
        }
    }
}

#[test]
fn a_deep_tree_and_a_wide_one_come_back() {
    let deep = "d/".repeat(127);
    check(&TreeFixture::new().file(&format!("{deep}f"), b"x").build().0);
    check(&numbered(20_000, 30).build().0);
}

/// The reader takes or refuses each damaged image, and comes to an end.
#[test]
fn damaged_images_are_read_or_refused() {
    let seed = any_seed();
    let mut random = Random(seed);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..40 {
        let whole = image(&random.tree().build().0, Access::Strict);
        for _ in 0..100 {
            let mut damaged = whole.clone();
            for _ in 0..=random.below(4) {
                random.damage(&mut damaged);
            }
            let outcome = std::panic::catch_unwind(|| read(&damaged).is_ok());
            let read = outcome.unwrap_or_else(|_| panic!("seed {seed}: the reader panicked"));
            *if read { &mut taken } else { &mut refused } += 1;
        }
    }
    // Some bytes mean nothing, such as padding; most mean something.
    assert!(refused > 400 && taken > 40, "seed {seed}: {refused} refused, {taken} taken");
}

impl Random {
    fn damage(&mut self, image: &mut Vec<u8>) {
        let length = image.len() as u64;
        // Not only zeros: half of the damage hits a structure.
        let mut at = self.below(length) as usize;
        if self.below(2) == 0 {
            at = image[at..].iter().position(|byte| *byte != 0).map_or(at, |next| at + next);
        }
        match self.below(4) {
            0 => image[at] ^= 1 << self.below(8),
            1 => image[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5) as usize],
            2 => {
                let from = self.below(length) as usize & !31;
                let (to, bytes) = (at & !31, 32.min(image.len() - from));
                image.copy_within(from..from + bytes.min(length as usize - to), to);
            }
            _ => {
                let blocks = self.below(length / 4096 + 1) as usize;
                image.truncate(blocks * 4096);
                image.resize(4096.max(image.len()), 0);
            }
        }
    }
}

fn refused(tree: &TreeImage, change: impl FnOnce(&mut TreeImage), expected: &str) {
    let mut tree = TreeImage { bytes: tree.bytes.clone() };
    change(&mut tree);
    let error = read(&tree.bytes).expect_err(expected).to_string();
    assert!(error.contains(expected), "{error:?} instead of {expected:?}");
}

/// An image whose structures are found by what they hold.
struct TreeImage {
    bytes: Vec<u8>,
}

impl TreeImage {
    /// Offset of the `number`th place that holds `needle`.
    fn find(&self, needle: &[u8], number: usize) -> usize {
        let mut places = self.bytes.windows(needle.len()).enumerate();
        let found = places.by_ref().filter(|(_, window)| *window == needle).nth(number);
        found.expect("the image holds it").0
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..][..bytes.len()].copy_from_slice(bytes);
    }
}

#[test]
fn hostile_images_are_refused() {
    const ROOT: usize = 1184;
    let (tree, _) = TreeFixture::new()
        .file("bb", b"content")
        .file("cc", b"other content")
        .directory("dd/ee")
        .symlink("ll", "target")
        .build();
    let tree = TreeImage { bytes: image(&tree, Access::Strict) };
    refused(&tree, |it| it.bytes.truncate(1100), "superblock at 1024 is not in the image");
    refused(&tree, |it| it.put(1024, b"x"), "magic");
    refused(&tree, |it| it.put(1024 + 12, &[13]), "block size");
    refused(&tree, |it| it.put(1024 + 80, &[0xff]), "feature");
    refused(&tree, |it| it.put(1024 + 36, &[0xff]), "number of blocks");
    refused(&tree, |it| it.put(1024 + 16, &[1]), "number of inodes");
    refused(&tree, |it| it.put(1024 + 14, &[0xff, 0xff]), "inode at");
    refused(&tree, |it| it.put(ROOT, &[0xfe]), "data layout");
    refused(&tree, |it| it.put(ROOT + 4, &[0, 0x81]), "root is no directory");
    refused(&tree, |it| it.put(ROOT + 6, &[9]), "number of links");
    refused(&tree, |it| it.put(ROOT + 8, &[0, 0xff, 0xff, 0x7f]), "overlap");
    refused(&tree, |it| it.put(ROOT + 8, &[0, 0]), "is missing");
    // The root's entries lie behind its inode: ".", "..", "bb", "cc", "dd", "ll".
    let entries = ROOT + 32;
    let entry = |index: usize| entries + 12 * index;
    refused(&tree, |it| it.put(entry(0) + 8, &[7]), "block of entries");
    refused(&tree, |it| it.put(entry(3) + 8, &[0xff, 0xff]), "name is malformed");
    refused(&tree, |it| it.put(it.find(b"bbcc", 0), b"cc"), "not sorted");
    refused(&tree, |it| it.put(it.find(b"bbcc", 0), b"b/"), "name is malformed");
    refused(&tree, |it| it.put(entry(0), &[38]), "leads elsewhere");
    refused(&tree, |it| it.put(entry(2), &[0xff; 8]), "inode at");
    refused(&tree, |it| it.put(entry(2) + 10, &[7]), "type of an entry");
    let copy = |it: &mut TreeImage, from: usize, to: usize| {
        let nid: [u8; 8] = it.bytes[entry(from)..][..8].try_into().unwrap();
        it.put(entry(to), &nid);
    };
    refused(&tree, |it| copy(it, 2, 3), "two names");
    // A directory that contains itself, and one that contains its parent.
    refused(&tree, |it| copy(it, 0, 4), "two names");
    let redirect = tree.find(b"overlay.redirect", 0);
    refused(&tree, |it| it.put(redirect - 4, &[0xff]), "cut off");
    refused(&tree, |it| it.put(redirect - 3, &[6]), "class of an attribute");
    refused(&tree, |it| it.put(redirect - 2, &[0xff, 0xff]), "cut off");
    let header = redirect - 4 - 16;
    refused(&tree, |it| it.put(header + 4, &[0xff]), "cut off");
    refused(&tree, |it| it.put(header + 12, &[0xff; 4]), "shared attribute at");
    let inode = header - 32;
    refused(&tree, |it| it.put(inode + 2, &[0xff, 0xff]), "overlap");
    refused(&tree, |it| it.put(inode + 16, &[0x20]), "chunk format");
    refused(&tree, |it| it.put(inode + 8, &[0, 0xff]), "many chunks");
    refused(&tree, |it| it.put(redirect + 92, &[0; 4]), "content");
    let symlink = tree.find(b"target", 0) - 32;
    refused(&tree, |it| it.put(symlink + 8, &[0]), "length of the target");
    refused(&tree, |it| it.put(symlink + 8, &[7]), "NUL in the target");
    refused(&tree, |it| it.put(symlink + 4, &[0, 0x60]), "file type");
}
