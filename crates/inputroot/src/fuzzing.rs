//! The writer and the reader of EROFS images, for fuzz targets and nothing else.

use model::InputTree;

use crate::access::Access;
use crate::erofs;
pub use crate::erofs::{ImageError, ReadError, RoundTripError};

/// The image of a tree for an action that may not change its inputs.
pub fn image_of(tree: &InputTree) -> Result<Vec<u8>, ImageError> {
    let mut image = Vec::new();
    erofs::build(tree, Access::Strict, &mut image)?;
    Ok(image)
}

/// Reads an image; returns how many directories it has.
pub fn read_image(image: &[u8]) -> Result<usize, ReadError> {
    erofs::read(image).map(|tree| tree.directories.len())
}

/// Builds the images of a tree, reads them, and compares them with the tree.
pub fn round_trip(tree: &InputTree) -> Result<(), RoundTripError> {
    erofs::round_trip(tree)
}
