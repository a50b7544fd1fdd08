//! The tier below the store against servers that others wrote. `cargo xtask e2e upstream` builds them and runs
//! this.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use testkit::{Client, Daemon, DaemonBuilder, Kit, Outcome, ReservedAddress, eventually_async};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    bazel_remote_takes_results_and_gives_them_to_another_daemon,
    bazel_remote_is_asked_for_blobs_and_inputs,
    bazel_remote_is_killed_and_comes_back,
}

/// The variable with the path of bazel-remote.
const BAZEL_REMOTE: &str = "ACTIOND_TEST_BAZEL_REMOTE";

/// A server with a disk cache; killed when dropped.
struct BazelRemote {
    process: Child,
    directory: tempfile::TempDir,
    address: ReservedAddress,
}

impl BazelRemote {
    async fn start(kit: &Kit) -> anyhow::Result<Self> {
        kit.only_on_the_host("a guest has no network for an upstream")?;
        let directory = kit.daemon().directory()?;
        let address = ReservedAddress::new()?;
        let process = Self::spawn(&directory, address.get())?;
        let server = Self { process, directory, address };
        server.until_it_answers().await?;
        Ok(server)
    }

    fn spawn(directory: &tempfile::TempDir, address: SocketAddr) -> anyhow::Result<Child> {
        let Some(program) = std::env::var_os(BAZEL_REMOTE) else {
            testkit::skip(format!(
                "{BAZEL_REMOTE} names no server; `cargo xtask e2e upstream` does"
            ))?;
            unreachable!("skipping is an error");
        };
        let log = fs::File::create(directory.path().join("log"))?;
        let mut command = Command::new(&program);
        command.arg("--dir").arg(directory.path().join("cache")).args(["--max_size", "1"]);
        command.arg("--grpc_address").arg(address.to_string());
        command.args(["--http_address", "127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("starting {}", program.display()))
    }

    fn client(&self) -> Client {
        Client::new(self.address.get())
    }

    async fn until_it_answers(&self) -> anyhow::Result<()> {
        let client = self.client();
        let answers = async || Ok(client.missing(&[client.digest(b"x")]).await.is_ok());
        let answered = eventually_async("bazel-remote answers", answers).await;
        answered.with_context(|| {
            fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
        })
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    async fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = Self::spawn(&self.directory, self.address.get())?;
        self.until_it_answers().await
    }

    fn above(&self, kit: &Kit) -> DaemonBuilder {
        let address = format!("grpc://{}", self.address.get());
        let daemon = kit.daemon().host_rootfs().flag("--upstream-cas").flag(&address);
        daemon.flag("--upstream-ac").flag(&address).flag("--upstream-timeout=120s")
    }
}

impl Drop for BazelRemote {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.kill();
    }
}

/// Not compressible, larger than what travels in batches, and small enough for a message of the test itself.
fn large() -> Vec<u8> {
    let mut state = 7_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(3 << 20).collect()
}

async fn is_a_hit(daemon: &Daemon, number: usize) -> anyhow::Result<bool> {
    let script = format!("mkdir -p dir/sub; cp in dir/sub/file; cp in out; echo {number}");
    let action = daemon.client().action(&script).input("in", large()).output("out").output("dir");
    let run = action.run().await?;
    run.succeeded().await?;
    assert_eq!(run.stdout().await?, format!("{number}\n"));
    assert_eq!(run.tree("dir").await?.children.len(), 1);
    Ok(run.from_cache())
}

async fn bazel_remote_takes_results_and_gives_them_to_another_daemon(kit: Kit) -> Outcome {
    let mut server = BazelRemote::start(&kit).await?;
    let first = server.above(&kit).flag("--upstream-writes=through").start().await?;
    for number in 0..3 {
        assert!(!is_a_hit(&first, number).await?);
    }
    let second = server.above(&kit).start().await?;
    for number in 0..3 {
        assert!(is_a_hit(&second, number).await?, "action {number} of another daemon");
    }
    server.kill()?;
    for number in 0..3 {
        assert!(is_a_hit(&second, number).await?, "it is here now");
    }
    Ok(())
}

async fn bazel_remote_is_asked_for_blobs_and_inputs(kit: Kit) -> Outcome {
    let server = BazelRemote::start(&kit).await?;
    let daemon = server.above(&kit).start().await?;
    let (theirs, ours) = (server.client(), daemon.client());
    for content in [b"small".to_vec(), vec![7; 1 << 20], large()] {
        let digest = theirs.put(content.clone()).await?;
        assert_eq!(ours.get(&digest).await?, content);
    }
    let action = |client: Client| {
        let action = client.action("cat a/b/deep many/* | wc -c").input("a/b/deep", large());
        (0..50).fold(action, |action, number| action.input(&format!("many/{number}"), "content"))
    };
    action(theirs).upload().await?;
    let run = action(ours).run_without_upload().await?;
    let expected = large().len() + 50 * "content".len();
    assert_eq!(run.succeeded().await?.stdout().await?.trim(), expected.to_string());
    Ok(())
}

async fn bazel_remote_is_killed_and_comes_back(kit: Kit) -> Outcome {
    let mut server = BazelRemote::start(&kit).await?;
    let daemon = server.above(&kit).start().await?;
    assert!(!is_a_hit(&daemon, 0).await?);
    server.kill()?;
    for number in 1..4 {
        assert!(!is_a_hit(&daemon, number).await?);
    }
    server.start_again().await?;
    // The upstream receives a copy of what was made in the meantime, and another daemon gets it from there.
    let other = server.above(&kit).start().await?;
    let ours = daemon.client();
    let action = ours.action("mkdir -p dir/sub; cp in dir/sub/file; cp in out; echo 3");
    let action = action.input("in", large()).output("out").output("dir").encode().0;
    let client = other.client();
    let is_there = async || Ok(client.cached(&action).await?.is_some());
    eventually_async("the result is upstream", is_there).await?;
    assert!(is_a_hit(&other, 3).await?);
    Ok(())
}
