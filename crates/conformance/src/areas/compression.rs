//! Compressed blobs of `ByteStream`, and compressed messages of all methods.

use anyhow::ensure;
use testkit::google::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use testkit::{Compressor, Digest, proto};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};

use super::byte_stream::nothing_is_committed;
use crate::check::{Check, Outcome, must, should};
use crate::expect::{refused, refused_somehow, same, same_bytes};
use crate::server::{Server, noise, unique};

pub(crate) const CHECKS: &[Check] = &[
    must!(
        a_compressed_upload_is_stored,
        "ContentAddressableStorage",
        "Data can alternatively be uploaded in compressed form, with the following `WriteRequest.resource_name` form:"
    ),
    must!(
        a_compressed_upload_tells_a_size,
        "WriteResponse.committed_size",
        "The number of bytes that have been processed for the given resource."
    ),
    must!(
        a_compressed_upload_in_pieces_is_stored,
        "ContentAddressableStorage",
        "In subsequent requests, `WriteRequest.write_offset` MUST be the sum of the first request's 'WriteRequest.write_offset' and the total size of all the compressed data bundles in the previous requests."
    ),
    must!(
        compressed_content_is_verified,
        "ContentAddressableStorage",
        "Servers MUST verify that these match the uploaded data once uncompressed, and MUST return an `INVALID_ARGUMENT` error in the case of mismatch."
    ),
    must!(
        a_compressed_size_is_verified,
        "ContentAddressableStorage",
        "Servers MUST verify that these match the uploaded data once uncompressed, and MUST return an `INVALID_ARGUMENT` error in the case of mismatch."
    ),
    must!(
        data_that_is_not_compressed_is_refused,
        "ContentAddressableStorage",
        "Servers MUST verify that these match the uploaded data once uncompressed, and MUST return an `INVALID_ARGUMENT` error in the case of mismatch."
    ),
    must!(
        half_a_stream_is_refused,
        "ContentAddressableStorage",
        "Servers MUST verify that these match the uploaded data once uncompressed, and MUST return an `INVALID_ARGUMENT` error in the case of mismatch."
    ),
    must!(
        much_from_little_is_refused,
        "ContentAddressableStorage",
        "Servers MUST verify that these match the uploaded data once uncompressed, and MUST return an `INVALID_ARGUMENT` error in the case of mismatch."
    ),
    must!(
        a_blob_that_is_there_ends_its_compressed_upload,
        "ContentAddressableStorage",
        "with a response whose `committed_size` is the value `-1` if this is a compressed upload"
    ),
    must!(
        a_compressed_download_is_the_blob,
        "ContentAddressableStorage",
        "Servers MUST be able to provide data for all recently advertised blobs in each of the compression formats that the server supports, as well as in uncompressed form."
    ),
    must!(
        a_compressed_download_of_noise_is_the_blob,
        "ContentAddressableStorage",
        "Servers MAY use any compression level they choose, including different levels for different blobs"
    ),
    must!(
        a_compressed_upload_is_read_uncompressed,
        "ContentAddressableStorage",
        "Servers MUST be able to provide data for all recently advertised blobs in each of the compression formats that the server supports, as well as in uncompressed form."
    ),
    must!(
        the_empty_blob_is_read_compressed,
        "ContentAddressableStorage",
        "Servers MUST behave as though empty blobs are always available, even if they have not been uploaded."
    ),
    must!(
        a_compressed_download_starts_at_its_offset,
        "ContentAddressableStorage",
        "`ReadRequest.read_offset` refers to the offset in the uncompressed form of the blob."
    ),
    must!(
        a_compressed_download_beyond_the_end_is_out_of_range,
        "ReadRequest.read_offset",
        "A `read_offset` that is negative or greater than the size of the resource will cause an `OUT_OF_RANGE` error."
    ),
    must!(
        a_compressed_download_has_no_limit,
        "ContentAddressableStorage",
        "Servers MUST return `INVALID_ARGUMENT` if `ReadRequest.read_limit` is non-zero."
    ),
    must!(
        an_unknown_blob_is_not_found_compressed,
        "ByteStream.Read",
        "`Read()` is used to retrieve the contents of a resource as a sequence of bytes."
    ),
    must!(
        a_compressor_that_is_not_announced_is_refused_in_an_upload,
        "ContentAddressableStorage",
        "other than `identity`, which is supported by the server and advertised in"
    ),
    must!(
        a_compressor_that_is_not_announced_is_refused_in_a_download,
        "ContentAddressableStorage",
        "other than `identity`, which is supported by the server and advertised in"
    ),
    must!(
        a_status_of_a_compressed_blob_is_complete,
        "QueryWriteStatusResponse.complete",
        "`complete` is `true` only if the client has sent a `WriteRequest` with `finish_write` set to true, and the server has processed that request."
    ),
    must!(
        a_status_of_no_compressed_blob_is_not_found,
        "ByteStream.QueryWriteStatus",
        "If the resource does not exist (i.e., the resource has been deleted, or the first `Write()` has not yet reached the service), this method returns the error `NOT_FOUND`."
    ),
    should!(
        messages_compressed_with_gzip_are_read,
        "ContentAddressableStorage",
        "Clients SHOULD NOT use gRPC-level compression for ByteStream API `Write` calls of compressed blobs, since this would compress already-compressed data."
    ),
    should!(
        messages_compressed_with_zstd_are_read,
        "ContentAddressableStorage",
        "Clients SHOULD NOT use gRPC-level compression for ByteStream API `Write` calls of compressed blobs, since this would compress already-compressed data."
    ),
    must!(
        a_compressed_message_is_bounded,
        "CacheCapabilities.max_batch_total_size_bytes",
        "Maximum total size of blobs to be uploaded/downloaded using batch methods."
    ),
];

