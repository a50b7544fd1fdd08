//! Compares what an image shows with the tree that it was built from.

use model::{ACTION_ID, Digest, Entry, InputTree, NodeProperties};

use super::super::build::build;
use super::super::error::ImageError;
use super::read::read;
use super::tree::{Attributes, Node, ReadError, Tree, Xattr};
use crate::access::{Access, directory_mode_of, file_rights, modified};

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
        let content = &expected.content;
        let Attributes { permissions, uid, gid, modified: mtime, .. } = shown.attributes;
        let own = content.own_properties();
        let expected_attributes = (directory_mode_of(&own), ACTION_ID, ACTION_ID, modified(&own));
        same(&(permissions, uid, gid, mtime), &expected_attributes)?;
        same(&shown.entries.len(), &content.len())?;
        let mut child = expected.first_child as usize;
        for (shown, expected) in shown.entries.iter().zip(expected.content.entries()) {
            same(&shown.name, &expected.name())?;
            let properties = content.properties_of(shown.name);
            match (&shown.node, &expected) {
                (Node::File { attributes, xattrs }, Entry::File { digest, executable, .. }) => {
                    same(attributes, &file(digest, *executable, &properties, access))?;
                    same_content(xattrs, digest)?;
                }
                (Node::Symlink { attributes, target }, Entry::Symlink { target: expected, .. }) => {
                    same(attributes, &symlink(expected, &properties))?;
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

fn file(
    digest: &Digest,
    executable: bool,
    properties: &NodeProperties,
    access: Access,
) -> Attributes {
    let uid = access.file_owner();
    let (permissions, gid) = file_rights(executable, properties, access);
    Attributes { permissions, uid, gid, ..leaf(digest.size_bytes(), properties) }
}

fn symlink(target: &[u8], properties: &NodeProperties) -> Attributes {
    Attributes { permissions: 0o777, ..leaf(target.len() as u64, properties) }
}

fn leaf(size_bytes: u64, properties: &NodeProperties) -> Attributes {
    Attributes {
        permissions: 0,
        uid: ACTION_ID,
        gid: ACTION_ID,
        nlink: 1,
        size_bytes,
        modified: modified(properties),
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
