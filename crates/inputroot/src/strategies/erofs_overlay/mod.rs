//! The strategy for kernels that have EROFS and overlayfs with data-only layers.

mod image;
mod overlay;

pub(crate) use image::Backing;
#[cfg(test)]
pub(crate) use image::ImageWriter;
pub(crate) use overlay::ErofsOverlay;
