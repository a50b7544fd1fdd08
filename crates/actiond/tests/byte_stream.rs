//! `ByteStream`: blobs of any size, in pieces.

use testkit::google::bytestream::{QueryWriteStatusRequest, WriteRequest};
use testkit::{Client, Compressor, Digest, DigestFunction, DigestFunctions, Kit, Outcome};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_blob_comes_back_whatever_its_size_and_pieces,
    names_of_every_form_are_understood,
    a_part_of_a_blob_can_be_read,
    offsets_and_limits_outside_are_refused,
    a_blob_that_is_here_is_not_taken_again,
    many_early_answers_leave_the_connection_alone,
    an_upload_that_ends_early_goes_on,
    an_upload_that_goes_on_is_verified_as_a_whole,
    a_compressed_upload_goes_on_with_a_stream_of_the_rest,
    a_blob_that_comes_from_elsewhere_ends_an_upload_in_its_middle,
    the_upload_of_a_client_that_leaves_goes_on_with_another_connection,
    what_is_kept_of_uploads_is_bounded,
    uploads_that_break_the_rules_are_refused,
    a_refused_upload_leaves_the_connection_alone,
    content_that_is_not_the_digest_is_refused,
    bad_names_are_refused,
    the_status_of_a_write_is_known,
    compressed_uploads_are_unpacked,
    compressed_downloads_can_be_unpacked,
    a_compressed_upload_that_unpacks_to_more_is_ended,
    a_compressed_upload_may_need_a_window_of_128_mib,
    a_brotli_upload_has_a_window_of_its_format,
    an_upload_is_no_larger_than_its_message_limit_allows,
}

/// Content that does not repeat, so that pieces in the wrong order are seen.
fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Content that does not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

async fn a_blob_comes_back_whatever_its_size_and_pieces(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    const MIB: usize = 1 << 20;
    let cases = [
        (1, 1),
        (1000, 1),
        (65_536, 65_536),
        (65_537, 1000),
        (MIB, MIB),
        (MIB + 1, 70_000),
        (2 * MIB, 3 * MIB),
        (5 * MIB - 1, MIB - 1),
        (20 * MIB, 2 * MIB),
    ];
    for function in DigestFunctions::default().iter() {
        let client = daemon.client().with_function(function);
        for (size, chunk) in cases {
            let content = content(size);
            let digest = client.digest(&content);
            let committed = client.write(&client.upload_name(&digest), &content, chunk).await?;
            assert_eq!(committed, size as i64, "{size} in {chunk}");
            assert!(client.get(&digest).await? == content, "{size} in {chunk}");
        }
    }
    Ok(())
}

async fn names_of_every_form_are_understood(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let uploads = [
        "uploads/UUID/blobs/DIGEST",
        "instance/uploads/UUID/blobs/DIGEST",
        "a/b/c/uploads/UUID/blobs/DIGEST/metadata/with/slashes.txt",
        "uploads/UUID/blobs/sha256/DIGEST",
        "uploads/UUID/blobs/blake3/DIGEST/name",
    ];
    for (number, form) in uploads.into_iter().enumerate() {
        let function =
            if form.contains("blake3") { DigestFunction::Blake3 } else { client.function() };
        let content = format!("content {number}");
        let digest = Digest::of(function, content.as_bytes());
        let name = form.replace("UUID", "u-u-i-d").replace("DIGEST", &digest.to_string());
        client.write(&name, content.as_bytes(), 5).await?;
        let prefix = if function == DigestFunction::Blake3 { "blake3/" } else { "" };
        for form in ["blobs/", "instance/blobs/", "a/b/c/blobs/"] {
            let read = client.read(&format!("{form}{prefix}{digest}"), 0, 0).await?;
            assert_eq!(read, content.as_bytes());
        }
    }
    Ok(())
}

