//! The storage of a cluster: another actiond, or bazel-remote. Both can be killed, and started again with what they
//! had.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use testkit::{Client, Daemon, Gate, Kit, eventually_async};

/// The variable with the path of bazel-remote.
const BAZEL_REMOTE: &str = "ACTIOND_TEST_BAZEL_REMOTE";

/// A storage at an address that it keeps.
pub(crate) struct Storage {
    address: SocketAddr,
    server: Server,
}

enum Server {
    Actiond(Box<Daemon>),
    BazelRemote { process: Child, directory: tempfile::TempDir },
}

impl Storage {
    pub(crate) async fn actiond(kit: &Kit) -> anyhow::Result<Self> {
        let address = free_address()?;
        let daemon = kit.daemon().listen(address).start().await?;
        Ok(Self { address, server: Server::Actiond(Box::new(daemon)) })
    }

    pub(crate) async fn bazel_remote(kit: &Kit) -> anyhow::Result<Self> {
        let directory = kit.daemon().directory()?;
        let address = free_address()?;
        let process = spawn(&directory, address)?;
        let storage = Self { address, server: Server::BazelRemote { process, directory } };
        storage.until_it_answers().await?;
        Ok(storage)
    }

    pub(crate) fn address(&self) -> String {
        format!("grpc://{}", self.address)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A gate for actions on this machine.
    pub(crate) fn gate(&self) -> Gate {
        Gate::on_this_machine()
    }

    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        match &mut self.server {
            Server::Actiond(daemon) => drop(daemon.kill()?),
            Server::BazelRemote { process, .. } => {
                process.kill()?;
                process.wait()?;
            }
        }
        Ok(())
    }

    pub(crate) async fn start_again(&mut self, _: &Kit) -> anyhow::Result<()> {
        match &mut self.server {
            Server::Actiond(daemon) => **daemon = daemon.successor().start().await?,
            Server::BazelRemote { process, directory } => {
                *process = spawn(directory, self.address)?
            }
        }
        self.until_it_answers().await
    }

    async fn until_it_answers(&self) -> anyhow::Result<()> {
        let client = self.client();
        let answers = async || Ok(client.missing(&[client.digest(b"x")]).await.is_ok());
        eventually_async("the storage answers", answers).await
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.kill();
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn spawn(directory: &tempfile::TempDir, address: SocketAddr) -> anyhow::Result<Child> {
    let Some(program) = std::env::var_os(BAZEL_REMOTE) else {
        testkit::skip(format!("{BAZEL_REMOTE} names no server; `cargo xtask e2e upstream` does"))?;
        bail!("skipping is an error");
    };
    let log = fs::File::create(directory.path().join("log"))?;
    let mut command = Command::new(&program);
    command.arg("--dir").arg(directory.path().join("cache")).args(["--max_size", "1"]);
    command.args(["--grpc_address", &address.to_string(), "--http_address", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("starting {}", program.display()))
}
