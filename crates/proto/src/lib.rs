//! The messages of the Remote Execution API, of what it imports, and of actiond's own services.
//!
//! All of it is generated from the `.proto` files in `proto/` by `cargo xtask proto`, and checked
//! in. The modules follow the packages. [`encoded`] has the messages of bulk requests once more,
//! with digests and directories left as encoded bytes. The feature `client` adds the clients of the
//! services; the server routes calls by itself, in `reapi`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    rustdoc::all,
    reason = "generated code, with the comments of the .proto files"
)]

pub mod shape;

mod shapes {
    use crate::shape::{Field, Kind, OTHER, Shape, Shaped};

    include!("generated/shapes.rs");
}

/// The descriptors of every file, as an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");

/// Packages of actiond's own.
pub mod actiond {
    pub mod internal {
        pub mod v1 {
            include!("generated/actiond.internal.v1.rs");
        }
    }
    pub mod v1 {
        include!("generated/actiond.v1.rs");
    }
}

/// Packages of the Bazel project.
pub mod build {
    pub mod bazel {
        pub mod remote {
            pub mod asset {
                pub mod v1 {
                    include!("generated/build.bazel.remote.asset.v1.rs");
                }
            }
            pub mod execution {
                pub mod v2 {
                    include!("generated/build.bazel.remote.execution.v2.rs");
                }
            }
        }
        pub mod semver {
            include!("generated/build.bazel.semver.rs");
        }
    }
}

/// Packages of Buildbarn.
pub mod buildbarn {
    pub mod remoteworker {
        include!("generated/buildbarn.remoteworker.rs");
    }
}

/// Packages of OpenTelemetry.
pub mod opentelemetry {
    pub mod proto {
        pub mod collector {
            pub mod trace {
                pub mod v1 {
                    include!("generated/opentelemetry.proto.collector.trace.v1.rs");
                }
            }
        }
        pub mod common {
            pub mod v1 {
                include!("generated/opentelemetry.proto.common.v1.rs");
            }
        }
        pub mod resource {
            pub mod v1 {
                include!("generated/opentelemetry.proto.resource.v1.rs");
            }
        }
        pub mod trace {
            pub mod v1 {
                include!("generated/opentelemetry.proto.trace.v1.rs");
            }
        }
    }
}

/// Packages of Google's common interfaces.
pub mod google {
    pub mod bytestream {
        include!("generated/google.bytestream.rs");
    }
    pub mod devtools {
        pub mod remoteworkers {
            pub mod v1test2 {
                include!("generated/google.devtools.remoteworkers.v1test2.rs");
            }
        }
    }
    pub mod longrunning {
        include!("generated/google.longrunning.rs");
    }
    pub mod protobuf {
        pub use prost_types::{Any, Duration, Timestamp};
    }
    pub mod rpc {
        include!("generated/google.rpc.rs");
    }
}

/// Messages of bulk requests whose digests and directories are encoded bytes.
///
/// On the wire they are the messages of the same names. A request of thousands of digests decodes
/// without an allocation for each, and answers repeat the client's own encoding.
pub mod encoded {
    pub mod actiond {
        include!("generated/encoded/actiond.internal.v1.rs");
    }
    pub mod reapi {
        include!("generated/encoded/build.bazel.remote.execution.v2.rs");
    }
}