async fn a_part_of_a_blob_can_be_read(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let content = content(3_000_000);
    let digest = client.digest(&content);
    client.write(&client.upload_name(&digest), &content, 1 << 20).await?;
    let name = client.download_name(&digest);
    for (offset, limit) in [
        (0, 0),
        (0, 1),
        (1, 0),
        (2_999_999, 0),
        (3_000_000, 0),
        (1_048_576, 1_048_576),
        (1_000_000, 1_500_000),
        (0, i64::MAX),
    ] {
        let end = if limit == 0 { i64::MAX } else { limit }.saturating_add(offset).min(3_000_000);
        let expected = &content[offset as usize..end as usize];
        assert!(client.read(&name, offset, limit).await? == expected, "{offset} {limit}");
    }
    Ok(())
}

async fn offsets_and_limits_outside_are_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let digest = client.put("0123456789").await?;
    let name = client.download_name(&digest);
    let code = async |offset, limit| client.read(&name, offset, limit).await.unwrap_err().code();
    assert_eq!(code(11, 0).await, Code::OutOfRange);
    assert_eq!(code(i64::MAX, 0).await, Code::OutOfRange);
    assert_eq!(code(-1, 0).await, Code::OutOfRange);
    assert_eq!(code(i64::MIN, 0).await, Code::OutOfRange);
    assert_eq!(code(0, -1).await, Code::InvalidArgument);
    let absent = client.download_name(&client.digest(b"absent"));
    assert_eq!(client.read(&absent, 0, 0).await.unwrap_err().code(), Code::NotFound);
    Ok(())
}

fn message(name: &str, offset: i64, data: &[u8], finish: bool) -> WriteRequest {
    WriteRequest {
        resource_name: name.to_owned(),
        write_offset: offset,
        finish_write: finish,
        data: data.to_vec().into(),
    }
}

async fn a_blob_that_is_here_is_not_taken_again(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let content = content(100_000);
    let digest = client.put(content.clone()).await?;
    let name = client.upload_name(&digest);
    // The first message says it all, also when it is all that comes.
    let begun = vec![message(&name, 0, &content[..10], false)];
    assert_eq!(client.write_messages(begun).await?, 100_000);
    assert_eq!(client.write(&name, &content, 10_000).await?, 100_000);
    let empty = Digest::empty(DigestFunction::Sha256);
    let nothing = vec![message(&client.upload_name(&empty), 0, b"", true)];
    assert_eq!(client.write_messages(nothing).await?, 0);
    Ok(())
}

/// Uploads on one connection: more than the resets that one survives.
const MANY: usize = 1200;

async fn many_early_answers_leave_the_connection_alone(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let content = content(256 << 10);
    let digest = client.put(content.clone()).await?;
    let name = client.upload_name(&digest);
    for _ in 0..MANY / 300 {
        let uploads = (0..300).map(|_| {
            let (client, name, content) = (client.clone(), name.clone(), content.clone());
            tokio::spawn(async move { client.write(&name, &content, 16 << 10).await })
        });
        for upload in uploads.collect::<Vec<_>>() {
            assert_eq!(upload.await??, content.len() as i64);
        }
    }
    Ok(())
}

async fn status(client: &Client, name: &str) -> Result<(i64, bool), tonic::Status> {
    let message = QueryWriteStatusRequest { resource_name: name.to_owned() };
    let response = client.byte_stream().query_write_status(message).await?.into_inner();
    Ok((response.committed_size, response.complete))
}

