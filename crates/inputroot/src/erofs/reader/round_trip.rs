//! Compares what an image shows with the tree that it was built from.

use model::{ACTION_ID, Digest, Entry, InputTree};

use super::super::build::build;
use super::super::error::ImageError;
use super::read::read;
use super::tree::{Attributes, Node, ReadError, Tree, Xattr};
use crate::access::{Access, DIRECTORY_MODE, MODIFIED_SECONDS, file_mode};

/// An error of an image that differs from its tree.
#[derive(Debug, thiserror::Error)]
pub enum RoundTripError {
    /// The tree has no image.
    #[error("building the image")]
    Build(#[from] ImageError),
    /// The image cannot be read.
    #[error("reading the image")]
    Read(#[from] ReadError),
    /// The image shows something else.
    #[error("the image shows {shown}, and the tree has {expected}")]
    Differs {
        /// The value in the image.
        shown: String,
        /// The value in the tree.
        expected: String,
    },
}

/// Builds the images of `tree`, reads them, and compares.
pub(crate) fn round_trip(tree: &InputTree) -> Result<(), RoundTripError> {
    let mut image = Vec::new();
    for access in [Access::Strict, Access::Mutable] {
        build(tree, access, &mut image)?;
        compare(tree, access, &read(&image)?)?;
    }
    Ok(())
}

fn compare(tree: &InputTree, access: Access, shown: &Tree<'_>) -> Result<(), RoundTripError> {
    same(&shown.directories.len(), &tree.directories().len())?;
    for (shown, expected) in shown.directories.iter().zip(tree.directories()) {
        let Attributes { permissions, uid, gid, modified_seconds, .. } = shown.attributes;
        let owner = (DIRECTORY_MODE, ACTION_ID, ACTION_ID, MODIFIED_SECONDS);
        same(&(permissions, uid, gid, modified_seconds), &owner)?;
        same(&shown.entries.len(), &expected.content.len())?;
        let mut child = expected.first_child as usize;
        for (shown, expected) in shown.entries.iter().zip(expected.content.entries()) {
            same(&shown.name, &expected.name())?;
            match (&shown.node, &expected) {
                (Node::File { attributes, xattrs }, Entry::File { digest, executable, .. }) => {
                    same(attributes, &file(digest, *executable, access))?;
                    same_content(xattrs, digest)?;
                }
                (Node::Symlink { attributes, target }, Entry::Symlink { target: expected, .. }) => {
                    same(attributes, &symlink(expected))?;
                    same(target, expected)?;
                }
                (Node::Directory(index), Entry::Directory { .. }) => {
                    same(index, &child)?;
                    child += 1;
                }
                (shown, expected) => return Err(differs(shown, expected)),
            }
        }
    }
    Ok(())
}

fn file(digest: &Digest, executable: bool, access: Access) -> Attributes {
    let (uid, gid) = (access.file_owner(), access.file_owner());
    let permissions = file_mode(executable);
    Attributes { permissions, uid, gid, ..leaf(digest.size_bytes()) }
}

fn symlink(target: &[u8]) -> Attributes {
    Attributes { permissions: 0o777, ..leaf(target.len() as u64) }
}

fn leaf(size_bytes: u64) -> Attributes {
    Attributes {
        permissions: 0,
        uid: ACTION_ID,
        gid: ACTION_ID,
        nlink: 1,
        size_bytes,
        modified_seconds: MODIFIED_SECONDS,
    }
}

fn same_content(xattrs: &[Xattr<'_>], digest: &Digest) -> Result<(), RoundTripError> {
    if digest.size_bytes() == 0 {
        return same(&xattrs.len(), &0);
    }
    let hash = digest.hex();
    let redirect = format!("/{}/{}/{hash}", digest.function().name(), &hash[..2]);
    let expected = [
        Xattr { name: b"overlay.metacopy", value: b"" },
        Xattr { name: b"overlay.redirect", value: redirect.as_bytes() },
    ];
    same(&xattrs, &expected.as_slice())
}

fn same<T: PartialEq + std::fmt::Debug>(shown: &T, expected: &T) -> Result<(), RoundTripError> {
    if shown == expected { Ok(()) } else { Err(differs(shown, expected)) }
}

fn differs(shown: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug) -> RoundTripError {
    RoundTripError::Differs { shown: format!("{shown:?}"), expected: format!("{expected:?}") }
}
