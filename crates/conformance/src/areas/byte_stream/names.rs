//! The names of resources.

use testkit::DigestFunction;
use tonic::Code;
use uuid::Uuid;

use super::requests::{fresh, message, upload_name};
use crate::check::{Check, Outcome, must, skip};
use crate::expect::{refused, same, same_bytes};
use crate::server::{Server, noise};

pub(super) const CHECKS: &[Check] = &[
    must!(
        metadata_in_the_name_is_ignored,
        "ContentAddressableStorage",
        "`optional_metadata` is implementation specific data, which clients MAY omit."
    ),
    must!(
        a_uuid_is_reused,
        "ContentAddressableStorage",
        "Clients MAY reuse the same `uuid` for uploading different blobs."
    ),
    must!(
        a_function_in_the_name_is_read,
        "ContentAddressableStorage",
        "`digest_function` is a lowercase string form of a `DigestFunction.Value` enum, indicating which digest function was used to compute `hash`."
    ),
    must!(
        a_name_of_another_form_is_refused,
        "ContentAddressableStorage",
        "For uncompressed data, the `WriteRequest.resource_name` is of the following form:"
    ),
    must!(
        a_read_of_another_form_is_refused,
        "ContentAddressableStorage",
        "For uncompressed data, the `ReadRequest.resource_name` is of the following form:"
    ),
];

async fn metadata_in_the_name_is_ignored(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 100);
    server.client.write(&format!("{name}/some/file.txt"), &data, 100).await?;
    same("missing", server.client.missing(&[digest]).await?, vec![])
}

async fn a_uuid_is_reused(server: Server) -> Outcome {
    for _ in 0..2 {
        let (data, digest, _) = fresh(&server, 100);
        // The fixed UUID of the test kit.
        server.client.write(&server.client.upload_name(&digest), &data, 100).await?;
        same("missing", server.client.missing(&[digest]).await?, vec![])?;
    }
    Ok(())
}

async fn a_function_in_the_name_is_read(server: Server) -> Outcome {
    let named = |function: &DigestFunction| *function != DigestFunction::Sha256;
    let Some(function) = server.functions().into_iter().find(named) else {
        return skip("no function that stands in names is announced and known here");
    };
    let client = server.client.with_function(function);
    let data = noise(1000);
    let digest = client.digest(&data);
    client.write(&upload_name(&server, &digest), &data, 100).await?;
    same_bytes("it", &client.get(&digest).await?, &data)
}

async fn a_name_of_another_form_is_refused(server: Server) -> Outcome {
    let hash = "0".repeat(64);
    let uuid = Uuid::new_v4();
    for name in [
        format!("blobs/{hash}/4"),
        format!("uploads/{uuid}/{hash}/4"),
        format!("uploads/{uuid}/blobs/{hash}"),
        format!("uploads/{uuid}/blobs/{hash}/x"),
        format!("uploads/{uuid}/blobs/{hash}/-4"),
    ] {
        let answer = server.client.write_messages(vec![message(&name, 0, b"data", true)]).await;
        refused(answer, &[Code::InvalidArgument, Code::NotFound])?;
    }
    Ok(())
}

async fn a_read_of_another_form_is_refused(server: Server) -> Outcome {
    let hash = "0".repeat(64);
    for name in [
        String::new(),
        format!("blobs/{hash}"),
        format!("blobs/{hash}/x"),
        format!("blobs/{hash}/-4"),
        format!("blobs/{}/4", &hash[1..]),
    ] {
        let answer = server.client.read(&name, 0, 0).await;
        refused(answer, &[Code::InvalidArgument, Code::NotFound])?;
    }
    Ok(())
}
