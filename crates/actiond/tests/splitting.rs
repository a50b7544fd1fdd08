//! `SplitBlob` and `SpliceBlob`, as clients that move large blobs in chunks use them.

use testkit::proto::{self, chunking_function::Value as Chunking};
use testkit::{BlobHasher, Client, Digest, DigestFunction, Kit, Outcome};
use tonic::{Code, Status};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_changed_blob_travels_as_the_chunks_that_changed,
    both_functions_split_with_every_digest_function,
    small_blobs_are_their_own_chunk,
    chunks_are_stored_once,
    wrong_splices_leave_nothing,
    a_splice_of_what_is_there_says_so_without_its_chunks,
    a_large_blob_is_spliced_of_one_small_chunk,
    what_is_missing_is_named,
    a_blob_of_five_gib_is_split_and_spliced,
}

/// The variable that has blobs of many gigabytes in the tests, which take 10 GiB of the disk.
const LARGE_BLOBS: &str = "ACTIOND_TEST_LARGE_BLOBS";

fn noise(length: usize, mut state: u64) -> Vec<u8> {
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

async fn store(client: &Client, content: &[u8]) -> anyhow::Result<Digest> {
    let digest = client.digest(content);
    client.write(&client.upload_name(&digest), content, 1 << 20).await?;
    Ok(digest)
}

async fn split(client: &Client, blob: &Digest, chunking: Chunking) -> Result<Vec<Digest>, Status> {
    let request = proto::SplitBlobRequest {
        blob_digest: Some(blob.to_proto()),
        digest_function: client.function().to_proto(),
        chunking_function: chunking.into(),
        ..Default::default()
    };
    let answer = client.cas().split_blob(request).await?.into_inner();
    let used = if chunking == Chunking::Unknown { Chunking::FastCdc2020 } else { chunking };
    assert_eq!(answer.chunking_function, i32::from(used));
    let parse = |it: &proto::Digest| Digest::from_proto(it, client.function()).expect("a digest");
    Ok(answer.chunk_digests.iter().map(parse).collect())
}

async fn splice(client: &Client, blob: &Digest, chunks: &[Digest]) -> Result<(), Status> {
    let request = proto::SpliceBlobRequest {
        blob_digest: Some(blob.to_proto()),
        chunk_digests: chunks.iter().map(Digest::to_proto).collect(),
        digest_function: client.function().to_proto(),
        ..Default::default()
    };
    let answer = client.cas().splice_blob(request).await?.into_inner();
    assert_eq!(answer.blob_digest, Some(blob.to_proto()));
    Ok(())
}

/// A client that splits by itself knows the chunks of the old blob, sends those of the new one that the server
/// lacks, and has the server put them together.
async fn a_changed_blob_travels_as_the_chunks_that_changed(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = &daemon.client();
    let old = noise(12 << 20, 5);
    let chunks = split(client, &store(client, &old).await?, Chunking::FastCdc2020).await?;
    let mut parts = Vec::new();
    for chunk in &chunks {
        parts.push(client.get(chunk).await?);
    }
    assert!(parts.concat() == old && parts.len() > 4);
    parts[2] = noise(300_000, 77);
    let new = parts.concat();
    let new_digest = client.digest(&new);
    let new_chunks: Vec<Digest> = parts.iter().map(|part| client.digest(part)).collect();
    assert_eq!(client.missing(&new_chunks).await?, [new_chunks[2]]);
    assert_eq!(client.missing(&[new_digest]).await?, [new_digest]);
    store(client, &parts[2]).await?;
    splice(client, &new_digest, &new_chunks).await?;
    assert!(client.get(&new_digest).await? == new);
    Ok(())
}

async fn both_functions_split_with_every_digest_function(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    for function in [DigestFunction::Sha256, DigestFunction::Blake3, DigestFunction::Sha512] {
        let client = daemon.client().with_function(function);
        let content = noise(5 << 20, 9);
        let blob = store(&client, &content).await?;
        for chunking in [Chunking::Unknown, Chunking::FastCdc2020, Chunking::RepMaxCdc] {
            let chunks = split(&client, &blob, chunking).await?;
            assert!(chunks.len() > 2, "{function} {chunking:?}");
            let mut joined = Vec::new();
            for chunk in chunks {
                joined.extend(client.get(&chunk).await?);
            }
            assert!(joined == content, "{function} {chunking:?}");
        }
    }
    Ok(())
}

async fn small_blobs_are_their_own_chunk(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = &daemon.client();
    for content in [Vec::new(), b"small".to_vec(), noise((2 << 20) - 1, 4)] {
        let blob = store(client, &content).await?;
        assert_eq!(split(client, &blob, Chunking::Unknown).await?, [blob]);
    }
    Ok(())
}

async fn chunks_are_stored_once(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = &daemon.client();
    let blob = store(client, &vec![0; 40 << 20]).await?;
    let mut chunks = split(client, &blob, Chunking::FastCdc2020).await?;
    assert!(chunks.len() > 10);
    assert_eq!(split(client, &blob, Chunking::FastCdc2020).await?, chunks);
    chunks.dedup();
    assert!(chunks.len() <= 2, "{chunks:?}");
    Ok(())
}

async fn wrong_splices_leave_nothing(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = &daemon.client();
    let (first, second) = (client.put("first ").await?, client.put("second").await?);
    let blob = client.digest("first second");
    let code = |outcome: Result<(), Status>| outcome.unwrap_err().code();
    let refused = splice(client, &blob, &[second, first]).await;
    assert_eq!(code(refused), Code::InvalidArgument, "another order");
    assert_eq!(code(splice(client, &blob, &[first]).await), Code::InvalidArgument, "too short");
    let longer = splice(client, &blob, &[first, second, second]).await;
    assert_eq!(code(longer), Code::InvalidArgument, "too long");
    let lie = Digest::new(second.function(), *second.hash(), 0);
    assert_eq!(code(splice(client, &lie, &[]).await), Code::InvalidArgument, "no such empty blob");
    let huge = Digest::new(blob.function(), *blob.hash(), 6 << 60);
    let chunk = Digest::new(first.function(), *first.hash(), 1 << 60);
    assert_eq!(code(splice(client, &huge, &[chunk; 6]).await), Code::ResourceExhausted);
    assert_eq!(client.missing(&[blob]).await?, [blob]);
    splice(client, &blob, &[first, second]).await?;
    assert_eq!(client.get(&blob).await?, b"first second");
    Ok(())
}

async fn a_splice_of_what_is_there_says_so_without_its_chunks(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = &daemon.client();
    let blob = client.put("ab").await?;
    splice(client, &blob, &[client.digest("a"), client.digest("b")]).await?;
    splice(client, &Digest::empty(client.function()), &[]).await?;
    Ok(())
}

/// A list of a few kilobytes makes a blob of many megabytes, which the server writes as a stream.
async fn a_large_blob_is_spliced_of_one_small_chunk(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = &daemon.client();
    let part = noise(200_000, 8);
    let chunk = client.put(part.clone()).await?;
    let blob = client.digest(part.repeat(200));
    splice(client, &blob, &[chunk; 200]).await?;
    assert!(client.get(&blob).await? == part.repeat(200));
    Ok(())
}

async fn what_is_missing_is_named(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = &daemon.client();
    let absent = client.digest("absent");
    let status = split(client, &absent, Chunking::Unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let here = client.put("here").await?;
    let blob = client.digest("hereabsent");
    let status = splice(client, &blob, &[here, absent]).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains(&absent.hex()), "{status}");
    Ok(())
}

async fn a_blob_of_five_gib_is_split_and_spliced(kit: Kit) -> Outcome {
    if std::env::var_os(LARGE_BLOBS).is_none() {
        testkit::skip(format!("it takes 10 GiB of the disk; {LARGE_BLOBS}=1 runs it"))?;
    }
    kit.only_on_the_host("the disk of a guest is smaller")?;
    let daemon = kit.daemon().flag("--cas-size=20g").start().await?;
    let client = &daemon.client();
    let part = noise(64 << 20, 9);
    let (chunk, parts) = (store(client, &part).await?, 80);
    let mut hasher = BlobHasher::new(client.function());
    (0..parts).for_each(|_| hasher.update(&part));
    let blob = hasher.finish();
    splice(client, &blob, &vec![chunk; parts]).await?;
    for chunking in [Chunking::FastCdc2020, Chunking::RepMaxCdc] {
        let chunks = split(client, &blob, chunking).await?;
        let sum: u64 = chunks.iter().map(Digest::size_bytes).sum();
        assert_eq!(sum, 5 << 30);
        assert!(chunks.len() > 5_000, "{} chunks", chunks.len());
        // Another blob of these chunks has the digest of this one only if they are it.
        client.delete(&[blob]).await?;
        assert_eq!(client.missing(&[blob]).await?, [blob]);
        splice(client, &blob, &chunks).await?;
        assert_eq!(client.missing(&[blob]).await?, []);
    }
    let name = client.download_name(&blob);
    let end = client.read(&name, (5 << 30) - 100, 0).await?;
    assert!(end == part[part.len() - 100..]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let most_kib: u64 = most.and_then(|it| it.trim().split(' ').next()?.parse().ok()).unwrap_or(0);
    println!("{most_kib} KiB were resident at most");
    assert!((1..512 << 10).contains(&most_kib), "{most_kib} KiB were resident");
    Ok(())
}
