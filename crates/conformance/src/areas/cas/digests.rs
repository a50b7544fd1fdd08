//! The parts of a digest: hash, size and function.

use anyhow::ensure;
use testkit::proto;
use tonic::Code;

use super::requests::{find, read_request, resized, upload};
use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::{item_code, only, refused, refused_somehow, same, same_bytes};
use crate::server::{Server, unique};

pub(super) const CHECKS: &[Check] = &[
    must!(
        a_hash_with_another_size_is_missing,
        "Digest",
        "That is, even if the `hash` field is correctly specified but `size_bytes` is not, the server MUST reject the request."
    ),
    must!(
        a_hash_with_another_size_is_not_read_in_a_batch,
        "Digest",
        "That is, even if the `hash` field is correctly specified but `size_bytes` is not, the server MUST reject the request."
    ),
    must!(
        a_hash_with_another_size_is_not_read_as_a_stream,
        "Digest",
        "That is, even if the `hash` field is correctly specified but `size_bytes` is not, the server MUST reject the request."
    ),
    must!(a_negative_size_is_refused, "Digest.size_bytes", "The size of the blob, in bytes."),
    should!(
        a_short_hash_is_refused,
        "Digest.hash",
        "The hash, represented as a lowercase hexadecimal string, padded with leading zeroes up to the hash function length."
    ),
    should!(
        a_hash_in_upper_case_is_no_digest,
        "Digest.hash",
        "The hash, represented as a lowercase hexadecimal string, padded with leading zeroes up to the hash function length."
    ),
    should!(
        a_hash_that_is_not_hexadecimal_is_refused,
        "Digest.hash",
        "The hash, represented as a lowercase hexadecimal string, padded with leading zeroes up to the hash function length."
    ),
    should!(
        the_digest_function_is_inferred_when_asking,
        "FindMissingBlobsRequest.digest_function",
        "In that case the server SHOULD infer the digest function using the length of the blob digest hashes and the digest functions announced in the server's capabilities."
    ),
    should!(
        the_digest_function_is_inferred_when_storing,
        "BatchUpdateBlobsRequest.digest_function",
        "In that case the server SHOULD infer the digest function using the length of the blob digest hashes and the digest functions announced in the server's capabilities."
    ),
    should!(
        the_digest_function_is_inferred_when_reading,
        "BatchReadBlobsRequest.digest_function",
        "In that case the server SHOULD infer the digest function using the length of the blob digest hashes and the digest functions announced in the server's capabilities."
    ),
    must!(
        every_announced_digest_function_stores,
        "CacheCapabilities.digest_functions",
        "Remote cache may support multiple digest functions simultaneously."
    ),
    must!(
        blobs_of_functions_are_apart,
        "FindMissingBlobsRequest.digest_function",
        "The digest function of the blobs whose existence is checked."
    ),
];

async fn a_hash_with_another_size_is_missing(server: Server) -> Outcome {
    let digest = resized(server.client.put(unique("stored")).await?);
    match find(&server, vec![digest.clone()]).await {
        Ok(missing) => same("missing", missing, vec![digest]),
        Err(status) => refused_somehow::<()>(Err(status)).map(|_| ()),
    }
}

async fn a_hash_with_another_size_is_not_read_in_a_batch(server: Server) -> Outcome {
    let digest = resized(server.client.put(unique("stored")).await?);
    let message = read_request(&server, vec![digest]);
    match server.client.cas().batch_read_blobs(message).await {
        Ok(response) => {
            let response = only(response.into_inner().responses, "response")?;
            let code = item_code(response.status.as_ref());
            ensure!(code != Code::Ok, "it is read");
            Ok(())
        }
        Err(status) => refused_somehow::<()>(Err(status)).map(|_| ()),
    }
}

async fn a_hash_with_another_size_is_not_read_as_a_stream(server: Server) -> Outcome {
    let digest = server.client.put(unique("stored")).await?;
    let name = server.client.download_name(&digest);
    let (stem, size) = name.rsplit_once('/').unwrap_or_default();
    let name = format!("{stem}/{}", size.parse::<u64>()? + 1);
    let read = server.client.read(&name, 0, 0).await;
    refused(read, &[Code::NotFound, Code::InvalidArgument, Code::FailedPrecondition])?;
    Ok(())
}

