//! `SplitBlob` and `SpliceBlob`: large blobs as chunks.

use anyhow::ensure;
use testkit::proto::chunking_function::Value as Chunking;
use testkit::{Digest, proto};
use tonic::{Code, Status};

use crate::check::{Check, Outcome, must, skip};
use crate::expect::{refused, refused_somehow, same, same_bytes};
use crate::server::{Server, noise, unique};

pub(crate) const CHECKS: &[Check] = &[
    must!(
        chunks_make_the_blob,
        "ContentAddressableStorage.SplitBlob",
        "Concatenating the blob chunks in the order of the digest list returned by the server results in the original blob."
    ),
    must!(
        chunks_are_in_the_cas,
        "ContentAddressableStorage.SplitBlob",
        "The blob chunks are stored in CAS."
    ),
    must!(
        a_small_blob_is_split_too,
        "SplitBlobResponse.chunk_digests",
        "The original blob is assembled by concatenating the chunk data according to the order of the digests given by this list."
    ),
    must!(
        a_missing_blob_is_not_split,
        "ContentAddressableStorage.SplitBlob",
        "`NOT_FOUND`: The requested blob is not present in the CAS, OR there is no split information available for the blob"
    ),
    must!(
        no_function_is_taken_when_splitting,
        "ChunkingFunction.Value",
        "Servers MUST always accept this value."
    ),
    must!(
        equal_parts_are_equal_chunks,
        "ContentAddressableStorage.SplitBlob",
        "blobs SHOULD be split in a content-defined way, rather than with fixed-sized chunking."
    ),
    must!(
        fast_cdc_chunks_have_their_sizes,
        "FastCdc2020Params",
        "The minimum and maximum chunk sizes MUST be derived from the average:"
    ),
    must!(
        rep_max_cdc_chunks_have_their_sizes,
        "RepMaxCdcParams.min_chunk_size_bytes",
        "All chunks will be in the range [min_chunk_size_bytes, 2*min_chunk_size_bytes)."
    ),
    must!(
        spliced_chunks_are_the_blob,
        "ContentAddressableStorage.SpliceBlob",
        "SpliceBlob tells the CAS how chunks can compose a blob."
    ),
    must!(
        a_splice_tells_the_digest,
        "SpliceBlobResponse.blob_digest",
        "Computed digest of the spliced blob."
    ),
    must!(
        other_chunks_are_refused,
        "ContentAddressableStorage.SpliceBlob",
        "`INVALID_ARGUMENT`: The digest of the spliced blob is different from the provided expected digest."
    ),
    must!(
        refused_chunks_make_no_blob,
        "ContentAddressableStorage.SpliceBlob",
        "In particular, servers MUST NOT trust digests provided by the client."
    ),
    must!(
        a_missing_chunk_is_not_found,
        "ContentAddressableStorage.SpliceBlob",
        "`NOT_FOUND`: At least one of the blob chunks is not present in the CAS."
    ),
    must!(
        a_blob_that_is_there_is_spliced_again,
        "ContentAddressableStorage.SpliceBlob",
        "The server MAY accept a request as no-op if the client-specified blob is already in CAS"
    ),
    must!(
        a_splice_without_a_digest_is_refused,
        "SpliceBlobRequest.blob_digest",
        "The client MUST set this field due to the following reasons:"
    ),
    must!(
        no_function_is_taken_when_splicing,
        "ChunkingFunction.Value",
        "Servers MUST always accept this value."
    ),
    must!(
        a_spliced_blob_is_split,
        "SpliceBlobRequest.chunk_digests",
        "The ordered list of digests of the chunks which need to be concatenated to assemble the original blob."
    ),
];

async fn split(
    server: &Server,
    blob: &Digest,
    chunking: Chunking,
) -> Result<proto::SplitBlobResponse, Status> {
    let request = proto::SplitBlobRequest {
        instance_name: server.client.instance().to_owned(),
        blob_digest: Some(blob.to_proto()),
        digest_function: blob.function().to_proto(),
        chunking_function: chunking.into(),
    };
    Ok(server.client.cas().split_blob(request).await?.into_inner())
}

async fn splice(
    server: &Server,
    blob: Option<&Digest>,
    chunks: &[Digest],
) -> Result<proto::SpliceBlobResponse, Status> {
    let request = proto::SpliceBlobRequest {
        instance_name: server.client.instance().to_owned(),
        blob_digest: blob.map(Digest::to_proto),
        chunk_digests: chunks.iter().map(Digest::to_proto).collect(),
        digest_function: server.client.function().to_proto(),
        ..Default::default()
    };
    Ok(server.client.cas().splice_blob(request).await?.into_inner())
}