fn text() -> Vec<u8> {
    unique("text that compresses ").repeat(2000)
}

async fn write(server: &Server, digest: &Digest, data: &[u8], chunk: usize) -> Result<i64, Status> {
    server.client.write(&server.compressed_names(digest, "zstd").0, data, chunk).await
}

/// Uploads a blob that no server has seen, and returns the size of its compressed form and the answer.
async fn uploaded(server: &Server, data: &[u8], chunk: usize) -> anyhow::Result<(usize, i64)> {
    server.streams(Compressor::Zstd)?;
    let packed = zstd::stream::encode_all(data, 3)?;
    let committed = write(server, &server.client.digest(data), &packed, chunk).await?;
    Ok((packed.len(), committed))
}

async fn downloaded(server: &Server, data: &[u8], offset: i64) -> anyhow::Result<Vec<u8>> {
    server.streams(Compressor::Zstd)?;
    let name = server.compressed_names(&server.client.digest(data), "zstd").1;
    let packed = server.client.read(&name, offset, 0).await?;
    Ok(zstd::stream::decode_all(packed.as_slice())?)
}

async fn refuses(server: &Server, digest: &Digest, data: &[u8]) -> Outcome {
    server.streams(Compressor::Zstd)?;
    refused(write(server, digest, data, 100_000).await, &[Code::InvalidArgument])?;
    same("missing", server.client.missing(&[*digest]).await?, vec![*digest])
}

async fn a_compressed_upload_is_stored(server: Server) -> Outcome {
    let data = text();
    uploaded(&server, &data, 1 << 20).await?;
    same("missing", server.client.missing(&[server.client.digest(&data)]).await?, vec![])
}

async fn a_compressed_upload_tells_a_size(server: Server) -> Outcome {
    let data = text();
    let (packed, committed) = uploaded(&server, &data, 1 << 20).await?;
    // Clients compare it with what they sent; -1 stands for a blob that came from elsewhere meanwhile.
    ensure!(
        committed == packed as i64 || committed == -1,
        "committed_size is {committed} after {packed} bytes"
    );
    Ok(())
}

async fn a_compressed_upload_in_pieces_is_stored(server: Server) -> Outcome {
    let data = [text(), noise(10_000)].concat();
    uploaded(&server, &data, 100).await?;
    same_bytes("it", &server.client.get(&server.client.digest(&data)).await?, &data)
}

async fn compressed_content_is_verified(server: Server) -> Outcome {
    let (promised, sent) = (noise(1000), noise(1000));
    let packed = zstd::stream::encode_all(sent.as_slice(), 3)?;
    refuses(&server, &server.client.digest(promised), &packed).await
}

async fn a_compressed_size_is_verified(server: Server) -> Outcome {
    let data = text();
    let packed = zstd::stream::encode_all(&data[..data.len() - 1], 3)?;
    refuses(&server, &server.client.digest(data), &packed).await
}

async fn data_that_is_not_compressed_is_refused(server: Server) -> Outcome {
    let data = noise(1000);
    refuses(&server, &server.client.digest(&data), &data).await
}

async fn half_a_stream_is_refused(server: Server) -> Outcome {
    let data = noise(100_000);
    let packed = zstd::stream::encode_all(data.as_slice(), 3)?;
    refuses(&server, &server.client.digest(&data), &packed[..packed.len() / 2]).await
}

async fn much_from_little_is_refused(server: Server) -> Outcome {
    let packed = zstd::stream::encode_all(vec![0; 32 << 20].as_slice(), 3)?;
    refuses(&server, &server.client.digest(unique("little")), &packed).await
}

