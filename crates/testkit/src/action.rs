//! An action, word by word.

use std::collections::BTreeMap;
use std::time::Duration;

use model::proto::google::longrunning::Operation;
use model::{Digest, proto};
use prost::Message as _;
use tonic::metadata::MetadataValue;
use tonic::{Status, Streaming};

use crate::client::Client;
use crate::run::Run;
use crate::tree::Tree;

/// The shell's search path, as Bazel sends it.
const PATH: &str = "/bin:/usr/bin:/usr/local/bin";

/// The header with the names that a client gives its requests (REAPI).
const REQUEST_METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

impl Client {
    /// An action that runs `script` with the shell that the server offers.
    pub fn action(&self, script: &str) -> Action {
        Action::shell(self.clone(), script)
    }

    /// An action that runs `arguments` with nothing but its inputs.
    pub fn bare_action<S: Into<String>>(&self, arguments: impl IntoIterator<Item = S>) -> Action {
        Action::bare(self.clone(), arguments.into_iter().map(Into::into).collect())
    }
}

/// An action that is to be run.
#[derive(Debug, Clone)]
pub struct Action {
    client: Client,
    command: proto::Command,
    action: proto::Action,
    properties: BTreeMap<String, String>,
    tree: Tree,
    input_root: Option<Digest>,
    skip_cache_lookup: bool,
    priority: i32,
    metadata: proto::RequestMetadata,
    trace: Option<String>,
}

impl Action {
    pub(crate) fn bare(client: Client, arguments: Vec<String>) -> Self {
        Self {
            client,
            command: proto::Command { arguments, ..proto::Command::default() },
            action: proto::Action::default(),
            properties: BTreeMap::new(),
            tree: Tree::new(),
            input_root: None,
            skip_cache_lookup: false,
            priority: 0,
            metadata: proto::RequestMetadata::default(),
            trace: None,
        }
    }

    pub(crate) fn shell(client: Client, script: &str) -> Self {
        let arguments = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Self::bare(client, arguments).env("PATH", PATH).with_programs()
    }

    /// Names the target, the build and the tool that ask.
    #[must_use]
    pub fn sent_by(self, metadata: proto::RequestMetadata) -> Self {
        Self { metadata, ..self }
    }

    /// Sends a trace context (W3C), as in `00-TRACE-SPAN-01`.
    #[must_use]
    pub fn in_trace(self, traceparent: &str) -> Self {
        Self { trace: Some(traceparent.to_owned()), ..self }
    }

