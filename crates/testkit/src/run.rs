//! The outcome of an action.

use anyhow::{Context, bail};
use model::proto::google::longrunning::{Operation, operation};
use model::proto::google::protobuf::Any;
use model::{Digest, proto};
use prost::Message;
use proto::execution_stage::Value as Stage;
use tonic::{Code, Streaming};

use crate::client::Client;

/// The end of an action, and the messages that led to it.
#[derive(Debug)]
pub struct Run {
    client: Client,
    /// Every message of the stream.
    pub operations: Vec<Operation>,
    /// The answer.
    pub response: proto::ExecuteResponse,
}

impl Run {
    /// Reads the stream to its end.
    ///
    /// # Errors
    /// When the stream breaks, ends without an answer, or holds what it may not.
    pub async fn collect(client: Client, mut stream: Streaming<Operation>) -> anyhow::Result<Self> {
        let mut operations = Vec::new();
        while let Some(operation) = stream.message().await? {
            metadata(&operation)?;
            operations.push(operation);
        }
        let last = operations.last().context("the stream had no message")?;
        let response = match &last.result {
            Some(operation::Result::Response(any)) => unpack(any, "ExecuteResponse")?,
            other => bail!("the stream ended without an answer: {other:?}"),
        };
        Ok(Self { client, operations, response })
    }

    /// The operation's name.
    pub fn name(&self) -> &str {
        &self.operations[0].name
    }

    /// The stages that were told, without repetitions.
    ///
    /// # Errors
    /// When a message has no metadata.
    pub fn stages(&self) -> anyhow::Result<Vec<Stage>> {
        let stage = |operation| Ok(Stage::try_from(metadata(operation)?.stage)?);
        let mut stages: Vec<_> =
            self.operations.iter().map(stage).collect::<anyhow::Result<_>>()?;
        stages.dedup();
        Ok(stages)
    }

    /// The code of `ExecuteResponse.status`.
    pub fn code(&self) -> Code {
        self.response.status.as_ref().map_or(Code::Ok, |status| status.code.into())
    }

    /// The text of `ExecuteResponse.status`.
    pub fn message(&self) -> &str {
        self.response.status.as_ref().map_or("", |status| &status.message)
    }

    /// Whether the result was in the cache.
    pub fn from_cache(&self) -> bool {
        self.response.cached_result
    }

    /// When the server did what, as the result tells it.
    ///
    /// # Errors
    /// When there is no result, or it does not tell.
    pub fn execution_metadata(&self) -> anyhow::Result<&proto::ExecutedActionMetadata> {
        self.result()?.execution_metadata.as_ref().context("execution metadata")
    }

    /// The result.
    ///
    /// # Errors
    /// When the answer has no result.
    pub fn result(&self) -> anyhow::Result<&proto::ActionResult> {
        let status = || format!("no result: {:?} {}", self.code(), self.message());
        self.response.result.as_ref().with_context(status)
    }

    /// The exit code.
    ///
    /// # Errors
    /// When there is no result.
    pub fn exit_code(&self) -> anyhow::Result<i32> {
        Ok(self.result()?.exit_code)
    }

    /// Standard output as text.
    ///
    /// # Errors
    /// When there is no result, or the blob can't be had.
    pub async fn stdout(&self) -> anyhow::Result<String> {
        let result = self.result()?;
        self.stream(&result.stdout_raw, result.stdout_digest.as_ref()).await
    }

    /// Standard error as text.
    ///
    /// # Errors
    /// When there is no result, or the blob can't be had.
    pub async fn stderr(&self) -> anyhow::Result<String> {
        let result = self.result()?;
        self.stream(&result.stderr_raw, result.stderr_digest.as_ref()).await
    }

