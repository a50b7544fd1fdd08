//! Layers on top of each other, for fuzz targets and nothing else.

use std::io::{self, Read};

use model::{Digest, DigestFunction};

use crate::layers::Files;

/// Puts layers on top of each other and returns the paths that an action would see; stores nothing.
///
/// # Errors
/// When a layer is refused.
pub fn paths_of_layers(layers: &[&[u8]]) -> io::Result<Vec<String>> {
    let mut files = Files::default();
    let mut store = |content: &mut dyn Read| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok(Digest::of(DigestFunction::Sha256, &bytes))
    };
    for layer in layers {
        files.apply(*layer, &mut store)?;
    }
    Ok(files.public().into_iter().map(|(path, _)| path.to_owned()).collect())
}
