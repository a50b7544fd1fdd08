//! Reads, from an offset and up to a limit.

use anyhow::ensure;
use testkit::google::bytestream::ReadRequest;
use tonic::Code;

use super::requests::fresh;
use crate::check::{Check, Outcome, must};
use crate::expect::{refused, refused_somehow, same_bytes};
use crate::server::{DEFAULT_MESSAGE_BYTES, Server, noise, unique};

pub(super) const CHECKS: &[Check] = &[
    must!(
        what_is_read_fits_default_clients,
        "ReadResponse.data",
        "A portion of the data for the resource."
    ),
    must!(
        a_read_starts_at_its_offset,
        "ReadRequest.read_offset",
        "The offset for the first byte to return in the read, relative to the start of the resource."
    ),
    must!(
        a_read_at_the_end_is_empty,
        "ReadRequest.read_offset",
        "A `read_offset` that is negative or greater than the size of the resource will cause an `OUT_OF_RANGE` error."
    ),
    must!(
        a_read_beyond_the_end_is_out_of_range,
        "ReadRequest.read_offset",
        "A `read_offset` that is negative or greater than the size of the resource will cause an `OUT_OF_RANGE` error."
    ),
    must!(
        a_negative_offset_is_out_of_range,
        "ReadRequest.read_offset",
        "A `read_offset` that is negative or greater than the size of the resource will cause an `OUT_OF_RANGE` error."
    ),
    must!(
        a_read_keeps_to_its_limit,
        "ReadRequest.read_limit",
        "The maximum number of `data` bytes the server is allowed to return in the sum of all `ReadResponse` messages."
    ),
    must!(
        a_limit_of_zero_is_none,
        "ReadRequest.read_limit",
        "A `read_limit` of zero indicates that there is no limit, and a negative `read_limit` will cause an error."
    ),
    must!(
        a_negative_limit_is_refused,
        "ReadRequest.read_limit",
        "A `read_limit` of zero indicates that there is no limit, and a negative `read_limit` will cause an error."
    ),
    must!(
        a_limit_beyond_the_end_reads_to_the_end,
        "ReadRequest.read_limit",
        "the stream includes all data from the `read_offset` to the end of the resource."
    ),
    must!(
        an_unknown_blob_is_not_found,
        "ByteStream.Read",
        "`Read()` is used to retrieve the contents of a resource as a sequence of bytes."
    ),
];

/// Stores a blob, and gives the name under which it is read.
async fn stored(server: &Server, length: usize) -> anyhow::Result<(Vec<u8>, String)> {
    let data = noise(length);
    let digest = server.client.put(data.clone()).await?;
    Ok((data, server.client.download_name(&digest)))
}

async fn what_is_read_fits_default_clients(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, DEFAULT_MESSAGE_BYTES + 4096);
    server.client.write(&name, &data, 1 << 20).await?;
    let request =
        ReadRequest { resource_name: server.client.download_name(&digest), ..Default::default() };
    let mut stream = server.client.byte_stream().read(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        let bytes = prost::Message::encoded_len(&message);
        ensure!(bytes <= DEFAULT_MESSAGE_BYTES, "a message of {bytes} bytes");
    }
    Ok(())
}

async fn a_read_starts_at_its_offset(server: Server) -> Outcome {
    let (data, name) = stored(&server, 1000).await?;
    same_bytes("it", &server.client.read(&name, 300, 0).await?, &data[300..])
}

async fn a_read_at_the_end_is_empty(server: Server) -> Outcome {
    let (_, name) = stored(&server, 1000).await?;
    same_bytes("it", &server.client.read(&name, 1000, 0).await?, b"")
}

async fn a_read_beyond_the_end_is_out_of_range(server: Server) -> Outcome {
    let (_, name) = stored(&server, 1000).await?;
    refused(server.client.read(&name, 1001, 0).await, &[Code::OutOfRange])?;
    Ok(())
}

async fn a_negative_offset_is_out_of_range(server: Server) -> Outcome {
    let (_, name) = stored(&server, 1000).await?;
    refused(server.client.read(&name, -1, 0).await, &[Code::OutOfRange])?;
    Ok(())
}

async fn a_read_keeps_to_its_limit(server: Server) -> Outcome {
    let (data, name) = stored(&server, 1000).await?;
    same_bytes("it", &server.client.read(&name, 0, 300).await?, &data[..300])?;
    same_bytes("at an offset", &server.client.read(&name, 500, 1).await?, &data[500..501])
}

async fn a_limit_of_zero_is_none(server: Server) -> Outcome {
    let (data, name) = stored(&server, 1000).await?;
    same_bytes("it", &server.client.read(&name, 0, 0).await?, &data)
}

async fn a_negative_limit_is_refused(server: Server) -> Outcome {
    let (_, name) = stored(&server, 1000).await?;
    refused_somehow(server.client.read(&name, 0, -1).await)?;
    Ok(())
}

async fn a_limit_beyond_the_end_reads_to_the_end(server: Server) -> Outcome {
    let (data, name) = stored(&server, 1000).await?;
    same_bytes("it", &server.client.read(&name, 100, 5000).await?, &data[100..])
}

async fn an_unknown_blob_is_not_found(server: Server) -> Outcome {
    let digest = server.client.digest(unique("absent"));
    let read = server.client.read(&server.client.download_name(&digest), 0, 0).await;
    refused(read, &[Code::NotFound])?;
    Ok(())
}
