//! `export`: an action as files, for use without a server.
//!
//! ```text
//! DIR/inputs/      the input root
//! DIR/command.sh   runs the command in it, with the action's environment and nothing else
//! DIR/outputs/     the outputs of the recorded run, if there is one, and its streams
//! DIR/action.txt   platform, timeout, digests
//! ```

use history::text::size;
use std::path::Path;

use ::proto::actiond::internal::v1::list_records_request::Of;
use anyhow::Context as _;
use chain::{shell_word, visible};
use model::{ByteSize, Digest, DigestFunction, RelPath, proto};
use proto::action_cache_client::ActionCacheClient;
use proto::{ActionResult, GetActionResultRequest};
use serde_json::json;
use tonic::Code;

use super::allowance::Allowance;
use super::blobs::{ReadAction, Reader, joined};
use super::content::command_line;
use super::files::Target;
use super::outputs::Outputs;
use super::{live, show, trees};
use crate::output::print;
use crate::server::{self, Server};

pub(crate) fn export(
    server: &Server,
    digest: &Digest,
    directory: &Path,
    up_to: ByteSize,
    json: bool,
) -> anyhow::Result<()> {
    let mut reader = Reader::new(server);
    let read = reader.action(digest)?;
    let recorded = recorded(server, digest)?;
    let mut allowance = Allowance::new(up_to);
    let inputs = trees::of_directory(&mut reader, read.input_root, allowance.limits())?;
    allowance.take_tree(&inputs)?;
    let parents = parents_of_outputs(&read, &mut allowance)?;
    let outputs = match &recorded {
        None => None,
        Some(result) => {
            let (directory, function) = (&read.command.working_directory, digest.function());
            let streams = streams(result, function, &mut allowance)?;
            Some((Outputs::of(&mut reader, directory, result, function, &mut allowance)?, streams))
        }
    };
    let mut target = Target::create(directory)?;
    target.tree(&mut reader, "inputs", &inputs)?;
    for path in parents {
        target.directory(&joined("inputs", path.as_bytes()))?;
    }
    target.text("command.sh", &script(digest, &read)?, 0o755)?;
    target.text("action.txt", &description(digest, &read), 0o644)?;
    if let Some((outputs, streams)) = &outputs {
        target.outputs(&mut reader, "outputs", outputs)?;
        for (name, digest) in streams {
            target.file(&mut reader, name, digest, false)?;
        }
    }
    let (files, bytes) = target.finish()?;
    let script = directory.join("command.sh");
    if json {
        return print(&show::line(&json!({
            "action": show::name(digest),
            "directory": directory,
            "script": script,
            "files": files,
            "bytes": bytes,
            "has_outputs": recorded.is_some(),
        })));
    }
    let outputs =
        if recorded.is_some() { "" } else { "; no run of it is known, so there are no outputs" };
    let (size, script) = (size(bytes), script.display());
    print(&format!("wrote {files} files ({size}); {script} runs the command{outputs}\n"))
}

/// The standard output and error of a recorded run, where they are blobs.
fn streams(
    result: &ActionResult,
    function: DigestFunction,
    allowance: &mut Allowance,
) -> anyhow::Result<Vec<(&'static str, Digest)>> {
    let mut streams = Vec::new();
    for (name, digest) in [("stdout", &result.stdout_digest), ("stderr", &result.stderr_digest)] {
        if digest.is_some() {
            let digest = Digest::from_proto_field(digest.as_ref(), function)?;
            allowance.take_path(name, digest.size_bytes())?;
            streams.push((name, digest));
        }
    }
    Ok(streams)
}

/// The result of the action: the cached one, or that of its last run.
pub(crate) fn recorded(server: &Server, digest: &Digest) -> anyhow::Result<Option<ActionResult>> {
    let function = digest.function().to_proto();
    let of = Some(Of::ActionDigest(digest.to_proto()));
    // Servers without a history have cached results, and the other way round.
    let runs = live::records(server, of, function, 100).unwrap_or_default();
    let instance = runs.first().map(|run| run.instance.clone()).unwrap_or_default();
    for run in &runs {
        if let Some(result) = show::result_of(run)? {
            return Ok(Some(result));
        }
    }
    let request = GetActionResultRequest {
        instance_name: instance,
        action_digest: Some(digest.to_proto()),
        digest_function: function,
        ..GetActionResultRequest::default()
    };
    let mut client = ActionCacheClient::new(server.channel());
    match server.wait(client.get_action_result(request)) {
        Ok(result) => Ok(Some(result.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(server::said("read")(status)),
    }
}

/// Directories that the server makes before the command runs.
fn parents_of_outputs(read: &ReadAction, allowance: &mut Allowance) -> anyhow::Result<Vec<String>> {
    let base = RelPath::parse(&read.command.working_directory).context("the working directory")?;
    let mut parents = vec![base.as_str().to_owned()];
    for output in read.outputs() {
        let path = RelPath::resolve(&base, &output);
        let path = path.with_context(|| format!("the output {}", visible(&output)))?;
        parents.extend(path.parent().map(|parent| parent.as_str().to_owned()));
    }
    parents.retain(|path| !path.is_empty());
    parents.sort_unstable();
    parents.dedup();
    parents.iter().try_for_each(|path| allowance.take_path(path, 0))?;
    Ok(parents)
}

/// A script that runs the command in the exported inputs.
fn script(digest: &Digest, read: &ReadAction) -> anyhow::Result<String> {
    let command = &read.command;
    let directory = RelPath::parse(&command.working_directory).context("the working directory")?;
    let environment: String = command
        .environment_variables
        .iter()
        .map(|it| format!(" {}", shell_word(&format!("{}={}", it.name, it.value))))
        .collect();
    let line = command_line(&command.arguments);
    // Words with control characters need more than a POSIX shell of before 2024.
    let shell = if line.contains("$'") || environment.contains("$'") { "bash" } else { "sh" };
    let place = shell_word(&joined("inputs", directory.as_bytes()));
    let place = place.trim_end_matches('/');
    Ok(format!(
        "#!/usr/bin/env {shell}\n\
         # Action {name}, without its sandbox: the command sees this machine.\n\
         cd -- \"$(dirname -- \"$0\")\"/{place} || exit\n\
         exec env -i{environment} {line}\n",
        name = show::name(digest),
    ))
}

fn description(digest: &Digest, read: &ReadAction) -> String {
    let mut text = format!("action {}\n", show::name(digest));
    text += &format!("input root {}\n", show::name(&read.input_root));
    if let Some(timeout) = &read.action.timeout {
        text += &format!("timeout {} s\n", timeout.seconds);
    }
    for (name, value) in read.platform() {
        text += &format!("platform {}={}\n", visible(&name), visible(&value));
    }
    for output in read.outputs() {
        text += &format!("output {}\n", visible(&output));
    }
    text
}
