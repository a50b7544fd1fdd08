//! Output trees as they are written, and what results and trees name.

mod support;

use bytes::Bytes;
use model::proto::{self, Message};
use model::result::{
    TreeBuilder, TreeError, UnknownChild, referenced_digests, tree_digests, tree_directories,
    tree_messages,
};
use model::{Digest, DigestError, DigestFunction};
use support::{FUNCTION, Numbers, any_directory, digest_of, directory, file, symlink};

fn folder(files: &[&str], directories: &[(&str, Digest)]) -> proto::Directory {
    proto::Directory {
        files: files.iter().map(|name| file(name, name)).collect(),
        directories: directories.iter().map(|(n, d)| directory(n, *d)).collect(),
        ..Default::default()
    }
}

/// `z/{deep}`, `a/z/{deep}`, `a/f`, `top`: the shared directory is met at two depths.
fn sample(function: DigestFunction) -> model::result::BuiltTree {
    let node = |name: &str| proto::FileNode {
        name: name.to_owned(),
        digest: Some(Digest::of(function, name.as_bytes()).to_proto()),
        ..Default::default()
    };
    let mut builder = TreeBuilder::new(function);
    let files = |names: &[&str]| proto::Directory {
        files: names.iter().map(|name| node(name)).collect(),
        ..Default::default()
    };
    let deep = builder.add(files(&["deep"])).unwrap();
    let mut a = files(&["f"]);
    a.directories.push(directory("z", deep));
    let a = builder.add(a).unwrap();
    assert_eq!(builder.add(files(&["deep"])), Ok(deep));
    let mut root = files(&["top"]);
    root.directories = vec![directory("z", deep), directory("a", a)];
    builder.finish(root).unwrap()
}

#[test]
fn a_tree_is_the_message_that_the_generated_code_writes() {
    for function in DigestFunction::ALL {
        let built = sample(function);
        let tree = proto::Tree::decode(built.tree.clone()).unwrap();
        assert_eq!(Bytes::from(tree.encode_to_vec()), built.tree);
        assert_eq!(Digest::of(function, &built.tree), built.tree_digest);
        let root = tree.root.unwrap().encode_to_vec();
        assert_eq!(Digest::of(function, &root), built.root_digest());
        assert_eq!(tree.children.len(), 2, "the shared directory is there once");
    }
}

#[test]
fn parents_come_first() {
    let built = sample(FUNCTION);
    let place = |digest: &Digest| built.directories.iter().position(|(d, _)| d == digest);
    for (index, (digest, message)) in built.directories.iter().enumerate() {
        assert_eq!(Digest::of(FUNCTION, message), *digest);
        let message = proto::Directory::decode(message.clone()).unwrap();
        for child in message.directories {
            let child = Digest::from_proto_field(child.digest.as_ref(), FUNCTION).unwrap();
            assert!(place(&child).unwrap() > index);
        }
    }
}

#[test]
fn directories_are_written_sorted() {
    let mut root = folder(&["b", "a"], &[]);
    root.symlinks = vec![symlink("y", "t"), symlink("x", "t")];
    let built = TreeBuilder::new(FUNCTION).finish(root).unwrap();
    let parsed = model::Directory::parse(built.directories[0].1.clone(), FUNCTION).unwrap();
    let names: Vec<&[u8]> = parsed.entries().map(|entry| entry.name()).collect();
    assert_eq!(names, [b"a", b"b", b"x", b"y"]);
}

#[test]
fn an_empty_directory_is_a_tree_of_two_bytes() {
    let built = TreeBuilder::new(FUNCTION).finish(proto::Directory::default()).unwrap();
    assert_eq!(built.tree, Bytes::from_static(b"\x0a\x00"));
    assert!(built.root_digest().is_empty_blob());
}

#[test]
fn a_child_must_be_there_before_its_parent() {
    let unknown = digest_of("unknown");
    let refused = TreeBuilder::new(FUNCTION).add(folder(&[], &[("d", unknown)]));
    let expected = UnknownChild { name: "d".to_owned(), digest: Some(unknown.to_proto()) };
    assert_eq!(refused, Err(expected));
}

#[test]
fn an_output_directory_names_tree_and_root() {
    let built = sample(FUNCTION);
    let output = built.output_directory("out/dir");
    assert_eq!(output.path, "out/dir");
    assert!(output.is_topologically_sorted);
    let result = proto::ActionResult { output_directories: vec![output], ..Default::default() };
    let references = referenced_digests(&result, FUNCTION).unwrap();
    assert_eq!(references.trees, [built.tree_digest]);
    assert_eq!(references.root_directories, [built.root_digest()]);
}