async fn a_blob_that_is_there_ends_its_compressed_upload(server: Server) -> Outcome {
    server.streams(Compressor::Zstd)?;
    let data = unique("stored");
    server.client.put(data.clone()).await?;
    let (_, committed) = uploaded(&server, &data, 1 << 20).await?;
    same("committed_size", committed, -1)
}

async fn a_compressed_download_is_the_blob(server: Server) -> Outcome {
    let data = text();
    server.client.put(data.clone()).await?;
    same_bytes("it", &downloaded(&server, &data, 0).await?, &data)
}

async fn a_compressed_download_of_noise_is_the_blob(server: Server) -> Outcome {
    let data = noise(300_000);
    server.client.put(data.clone()).await?;
    same_bytes("it", &downloaded(&server, &data, 0).await?, &data)
}

async fn a_compressed_upload_is_read_uncompressed(server: Server) -> Outcome {
    let data = text();
    uploaded(&server, &data, 1 << 20).await?;
    same_bytes("it", &server.client.get(&server.client.digest(&data)).await?, &data)
}

async fn the_empty_blob_is_read_compressed(server: Server) -> Outcome {
    server.streams(Compressor::Zstd)?;
    let name = server.compressed_names(&server.client.digest(b""), "zstd").1;
    let packed = server.client.read(&name, 0, 0).await?;
    // An empty stream and a frame of nothing both unpack to nothing.
    same_bytes("it", &zstd::stream::decode_all(packed.as_slice())?, b"")
}

async fn a_compressed_download_starts_at_its_offset(server: Server) -> Outcome {
    let data = text();
    server.client.put(data.clone()).await?;
    same_bytes("it", &downloaded(&server, &data, 1000).await?, &data[1000..])
}

async fn a_compressed_download_beyond_the_end_is_out_of_range(server: Server) -> Outcome {
    server.streams(Compressor::Zstd)?;
    let data = unique("stored");
    let digest = server.client.put(data.clone()).await?;
    let name = server.compressed_names(&digest, "zstd").1;
    let read = server.client.read(&name, data.len() as i64 + 1, 0).await;
    refused(read, &[Code::OutOfRange])?;
    Ok(())
}