fn splits(server: &Server) -> Outcome {
    if server.cache()?.split_blob_support { Ok(()) } else { skip("split_blob_support is false") }
}

fn splices(server: &Server) -> Outcome {
    if server.cache()?.splice_blob_support { Ok(()) } else { skip("splice_blob_support is false") }
}

/// Stores a blob of any size.
async fn store(server: &Server, data: &[u8]) -> anyhow::Result<Digest> {
    let digest = server.client.digest(data);
    let name = super::byte_stream::upload_name(server, &digest);
    server.client.write(&name, data, 1 << 20).await?;
    Ok(digest)
}

fn digests(server: &Server, response: &proto::SplitBlobResponse) -> anyhow::Result<Vec<Digest>> {
    let parse = |it| Digest::from_proto(it, server.client.function());
    Ok(response.chunk_digests.iter().map(parse).collect::<Result<_, _>>()?)
}

/// Large enough for several chunks of any average that is allowed.
const LARGE: usize = 9 << 20;

async fn chunks_make_the_blob(server: Server) -> Outcome {
    splits(&server)?;
    let data = noise(LARGE);
    let blob = store(&server, &data).await?;
    let mut joined = Vec::new();
    for chunk in digests(&server, &split(&server, &blob, Chunking::Unknown).await?)? {
        joined.extend(server.client.get(&chunk).await?);
    }
    same_bytes("the chunks", &joined, &data)
}

async fn chunks_are_in_the_cas(server: Server) -> Outcome {
    splits(&server)?;
    let blob = store(&server, &noise(LARGE)).await?;
    let chunks = digests(&server, &split(&server, &blob, Chunking::Unknown).await?)?;
    ensure!(!chunks.is_empty(), "no chunk");
    same("missing", server.client.missing(&chunks).await?, vec![])
}

async fn a_small_blob_is_split_too(server: Server) -> Outcome {
    splits(&server)?;
    let data = unique("small");
    let blob = store(&server, &data).await?;
    let mut joined = Vec::new();
    for chunk in digests(&server, &split(&server, &blob, Chunking::Unknown).await?)? {
        joined.extend(server.client.get(&chunk).await?);
    }
    same_bytes("the chunks", &joined, &data)
}

async fn a_missing_blob_is_not_split(server: Server) -> Outcome {
    splits(&server)?;
    let absent = server.client.digest(unique("absent"));
    refused(split(&server, &absent, Chunking::Unknown).await, &[Code::NotFound])?;
    Ok(())
}

async fn no_function_is_taken_when_splitting(server: Server) -> Outcome {
    splits(&server)?;
    let blob = store(&server, &noise(LARGE)).await?;
    split(&server, &blob, Chunking::Unknown).await?;
    Ok(())
}

/// Two blobs that differ by a few bytes at their start.
async fn equal_parts_are_equal_chunks(server: Server) -> Outcome {
    splits(&server)?;
    let data = noise(LARGE);
    let one = store(&server, &data).await?;
    let other = store(&server, &[b"a few more bytes".as_slice(), &data].concat()).await?;
    let one = digests(&server, &split(&server, &one, Chunking::Unknown).await?)?;
    let other = digests(&server, &split(&server, &other, Chunking::Unknown).await?)?;
    let shared = other.iter().filter(|chunk| one.contains(chunk)).count();
    ensure!(shared * 2 > other.len(), "{shared} of {} chunks are shared", other.len());
    Ok(())
}

async fn sizes(server: &Server, chunking: Chunking) -> anyhow::Result<Option<Vec<u64>>> {
    let blob = store(server, &noise(LARGE)).await?;
    let response = split(server, &blob, chunking).await?;
    if response.chunking_function != i32::from(chunking) {
        return Ok(None);
    }
    Ok(Some(digests(server, &response)?.iter().map(Digest::size_bytes).collect()))
}

