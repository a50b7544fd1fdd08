//! `ContentAddressableStorage`, and `DeleteBlobs` of the internal interface.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use prost::Message as _;
use testkit::proto::{self, batch_update_blobs_request};
use testkit::{
    Client, Compressor, Digest, DigestFunction, DigestFunctions, Kit, Outcome, Run, Tree, skip,
};
use tonic::Code;
use tonic::codec::CompressionEncoding;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_blob_is_missing_until_it_is_stored,
    the_empty_blob_is_always_there,
    both_functions_work_and_are_apart,
    a_size_is_part_of_a_digest,
    one_bad_digest_fails_the_question,
    a_batch_has_a_status_for_each_blob,
    a_batch_over_the_limit_is_refused,
    compressed_blobs_of_a_batch_are_unpacked,
    a_batch_is_read_in_the_form_that_the_client_takes,
    a_compressed_blob_that_lies_is_refused,
    blobs_are_visible_where_the_format_says,
    a_deleted_blob_is_missing,
    anonymous_callers_from_outside_may_not_delete,
    a_blob_that_a_running_action_needs_is_kept,
    a_tree_is_told_once_per_directory,
    a_tree_comes_in_pages,
    a_tree_leaves_out_what_is_missing,
    a_tree_of_nonsense_is_refused,
    an_instance_name_that_is_a_keyword_is_refused,
    unknown_digest_functions_are_refused,
    concurrent_uploads_of_one_blob_are_fine,
    blobs_outlive_the_server,
    answers_are_compressed_where_requests_are,
    an_encoding_that_is_unknown_is_told_the_known_ones,
    a_compressed_message_is_bounded_by_what_it_becomes,
}

async fn a_blob_is_missing_until_it_is_stored(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let (here, absent) = (client.digest(b"here"), client.digest(b"absent"));
    assert_eq!(client.missing(&[here, absent]).await?, [here, absent]);
    client.put("here").await?;
    assert_eq!(client.missing(&[here, absent]).await?, [absent]);
    assert_eq!(client.get(&here).await?, b"here");
    Ok(())
}

async fn the_empty_blob_is_always_there(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    for function in DigestFunctions::default().iter() {
        let client = daemon.client().with_function(function);
        let empty = Digest::empty(function);
        assert_eq!(client.missing(&[empty]).await?, []);
        assert_eq!(client.get(&empty).await?, b"");
        assert_eq!(client.put("").await?, empty);
    }
    Ok(())
}

async fn both_functions_work_and_are_apart(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let sha256 = daemon.client();
    let blake3 = sha256.with_function(DigestFunction::Blake3);
    let digest = blake3.put("content").await?;
    assert_eq!(blake3.get(&digest).await?, b"content");
    let same_content = sha256.digest("content");
    assert_eq!(sha256.missing(&[same_content]).await?, [same_content]);
    Ok(())
}

async fn a_size_is_part_of_a_digest(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let digest = client.put("content").await?;
    let lie = Digest::new(digest.function(), *digest.hash(), digest.size_bytes() + 1);
    assert_eq!(client.missing(&[digest, lie]).await?, [lie]);
    assert!(client.get(&lie).await.is_err());
    Ok(())
}

async fn one_bad_digest_fails_the_question(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let good = client.digest(b"good").to_proto();
    let hash = |hash: &str| proto::Digest { hash: hash.to_owned(), size_bytes: 1 };
    let upper = hash(&good.hash.to_uppercase());
    let negative = proto::Digest { size_bytes: -1, ..good.clone() };
    for bad in [hash(""), hash("abc"), hash(&"x".repeat(64)), upper, negative] {
        let message = proto::FindMissingBlobsRequest {
            blob_digests: vec![good.clone(), bad.clone()],
            ..proto::FindMissingBlobsRequest::default()
        };
        let status = client.cas().find_missing_blobs(message).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{bad:?}");
        assert!(status.message().contains("blob_digests"), "{status}");
    }
    Ok(())
}

