//! The errors of building an image.

/// The reason why a tree has no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The format holds a file without content in one chunk, which ends at 8 TiB.
    #[error("input file {digest} is larger than the {max_bytes} bytes that an image can describe")]
    FileTooLarge {
        /// The file's content.
        digest: model::Digest,
        /// The largest size that would do.
        max_bytes: u64,
    },
    /// Block numbers have 32 bits.
    #[error("the image of input root {root} would have more than 2^32 blocks")]
    ImageTooLarge {
        /// The tree's root directory.
        root: model::Digest,
    },
}