async fn fast_cdc_chunks_have_their_sizes(server: Server) -> Outcome {
    splits(&server)?;
    let Some(parameters) = &server.cache()?.fast_cdc_2020_params else {
        return skip("no fast_cdc_2020_params are announced");
    };
    let average = parameters.avg_chunk_size_bytes;
    let Some(sizes) = sizes(&server, Chunking::FastCdc2020).await? else {
        return skip("the server chose another chunking function");
    };
    let (last, rest) = sizes.split_last().unwrap_or((&0, &[]));
    ensure!(*last <= average * 4, "the last chunk has {last} bytes");
    for size in rest {
        ensure!((average / 4..=average * 4).contains(size), "a chunk of {size} bytes");
    }
    Ok(())
}

async fn rep_max_cdc_chunks_have_their_sizes(server: Server) -> Outcome {
    splits(&server)?;
    let Some(parameters) = &server.cache()?.rep_max_cdc_params else {
        return skip("no rep_max_cdc_params are announced");
    };
    let minimum = parameters.min_chunk_size_bytes;
    let Some(sizes) = sizes(&server, Chunking::RepMaxCdc).await? else {
        return skip("the server chose another chunking function");
    };
    for size in sizes {
        ensure!((minimum..minimum * 2).contains(&size), "a chunk of {size} bytes");
    }
    Ok(())
}

/// Stores chunks, and gives their digests and the blob that they make.
async fn chunks(server: &Server) -> anyhow::Result<(Vec<Digest>, Vec<u8>)> {
    splices(server)?;
    let parts = [noise(100_000), noise(50_000), noise(200_000)];
    server.client.put_all(parts.clone()).await?;
    Ok((parts.iter().map(|part| server.client.digest(part)).collect(), parts.concat()))
}

async fn spliced_chunks_are_the_blob(server: Server) -> Outcome {
    let (chunks, data) = chunks(&server).await?;
    let digest = server.client.digest(&data);
    splice(&server, Some(&digest), &chunks).await?;
    same("missing", server.client.missing(&[digest]).await?, vec![])?;
    same_bytes("it", &server.client.get(&digest).await?, &data)
}

async fn a_splice_tells_the_digest(server: Server) -> Outcome {
    let (chunks, data) = chunks(&server).await?;
    let digest = server.client.digest(&data);
    let answer = splice(&server, Some(&digest), &chunks).await?;
    same("blob_digest", answer.blob_digest, Some(digest.to_proto()))
}

async fn other_chunks_are_refused(server: Server) -> Outcome {
    let (mut chunks, data) = chunks(&server).await?;
    chunks.swap(0, 1);
    let digest = server.client.digest(&data);
    refused(splice(&server, Some(&digest), &chunks).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn refused_chunks_make_no_blob(server: Server) -> Outcome {
    let (mut chunks, data) = chunks(&server).await?;
    chunks.swap(0, 1);
    let digest = server.client.digest(&data);
    refused_somehow(splice(&server, Some(&digest), &chunks).await)?;
    same("missing", server.client.missing(&[digest]).await?, vec![digest])
}

async fn a_missing_chunk_is_not_found(server: Server) -> Outcome {
    let (mut chunks, data) = chunks(&server).await?;
    let absent = noise(1000);
    chunks.push(server.client.digest(&absent));
    let digest = server.client.digest([data, absent].concat());
    refused(splice(&server, Some(&digest), &chunks).await, &[Code::NotFound])?;
    Ok(())
}

async fn a_blob_that_is_there_is_spliced_again(server: Server) -> Outcome {
    let (chunks, data) = chunks(&server).await?;
    let digest = store(&server, &data).await?;
    if let Err(status) = splice(&server, Some(&digest), &chunks).await {
        refused::<()>(Err(status), &[Code::AlreadyExists])?;
    }
    same_bytes("it", &server.client.get(&digest).await?, &data)
}

async fn a_splice_without_a_digest_is_refused(server: Server) -> Outcome {
    let (chunks, _) = chunks(&server).await?;
    refused(splice(&server, None, &chunks).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn no_function_is_taken_when_splicing(server: Server) -> Outcome {
    let (chunks, data) = chunks(&server).await?;
    splice(&server, Some(&server.client.digest(&data)), &chunks).await?;
    Ok(())
}

async fn a_spliced_blob_is_split(server: Server) -> Outcome {
    splits(&server)?;
    let (chunks, data) = chunks(&server).await?;
    let digest = server.client.digest(&data);
    splice(&server, Some(&digest), &chunks).await?;
    let response = split(&server, &digest, Chunking::Unknown).await?;
    let mut joined = Vec::new();
    for chunk in digests(&server, &response)? {
        joined.extend(server.client.get(&chunk).await?);
    }
    same_bytes("the chunks", &joined, &data)
}