/// The codes of a batch upload, in order.
async fn update(
    client: &Client,
    requests: Vec<batch_update_blobs_request::Request>,
) -> Result<Vec<Code>, tonic::Status> {
    let digest_function = client.function().to_proto();
    let message =
        proto::BatchUpdateBlobsRequest { requests, digest_function, ..Default::default() };
    let response = client.cas().batch_update_blobs(message).await?.into_inner();
    Ok(response.responses.into_iter().map(|it| it.status.unwrap_or_default().code.into()).collect())
}

fn request(digest: Digest, data: &[u8]) -> batch_update_blobs_request::Request {
    batch_update_blobs_request::Request {
        digest: Some(digest.to_proto()),
        data: data.to_vec().into(),
        ..Default::default()
    }
}

async fn a_batch_has_a_status_for_each_blob(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let (good, other) = (client.digest(b"good"), client.digest(b"other"));
    let mut unknown = request(other, b"other");
    unknown.compressor = 99;
    let no_digest = batch_update_blobs_request::Request::default();
    let batch = vec![request(good, b"good"), request(other, b"lies"), no_digest, unknown];
    let codes = update(&client, batch).await?;
    use Code::{InvalidArgument, NotFound, Ok as Good};
    assert_eq!(codes, [Good, InvalidArgument, InvalidArgument, InvalidArgument]);
    assert_eq!(client.missing(&[good, other]).await?, [other]);

    let message = proto::BatchReadBlobsRequest {
        digests: vec![good.to_proto(), other.to_proto(), proto::Digest::default()],
        ..Default::default()
    };
    let responses = client.cas().batch_read_blobs(message).await?.into_inner().responses;
    let code = |at: usize| Code::from(responses[at].status.clone().unwrap_or_default().code);
    assert_eq!([code(0), code(1), code(2)], [Good, NotFound, InvalidArgument]);
    assert_eq!(responses[0].data, b"good"[..]);
    assert_eq!(responses[0].digest, Some(good.to_proto()));
    Ok(())
}

async fn a_batch_over_the_limit_is_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let half = |byte: u8| vec![byte; (2 << 20) - (32 << 10)];
    let (one, two) = (client.digest(half(1)), client.digest(half(2)));
    let fits = vec![request(one, &half(1)), request(two, &half(2))];
    assert_eq!(update(&client, fits.clone()).await?, [Code::Ok, Code::Ok]);
    let over = [fits, vec![request(client.digest(b"x"), b"x")]].concat();
    assert_eq!(update(&client, over).await.unwrap_err().code(), Code::InvalidArgument);

    let read = |digests: &[Digest]| proto::BatchReadBlobsRequest {
        digests: digests.iter().map(Digest::to_proto).collect(),
        ..Default::default()
    };
    let responses = client.cas().batch_read_blobs(read(&[one, two])).await?.into_inner().responses;
    assert_eq!(responses.iter().map(|it| it.data.len()).sum::<usize>(), (4 << 20) - (64 << 10));
    let status = client.cas().batch_read_blobs(read(&[one, two, one])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    Ok(())
}

/// An upload of `data` as it is, announced as compressed.
fn packed_request(
    compressor: Compressor,
    digest: Digest,
    data: &[u8],
) -> batch_update_blobs_request::Request {
    let compressor = compressor.value().into();
    batch_update_blobs_request::Request { compressor, ..request(digest, data) }
}

async fn compressed_blobs_of_a_batch_are_unpacked(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let content = |compressor: Compressor| compressor.name().repeat(5000).into_bytes();
    let blobs = Compressor::ALL.map(|compressor| client.digest(content(compressor)));
    let batch = Compressor::ALL.iter().zip(blobs).map(|(compressor, digest)| {
        packed_request(*compressor, digest, &compressor.pack(&content(*compressor)))
    });
    assert_eq!(update(&client, batch.collect()).await?, [Code::Ok; 3]);
    for (compressor, digest) in Compressor::ALL.into_iter().zip(blobs) {
        assert_eq!(client.get(&digest).await?, content(compressor));
    }
    Ok(())
}