    async fn stream(&self, raw: &[u8], digest: Option<&proto::Digest>) -> anyhow::Result<String> {
        let content = match digest {
            Some(digest) if raw.is_empty() => self.get(Some(digest)).await?,
            _ => raw.to_vec(),
        };
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// Checks that the action ended with exit code 0.
    ///
    /// # Errors
    /// When it did not, with what it wrote.
    pub async fn succeeded(&self) -> anyhow::Result<&Self> {
        match (self.code(), self.exit_code()?) {
            (Code::Ok, 0) => Ok(self),
            (code, exit) => bail!(
                "{code:?} {}, exit code {exit}\n--- stdout\n{}\n--- stderr\n{}",
                self.message(),
                self.stdout().await?,
                self.stderr().await?,
            ),
        }
    }

    /// The output file at `path`, as text.
    ///
    /// # Errors
    /// When there is none, or the blob can't be had.
    pub async fn file(&self, path: &str) -> anyhow::Result<String> {
        let file = self.output_file(path)?;
        Ok(String::from_utf8_lossy(&self.get(file.digest.as_ref()).await?).into_owned())
    }

    /// The entry of the output file at `path`.
    ///
    /// # Errors
    /// When the result has no such file.
    pub fn output_file(&self, path: &str) -> anyhow::Result<&proto::OutputFile> {
        let result = self.result()?;
        let file = result.output_files.iter().find(|file| file.path == path);
        file.with_context(|| format!("no output file {path} in {result:#?}"))
    }

    /// The paths of all outputs with their kinds, e.g. `file out`, sorted.
    ///
    /// # Errors
    /// When there is no result.
    pub fn outputs(&self) -> anyhow::Result<Vec<String>> {
        let result = self.result()?;
        let files = result.output_files.iter().map(|file| format!("file {}", file.path));
        let directories = result
            .output_directories
            .iter()
            .map(|directory| format!("directory {}", directory.path));
        let link =
            |link: &proto::OutputSymlink| format!("symlink {} -> {}", link.path, link.target);
        let symlinks = result.output_symlinks.iter().map(link);
        let mut outputs: Vec<_> = files.chain(directories).chain(symlinks).collect();
        outputs.sort();
        Ok(outputs)
    }

    /// The Tree of the output directory at `path`.
    ///
    /// # Errors
    /// When there is none, or the blob can't be had.
    pub async fn tree(&self, path: &str) -> anyhow::Result<proto::Tree> {
        let result = self.result()?;
        let directory = result.output_directories.iter().find(|directory| directory.path == path);
        let directory =
            directory.with_context(|| format!("no output directory {path} in {result:#?}"))?;
        Ok(proto::Tree::decode(self.get(directory.tree_digest.as_ref()).await?.as_slice())?)
    }

    async fn get(&self, digest: Option<&proto::Digest>) -> anyhow::Result<Vec<u8>> {
        self.client.get(&Digest::from_proto_field(digest, self.client.function())?).await
    }

    /// The subjects of the MISSING violations, sorted.
    ///
    /// # Errors
    /// When a detail or violation is of another kind.
    pub fn missing(&self) -> anyhow::Result<Vec<String>> {
        let mut subjects = Vec::new();
        for any in self.response.status.iter().flat_map(|status| &status.details) {
            anyhow::ensure!(any.type_url == "type.googleapis.com/google.rpc.PreconditionFailure");
            for violation in PreconditionFailure::decode(any.value.as_slice())?.violations {
                anyhow::ensure!(violation.r#type == "MISSING", "{violation:?}");
                subjects.push(violation.subject);
            }
        }
        subjects.sort();
        Ok(subjects)
    }
}

/// The metadata that every message must have.
///
/// # Errors
/// When it has none, or of another type.
pub fn metadata(operation: &Operation) -> anyhow::Result<proto::ExecuteOperationMetadata> {
    let any = operation.metadata.as_ref().context("an operation without metadata")?;
    unpack(any, "ExecuteOperationMetadata")
}

fn unpack<M: Message + Default>(any: &Any, name: &str) -> anyhow::Result<M> {
    let expected = format!("type.googleapis.com/build.bazel.remote.execution.v2.{name}");
    anyhow::ensure!(any.type_url == expected, "{} in place of {expected}", any.type_url);
    Ok(M::decode(any.value.as_slice())?)
}

#[derive(Clone, PartialEq, prost::Message)]
struct PreconditionFailure {
    #[prost(message, repeated, tag = "1")]
    violations: Vec<Violation>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Violation {
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(string, tag = "2")]
    subject: String,
}
