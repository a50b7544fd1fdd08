//! A daemon whose store is bounded by `--cas-size`.

use std::time::Duration;

use anyhow::Context as _;
use testkit::{Client, Digest, Kit, Outcome, Run, proto};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_build_of_three_times_the_bound_ends,
    a_build_that_fits_loses_nothing,
    each_use_keeps_what_is_used,
    inputs_of_a_running_action_outlive_a_flood,
    an_upload_that_can_not_fit_says_what_to_raise,
}

const MIB: usize = 1 << 20;

/// Content that differs for every number, and does not compress to nothing.
fn content(number: usize, size: usize) -> Vec<u8> {
    let mut state = number as u64 + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..size / 8).flat_map(|_| next()).collect()
}

async fn put(client: &Client, content: &[u8]) -> Result<Digest, tonic::Status> {
    let digest = client.digest(content);
    client.write(&client.upload_name(&digest), content, MIB).await?;
    Ok(digest)
}

async fn a_build_of_three_times_the_bound_ends(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--cas-size=48m").start().await?;
    let client = daemon.client();
    // Each action has inputs and an output of 3 MiB: 144 MiB in all.
    for number in 0..24 {
        let input = content(number, 3 * MIB);
        let action = client.action("cat in in2 > out").output("out");
        let action = action.input("in", input.clone()).input("in2", number.to_string());
        let run = action.run().await?;
        let run = run.succeeded().await?;
        let output = run.output_file("out")?.digest.as_ref().context("a digest")?;
        let output = Digest::from_proto(output, client.function())?;
        // A blob that a client got in a result a moment ago is there.
        let fetched = client.get(&output).await?;
        anyhow::ensure!(fetched == [input, number.to_string().into_bytes()].concat());
        anyhow::ensure!(client.cached(&action.encode().0).await?.is_some());
    }
    let first = client.digest(content(0, 3 * MIB));
    assert_eq!(client.missing(&[first]).await?, [first], "the first input has gone long since");
    if let Ok(store) = daemon.store() {
        let blocks = blocks(store)?;
        anyhow::ensure!(blocks <= 48 * MIB as u64, "{blocks} bytes on the disk");
    }
    Ok(())
}

/// The blocks of all that is below a directory, in bytes.
fn blocks(directory: &std::path::Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += metadata.blocks() * 512;
        if metadata.is_dir() {
            sum += blocks(&entry.path())?;
        }
    }
    Ok(sum)
}

async fn a_build_that_fits_loses_nothing(kit: Kit) -> Outcome {
    let daemon = kit.daemon().flag("--cas-size=64m").start().await?;
    let client = daemon.client();
    let blobs: Vec<_> = (0..56).map(|number| content(number, MIB)).collect();
    let digests: Vec<_> = blobs.iter().map(|blob| client.digest(blob)).collect();
    for blob in &blobs {
        put(&client, blob).await?;
    }
    for _ in 0..2 {
        assert_eq!(client.missing(&digests).await?, []);
        for (blob, digest) in blobs.iter().zip(&digests) {
            anyhow::ensure!(client.get(digest).await? == *blob);
        }
    }
    Ok(())
}

/// The store tells uses apart by tenths of a second.
const LATER: Duration = Duration::from_millis(500);

