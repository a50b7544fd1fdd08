//! `grpc.reflection`: the description of the services, for tools such as `grpcurl`.

use tonic_reflection::server::{Builder, Error, v1, v1alpha};

/// The service in the version that tools ask for first.
///
/// # Errors
/// The checked-in descriptors cannot be decoded.
pub(crate) fn v1() -> Result<v1::ServerReflectionServer<impl v1::ServerReflection>, Error> {
    builder().build_v1()
}

/// The service in the version that older tools ask for.
///
/// # Errors
/// As [`v1`].
pub(crate) fn v1alpha()
-> Result<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>, Error> {
    builder().build_v1alpha()
}

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_can_be_served() {
        assert!(v1().is_ok() && v1alpha().is_ok());
    }
}