    /// Sets the priority of the execution.
    #[must_use]
    pub fn priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }

    /// Asks for the shell and the tools that the server offers: the host's, or a runtime's.
    #[must_use]
    pub fn with_programs(self) -> Self {
        let properties = self.client.programs().properties();
        properties.iter().fold(self, |action, (name, value)| action.property(name, value))
    }

    /// Asks for no root file system: the action has nothing but its inputs.
    #[must_use]
    pub fn without_programs(self) -> Self {
        let properties = self.client.programs().properties();
        properties.iter().fold(self, |action, (name, _)| action.without_property(name))
    }

    /// Adds an input file.
    #[must_use]
    pub fn input(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.tree.file(path, content);
        self
    }

    /// Adds an executable input file.
    #[must_use]
    pub fn executable(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.tree.executable(path, content);
        self
    }

    /// Adds a symlink to the inputs.
    #[must_use]
    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        self.tree.symlink(path, target);
        self
    }

    /// Adds an empty directory to the inputs.
    #[must_use]
    pub fn directory(mut self, path: &str) -> Self {
        self.tree.directory(path);
        self
    }

    /// Uses the Directory of that digest as input root, instead of the inputs
    /// named one by one; it need not be there, nor be one.
    #[must_use]
    pub fn input_root(mut self, digest: Digest) -> Self {
        self.input_root = Some(digest);
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        let variable =
            proto::command::EnvironmentVariable { name: name.to_owned(), value: value.to_owned() };
        self.command.environment_variables.push(variable);
        self.command.environment_variables.sort_by(|one, other| one.name.cmp(&other.name));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn working_directory(mut self, path: &str) -> Self {
        self.command.working_directory = path.to_owned();
        self
    }

    /// Declares an output of any kind.
    #[must_use]
    pub fn output(mut self, path: &str) -> Self {
        self.command.output_paths.push(path.to_owned());
        self
    }

    /// Declares an output file, as clients of REAPI 2.0 do.
    #[must_use]
    #[expect(deprecated, reason = "clients of REAPI 2.0 send nothing else")]
    pub fn output_file(mut self, path: &str) -> Self {
        self.command.output_files.push(path.to_owned());
        self
    }

    /// Declares an output directory, as clients of REAPI 2.0 do.
    #[must_use]
    #[expect(deprecated, reason = "clients of REAPI 2.0 send nothing else")]
    pub fn output_directory(mut self, path: &str) -> Self {
        self.command.output_directories.push(path.to_owned());
        self
    }

    /// Sets a platform property.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Takes a platform property away.
    #[must_use]
    pub fn without_property(mut self, name: &str) -> Self {
        self.properties.remove(name);
        self
    }

    /// Sets the timeout.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.action.timeout = Some(model::proto::google::protobuf::Duration {
            seconds: timeout.as_secs() as i64,
            nanos: timeout.subsec_nanos() as i32,
        });
        self
    }

    /// Asks for the result not to be cached.
    #[must_use]
    pub fn do_not_cache(mut self) -> Self {
        self.action.do_not_cache = true;
        self
    }

    /// Makes the action another one, without changing what it does.
    #[must_use]
    pub fn salt(mut self, salt: &str) -> Self {
        self.action.salt = salt.as_bytes().to_vec().into();
        self
    }

    /// Runs it even if its result is cached.
    #[must_use]
    pub fn skip_cache_lookup(mut self) -> Self {
        self.skip_cache_lookup = true;
        self
    }

    /// Changes the Command message as it is.
    #[must_use]
    pub fn change_command(mut self, change: impl FnOnce(&mut proto::Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// Changes the Action message as it is.
    #[must_use]
    pub fn change_action(mut self, change: impl FnOnce(&mut proto::Action)) -> Self {
        change(&mut self.action);
        self
    }

    /// The target, invocation and tool that the action belongs to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The action's digest, and every blob that it needs.
    #[expect(deprecated, reason = "older clients send the platform with the Command")]
    pub fn encode(&self) -> (Digest, BTreeMap<Digest, Vec<u8>>) {
        let mut blobs = BTreeMap::new();
        let function = self.client.function();
        let mut store = |content: Vec<u8>| {
            let digest = Digest::of(function, &content);
            blobs.insert(digest, content);
            digest
        };
        let property = |(name, value): (&String, &String)| proto::platform::Property {
            name: name.clone(),
            value: value.clone(),
        };
        let properties = self.properties.iter().map(property).collect();
        let platform = Some(proto::Platform { properties });
        let mut command = self.command.clone();
        command.platform = platform.clone();
        let mut action = self.action.clone();
        action.platform = action.platform.or(platform);
        action.command_digest = Some(store(command.encode_to_vec()).to_proto());
        let mut tree = BTreeMap::new();
        let root = self.input_root.unwrap_or_else(|| self.tree.encode(function, &mut tree));
        action.input_root_digest = Some(root.to_proto());
        let digest = store(action.encode_to_vec());
        blobs.extend(tree);
        (digest, blobs)
    }

    /// Uploads everything, and returns the action's digest.
    ///
    /// # Errors
    /// When a blob is not stored.
    pub async fn upload(&self) -> anyhow::Result<Digest> {
        let (digest, blobs) = self.encode();
        for chunk in batches(blobs.into_values()) {
            self.client.put_all(chunk).await?;
        }
        Ok(digest)
    }

    /// Uploads everything, runs the action, and waits for its end.
    ///
    /// # Errors
    /// When the call fails; a failed action is no error.
    pub async fn run(&self) -> anyhow::Result<Run> {
        self.upload().await?;
        self.run_without_upload().await
    }

    /// Runs the action with what the server has.
    ///
    /// # Errors
    /// When the call fails; a failed action is no error.
    pub async fn run_without_upload(&self) -> anyhow::Result<Run> {
        let stream = self.start_without_upload().await?;
        Run::collect(self.client.clone(), stream).await
    }

    /// Uploads everything and starts the action.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn start(&self) -> anyhow::Result<Streaming<Operation>> {
        self.upload().await?;
        Ok(self.start_without_upload().await?)
    }

    async fn start_without_upload(&self) -> Result<Streaming<Operation>, Status> {
        let mut request = tonic::Request::new(self.request());
        let metadata = MetadataValue::from_bytes(&self.metadata.encode_to_vec());
        request.metadata_mut().insert_bin(REQUEST_METADATA, metadata);
        if let Some(trace) = &self.trace {
            let trace = trace.parse().map_err(|_| Status::invalid_argument("the trace context"))?;
            request.metadata_mut().insert("traceparent", trace);
        }
        Ok(self.client.execution().execute(request).await?.into_inner())
    }

    /// The message that starts it.
    pub fn request(&self) -> proto::ExecuteRequest {
        proto::ExecuteRequest {
            instance_name: self.client.instance().to_owned(),
            skip_cache_lookup: self.skip_cache_lookup,
            execution_policy: (self.priority != 0)
                .then_some(proto::ExecutionPolicy { priority: self.priority }),
            action_digest: Some(self.encode().0.to_proto()),
            digest_function: self.client.function().to_proto(),
            ..proto::ExecuteRequest::default()
        }
    }
}

/// Blobs in groups that fit into one batch.
fn batches(blobs: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
    const MAX_BYTES: usize = 3 << 20;
    let mut batches = vec![Vec::new()];
    let mut bytes = 0;
    for blob in blobs {
        bytes += blob.len();
        if bytes > MAX_BYTES {
            batches.push(Vec::new());
            bytes = blob.len();
        }
        batches.last_mut().expect("there is always one").push(blob);
    }
    batches
}
