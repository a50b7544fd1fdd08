//! Shared parts of the tests of all kinds of caches below the store: an action whose result goes there and comes from there,
//! and what is only there.

use anyhow::ensure;
use model::{Digest, DigestFunction};

use crate::{Action, Client, Daemon, Kit, Outcome, eventually_async};

/// Bytes that no compression makes smaller. The same each time.
pub fn incompressible(bytes: usize) -> Vec<u8> {
    let mut state = 11_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Actions that have `input` as a file, and as a file and in a tree of their outputs. They differ in a number.
#[derive(Debug, Clone)]
pub struct Copies {
    input: Vec<u8>,
}

impl Copies {
    /// Actions with that input.
    pub fn of(input: impl Into<Vec<u8>>) -> Self {
        Self { input: input.into() }
    }

    fn action(&self, client: &Client, number: usize) -> Action {
        let script = format!("mkdir -p dir/sub; cp in dir/sub/file; cp in out; echo {number}");
        client.action(&script).input("in", self.input.clone()).output("out").output("dir")
    }

    /// Runs an action, checks its outputs, and tells whether it was a hit.
    ///
    /// # Errors
    /// When it fails.
    ///
    /// # Panics
    /// When its outputs are others.
    pub async fn is_a_hit(&self, daemon: &Daemon, number: usize) -> anyhow::Result<bool> {
        let run = self.action(&daemon.client(), number).run().await?;
        run.succeeded().await?;
        assert_eq!(run.stdout().await?, format!("{number}\n"));
        assert_eq!(run.tree("dir").await?.children.len(), 1);
        Ok(run.from_cache())
    }

    /// Waits until the daemon serves the result of an action that another one ran.
    ///
    /// # Errors
    /// When it never does, or can't be asked.
    pub async fn arrives(&self, daemon: &Daemon, number: usize) -> Outcome {
        let client = daemon.client();
        let digest = self.action(&client, number).encode().0;
        let is_there = async || Ok(client.cached(&digest).await?.is_some());
        eventually_async("the result is there", is_there).await?;
        ensure!(self.is_a_hit(daemon, number).await?, "action {number} of another daemon");
        Ok(())
    }
}

/// Checks that a daemon serves, and gives to actions, blobs that only its upstream has. `put` gives one to the upstream.
///
/// # Errors
/// When something can't be put there or asked for.
///
/// # Panics
/// When the daemon's answers are others than the content.
pub async fn blobs_and_inputs_come(
    kit: &Kit,
    daemon: &Daemon,
    mut put: impl FnMut(&[u8]) -> anyhow::Result<Digest>,
) -> Outcome {
    let client = daemon.client();
    for content in [b"small".to_vec(), vec![7; 1 << 20], incompressible(12 << 20)] {
        let digest = put(&content)?;
        assert_eq!(digest, Digest::of(DigestFunction::Sha256, &content));
        let mut there = client.read(&client.download_name(&digest), 0, 0).await?;
        there.truncate(content.len() + 1);
        assert!(there == content, "{digest}");
    }
    let action = |client: Client| {
        let action =
            client.action("cat a/b/deep many/* | wc -c").input("a/b/deep", vec![7; 3 << 20]);
        (0..50).fold(action, |action, number| {
            action.input(&format!("many/{number}"), format!("{number:07}"))
        })
    };
    // Another daemon has encoded it, and its files are put where the upstream's are.
    let other = kit.daemon().host_rootfs().start().await?;
    action(other.client()).upload().await?;
    let mut copied = 0;
    for folder in std::fs::read_dir(other.store()?.join("cas/blobs/sha256"))? {
        for file in std::fs::read_dir(folder?.path())? {
            put(&std::fs::read(file?.path())?)?;
            copied += 1;
        }
    }
    ensure!(copied > 50, "the daemon has {copied} blobs");
    let run = action(client.clone()).run_without_upload().await?;
    let expected = (3 << 20) + 50 * 7;
    assert_eq!(run.succeeded().await?.stdout().await?.trim(), expected.to_string());
    let run = client.action("cat in").input("in", "nobody has it").run_without_upload().await?;
    assert_eq!(run.code(), tonic::Code::FailedPrecondition);
    Ok(())
}