async fn an_upload_that_ends_early_goes_on(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let content = content(3 << 20);
    let digest = client.digest(&content);
    let name = client.upload_name(&digest);
    let begun = vec![
        message(&name, 0, &content[..1 << 20], false),
        message("", 1 << 20, &content[1 << 20..2 << 20], false),
    ];
    assert_eq!(client.write_messages(begun).await?, 2 << 20);
    assert_eq!(status(&client, &name).await?, (2 << 20, false));
    assert_eq!(client.missing(&[digest]).await?, [digest]);
    // Elsewhere than it ended it cannot go on, and is still there.
    for offset in [1, (2 << 20) - 1, (2 << 20) + 1] {
        let elsewhere = vec![message(&name, offset, &content[offset as usize..], true)];
        let refused = client.write_messages(elsewhere).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
        assert!(refused.message().contains("2097152 bytes are here"), "{refused}");
    }
    // All bytes, and then the end alone.
    let rest = vec![message(&name, 2 << 20, &content[2 << 20..], false)];
    assert_eq!(client.write_messages(rest).await?, 3 << 20);
    assert_eq!(status(&client, &name).await?, (3 << 20, false));
    assert_eq!(client.write_messages(vec![message(&name, 3 << 20, b"", true)]).await?, 3 << 20);
    assert_eq!(status(&client, &name).await?, (3 << 20, true));
    assert_eq!(client.get(&digest).await?, content);
    Ok(())
}

async fn an_upload_that_goes_on_is_verified_as_a_whole(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let content = content(100_000);
    let digest = client.digest(&content);
    let name = client.upload_name(&digest);
    let wrong = vec![message(&name, 0, &vec![b'x'; 50_000], false)];
    assert_eq!(client.write_messages(wrong).await?, 50_000);
    let rest = vec![message(&name, 50_000, &content[50_000..], true)];
    let refused = client.write_messages(rest.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert_eq!(status(&client, &name).await?, (0, false));
    assert_eq!(client.write_messages(rest).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(client.missing(&[digest]).await?, [digest]);
    // From the start it can always begin anew, also while a part is kept.
    assert_eq!(client.write_messages(vec![message(&name, 0, b"x", false)]).await?, 1);
    assert_eq!(client.write(&name, &content, 30_000).await?, 100_000);
    Ok(())
}

async fn a_compressed_upload_goes_on_with_a_stream_of_the_rest(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    for (seed, compressor) in Compressor::ALL.into_iter().enumerate() {
        let content = content((3 << 20) + seed);
        let digest = client.digest(&content);
        let name = packed_upload(compressor, &digest);
        let packed = compressor.pack(&content);
        let half = &packed[..packed.len() / 2];
        let committed = client.write_messages(vec![message(&name, 0, half, false)]).await?;
        assert!((1..3 << 20).contains(&committed), "{committed} bytes of half a stream");
        assert_eq!(status(&client, &name).await?, (committed, false));
        let rest = compressor.pack(&content[committed as usize..]);
        let (first, second) = rest.split_at(rest.len() / 2);
        let messages = vec![
            message(&name, committed, first, false),
            message("", committed + first.len() as i64, second, true),
        ];
        client.write_messages(messages).await?;
        assert!(client.get(&digest).await? == content, "{compressor:?}");
    }
    Ok(())
}

/// An upload whose messages are sent one by one.
fn slow_upload(
    client: &Client,
) -> (tokio::sync::mpsc::Sender<WriteRequest>, tokio::task::JoinHandle<Result<i64, tonic::Status>>)
{
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut stub = client.byte_stream();
    let upload = async move { Ok(stub.write(receiver).await?.into_inner().committed_size) };
    (sender, tokio::spawn(upload))
}

async fn a_blob_that_comes_from_elsewhere_ends_an_upload_in_its_middle(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let content = content(20 << 20);
    let packed = zstd::bulk::compress(&noise(20 << 20), 1)?;
    for (content, name, sent, expected) in [
        (&content, None, &content, 20 << 20),
        (&noise(20 << 20), Some(compressed_upload as fn(&Digest) -> String), &packed, -1),
    ] {
        let client = daemon.client();
        let digest = client.digest(content);
        let name = name.map_or_else(|| client.upload_name(&digest), |name| name(&digest));
        let (sender, upload) = slow_upload(&client);
        sender.send(message(&name, 0, &sent[..1 << 20], false)).await?;
        let other = daemon.client();
        other.write(&other.upload_name(&digest), content, 1 << 20).await?;
        // All but the last piece, which would complete it.
        for offset in (1 << 20..19 << 20).step_by(1 << 20) {
            let next = message("", offset as i64, &sent[offset..offset + (1 << 20)], false);
            if sender.send(next).await.is_err() {
                break;
            }
        }
        assert_eq!(upload.await??, expected);
        drop(sender);
    }
    Ok(())
}

/// The number of files below the store that the daemon has open and that have no name.
fn files_without_a_name(daemon: &testkit::Daemon) -> anyhow::Result<u64> {
    let store = daemon.store()?;
    let mut files = 0;
    for entry in std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))? {
        // Descriptors come and go while they are listed.
        let Ok(target) = std::fs::read_link(entry?.path()) else { continue };
        if target.starts_with(store) && target.to_string_lossy().ends_with("(deleted)") {
            files += 1;
        }
    }
    Ok(files)
}