async fn a_batch_is_read_in_the_form_that_the_client_takes(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let content = b"again and again ".repeat(5000);
    let digest = client.put(content.clone()).await?;
    for compressor in Compressor::ALL {
        let message = proto::BatchReadBlobsRequest {
            digests: vec![digest.to_proto()],
            acceptable_compressors: vec![compressor.value().into()],
            ..Default::default()
        };
        let mut answer = client.cas().batch_read_blobs(message).await?.into_inner().responses;
        let blob = answer.pop().context("a response")?;
        assert_eq!(blob.compressor, i32::from(compressor.value()));
        assert!(blob.data.len() < 5000, "{compressor:?}: {} bytes", blob.data.len());
        assert_eq!(compressor.unpack(&blob.data)?, content);
    }
    Ok(())
}

async fn a_compressed_blob_that_lies_is_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let zeroes = vec![0; 1 << 20];
    let small = Digest::new(DigestFunction::Sha256, *client.digest(&zeroes).hash(), 10);
    let huge = Digest::new(DigestFunction::Sha256, *client.digest(&zeroes).hash(), 1 << 40);
    for compressor in Compressor::ALL {
        let packed = compressor.pack(&zeroes);
        let batch = vec![
            packed_request(compressor, small, &packed),
            packed_request(compressor, huge, &packed),
            packed_request(compressor, client.digest(&zeroes), &packed[..packed.len() / 2]),
            packed_request(compressor, client.digest(&zeroes), b"not compressed at all"),
        ];
        let codes = update(&client, batch).await?;
        assert_eq!(codes, [Code::InvalidArgument; 4], "{compressor:?}");
    }
    assert_eq!(client.missing(&[client.digest(&zeroes)]).await?.len(), 1);
    Ok(())
}

async fn blobs_are_visible_where_the_format_says(kit: Kit) -> Outcome {
    use std::os::unix::fs::MetadataExt as _;
    let daemon = kit.daemon().start().await?;
    let digest = daemon.client().put("content").await?;
    let hex = digest.hex();
    let path = daemon.store()?.join("cas/blobs/sha256").join(&hex[..2]).join(&hex);
    assert_eq!(std::fs::read(&path)?, b"content");
    let metadata = std::fs::metadata(&path)?;
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.nlink()), (0o444, 0, 1));
    Ok(())
}

async fn a_deleted_blob_is_missing(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let digest = client.put("content").await?;
    let absent = client.digest(b"absent");
    assert_eq!(client.try_delete(&[digest, absent]).await?, [Code::Ok, Code::NotFound]);
    assert_eq!(client.missing(&[digest]).await?, [digest]);
    client.put("content").await?;
    assert_eq!(client.missing(&[digest]).await?, []);
    Ok(())
}

async fn anonymous_callers_from_outside_may_not_delete(kit: Kit) -> Outcome {
    let Some(ip) = outer_address() else {
        return skip("this machine has no address but the loopback's");
    };
    let daemon = kit.daemon().listen(([0, 0, 0, 0], 0).into()).start().await?;
    let port = daemon.address().port();
    let outside = Client::new(SocketAddr::new(ip, port));
    let digest = outside.put("content").await?;
    let refused = outside.try_delete(&[digest]).await.unwrap_err();
    assert_eq!(refused.downcast::<tonic::Status>()?.code(), Code::PermissionDenied);
    assert_eq!(outside.missing(&[digest]).await?, []);
    Ok(())
}

/// The address by which this machine would reach others. Nothing is sent.
fn outer_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

async fn a_blob_that_a_running_action_needs_is_kept(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    let gate = daemon.gate();
    let action = client.action(&format!("{}; cat in", gate.wait())).input("in", "needed");
    let mut stream = action.start().await?;
    loop {
        let operation = stream.message().await?.context("the stream ended")?;
        let stage = testkit::run::metadata(&operation)?.stage;
        if stage == proto::execution_stage::Value::Executing as i32 {
            break;
        }
    }
    let needed = client.digest("needed");
    assert_eq!(client.try_delete(&[needed]).await?, [Code::FailedPrecondition]);
    gate.open(1).await?;
    let run = Run::collect(client.clone(), stream).await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "needed");
    // Once it is over, nobody needs it any more.
    testkit::eventually_async("the blob is free", async || {
        Ok(client.try_delete(&[needed]).await? != [Code::FailedPrecondition])
    })
    .await
}

