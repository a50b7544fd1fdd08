//! A daemon that starts and serves on a file system that others have filled to the last block and inode.

use anyhow::{Context as _, ensure};
use testkit::{Client, Daemon, Digest, Kit, Outcome, eventually_async};
use tonic::Code;

use crate::place::{FileSystem, Filling, Place};

const MIB: usize = 1 << 20;
/// The blobs of the first server: twice what a start evicts to have its reserve on this disk.
const BLOBS: u64 = 40;
/// The blobs of a MiB that a disk of 512 MiB surely has no room for.
const REFUSED_BY: u64 = 600;

/// Different content for every number.
fn content(number: u64) -> Vec<u8> {
    (number + 1).to_le_bytes().repeat(MIB / 8)
}

/// Uploads a blob: false where the server refuses it for want of space.
async fn is_taken(client: &Client, number: u64) -> anyhow::Result<bool> {
    let content = content(number);
    match client.write(&client.upload_name(&client.digest(&content)), &content, MIB).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::ResourceExhausted => Ok(false),
        Err(status) => Err(status).context("a full disk is told as another error"),
    }
}

/// Reads what is left of the blobs; gives their numbers.
async fn left(client: &Client, blobs: &[Digest]) -> anyhow::Result<Vec<u64>> {
    let missing = client.missing(blobs).await?;
    let mut left = Vec::new();
    for (number, digest) in (0..).zip(blobs).filter(|(_, digest)| !missing.contains(digest)) {
        match client.get(digest).await {
            Ok(read) => {
                ensure!(read == content(number), "blob {number} is false");
                left.push(number);
            }
            // It was evicted meanwhile.
            Err(error) => ensure!(
                client.missing(&[*digest]).await? == [*digest],
                "blob {number} is neither served nor missing: {error:#}"
            ),
        }
    }
    Ok(left)
}

async fn is_cached(client: &Client, action: &Digest) -> anyhow::Result<bool> {
    Ok(client.cached(action).await?.is_some())
}

/// Fills the disk, and what the server makes room for, until the server refuses an upload.
async fn fill_until_refused(place: &Place, client: &Client) -> Outcome {
    for number in 1000..1000 + REFUSED_BY {
        place.fill(Filling::Space)?;
        if !is_taken(client, number).await? {
            return Ok(());
        }
    }
    anyhow::bail!("the disk never fills up")
}

pub(crate) async fn is_served_from(kit: Kit, file_system: FileSystem) -> Outcome {
    let place = Place::new(&kit, 1, file_system)?;
    let mut daemon = place.start(&kit, "lazy").await?;
    let mut client = daemon.client();
    let mut blobs = Vec::new();
    for number in 0..BLOBS {
        ensure!(is_taken(&client, number).await?, "there is room");
        blobs.push(client.digest(content(number)));
    }
    let action = client.action("cp in out").input("in", "an input").output("out");
    action.run().await?.succeeded().await?;
    let action_digest = action.encode().0;
    ensure!(is_cached(&client, &action_digest).await?, "the result is not cached");
    daemon.kill()?;

    // It starts, makes room, and serves what it could keep.
    place.fill(Filling::Space)?;
    daemon = place.start(&kit, "lazy").await?;
    client = daemon.client();
    let kept = left(&client, &blobs).await?;
    // A busy btrfs takes longer to have free what was evicted than the store waits, which then evicts more.
    let keeps_some = file_system != FileSystem::Btrfs;
    ensure!(!(keeps_some && kept.is_empty()), "the store gave up everything:\n{}", daemon.log());
    ensure!(client.missing(&[client.digest("nothing")]).await?.len() == 1, "it answers");

    // Others take that room too. Once nothing is left to evict, uploads and actions are refused, and all else goes on.
    fill_until_refused(&place, &client).await?;
    let run = client.action("echo again > out").output("out").run().await;
    let refused = match &run {
        Ok(run) => run.code() == Code::ResourceExhausted,
        // Its blobs could not be uploaded.
        Err(error) if format!("{error:#}").contains("No space left on device") => true,
        Err(_) => !is_taken(&client, 2000).await?,
    };
    ensure!(refused, "an action ran on a full disk: {run:?}");
    left(&client, &blobs).await?;
    daemon.terminate()?;
    ensure!(daemon.wait()?.success(), "{}", daemon.log());

    // A server that has nothing to evict starts as well, and ends.
    for _ in 0..2 {
        place.fill(Filling::Space)?;
        daemon = place.start(&kit, "lazy").await?;
        left(&daemon.client(), &blobs).await?;
        daemon.kill()?;
    }
    place.fill(Filling::Space)?;
    daemon = place.start(&kit, "lazy").await?;
    comes_back(&place, &daemon, &blobs).await
}

/// With space, everything comes back by itself.
async fn comes_back(place: &Place, daemon: &Daemon, blobs: &[Digest]) -> Outcome {
    let client = daemon.client();
    place.empty()?;
    eventually_async("uploads are taken again", async || is_taken(&client, 5000).await).await?;
    let action = client.action("cat in in > out").input("in", "after it").output("out");
    eventually_async("actions run again", async || {
        let run = action.run().await;
        Ok(matches!(run, Ok(run) if run.code() == Code::Ok))
    })
    .await?;
    eventually_async("results are cached again", async || {
        action.run().await?;
        is_cached(&client, &action.encode().0).await
    })
    .await?;
    left(&client, blobs).await?;
    ensure!(client.get(&client.digest(content(5000))).await? == content(5000), "it is false");
    Ok(())
}
