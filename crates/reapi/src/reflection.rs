//! `grpc.reflection`: the description of the services, for tools such as `grpcurl`.
//!
//! Methods of the API that this server does not serve are left out of it.

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic_reflection::server::{Builder, Error, v1, v1alpha};

/// The service in the version that tools ask for first.
///
/// # Errors
/// The checked-in descriptors cannot be decoded.
pub(crate) fn v1() -> Result<v1::ServerReflectionServer<impl v1::ServerReflection>, Error> {
    builder()?.build_v1()
}

/// The service in the version that older tools ask for.
///
/// # Errors
/// As [`v1`].
pub(crate) fn v1alpha()
-> Result<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>, Error> {
    builder()?.build_v1alpha()
}

/// Methods of the `.proto` files that are not served: service, method.
const NOT_SERVED: [(&str, &str); 2] =
    [("ContentAddressableStorage", "SplitBlob"), ("ContentAddressableStorage", "SpliceBlob")];

/// The descriptors of what is served.
///
/// # Errors
/// The checked-in descriptors cannot be decoded.
fn served() -> Result<FileDescriptorSet, prost::DecodeError> {
    let mut files = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET)?;
    for service in files.file.iter_mut().flat_map(|file| &mut file.service) {
        let name = service.name().to_owned();
        service.method.retain(|method| !NOT_SERVED.contains(&(&name, method.name())));
    }
    Ok(files)
}

fn builder() -> Result<Builder<'static>, Error> {
    Ok(Builder::configure()
        .register_file_descriptor_set(served()?)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_can_be_served() {
        assert!(v1().is_ok() && v1alpha().is_ok());
    }

    #[test]
    fn methods_that_are_not_served_are_not_announced() {
        let count = |files: FileDescriptorSet| {
            files
                .file
                .iter()
                .flat_map(|file| &file.service)
                .map(|it| it.method.len())
                .sum::<usize>()
        };
        let all = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
        assert_eq!(count(served().unwrap()) + NOT_SERVED.len(), count(all));
    }
}