/// Two floods with uses between them: what was used outlives the second one, and what was not has gone.
async fn each_use_keeps_what_is_used(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--cas-size=32m").start().await?;
    let client = daemon.client();
    let small = async |number| put(&client, &content(number, 8 << 10)).await;
    let unused = small(1000).await?;
    let (told, read, read_at_once) = (small(1001).await?, small(1002).await?, small(1003).await?);
    let chunks = [small(1004).await?, small(1005).await?];
    let forgotten = client.action("echo a > out").output("out");
    forgotten.run().await?.succeeded().await?;
    let cached = client.action("mkdir d; echo b > out; echo c > d/in; echo d; echo e >&2");
    let cached = cached.output("out").output("d");
    let hit = outputs(&client, cached.run().await?.succeeded().await?).await?;
    let executed = client.action("cat in").input("in", content(1006, 8 << 10));
    executed.upload().await?;
    let inputs: Vec<_> = executed.encode().1.into_keys().collect();

    tokio::time::sleep(LATER).await;
    flood(&client, 0..12).await?;
    tokio::time::sleep(LATER).await;
    assert_eq!(client.missing(&[told]).await?, []);
    client.get(&read).await?;
    let request = proto::BatchReadBlobsRequest {
        digests: vec![read_at_once.to_proto()],
        digest_function: client.function().to_proto(),
        ..proto::BatchReadBlobsRequest::default()
    };
    let answer = client.cas().batch_read_blobs(request).await?.into_inner();
    assert_eq!(answer.responses[0].data.len(), 8 << 10);
    let whole = [content(1004, 8 << 10), content(1005, 8 << 10)].concat();
    let request = proto::SpliceBlobRequest {
        blob_digest: Some(client.digest(&whole).to_proto()),
        chunk_digests: chunks.map(|chunk| chunk.to_proto()).to_vec(),
        digest_function: client.function().to_proto(),
        ..proto::SpliceBlobRequest::default()
    };
    client.cas().splice_blob(request).await?;
    anyhow::ensure!(client.cached(&cached.encode().0).await?.is_some(), "no hit");
    executed.run_without_upload().await?.succeeded().await?;

    tokio::time::sleep(LATER).await;
    flood(&client, 12..36).await?;
    assert_eq!(client.missing(&[unused]).await?, [unused], "the flood is large enough");
    anyhow::ensure!(client.cached(&forgotten.encode().0).await?.is_none(), "a result is there");
    let uses: [(&str, &[Digest]); 6] = [
        ("FindMissingBlobs", &[told]),
        ("Read", &[read]),
        ("BatchReadBlobs", &[read_at_once]),
        ("SpliceBlob", &chunks),
        ("a hit", &hit),
        ("an execution", &inputs),
    ];
    for (name, used) in uses {
        assert_eq!(client.missing(used).await?, [], "{name}");
    }
    anyhow::ensure!(client.cached(&cached.encode().0).await?.is_some(), "the result has gone");
    Ok(())
}

/// All blobs that a result names, inside of its Trees too.
async fn outputs(client: &Client, run: &Run) -> anyhow::Result<Vec<Digest>> {
    let result = run.result()?;
    let mut digests: Vec<_> = result.output_files.iter().map(|file| file.digest.clone()).collect();
    digests.extend([result.stdout_digest.clone(), result.stderr_digest.clone()]);
    for directory in &result.output_directories {
        digests.push(directory.tree_digest.clone());
        let tree = run.tree(&directory.path).await?;
        let directories = tree.root.iter().chain(&tree.children);
        digests.extend(directories.flat_map(|it| &it.files).map(|file| file.digest.clone()));
    }
    let named = digests.iter().flatten();
    let named: Result<Vec<_>, _> =
        named.map(|digest| Digest::from_proto(digest, client.function())).collect();
    let named = named?;
    anyhow::ensure!(named.len() >= 5, "{named:?}");
    Ok(named)
}

async fn flood(client: &Client, numbers: std::ops::Range<usize>) -> Outcome {
    for number in numbers {
        put(client, &content(number, MIB)).await?;
    }
    Ok(())
}

async fn inputs_of_a_running_action_outlive_a_flood(kit: Kit) -> Outcome {
    let daemon =
        kit.daemon().host_rootfs().flag("--cas-size=48m").flag("--lease=0s").start().await?;
    let client = daemon.client();
    let input = content(1000, 3 * MIB);
    let needed = client.digest(&input);
    let gate = daemon.gate();
    let action = client.action(&format!("{}; wc -c < in", gate.wait())).input("in", input);
    let mut stream = action.start().await?;
    loop {
        let operation = stream.message().await?.context("the stream ended")?;
        let stage = testkit::run::metadata(&operation)?.stage;
        if stage == proto::execution_stage::Value::Executing as i32 {
            break;
        }
    }
    for number in 0..120 {
        put(&client, &content(number, MIB)).await?;
    }
    gate.open(1).await?;
    let run = Run::collect(client.clone(), stream).await?;
    assert_eq!(run.succeeded().await?.stdout().await?.trim(), (3 * MIB).to_string());
    // No action needs it any more, and it has been idle for longest.
    for number in 200..260 {
        put(&client, &content(number, MIB)).await?;
    }
    assert_eq!(client.missing(&[needed]).await?, [needed]);
    Ok(())
}

async fn an_upload_that_can_not_fit_says_what_to_raise(kit: Kit) -> Outcome {
    let daemon = kit.daemon().flag("--cas-size=16m").start().await?;
    let client = daemon.client();
    put(&client, &content(0, MIB)).await?;
    let refused = put(&client, &content(1, 20 * MIB)).await.expect_err("it can't fit");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    anyhow::ensure!(refused.message().contains("--cas-size"), "{refused}");
    let next = put(&client, &content(2, MIB)).await?;
    anyhow::ensure!(client.get(&next).await? == content(2, MIB), "all else goes on");
    Ok(())
}