#[test]
fn what_a_tree_names() {
    let built = sample(FUNCTION);
    let digests = tree_digests(&built.tree, FUNCTION).unwrap();
    let mut files = ["deep", "f", "top"].map(digest_of);
    files.sort();
    assert_eq!(digests.files, files);
    let mut children: Vec<Digest> = built.directories[1..].iter().map(|(d, _)| *d).collect();
    children.sort();
    assert_eq!(digests.directories, children);
}

#[test]
fn a_tree_is_taken_apart_up_to_a_number_of_directories() {
    for function in DigestFunction::ALL {
        let built = sample(function);
        let taken = tree_messages(&built.tree, function, 3).unwrap();
        assert_eq!(taken.root, built.root_digest());
        assert_eq!(taken.directories, built.directories.iter().cloned().collect());
        let digests = taken.directories.into_keys().collect();
        assert_eq!(tree_directories(&built.tree, function, 3), Ok(digests));
        assert_eq!(tree_messages(&built.tree, function, 2), Err(TreeError::Directories(2)));
        assert_eq!(tree_directories(&built.tree, function, 2), Err(TreeError::Directories(2)));
    }
    let twice = b"\x0a\x00\x12\x00\x12\x00";
    assert_eq!(tree_directories(&Bytes::from_static(twice), FUNCTION, 1).unwrap().len(), 1);
}

#[test]
fn what_is_no_tree() {
    let read = |message: &[u8]| tree_digests(&Bytes::copy_from_slice(message), FUNCTION);
    assert_eq!(read(b""), Err(TreeError::Roots(0)));
    assert_eq!(read(b"\x12\x00"), Err(TreeError::Roots(0)));
    assert_eq!(read(b"\x0a\x00\x0a\x00"), Err(TreeError::Roots(2)));
    assert_eq!(read(b"\x08\x01"), Err(TreeError::FieldType(1)));
    assert!(matches!(read(b"\x0a\x05"), Err(TreeError::Wire(_))));
    assert!(matches!(read(b"\x0a\x01\xff"), Err(TreeError::Directory(_))));
    assert!(read(b"\x0a\x00\x7a\x01x").is_ok(), "an unknown field");
    for message in [&b""[..], b"\x12\x00", b"\x0a\x00\x0a\x00", b"\x08\x01"] {
        let taken = tree_messages(&Bytes::copy_from_slice(message), FUNCTION, 10);
        assert_eq!(taken.map(drop), read(message).map(drop), "{message:?}");
    }
}

#[test]
fn mutated_trees_never_panic() {
    let mut numbers = Numbers::new(6);
    for _ in 0..200 {
        let tree = proto::Tree {
            root: Some(any_directory(&mut numbers)),
            children: vec![any_directory(&mut numbers)],
        };
        let mut message = tree.encode_to_vec();
        assert!(tree_digests(&message.clone().into(), FUNCTION).is_ok());
        for _ in 0..20 {
            let at = numbers.below(message.len());
            message[at] = numbers.next() as u8;
            let _ = tree_digests(&message.clone().into(), FUNCTION);
        }
    }
}

#[test]
fn what_a_result_names() {
    let output = |content: &str| proto::OutputFile {
        path: "p".to_owned(),
        digest: Some(digest_of(content).to_proto()),
        ..Default::default()
    };
    let result = proto::ActionResult {
        output_files: vec![output("b"), output("a"), output("b"), output("")],
        stdout_digest: Some(digest_of("out").to_proto()),
        stderr_raw: b"inline".to_vec().into(),
        output_directories: vec![proto::OutputDirectory {
            root_directory_digest: Some(digest_of("root").to_proto()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let references = referenced_digests(&result, FUNCTION).unwrap();
    let mut blobs = ["a", "b", "out"].map(digest_of);
    blobs.sort();
    assert_eq!(references.blobs, blobs);
    assert_eq!(references.trees, []);
    assert_eq!(references.root_directories, [digest_of("root")]);
}

#[test]
fn a_result_without_its_digests_is_refused() {
    let file = proto::ActionResult {
        output_files: vec![proto::OutputFile::default()],
        ..Default::default()
    };
    assert_eq!(referenced_digests(&file, FUNCTION), Err(DigestError::Missing));
    let directory = proto::ActionResult {
        output_directories: vec![proto::OutputDirectory::default()],
        ..Default::default()
    };
    let refused = referenced_digests(&directory, FUNCTION);
    assert_eq!(refused, Err(DigestError::Missing));
}
