//! Assembling input trees: their shape, what is missing, and where they end.

mod support;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use model::proto::{self, Message};
use model::{
    AssembleError, Digest, Directory, Found, InputTree, LoadError, Loaded, MAX_PATH_BYTES, RelPath,
    SUBTREE_READ_ONLY, TooLarge, TreeLimits, WriteChangesError,
};
use support::{FUNCTION, Numbers, digest_of, directory, file, symlink};

/// A store of directories, which notes what it was asked for.
#[derive(Default)]
struct Blobs {
    messages: HashMap<Digest, Bytes>,
    asked: RefCell<Vec<Digest>>,
}

impl Blobs {
    fn add(&mut self, message: &proto::Directory) -> Digest {
        let message = message.encode_to_vec();
        let digest = Digest::of(FUNCTION, &message);
        self.messages.insert(digest, message.into());
        digest
    }

    fn load(&self, digest: &Digest) -> Loaded<Infallible> {
        self.asked.borrow_mut().push(*digest);
        let Some(message) = self.messages.get(digest) else {
            return Ok(None);
        };
        let parsed = Directory::parse(message.clone(), FUNCTION)?;
        Ok(Some(Arc::new(parsed)))
    }

    fn assemble_within(
        &self,
        root: Digest,
        limits: TreeLimits,
    ) -> Result<InputTree, AssembleError<Infallible>> {
        InputTree::assemble(root, limits, &mut |digest| self.load(digest))
    }

    fn assemble(&self, root: Digest) -> Result<InputTree, AssembleError<Infallible>> {
        self.assemble_within(root, TreeLimits::default())
    }
}

fn folder(files: &[&str], directories: &[(&str, Digest)]) -> proto::Directory {
    proto::Directory {
        files: files.iter().map(|name| file(name, name)).collect(),
        directories: directories.iter().map(|(n, d)| directory(n, *d)).collect(),
        ..Default::default()
    }
}

