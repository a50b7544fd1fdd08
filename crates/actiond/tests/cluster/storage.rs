//! The storage of a cluster: another actiond, bazel-remote or Buildbarn's. All can be killed, and started again with what
//! they had.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context as _, bail};
use testkit::{Client, Daemon, Gate, Kit, bounded, eventually_async};

/// A storage that is not ours.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Other {
    BazelRemote,
    BbStorage,
}

impl Other {
    /// The variable with the path of the program.
    fn variable(self) -> &'static str {
        match self {
            Self::BazelRemote => "ACTIOND_TEST_BAZEL_REMOTE",
            Self::BbStorage => "ACTIOND_TEST_BB_STORAGE",
        }
    }

    /// The program's arguments: it listens at `address` and writes below `directory`.
    fn arguments(self, directory: &Path, address: SocketAddr) -> anyhow::Result<Vec<OsString>> {
        if let Self::BbStorage = self {
            let file = directory.join("storage.jsonnet");
            fs::write(&file, bb_storage_settings(directory, address)?)?;
            return Ok(vec![file.into()]);
        }
        let mut words: Vec<OsString> = vec!["--dir".into(), directory.join("cache").into()];
        words.extend(["--grpc_address".into(), address.to_string().into()]);
        words.extend(["--max_size", "1", "--http_address", "127.0.0.1:0"].map(OsString::from));
        Ok(words)
    }
}

/// The settings of a bb_storage that keeps what it has over a restart.
fn bb_storage_settings(directory: &Path, address: SocketAddr) -> anyhow::Result<String> {
    let backend = |name: &str, new_blocks: u32| {
        let folder = directory.join(name);
        let state = folder.join("state");
        fs::create_dir_all(&state)?;
        anyhow::Ok(format!(
            "{{ 'local': {{
              keyLocationMapOnBlockDevice: {{ file: {{ path: '{folder}/map', sizeBytes: 1048576 }} }},
              keyLocationMapMaximumGetAttempts: 16, keyLocationMapMaximumPutAttempts: 64,
              oldBlocks: 2, currentBlocks: 4, newBlocks: {new_blocks},
              blocksOnBlockDevice: {{
                source: {{ file: {{ path: '{folder}/blocks', sizeBytes: 134217728 }} }}, spareBlocks: 2,
              }},
              persistent: {{ stateDirectoryPath: '{state}', minimumEpochInterval: '0.1s' }},
            }} }}",
            folder = folder.display(),
            state = state.display(),
        ))
    };
    let all = "getAuthorizer: { allow: {} }, putAuthorizer: { allow: {} }";
    Ok(format!(
        "{{
          grpcServers: [{{ listenAddresses: ['{address}'], authenticationPolicy: {{ allow: {{}} }} }}],
          maximumMessageSizeBytes: 2097152,
          contentAddressableStorage: {{ backend: {}, {all}, findMissingAuthorizer: {{ allow: {{}} }} }},
          actionCache: {{ backend: {}, {all} }},
        }}",
        backend("cas", 3)?,
        backend("ac", 1)?
    ))
}

/// A storage at an address that it keeps.
pub(crate) struct Storage {
    address: SocketAddr,
    server: Server,
}

enum Server {
    Actiond(Box<Daemon>),
    Other { other: Other, process: Child, directory: tempfile::TempDir },
}

impl Storage {
    pub(crate) async fn actiond(kit: &Kit) -> anyhow::Result<Self> {
        let address = free_address()?;
        let daemon = kit.daemon().listen(address).start().await?;
        Ok(Self { address, server: Server::Actiond(Box::new(daemon)) })
    }

    pub(crate) async fn other(kit: &Kit, other: Other) -> anyhow::Result<Self> {
        let directory = kit.daemon().directory()?;
        let address = free_address()?;
        let process = spawn(other, directory.path(), address)?;
        let storage = Self { address, server: Server::Other { other, process, directory } };
        storage.until_it_answers().await?;
        Ok(storage)
    }

    pub(crate) fn address(&self) -> String {
        format!("grpc://{}", self.address)
    }

    pub(crate) fn socket_address(&self) -> SocketAddr {
        self.address
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
            Server::Other { process, .. } => {
                process.kill()?;
                process.wait()?;
            }
        }
        Ok(())
    }

    pub(crate) async fn start_again(&mut self, _: &Kit) -> anyhow::Result<()> {
        match &mut self.server {
            Server::Actiond(daemon) => **daemon = daemon.successor().start().await?,
            Server::Other { other, process, directory } => {
                *process = spawn(*other, directory.path(), self.address)?
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

fn spawn(other: Other, directory: &Path, address: SocketAddr) -> anyhow::Result<Child> {
    let variable = other.variable();
    let Some(program) = std::env::var_os(variable) else {
        testkit::skip(format!("{variable} names no server; `cargo xtask e2e upstream` does"))?;
        bail!("skipping is an error");
    };
    let log = fs::File::create(directory.join("log"))?;
    let mut command = bounded(&program);
    command.args(other.arguments(directory, address)?);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("starting {}", program.display()))
}