/// All pages of a tree.
async fn get_tree(
    client: &Client,
    message: proto::GetTreeRequest,
) -> Result<Vec<proto::GetTreeResponse>, tonic::Status> {
    let mut stream = client.cas().get_tree(message).await?.into_inner();
    let mut pages = Vec::new();
    while let Some(page) = stream.message().await? {
        pages.push(page);
    }
    Ok(pages)
}

fn tree_request(root: Digest) -> proto::GetTreeRequest {
    proto::GetTreeRequest { root_digest: Some(root.to_proto()), ..Default::default() }
}

/// Digests of the directories of all pages.
fn directories(client: &Client, pages: &[proto::GetTreeResponse]) -> Vec<Digest> {
    let directories = pages.iter().flat_map(|page| &page.directories);
    directories.map(|directory| client.digest(directory.encode_to_vec())).collect()
}

async fn a_tree_is_told_once_per_directory(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    // Each level has its child twice: 2^40 paths, 41 directories.
    let mut digest = client.put(proto::Directory::default().encode_to_vec()).await?;
    for _ in 0..40 {
        let child = |name: &str| proto::DirectoryNode {
            name: name.to_owned(),
            digest: Some(digest.to_proto()),
        };
        let directories = vec![child("a"), child("b")];
        let directory = proto::Directory { directories, ..Default::default() };
        digest = client.put(directory.encode_to_vec()).await?;
    }
    let pages = get_tree(&client, tree_request(digest)).await?;
    let told = directories(&client, &pages);
    assert_eq!(told.len(), 41);
    assert_eq!(told[0], digest, "the root comes first");
    Ok(())
}

/// A tree of the root and `a`, `b`, `c`, each with one file; only Directory blobs
/// are stored.
async fn four_directories(client: &Client) -> anyhow::Result<(Digest, BTreeMap<Digest, Vec<u8>>)> {
    let mut tree = Tree::new();
    for name in ["a", "b", "c"] {
        tree.file(&format!("{name}/file"), name);
    }
    let mut blobs = BTreeMap::new();
    let root = tree.encode(client.function(), &mut blobs);
    blobs.retain(|_, content| content.len() > 1);
    client.put_all(blobs.values().cloned()).await?;
    Ok((root, blobs))
}

async fn a_tree_comes_in_pages(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let (root, _) = four_directories(&client).await?;
    let paged = proto::GetTreeRequest { page_size: 3, ..tree_request(root) };
    let pages = get_tree(&client, paged.clone()).await?;
    let sizes: Vec<_> = pages.iter().map(|page| page.directories.len()).collect();
    assert_eq!(sizes, [3, 1]);
    assert_eq!(pages[1].next_page_token, "");
    // The token of a page leads to what follows it.
    let page_token = pages[0].next_page_token.clone();
    let rest = get_tree(&client, proto::GetTreeRequest { page_token, ..paged.clone() }).await?;
    assert_eq!(directories(&client, &rest), directories(&client, &pages[1..]));
    let page_token = "nonsense".to_owned();
    let refused = get_tree(&client, proto::GetTreeRequest { page_token, ..paged }).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    Ok(())
}

async fn a_tree_leaves_out_what_is_missing(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let (root, blobs) = four_directories(&client).await?;
    let child = *blobs.keys().find(|digest| **digest != root).expect("there are children");
    client.delete(&[child]).await?;
    let told = directories(&client, &get_tree(&client, tree_request(root)).await?);
    assert_eq!(told.len(), 3);
    assert!(!told.contains(&child));
    client.delete(&[root]).await?;
    let refused = get_tree(&client, tree_request(root)).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    Ok(())
}

async fn a_tree_of_nonsense_is_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let root = client.put("this is not a Directory").await?;
    let refused = get_tree(&client, tree_request(root)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    let refused = get_tree(&client, proto::GetTreeRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    Ok(())
}

async fn an_instance_name_that_is_a_keyword_is_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    assert_eq!(client.with_instance("team/project").missing(&[]).await?, []);
    for bad in ["blobs", "a/uploads", "a//b", "/", "a\0"] {
        let error = client.with_instance(bad).missing(&[]).await.unwrap_err();
        let status = error.downcast::<tonic::Status>()?;
        assert_eq!(status.code(), Code::InvalidArgument, "{bad}");
    }
    Ok(())
}