async fn the_upload_of_a_client_that_leaves_goes_on_with_another_connection(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let content = content(3 << 20);
    let digest = daemon.client().digest(&content);
    let client = daemon.client();
    let name = client.upload_name(&digest);
    let (sender, upload) = slow_upload(&client);
    sender.send(message(&name, 0, &content[..2 << 20], false)).await?;
    testkit::eventually("the server writes", || Ok(files_without_a_name(&daemon)? > 0)).await?;
    upload.abort();
    drop((sender, client));
    let client = daemon.client();
    let mut committed = 0;
    for _ in 0..1000 {
        (committed, _) = status(&client, &name).await?;
        if committed > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!((1..=2 << 20).contains(&committed), "{committed} bytes are kept");
    assert_eq!(client.missing(&[digest]).await?, [digest]);
    let rest = vec![message(&name, committed, &content[committed as usize..], true)];
    assert_eq!(client.write_messages(rest).await?, 3 << 20);
    assert_eq!(client.get(&digest).await?, content);
    testkit::eventually("the server lets go", || Ok(files_without_a_name(&daemon)? == 0)).await?;
    Ok(())
}

async fn what_is_kept_of_uploads_is_bounded(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    for number in 0..200_u8 {
        let content = vec![number; 200_000];
        let name = client.upload_name(&client.digest(&content));
        let begun = vec![message(&name, 0, &content[..100_000], false)];
        assert_eq!(client.write_messages(begun).await?, 100_000);
    }
    testkit::eventually("the oldest go", || Ok(files_without_a_name(&daemon)? == 128)).await?;
    Ok(())
}

async fn uploads_that_break_the_rules_are_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let digest = client.digest(b"abcdef");
    let name = client.upload_name(&digest);
    let other = client.upload_name(&client.digest(b"fedcba"));
    let (whole, begin) = (message(&name, 0, b"abcdef", true), message(&name, 0, b"abc", false));
    let cases: [(&str, Vec<WriteRequest>, Code); 9] = [
        ("nothing at all", vec![], Code::InvalidArgument),
        ("a start that is not 0", vec![message(&name, 3, b"def", true)], Code::OutOfRange),
        ("a negative start", vec![message(&name, -1, b"abc", false)], Code::OutOfRange),
        ("a jump", vec![begin.clone(), message("", 4, b"ef", true)], Code::InvalidArgument),
        (
            "a step back",
            vec![begin.clone(), message("", 0, b"abcdef", true)],
            Code::InvalidArgument,
        ),
        (
            "another name",
            vec![begin.clone(), message(&other, 3, b"def", true)],
            Code::InvalidArgument,
        ),
        ("too much", vec![message(&name, 0, b"abcdefg", true)], Code::InvalidArgument),
        ("too little", vec![message(&name, 0, b"abc", true)], Code::InvalidArgument),
        ("no name", vec![message("", 0, b"abcdef", true)], Code::InvalidArgument),
    ];
    for (what, messages, code) in cases {
        let status = client.write_messages(messages).await.expect_err(what);
        assert_eq!(status.code(), code, "{what}: {status}");
    }
    // A stream may end early, and is told how much is kept of it.
    let all_but_the_end = message(&name, 0, b"abcdef", false);
    for (messages, committed) in [(vec![begin], 3), (vec![all_but_the_end], 6)] {
        assert_eq!(client.write_messages(messages).await?, committed);
    }
    assert_eq!(client.missing(&[digest]).await?, [digest]);
    assert_eq!(client.write_messages(vec![whole]).await?, 6);
    Ok(())
}

