//! Pure types of remote execution: digests, input trees, commands, limits, results.
//!
//! Everything a client sends becomes one of these types before anything acts on it, and none of
//! them can hold nonsense: a [`Digest`] is a real digest, a [`RelPath`] cannot leave the root, a
//! [`Directory`] is canonical, an [`InputTree`] is whole, an [`ActionSpec`] can be run as it is.
//! The crate also encodes the REAPI messages that are stored as blobs.
//!
//! It does no I/O: what must be read is handed in by the caller. It knows no gRPC status, no store
//! and no sandbox.

mod blob_hasher;
mod byte_size;
mod digest;
mod digest_error;
mod digest_function;
mod hash_bytes;
mod instance_name;
mod instance_names;
mod path;
mod wire;

mod directory;
mod node_properties;
mod tree;
mod write_changes;

mod action;
mod command;
mod encoded_result;
pub mod foreign_result;
mod outputs;
mod platform;
mod properties;
mod property_error;
pub mod result;

pub use action::{ActionError, ActionMessage, ActionSpec};
pub use blob_hasher::BlobHasher;
pub use byte_size::{ByteSize, ByteSizeError};
pub use chain::{Chain, Printable};
pub use command::{CommandError, CommandSpec, OutputDirectoryFormat, OutputNodeProperties};
pub use digest::Digest;
pub use digest_error::DigestError;
pub use digest_function::{DigestFunction, DigestFunctions};
pub use directory::{Directory, DirectoryError, Entry, MAX_NAME_BYTES, MAX_SYMLINK_TARGET_BYTES};
pub use encoded_result::{EncodedResult, Part, ResultError};
pub use hash_bytes::{HASH_BYTES_MAX, HashBytes, HexHash};
pub use instance_name::{InstanceName, InstanceNameError};
pub use instance_names::{InstanceNames, InstanceNamesError, NoSuchInstance};
pub use node_properties::{Mtime, NodeProperties, SUBTREE_READ_ONLY};
pub use outputs::{OutputError, OutputKind, OutputPath};
pub use path::{MAX_PATH_BYTES, MAX_PATH_DEPTH, PathError, PathProblem, RelPath};
pub use platform::{
    DeclaredProperty, DeclaredPropertyError, UnknownProperties, UnknownPropertiesError,
    WorkerPlatform,
};
pub use properties::{Limits, Properties};
pub use property_error::PropertyError;
pub use tree::{
    AssembleError, Found, InputTree, LoadError, Loaded, TooLarge, TreeDirectory, TreeLimits,
};
pub use wire::WireError;
pub use write_changes::WriteChangesError;

/// The user and the group of every action, and the owner of the files that it creates: "nobody" on
/// every system.
pub const ACTION_ID: u32 = 65534;

/// The generated REAPI messages, under the names that the house uses for them.
pub mod proto {
    pub use ::proto::build::bazel::remote::asset::v1 as asset;
    pub use ::proto::build::bazel::remote::execution::v2::*;
    pub use ::proto::build::bazel::semver;
    pub use ::proto::google;
    pub use ::proto::google::protobuf::{Any, Duration, Timestamp};
    pub use ::proto::shape::{Shaped, decoded_bytes};
    pub use prost::Message;
}