async fn unknown_digest_functions_are_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    for digest_function in [proto::digest_function::Value::Sha1 as i32, 77, -1] {
        let message = proto::FindMissingBlobsRequest { digest_function, ..Default::default() };
        let status = client.cas().find_missing_blobs(message).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{digest_function}");
    }
    Ok(())
}

async fn concurrent_uploads_of_one_blob_are_fine(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let content = vec![7; 3 << 20];
    let uploads = (0..8).map(|_| {
        let (client, content) = (daemon.client(), content.clone());
        tokio::spawn(async move { client.put(content).await })
    });
    for upload in uploads.collect::<Vec<_>>() {
        upload.await??;
    }
    let client = daemon.client();
    assert_eq!(client.get(&client.digest(&content)).await?, content);
    Ok(())
}

async fn blobs_outlive_the_server(kit: Kit) -> Outcome {
    kit.only_on_the_host("a killed VM loses its last seconds, as a power cut does")?;
    let mut daemon = kit.daemon().start().await?;
    let digest = daemon.client().put("content").await?;
    daemon.kill()?;
    let daemon = daemon.successor().start().await?;
    assert_eq!(daemon.client().get(&digest).await?, b"content");
    Ok(())
}

fn read_request(digest: Digest) -> proto::BatchReadBlobsRequest {
    proto::BatchReadBlobsRequest { digests: vec![digest.to_proto()], ..Default::default() }
}

async fn answers_are_compressed_where_requests_are(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let digest = client.put(vec![7; 100_000]).await?;
    let check = async |send: Option<CompressionEncoding>, accept: Option<CompressionEncoding>| {
        let mut cas = client.cas();
        if let Some(encoding) = send {
            cas = cas.send_compressed(encoding);
        }
        if let Some(encoding) = accept {
            cas = cas.accept_compressed(encoding);
        }
        let answer = cas.batch_read_blobs(read_request(digest)).await?;
        let encoding =
            answer.metadata().get("grpc-encoding").map(|it| it.to_str().map(str::to_owned));
        let encoding = encoding.transpose()?;
        let blob = answer.into_inner().responses.remove(0);
        assert_eq!(blob.data, vec![7; 100_000]);
        anyhow::Ok(encoding)
    };
    let (gzip, zstd) = (Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd));
    assert_eq!(check(None, None).await?, None);
    assert_eq!(check(None, gzip).await?, None, "accepting is no wish");
    assert_eq!(check(gzip, gzip).await?.as_deref(), Some("gzip"));
    assert_eq!(check(zstd, zstd).await?.as_deref(), Some("zstd"));
    assert_eq!(check(gzip, None).await?, None);
    assert_eq!(check(zstd, gzip).await?, None);
    // Services of every kind: ours, and those of the libraries.
    let mut health = client.health().send_compressed(CompressionEncoding::Gzip);
    health.check(tonic_health::pb::HealthCheckRequest::default()).await?;
    Ok(())
}

async fn an_encoding_that_is_unknown_is_told_the_known_ones(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let mut request = tonic::Request::new(read_request(client.digest(b"absent")));
    request.metadata_mut().insert("grpc-encoding", "snappy".parse()?);
    let status = client.cas().batch_read_blobs(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("snappy"), "{status}");
    assert_eq!(status.metadata().get("grpc-accept-encoding").unwrap(), "identity,gzip,zstd");
    Ok(())
}

async fn a_compressed_message_is_bounded_by_what_it_becomes(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let bomb = vec![0; 64 << 20];
    let digest = client.digest(&bomb);
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let message = proto::BatchUpdateBlobsRequest {
            requests: vec![request(digest, &bomb)],
            ..Default::default()
        };
        let mut cas = client.cas().send_compressed(encoding).max_encoding_message_size(usize::MAX);
        let status = cas.batch_update_blobs(message).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("once it is unpacked"), "{status}");
    }
    assert_eq!(client.missing(&[digest]).await?, [digest]);
    Ok(())
}