async fn a_compressed_download_has_no_limit(server: Server) -> Outcome {
    server.streams(Compressor::Zstd)?;
    let digest = server.client.put(unique("stored")).await?;
    let name = server.compressed_names(&digest, "zstd").1;
    refused(server.client.read(&name, 0, 10).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn an_unknown_blob_is_not_found_compressed(server: Server) -> Outcome {
    server.streams(Compressor::Zstd)?;
    let name = server.compressed_names(&server.client.digest(unique("absent")), "zstd").1;
    refused(server.client.read(&name, 0, 0).await, &[Code::NotFound])?;
    Ok(())
}

/// A compressor that the server does not announce.
fn other_compressor(server: &Server) -> anyhow::Result<&'static str> {
    let announced = &server.cache()?.supported_compressors;
    let is_announced = |it: &Compressor| announced.contains(&i32::from(it.value()));
    let other = Compressor::ALL.into_iter().find(|it| !is_announced(it));
    // Where all are announced, one that the API does not have.
    Ok(other.map_or("snappy", Compressor::name))
}

async fn a_compressor_that_is_not_announced_is_refused_in_an_upload(server: Server) -> Outcome {
    let compressor = other_compressor(&server)?;
    let name = server.compressed_names(&server.client.digest(unique("new")), compressor).0;
    let first = WriteRequest {
        resource_name: name,
        finish_write: true,
        data: b"data".as_slice().into(),
        ..Default::default()
    };
    let answer = server.client.write_messages(vec![first]).await;
    unsupported(answer)
}

async fn a_compressor_that_is_not_announced_is_refused_in_a_download(server: Server) -> Outcome {
    let compressor = other_compressor(&server)?;
    let digest = server.client.put(unique("stored")).await?;
    unsupported(server.client.read(&server.compressed_names(&digest, compressor).1, 0, 0).await)
}

/// UNIMPLEMENTED is a fitting answer here, and no reason to skip.
fn unsupported<T>(answer: Result<T, Status>) -> Outcome {
    match answer {
        Err(status) if status.code() == Code::Unimplemented => Ok(()),
        answer => refused(answer, &[Code::InvalidArgument, Code::NotFound]).map(|_| ()),
    }
}

async fn a_status_of_a_compressed_blob_is_complete(server: Server) -> Outcome {
    server.streams(Compressor::Zstd)?;
    let data = text();
    let packed = zstd::stream::encode_all(data.as_slice(), 3)?;
    let (resource_name, _) = server.compressed_names(&server.client.digest(&data), "zstd");
    server.client.write(&resource_name, &packed, 1 << 20).await?;
    let request = QueryWriteStatusRequest { resource_name };
    let status = server.client.byte_stream().query_write_status(request).await?.into_inner();
    same("complete", status.complete, true)?;
    ensure!(status.committed_size >= 0, "committed_size is {}", status.committed_size);
    Ok(())
}

async fn a_status_of_no_compressed_blob_is_not_found(server: Server) -> Outcome {
    server.streams(Compressor::Zstd)?;
    let (resource_name, _) =
        server.compressed_names(&server.client.digest(unique("absent")), "zstd");
    let request = QueryWriteStatusRequest { resource_name };
    let answer = server.client.byte_stream().query_write_status(request).await;
    nothing_is_committed(answer.map(tonic::Response::into_inner))
}

/// Calls of all kinds with compressed messages. A server without that encoding says UNIMPLEMENTED, and so do
/// servers whose library has not heard of it.
async fn compressed_messages(server: &Server, encoding: CompressionEncoding) -> Outcome {
    let data = unique("text ").repeat(10_000);
    let digest = server.client.digest(&data);
    let mut cas = server.client.cas().send_compressed(encoding).accept_compressed(encoding);
    let update = proto::BatchUpdateBlobsRequest {
        instance_name: server.client.instance().to_owned(),
        requests: vec![proto::batch_update_blobs_request::Request {
            digest: Some(digest.to_proto()),
            data: data.clone().into(),
            ..Default::default()
        }],
        digest_function: server.client.function().to_proto(),
    };
    let answer = cas.batch_update_blobs(update).await?.into_inner();
    let code = answer.responses.first().and_then(|it| it.status.as_ref()).map_or(0, |it| it.code);
    same("the code", Code::from(code), Code::Ok)?;
    let read = proto::BatchReadBlobsRequest {
        instance_name: server.client.instance().to_owned(),
        digests: vec![digest.to_proto()],
        digest_function: server.client.function().to_proto(),
        ..Default::default()
    };
    let answer = cas.batch_read_blobs(read).await?.into_inner();
    let content = answer.responses.first().map(|it| it.data.to_vec()).unwrap_or_default();
    same_bytes("what a batch read", &content, &data)?;

    let stub = server.client.byte_stream();
    let mut stub = stub.send_compressed(encoding).accept_compressed(encoding);
    let data = unique("more ").repeat(100_000);
    let digest = server.client.digest(&data);
    let name = server.client.upload_name(&digest);
    let pieces = data.chunks(500_000).enumerate().map(|(number, piece)| WriteRequest {
        resource_name: if number == 0 { name.clone() } else { String::new() },
        write_offset: number as i64 * 500_000,
        finish_write: (number + 1) * 500_000 >= data.len(),
        data: piece.to_vec().into(),
    });
    let pieces: Vec<_> = pieces.collect();
    let committed = stub.write(tokio_stream::iter(pieces)).await?.into_inner().committed_size;
    same("committed_size", committed, data.len() as i64)?;
    let resource_name = server.client.download_name(&digest);
    let request = ReadRequest { resource_name, ..Default::default() };
    let mut stream = stub.read(request).await?.into_inner();
    let mut content = Vec::new();
    while let Some(message) = stream.message().await? {
        content.extend_from_slice(&message.data);
    }
    same_bytes("what a stream read", &content, &data)
}

async fn messages_compressed_with_gzip_are_read(server: Server) -> Outcome {
    compressed_messages(&server, CompressionEncoding::Gzip).await
}

async fn messages_compressed_with_zstd_are_read(server: Server) -> Outcome {
    compressed_messages(&server, CompressionEncoding::Zstd).await
}

/// Zeros that fit into every limit while they are compressed.
async fn a_compressed_message_is_bounded(server: Server) -> Outcome {
    let limit = server.batch_bytes()?;
    let data = vec![0; limit.max(4 << 20) * 4];
    let digest = server.client.digest(&data);
    let update = proto::BatchUpdateBlobsRequest {
        instance_name: server.client.instance().to_owned(),
        requests: vec![proto::batch_update_blobs_request::Request {
            digest: Some(digest.to_proto()),
            data: data.into(),
            ..Default::default()
        }],
        digest_function: server.client.function().to_proto(),
    };
    let mut cas = server.client.cas().send_compressed(CompressionEncoding::Gzip);
    match cas.batch_update_blobs(update).await {
        Err(status) if status.code() == Code::Unimplemented => Err(status.into()),
        answer => {
            refused_somehow(answer)?;
            same("missing", server.client.missing(&[digest]).await?, vec![digest])
        }
    }
}
