//! `grpc.reflection`: the services' own description, for tools such as `grpcurl`.
//!
//! The generated types come without descriptors, so the interface stands in a
//! [`table`] of our own, of names and numbers; tests hold it against the
//! generated types.

mod descriptors;
mod table;

use tonic_reflection::server::{Builder, v1, v1alpha};

/// Why there is no description.
pub(crate) type ReflectionError = Box<dyn std::error::Error + Send + Sync>;

/// The service in the version that tools ask for first.
pub(crate) fn v1() -> Result<v1::ServerReflectionServer<impl v1::ServerReflection>, ReflectionError>
{
    Ok(builder()?.build_v1()?)
}

/// The service in the version that older tools ask for.
pub(crate) fn v1alpha()
-> Result<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>, ReflectionError> {
    Ok(builder()?.build_v1alpha()?)
}

fn builder() -> Result<Builder<'static>, descriptors::TableError> {
    Ok(Builder::configure()
        .register_file_descriptor_set(descriptors::describe(table::FILES)?)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET))
}