async fn a_negative_size_is_refused(server: Server) -> Outcome {
    let digest = server.client.digest(unique("negative")).to_proto();
    let digest = proto::Digest { size_bytes: -1, ..digest };
    refused(find(&server, vec![digest]).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn bad_hash(server: &Server, change: impl FnOnce(String) -> String) -> Outcome {
    let digest = server.client.put(unique("hash")).await?.to_proto();
    let digest = proto::Digest { hash: change(digest.hash), ..digest };
    refused(find(server, vec![digest]).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn a_short_hash_is_refused(server: Server) -> Outcome {
    bad_hash(&server, |hash| hash[1..].to_owned()).await
}

async fn a_hash_that_is_not_hexadecimal_is_refused(server: Server) -> Outcome {
    bad_hash(&server, |hash| format!("g{}", &hash[1..])).await
}

async fn a_hash_in_upper_case_is_no_digest(server: Server) -> Outcome {
    // About one hash in 10^13 has no letter.
    let digest = server.client.put(unique("hash")).await?.to_proto();
    let digest = proto::Digest { hash: digest.hash.to_uppercase(), ..digest };
    match find(&server, vec![digest.clone()]).await {
        Ok(missing) => same("missing", missing, vec![digest]),
        Err(status) => refused_somehow::<()>(Err(status)).map(|_| ()),
    }
}

async fn the_digest_function_is_inferred_when_asking(server: Server) -> Outcome {
    server.infers()?;
    let stored = server.client.put(unique("stored")).await?;
    let absent = server.client.digest(unique("absent"));
    let message = proto::FindMissingBlobsRequest {
        instance_name: server.client.instance().to_owned(),
        blob_digests: vec![stored.to_proto(), absent.to_proto()],
        ..Default::default()
    };
    let answer = server.client.cas().find_missing_blobs(message).await?.into_inner();
    same("missing", answer.missing_blob_digests, vec![absent.to_proto()])
}

async fn the_digest_function_is_inferred_when_storing(server: Server) -> Outcome {
    server.infers()?;
    let data = unique("stored");
    let digest = server.client.digest(&data);
    let message = proto::BatchUpdateBlobsRequest {
        instance_name: server.client.instance().to_owned(),
        requests: vec![upload(digest, data)],
        ..Default::default()
    };
    let answer = server.client.cas().batch_update_blobs(message).await?.into_inner();
    let response = only(answer.responses, "response")?;
    same("the code", item_code(response.status.as_ref()), Code::Ok)?;
    same("missing", server.client.missing(&[digest]).await?, vec![])
}

async fn the_digest_function_is_inferred_when_reading(server: Server) -> Outcome {
    server.infers()?;
    let data = unique("stored");
    let digest = server.client.put(data.clone()).await?;
    let message = proto::BatchReadBlobsRequest {
        digest_function: 0,
        ..read_request(&server, vec![digest.to_proto()])
    };
    let answer = server.client.cas().batch_read_blobs(message).await?.into_inner();
    same_bytes("it", &only(answer.responses, "response")?.data, &data)
}

async fn every_announced_digest_function_stores(server: Server) -> Outcome {
    for function in server.functions() {
        let client = server.client.with_function(function);
        let data = unique("stored");
        let digest = client.put(data.clone()).await?;
        same_bytes(&function.to_string(), &client.get(&digest).await?, &data)?;
    }
    Ok(())
}

async fn blobs_of_functions_are_apart(server: Server) -> Outcome {
    let functions = server.functions();
    let [one, other, ..] = functions[..] else {
        return skip("fewer than two announced digest functions are known here");
    };
    let digest = server.client.with_function(one).put(unique("stored")).await?.to_proto();
    // The same hash under the other function is the hash of nothing.
    let client = server.client.with_function(other);
    let message = proto::FindMissingBlobsRequest {
        instance_name: client.instance().to_owned(),
        blob_digests: vec![digest.clone()],
        digest_function: other.to_proto(),
    };
    match client.cas().find_missing_blobs(message).await {
        Ok(answer) => same("missing", answer.into_inner().missing_blob_digests, vec![digest]),
        Err(status) => refused_somehow::<()>(Err(status)).map(|_| ()),
    }
}