/// Sends an upload that is refused while much of it is still to come.
async fn refused(client: &Client) -> Code {
    let content = content(256 << 10);
    let name = client.upload_name(&client.digest(b"other"));
    client.write(&name, &content, 16 << 10).await.unwrap_err().code()
}

async fn a_refused_upload_leaves_the_connection_alone(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    for _ in 0..MANY / 300 {
        let uploads = (0..300).map(|_| {
            let client = client.clone();
            tokio::spawn(async move { refused(&client).await })
        });
        for upload in uploads.collect::<Vec<_>>() {
            assert_eq!(upload.await?, Code::InvalidArgument);
        }
    }
    Ok(())
}

async fn content_that_is_not_the_digest_is_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    for function in DigestFunctions::default().iter() {
        let client = daemon.client().with_function(function);
        for size in [6, 3 << 20] {
            let (told, sent) = (vec![b'a'; size], vec![b'b'; size]);
            let digest = client.digest(&told);
            let name = client.upload_name(&digest);
            let status = client.write(&name, &sent, 1 << 20).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            let sent = client.digest(&sent);
            assert_eq!(client.missing(&[digest, sent]).await?, [digest, sent]);
        }
    }
    Ok(())
}

async fn bad_names_are_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let digest = client.put("content").await?;
    let hash = digest.hex();
    for name in [
        String::new(),
        "nonsense".to_owned(),
        format!("blobs/{hash}"),
        format!("blobs/{hash}/seven"),
        format!("blobs/{hash}/7/7"),
        format!("blobs/{}/7", hash.to_uppercase()),
        format!("blobs/md5/{hash}/7"),
        format!("/blobs/{hash}/7"),
        format!("a/uploads/blobs/{hash}/7"),
        format!("compressed-blobs/gzip/{hash}/7"),
        format!("blobs/../../etc/passwd/{hash}/7"),
        format!("blobs/{hash}/{}", u64::MAX),
    ] {
        let status = client.read(&name, 0, 0).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
        let status = client.write(&name, b"content", 7).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
    }
    Ok(())
}

async fn the_status_of_a_write_is_known(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let digest = client.digest(b"content");
    let name = client.upload_name(&digest);
    let status = async |name: &str| status(&client, name).await;
    assert_eq!(status(&name).await?, (0, false), "Bazel 7 starts anew at 0 only");
    client.write(&name, b"content", 3).await?;
    assert_eq!(status(&name).await?, (7, true));
    assert_eq!(status(&compressed_upload(&digest)).await?, (7, true));
    let absent = compressed_upload(&client.digest(b"absent"));
    assert_eq!(status(&absent).await?, (0, false));
    Ok(())
}

/// `uploads/…` for the form of `digest` by that compressor.
fn packed_upload(compressor: Compressor, digest: &Digest) -> String {
    format!("uploads/uuid/compressed-blobs/{}/{digest}", compressor.name())
}

/// The same for the zstd form.
fn compressed_upload(digest: &Digest) -> String {
    packed_upload(Compressor::Zstd, digest)
}

async fn compressed_uploads_are_unpacked(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    for (seed, compressor) in Compressor::ALL.into_iter().enumerate() {
        for size in [1, 1000, 5 << 20] {
            let content: Vec<u8> = content(size + seed).into_iter().map(|byte| byte % 16).collect();
            let digest = client.digest(&content);
            let packed = compressor.pack(&content);
            let name = packed_upload(compressor, &digest);
            assert_eq!(client.write(&name, &packed, 100_000).await?, packed.len() as i64);
            assert!(client.get(&digest).await? == content, "{compressor:?}");
            // A known blob is answered with -1: nobody knows its packed size.
            assert_eq!(client.write(&name, &packed, 100_000).await?, -1);
        }
    }
    Ok(())
}

