//! The server, the attacker, the host; and how an action is run.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use testkit::google::longrunning::{CancelOperationRequest, Operation};
use testkit::proto::execution_stage::Value as Stage;
use testkit::proto::{Directory, DirectoryNode, FileNode, SymlinkNode};
use testkit::run::metadata;
use testkit::{Action, Client, Digest, Run};
use tokio::sync::OnceCell;
use tonic::Code;

use crate::case::{Case, Place};
use crate::guarded::Guarded;
use crate::host::{self, Host, Local, Process};
use crate::judge::code_of;

/// The content of every input file but the attacker.
pub(crate) const INPUT: &str = "an input of many actions\n";

/// The bound on every wait for the server. It only ends waits that would never end: a machine that is
/// busy with other work may take minutes for what takes a second otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// The timeout of actions that end by themselves, for the same reason.
pub(crate) const ACTION_TIMEOUT: Duration = Duration::from_secs(300);

/// All that a case needs.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) server: SocketAddr,
    pub(crate) host: Host,
    pub(crate) local: Option<Local>,
    /// The server's program.
    pub(crate) daemon: Option<PathBuf>,
    guarded: OnceCell<Guarded>,
    attacker_path: PathBuf,
    /// The attacker's blob.
    attacker: Digest,
    /// The attacker's name in input roots: unlike any other process.
    name: String,
    /// The blob of [`INPUT`].
    pub(crate) input: Digest,
    /// The Directory that has one file called `nested`.
    nested: Digest,
}

impl World {
    /// Connects, and uploads the attacker.
    pub(crate) async fn new(
        server: &str,
        attacker_path: &Path,
        local: Option<Local>,
    ) -> Result<Self> {
        let server = server.strip_prefix("http://").unwrap_or(server);
        let address = server.to_socket_addrs().with_context(|| format!("the address {server}"))?;
        let address = address.into_iter().next().context("the server has no address")?;
        let client = Client::new(address);
        let content =
            std::fs::read(attacker_path).with_context(|| attacker_path.display().to_string())?;
        let attacker = client.digest(&content);
        let upload = client.upload_name(&attacker);
        client.write(&upload, &content, 1 << 20).await.context("uploading the attacker")?;
        let input = client.put(INPUT).await?;
        let nested =
            Directory { files: vec![file("nested", &input, false)], ..Directory::default() };
        let nested = client.put(nested.encode_to_vec()).await?;
        let name = format!("attack-{}", std::process::id());
        Ok(Self {
            client,
            server: address,
            host: Host::new()?,
            local,
            daemon: None,
            guarded: OnceCell::new(),
            attacker_path: attacker_path.to_owned(),
            attacker,
            name,
            input,
            nested,
        })
    }

    /// The same with the server's program.
    pub(crate) fn with_daemon(self, daemon: Option<PathBuf>) -> Self {
        Self { daemon, ..self }
    }

    /// The server with principals, started when the first case needs it.
    pub(crate) async fn guarded(&self) -> Result<&Guarded> {
        let program = self.daemon.as_deref().context("needs the server's program")?;
        self.guarded.get_or_try_init(|| Guarded::start(program)).await
    }

    /// The attacker's program.
    pub(crate) fn attacker_content(&self) -> Result<Vec<u8>> {
        let path = &self.attacker_path;
        std::fs::read(path).with_context(|| path.display().to_string())
    }

    /// The store has what was uploaded at first, for a client relies on it.
    pub(crate) async fn ensure_kept(&self) -> Result<()> {
        let missing = self.client.missing(&[self.attacker, self.input, self.nested]).await?;
        ensure!(missing.is_empty(), "the store gave up blobs that have a lease: {missing:?}");
        Ok(())
    }

    /// The input root that cases have: the attacker, `input`, `directory/nested`.
    pub(crate) fn root(&self) -> Directory {
        let mut files =
            vec![file(&self.name, &self.attacker, true), file("input", &self.input, false)];
        files.sort_by(|one, other| one.name.cmp(&other.name));
        let directory =
            DirectoryNode { name: "directory".into(), digest: Some(self.nested.to_proto()) };
        Directory { files, directories: vec![directory], ..Directory::default() }
    }

    /// An action that runs one of the attacker's programs, without its input root.
    pub(crate) fn action(&self, words: &[&str]) -> Action {
        let program = format!("/execroot/{}", self.name);
        let substitute = |word: &&str| self.substitute(word);
        self.client
            .bare_action(std::iter::once(program).chain(words.iter().map(substitute)))
            .do_not_cache()
            .timeout(ACTION_TIMEOUT)
    }

    /// Such an action with the input root as root, and the paths in it as they are there.
    fn action_in_the_root(&self, words: &[&str]) -> Action {
        let moved = |word: &&str| word.replace("/execroot'", "/'").replace("/execroot", "");
        let words: Vec<String> = words.iter().map(moved).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let program = format!("/{}", self.name);
        self.action(&words)
            .change_command(|command| command.arguments[0] = program)
            .property("rootfs", "input-root")
    }

    /// An action that runs one of the attacker's programs with its input root, uploaded.
    pub(crate) async fn ready(&self, words: &[&str]) -> Result<Action> {
        let root = self.client.put(self.root().encode_to_vec()).await?;
        Ok(self.action(words).input_root(root))
    }

