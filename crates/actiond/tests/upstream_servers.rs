//! The tier below the store against servers that others wrote. `cargo xtask test` and `cargo xtask e2e upstream`
//! build them and name them to this.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::Context as _;
use testkit::upstream::{Copies, incompressible};
use testkit::{
    Client, Daemon, DaemonBuilder, Kit, Outcome, ReservedAddress, bounded, eventually_async,
};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    bazel_remote_takes_results_and_gives_them_to_another_daemon,
    bazel_remote_is_asked_for_blobs_and_inputs,
    bazel_remote_is_killed_and_comes_back,
    bb_storage_takes_results_and_gives_them_to_another_daemon,
    bb_storage_is_asked_for_blobs_and_inputs,
    bb_storage_is_killed_and_comes_back,
}

/// A program of others.
#[derive(Clone, Copy)]
struct Program {
    /// The variable with its path.
    variable: &'static str,
    /// The arguments with which it serves at an address, with its files in a directory.
    arguments: fn(&Path, SocketAddr) -> anyhow::Result<Vec<OsString>>,
}

/// It keeps blobs and results on the disk.
const BAZEL_REMOTE: Program = Program {
    variable: "ACTIOND_TEST_BAZEL_REMOTE",
    arguments: |directory, address| {
        let words = ["--max_size=1", "--http_address=127.0.0.1:0"].map(OsString::from);
        let mut words = words.to_vec();
        words.extend(["--dir".into(), directory.join("cache").into_os_string()]);
        words.push(format!("--grpc_address={address}").into());
        Ok(words)
    },
};

/// Buildbarn's, which keeps them in memory, as it is configured here.
const BB_STORAGE: Program = Program {
    variable: "ACTIOND_TEST_BB_STORAGE",
    arguments: |directory, address| {
        let settings = include_str!("../../../e2e/bb_storage.jsonnet");
        let file = directory.join("bb_storage.jsonnet");
        fs::write(&file, settings.replace("ADDRESS", &address.to_string()))?;
        Ok(vec![file.into_os_string()])
    },
};

/// A server; killed when dropped.
struct Server {
    program: Program,
    process: Child,
    directory: tempfile::TempDir,
    address: ReservedAddress,
}

impl Server {
    async fn start(kit: &Kit, program: Program) -> anyhow::Result<Self> {
        kit.only_on_the_host("a guest has no network for an upstream")?;
        let directory = kit.daemon().directory()?;
        let address = ReservedAddress::new()?;
        let process = Self::spawn(program, &directory, address.get())?;
        let server = Self { program, process, directory, address };
        server.until_it_answers().await?;
        Ok(server)
    }

    fn spawn(
        Program { variable, arguments }: Program,
        directory: &tempfile::TempDir,
        address: SocketAddr,
    ) -> anyhow::Result<Child> {
        let Some(program) = std::env::var_os(variable) else {
            testkit::skip(format!("{variable} names no server; `cargo xtask e2e upstream` does"))?;
            unreachable!("skipping is an error");
        };
        let log = fs::File::create(directory.path().join("log"))?;
        let mut command = bounded(&program);
        command.args(arguments(directory.path(), address)?).current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("starting {}", program.display()))
    }

    fn client(&self) -> Client {
        Client::new(self.address.get())
    }

    async fn until_it_answers(&self) -> anyhow::Result<()> {
        let client = self.client();
        let answers = async || Ok(client.missing(&[client.digest(b"x")]).await.is_ok());
        let answered = eventually_async("the server answers", answers).await;
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
        self.process = Self::spawn(self.program, &self.directory, self.address.get())?;
        self.until_it_answers().await
    }

    fn above(&self, kit: &Kit) -> DaemonBuilder {
        let address = format!("grpc://{}", self.address.get());
        let daemon = kit.daemon().host_rootfs().flag("--upstream-cas").flag(&address);
        daemon.flag("--upstream-ac").flag(&address).flag("--upstream-timeout=120s")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.kill();
    }
}

/// Not compressible, larger than what travels in batches, and small enough for a message of the test itself.
fn large() -> Vec<u8> {
    incompressible(3 << 20)
}

async fn is_a_hit(daemon: &Daemon, number: usize) -> anyhow::Result<bool> {
    Copies::of(large()).is_a_hit(daemon, number).await
}

async fn bazel_remote_takes_results_and_gives_them_to_another_daemon(kit: Kit) -> Outcome {
    takes_and_gives(kit, BAZEL_REMOTE).await
}

async fn bb_storage_takes_results_and_gives_them_to_another_daemon(kit: Kit) -> Outcome {
    takes_and_gives(kit, BB_STORAGE).await
}

async fn takes_and_gives(kit: Kit, program: Program) -> Outcome {
    let mut server = Server::start(&kit, program).await?;
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
    blobs_and_inputs(kit, BAZEL_REMOTE).await
}

async fn bb_storage_is_asked_for_blobs_and_inputs(kit: Kit) -> Outcome {
    blobs_and_inputs(kit, BB_STORAGE).await
}

async fn blobs_and_inputs(kit: Kit, program: Program) -> Outcome {
    let server = Server::start(&kit, program).await?;
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
    killed_and_back(kit, BAZEL_REMOTE).await
}

async fn bb_storage_is_killed_and_comes_back(kit: Kit) -> Outcome {
    killed_and_back(kit, BB_STORAGE).await
}

async fn killed_and_back(kit: Kit, program: Program) -> Outcome {
    let mut server = Server::start(&kit, program).await?;
    let daemon = server.above(&kit).start().await?;
    assert!(!is_a_hit(&daemon, 0).await?);
    server.kill()?;
    for number in 1..4 {
        assert!(!is_a_hit(&daemon, number).await?);
    }
    server.start_again().await?;
    // The upstream receives a copy of what was made in the meantime, and another daemon gets it from there.
    let other = server.above(&kit).start().await?;
    Copies::of(large()).arrives(&other, 3).await
}