async fn compressed_downloads_can_be_unpacked(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let content: Vec<u8> = content(5 << 20).into_iter().map(|byte| byte % 16).collect();
    let digest = client.digest(&content);
    client.write(&client.upload_name(&digest), &content, 1 << 20).await?;
    for compressor in Compressor::ALL {
        let name = format!("compressed-blobs/{}/{digest}", compressor.name());
        for offset in [0, 1, 3_000_000, content.len()] {
            let packed = client.read(&name, offset as i64, 0).await?;
            let unpacked = compressor.unpack(&packed)?;
            assert!(unpacked == content[offset..], "{compressor:?} {offset}");
        }
        assert!(client.read(&name, 0, 0).await?.len() < content.len());
        let status = client.read(&name, 0, 10).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "no limit for compressed reads");
    }
    Ok(())
}

async fn a_compressed_upload_that_unpacks_to_more_is_ended(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let (zeroes, small) = (vec![0; 32 << 20], client.digest(vec![0; 1000]));
    for compressor in Compressor::ALL {
        let bomb = compressor.pack(&zeroes);
        let name = packed_upload(compressor, &small);
        let status = client.write(&name, &bomb, 1000).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{compressor:?}");
        let cut = compressor.pack(&noise(1000));
        let digest = client.digest(noise(1000));
        let name = packed_upload(compressor, &digest);
        let status = client.write(&name, &cut[..500], 1000).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{compressor:?}");
        assert_eq!(client.missing(&[digest, small]).await?, [digest, small]);
    }
    Ok(())
}

async fn a_compressed_upload_may_need_a_window_of_128_mib(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    for window_log in [23, 27, 28, 31] {
        let content = vec![window_log as u8; 100_000];
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3)?;
        encoder.long_distance_matching(true)?;
        encoder.window_log(window_log)?;
        std::io::Write::write_all(&mut encoder, &content)?;
        let packed = encoder.finish()?;
        let digest = client.digest(&content);
        let outcome = client.write(&compressed_upload(&digest), &packed, 1 << 20).await;
        if window_log <= 27 {
            outcome?;
            assert_eq!(client.get(&digest).await?, content);
        } else {
            let refused = outcome.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().contains("--long=27"), "{refused}");
        }
    }
    Ok(())
}

async fn a_brotli_upload_has_a_window_of_its_format(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    for (window_log, large_window) in [(10, false), (24, false), (25, true), (30, true)] {
        let content = vec![window_log as u8; 100_000];
        let parameters = brotli::enc::BrotliEncoderParams {
            lgwin: window_log,
            large_window,
            ..Default::default()
        };
        let mut packed = Vec::new();
        brotli::BrotliCompress(&mut content.as_slice(), &mut packed, &parameters)?;
        let digest = client.digest(&content);
        let name = packed_upload(Compressor::Brotli, &digest);
        let outcome = client.write(&name, &packed, 1 << 20).await;
        if large_window {
            let refused = outcome.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().contains("--large_window"), "{refused}");
        } else {
            outcome?;
            assert_eq!(client.get(&digest).await?, content);
        }
    }
    Ok(())
}

async fn an_upload_is_no_larger_than_its_message_limit_allows(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let content = content(8 << 20);
    let digest = client.digest(&content);
    let name = client.upload_name(&digest);
    // 4 MiB are what clients send at most; a message of 8 MiB is refused unread.
    assert!(client.write(&name, &content, 8 << 20).await.is_err());
    assert_eq!(client.write(&name, &content, 4 << 20).await?, 8 << 20);
    Ok(())
}