    /// The action of a case.
    pub(crate) async fn prepare(&self, case: &Case, words: &[&str]) -> Result<Action> {
        let mut root = self.root();
        let link = |(name, target): &(&str, &str)| SymlinkNode {
            name: (*name).to_owned(),
            target: self.substitute(target),
            ..SymlinkNode::default()
        };
        root.symlinks = case.links.iter().map(link).collect();
        let root = self.client.put(root.encode_to_vec()).await?;
        let mut action = match case.place {
            Place::Execroot => self.action(words),
            Place::Root => self.action_in_the_root(words),
        };
        action = action.input_root(root).working_directory(case.working_directory);
        action = action.timeout(Duration::from_millis(case.timeout_ms));
        for output in case.outputs {
            action = action.output(output);
        }
        for (name, value) in case.properties {
            action = action.property(name, value);
        }
        Ok(action)
    }

    /// Puts names in the places of their names.
    pub(crate) fn substitute(&self, text: &str) -> String {
        let text =
            text.replace("{program}", &self.name).replace("{server}", &self.server.to_string());
        let state = self.local.as_ref().map(|local| local.root.display().to_string());
        let text = text.replace("{state}", state.as_deref().unwrap_or("{state}"));
        self.host.substitute(&text)
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, action: &Action) -> Result<Run> {
        tokio::time::timeout(PATIENCE, action.run()).await.context("the server hangs")?
    }

    /// Runs it with its Action message changed at the last moment.
    pub(crate) async fn run_changed(
        &self,
        action: &Action,
        change: fn(&mut testkit::proto::Action),
    ) -> Result<Run> {
        let digest = action.upload().await?;
        let mut message =
            testkit::proto::Action::decode(self.client.get(&digest).await?.as_slice())?;
        change(&mut message);
        let digest = self.client.put(message.encode_to_vec()).await?;
        let request = testkit::proto::ExecuteRequest {
            action_digest: Some(digest.to_proto()),
            ..action.request()
        };
        let stream = self.client.execution().execute(request).await?.into_inner();
        let run = Run::collect(self.client.clone(), stream);
        tokio::time::timeout(PATIENCE, run).await.context("the server hangs")?
    }

    /// Runs a program of the attacker that must end well, and says what it printed.
    pub(crate) async fn say(&self, words: &[&str]) -> Result<String> {
        let run = self.run(&self.ready(words).await?).await?;
        run.succeeded().await?.stdout().await
    }

    /// Starts an action that does not end by itself, and returns when it runs.
    pub(crate) async fn start(&self, action: &Action) -> Result<Started> {
        action.upload().await?;
        let mut stream = self.client.execution().execute(action.request()).await?.into_inner();
        let running = async {
            loop {
                let operation = stream.message().await?.context("the stream ended")?;
                if metadata(&operation)?.stage == Stage::Executing as i32 {
                    return anyhow::Ok(operation.name);
                }
                ensure!(!operation.done, "the action did not run: {operation:?}");
            }
        };
        let name = tokio::time::timeout(PATIENCE, running).await.context("the server hangs")??;
        Ok(Started { name, stream })
    }

    /// Stops an action, and waits for its answer.
    pub(crate) async fn stop(&self, started: Started) -> Result<Run> {
        let request = CancelOperationRequest { name: started.name };
        self.client.operations().cancel_operation(request).await?;
        let run = Run::collect(self.client.clone(), started.stream);
        tokio::time::timeout(PATIENCE, run).await.context("the server hangs")?
    }

    /// Waits until the server takes actions again, after clients that filled its queue have left: it
    /// drops their actions only after it has noticed that, and after a grace period.
    pub(crate) async fn wait_until_it_serves(&self) -> Result<()> {
        let mut refusal = String::new();
        let serves = async || match code_of(self.run(&self.ready(&["nothing"]).await?).await)? {
            (Code::ResourceExhausted, message) => {
                refusal = message;
                Ok(false)
            }
            _ => Ok(true),
        };
        let serves = eventually(serves).await?;
        ensure!(serves, "the server takes no action any more: {refusal}");
        Ok(())
    }

    /// Fails unless the server does as it should with an action that does nothing.
    pub(crate) async fn ensure_serves(&self) -> Result<()> {
        let said = self.say(&["nothing"]).await.context("the server serves no more")?;
        ensure!(said.is_empty(), "an action that prints nothing printed {said:?}");
        Ok(())
    }

    /// The processes of actions on this machine.
    pub(crate) fn processes(&self) -> Result<Vec<Process>> {
        host::processes_named(&self.name)
    }

    /// Fails if an action's process is left on this machine.
    pub(crate) async fn ensure_no_process(&self) -> Result<()> {
        // A process that is killed while the answer is on its way takes a moment to go.
        let mut left = Vec::new();
        let none = async || {
            left = self.processes()?;
            Ok(left.is_empty())
        };
        let gone = eventually(none).await?;
        ensure!(gone, "processes of an action are left: {left:?}");
        Ok(())
    }
}

/// An action that runs.
pub(crate) struct Started {
    name: String,
    stream: tonic::Streaming<Operation>,
}

/// Whether `condition` comes to hold.
pub(crate) async fn eventually(mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<bool> {
    const PAUSE: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + PATIENCE;
    while !condition().await? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(true)
}

/// A file of an input root.
pub(crate) fn file(name: &str, digest: &Digest, is_executable: bool) -> FileNode {
    FileNode {
        name: name.to_owned(),
        digest: Some(digest.to_proto()),
        is_executable,
        ..FileNode::default()
    }
}