/// `top`, `a/{one,two,link}`, `b/x/{deep}`, `c/x/{deep}`, `e/`.
fn sample(blobs: &mut Blobs) -> Digest {
    let a = blobs.add(&proto::Directory {
        symlinks: vec![symlink("link", "../top")],
        ..folder(&["one", "two"], &[])
    });
    let deep = blobs.add(&folder(&["deep"], &[]));
    let b = blobs.add(&folder(&[], &[("x", deep)]));
    let empty = Digest::empty(FUNCTION);
    blobs.add(&folder(&["top"], &[("a", a), ("b", b), ("c", b), ("e", empty)]))
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

#[test]
fn directories_lie_breadth_first() {
    let mut blobs = Blobs::default();
    let root = sample(&mut blobs);
    let tree = blobs.assemble(root).unwrap();
    assert_eq!(tree.root_digest(), root);
    let shape: Vec<(u32, u32, usize)> = tree
        .directories()
        .iter()
        .map(|place| (place.parent, place.first_child, place.content.len()))
        .collect();
    let expected = [(0, 1, 5), (0, 5, 3), (0, 5, 1), (0, 6, 1), (0, 7, 0), (2, 7, 1), (3, 7, 1)];
    assert_eq!(shape, expected);
    assert_eq!(tree.file_count(), 5);
    assert_eq!(tree.entry_count(), 12);
}

#[test]
fn a_directory_is_loaded_once_and_shared() {
    let mut blobs = Blobs::default();
    let root = sample(&mut blobs);
    let tree = blobs.assemble(root).unwrap();
    let places = tree.directories();
    assert!(Arc::ptr_eq(&places[2].content, &places[3].content));
    assert_eq!(blobs.asked.borrow().len(), 4);
    assert!(!blobs.asked.borrow().contains(&Digest::empty(FUNCTION)));
}

#[test]
fn blobs_are_listed_once_and_sorted() {
    let mut blobs = Blobs::default();
    let with_empty_file = blobs.add(&proto::Directory {
        files: vec![file("empty", ""), file("top", "top")],
        ..Default::default()
    });
    let sample = sample(&mut blobs);
    let root = blobs.add(&folder(&[], &[("p", sample), ("q", with_empty_file)]));
    let tree = blobs.assemble(root).unwrap();
    let mut expected: BTreeSet<Digest> = blobs.messages.keys().copied().collect();
    expected.extend(["one", "two", "top", "deep"].map(digest_of));
    assert!(tree.blobs().iter().eq(&expected));
}

#[test]
fn lookups() {
    let mut blobs = Blobs::default();
    let root = sample(&mut blobs);
    let tree = blobs.assemble(root).unwrap();
    let found = |text: &str| tree.lookup(&path(text));
    let is_file =
        |content: &str| Some(Found::File { digest: digest_of(content), executable: false });
    assert_eq!(found(""), Some(Found::Directory(0)));
    assert_eq!(found("a"), Some(Found::Directory(1)));
    assert_eq!(found("c/x"), Some(Found::Directory(6)));
    assert_eq!(found("c/x/deep"), is_file("deep"));
    assert_eq!(found("top"), is_file("top"));
    assert_eq!(found("a/link"), Some(Found::Symlink { target: b"../top" }));
    for absent in ["z", "a/z", "top/z", "a/link/z", "e/z"] {
        assert_eq!(found(absent), None, "{absent}");
    }
}

#[test]
fn the_empty_tree() {
    let tree = Blobs::default().assemble(Digest::empty(FUNCTION)).unwrap();
    assert_eq!(tree.directories().len(), 1);
    assert_eq!((tree.entry_count(), tree.blobs().len()), (0, 0));
}

#[test]
fn every_missing_directory_is_listed_once() {
    let mut blobs = Blobs::default();
    let (gone, lost) = (digest_of("gone"), digest_of("lost"));
    let low = blobs.add(&folder(&[], &[("gone", gone), ("lost", lost)]));
    let middle = blobs.add(&folder(&["f"], &[("gone", gone), ("low", low)]));
    let root = blobs.add(&folder(&[], &[("lost", lost), ("middle", middle)]));
    let Err(AssembleError::Missing(missing)) = blobs.assemble(root) else {
        panic!("directories are missing");
    };
    assert_eq!(missing.len(), 2);
    assert!(missing.contains(&gone) && missing.contains(&lost));
    let nothing = Blobs::default().assemble(root);
    assert!(matches!(nothing, Err(AssembleError::Missing(m)) if m == [root]));
}

#[test]
fn a_blob_that_is_no_directory_is_named() {
    let mut blobs = Blobs::default();
    let digest = Digest::of(FUNCTION, b"\xff");
    blobs.messages.insert(digest, Bytes::from_static(b"\xff"));
    let root = blobs.add(&folder(&[], &[("d", digest)]));
    let malformed = blobs.assemble(root);
    assert!(matches!(malformed, Err(AssembleError::Malformed { digest: d, .. }) if d == digest));
}

#[test]
fn a_failing_store_is_reported() {
    let root = digest_of("root");
    let failed = InputTree::assemble(root, TreeLimits::default(), &mut |_| {
        Err(LoadError::Failed("the disk is gone"))
    });
    assert!(matches!(failed, Err(AssembleError::Load { digest, .. }) if digest == root));
}

/// Directories that each have the next one twice.
fn doubling(blobs: &mut Blobs, levels: usize) -> Digest {
    let mut below = Digest::empty(FUNCTION);
    for level in 0..levels {
        let name = format!("x{level}");
        below = blobs.add(&folder(&[], &[(&name, below), ("y", below)]));
    }
    below
}

#[test]
fn an_exponential_tree_is_refused_without_being_built() {
    let mut blobs = Blobs::default();
    let root = doubling(&mut blobs, 100);
    let refused = blobs.assemble(root);
    let expected = TooLarge::Entries(TreeLimits::default().max_entries);
    assert!(matches!(refused, Err(AssembleError::TooLarge(limit)) if limit == expected));
    assert!(blobs.asked.borrow().len() < 30);
}

#[test]
fn no_count_overflows_under_the_widest_limits() {
    let mut blobs = Blobs::default();
    let root = doubling(&mut blobs, 120);
    let limits =
        TreeLimits { max_entries: u64::MAX, max_depth: usize::MAX, max_memory_bytes: u64::MAX };
    let refused = blobs.assemble_within(root, limits);
    assert!(matches!(refused, Err(AssembleError::TooLarge(_))));
}

#[test]
fn limits_hold_exactly() {
    let mut blobs = Blobs::default();
    let root = sample(&mut blobs);
    let within = |max_entries, max_depth| {
        let limits = TreeLimits { max_entries, max_depth, ..TreeLimits::default() };
        blobs.assemble_within(root, limits)
    };
    assert!(within(12, 2).is_ok());
    let entries = within(11, 2);
    assert!(matches!(entries, Err(AssembleError::TooLarge(TooLarge::Entries(11)))));
    let depth = within(12, 1);
    assert!(matches!(depth, Err(AssembleError::TooLarge(TooLarge::Depth(1)))));
}

#[test]
fn a_deep_chain_ends_at_the_depth_of_paths() {
    let chain = |levels: usize| {
        let mut blobs = Blobs::default();
        let mut below = Digest::empty(FUNCTION);
        for _ in 0..levels {
            below = blobs.add(&folder(&["f"], &[("d", below)]));
        }
        blobs.assemble(below)
    };
    let tree = chain(128).unwrap();
    let deepest = path(&["d"; 128].join("/"));
    assert_eq!(tree.lookup(&deepest), Some(Found::Directory(128)));
    let refused = chain(129);
    assert!(matches!(refused, Err(AssembleError::TooLarge(TooLarge::Depth(128)))));
}

/// Trees of any shape hold together: children point to their parents, and everything is found.
#[test]
fn generated_trees_hold_together() {
    let mut numbers = Numbers::new(5);
    for _ in 0..50 {
        let mut blobs = Blobs::default();
        let mut known = vec![Digest::empty(FUNCTION)];
        for index in 0..20 {
            let children: Vec<(String, Digest)> = (0..numbers.below(4))
                .map(|child| (format!("d{child}"), known[numbers.below(known.len())]))
                .collect();
            let children: Vec<(&str, Digest)> =
                children.iter().map(|(n, d)| (n.as_str(), *d)).collect();
            known.push(blobs.add(&folder(&[&format!("f{index}")], &children)));
        }
        let Ok(tree) = blobs.assemble(known[20]) else {
            continue;
        };
        for (index, place) in tree.directories().iter().enumerate() {
            let last = place.first_child + place.content.directory_count() as u32;
            for child in place.first_child..last {
                assert_eq!(tree.directories()[child as usize].parent, index as u32);
            }
            for entry in place.content.entries() {
                assert!(tree.lookup_in(index as u32, entry.name()).is_some());
            }
        }
    }
}

/// The same directory with `SubtreeReadOnly`.
fn closed(mut directory: proto::Directory, value: bool) -> proto::Directory {
    let property =
        proto::NodeProperty { name: SUBTREE_READ_ONLY.to_owned(), value: value.to_string() };
    let properties = vec![property];
    directory.node_properties = Some(proto::NodeProperties { properties, ..Default::default() });
    directory
}

#[test]
fn write_changes_are_found_where_they_change_something() {
    let mut blobs = Blobs::default();
    let plain = blobs.add(&folder(&["a"], &[]));
    let open = blobs.add(&closed(folder(&["a"], &[]), false));
    let shut = blobs.add(&closed(folder(&["a"], &[("open", open), ("plain", plain)]), true));
    let both = folder(&[], &[("open", open), ("plain", plain), ("shut", shut)]);
    let both_blob = blobs.add(&both);
    let changes = |tree: &InputTree, max: usize| {
        let changes = tree.write_changes(max, MAX_PATH_BYTES)?.into_iter();
        Ok(Vec::from_iter(changes.map(|(path, closed)| (path.as_str().to_owned(), closed))))
    };
    let owned = |changes: &[(&str, bool)]| {
        Ok(Vec::from_iter(changes.iter().map(|(path, closed)| ((*path).to_owned(), *closed))))
    };

    let tree = blobs.assemble(both_blob).unwrap();
    assert_eq!(changes(&tree, 2), owned(&[("shut", true), ("shut/open", false)]));
    assert_eq!(changes(&tree, 1), Err(WriteChangesError::TooMany(1)));

    let root = blobs.add(&closed(folder(&[], &[("b", both_blob), ("shut", shut)]), true));
    let tree = blobs.assemble(root).unwrap();
    let expected = [("", true), ("b/open", false), ("shut/open", false), ("b/shut/open", false)];
    assert_eq!(changes(&tree, 9), owned(&expected));

    let none = blobs.add(&closed(folder(&[], &[("open", open), ("plain", plain)]), false));
    assert_eq!(changes(&blobs.assemble(none).unwrap(), 0), owned(&[]));
    assert_eq!(changes(&blobs.assemble(plain).unwrap(), 0), owned(&[]));
}

/// The names of a path with that many bytes.
fn names_of_path(bytes: usize) -> Vec<String> {
    let mut names = vec!["d".repeat(255); bytes / 256];
    names.push("e".repeat(bytes % 256));
    names
}

/// A root with a file, and the path with these names below it, of which the last is closed.
fn closed_at(blobs: &mut Blobs, names: &[String]) -> InputTree {
    let last = blobs.add(&closed(folder(&["a"], &[]), true));
    let root = names.iter().rev().fold(last, |below, name| {
        blobs.add(&folder(&["a", "z"], &[("b", Digest::empty(FUNCTION)), (name, below)]))
    });
    blobs.assemble(root).unwrap()
}

#[test]
fn the_path_of_a_write_change_has_a_bound() {
    let mut blobs = Blobs::default();
    for bytes in [1, 255, 257, 4085, 4086, 4095, 4097, 128 * 256 - 1] {
        let names = names_of_path(bytes);
        let path = names.join("/");
        assert_eq!(path.len(), bytes);
        let tree = closed_at(&mut blobs, &names);
        for max in [4085, MAX_PATH_BYTES] {
            let found = tree.write_changes(1, max);
            if bytes <= max {
                assert_eq!(found, Ok(vec![(RelPath::parse(&path).unwrap(), true)]));
            } else {
                let start = "d".repeat(128);
                let expected = WriteChangesError::PathTooLong { start, max_bytes: max };
                assert_eq!(found, Err(expected), "{bytes} bytes");
            }
        }
        // They are counted before.
        assert_eq!(tree.write_changes(0, 0), Err(WriteChangesError::TooMany(0)));
    }
}

#[test]
fn names_are_those_of_their_places() {
    // Every second directory of 2 × 20 has a change, beside files and symlinks that sort in between.
    let mut blobs = Blobs::default();
    let plain = blobs.add(&folder(&["f"], &[]));
    let shut = blobs.add(&closed(folder(&["f"], &[]), true));
    let names = Vec::from_iter((0..20).map(|number| format!("d{number:02}")));
    let children = names.iter().enumerate();
    let children = Vec::from_iter(
        children.map(|(number, name)| (&**name, if number % 2 == 0 { plain } else { shut })),
    );
    let middle = blobs.add(&proto::Directory {
        symlinks: vec![symlink("d05-link", "d05")],
        ..folder(&["a", "d03-file", "z"], &children)
    });
    let root = blobs.add(&folder(&["n"], &[("m", middle), ("o", middle)]));
    let tree = blobs.assemble(root).unwrap();
    let expected = ["m", "o"].into_iter().flat_map(|above| {
        (1..20).step_by(2).map(move |number| (path(&format!("{above}/d{number:02}")), true))
    });
    assert_eq!(tree.write_changes(20, 5), Ok(Vec::from_iter(expected)));
    assert_eq!(tree.write_changes(19, 5), Err(WriteChangesError::TooMany(19)));
}

#[test]
fn only_directories_can_be_closed() {
    let mut node = file("f", "f");
    let property =
        proto::NodeProperty { name: SUBTREE_READ_ONLY.to_owned(), value: "true".to_owned() };
    let properties = vec![property];
    node.node_properties = Some(proto::NodeProperties { properties, ..Default::default() });
    let message = proto::Directory { files: vec![node], ..Default::default() }.encode_to_vec();
    let parsed = Directory::parse(message.into(), FUNCTION).unwrap();
    assert_eq!(parsed.unknown_property().as_deref(), Some(SUBTREE_READ_ONLY));
    let parse =
        |directory: &proto::Directory| Directory::parse(directory.encode_to_vec().into(), FUNCTION);
    let directory = parse(&closed(folder(&[], &[]), true)).unwrap();
    assert_eq!((directory.unknown_property(), directory.subtree_read_only()), (None, Some(true)));
    let mut wrong = closed(folder(&[], &[]), true);
    wrong.node_properties.as_mut().unwrap().properties[0].value = "perhaps".to_owned();
    assert!(parse(&wrong).is_err());
}
