//! `replay`: an action again, through the server, without the cache.
//!
//! It runs as another Action that asks not to be cached, so that the cached result of the first one stays as it
//! is: a run that skips the lookup would replace it, or remove it if the command fails now.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::proto::actiond::internal::v1::list_records_request::Of;
use anyhow::{Context as _, bail, ensure};
use chain::visible;
use history::text::size;
use model::{ByteSize, Digest, proto};
use proto::content_addressable_storage_client::ContentAddressableStorageClient;
use proto::execution_client::ExecutionClient;
use proto::google::longrunning::operation;
use proto::{
    ActionResult, BatchUpdateBlobsRequest, ExecuteRequest, ExecuteResponse,
    batch_update_blobs_request,
};
use serde_json::json;
use tonic::Code;

use super::allowance::Allowance;
use super::blobs::{Reader, decode, gone};
use super::files::Target;
use super::outputs::Outputs;
use super::variant::{self, Changes, TRACE, Variant};
use super::{EXPORTED_BYTES_MAX, export, live, shell, show};
use crate::output::{Progress, print};
use crate::server::{self, Server};

/// The largest answer that is taken: a result with thousands of outputs.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The bytes of each stream that are shown.
const STREAM_BYTES_SHOWN: u64 = 1 << 20;

/// The cure where the tracer did not run.
const TRACER_HINT: &str = "; the root file system of the action may lack /usr/bin/strace, and --with-tools runs the \
                           action in the host's";

/// The parts that the caller chooses.
#[derive(Debug, clap::Args)]
pub struct Choices {
    /// The instance to run it in [default: that of its last run]
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Write the outputs of the new run to DIR, which must be empty or not exist
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Write nothing if the trace and the outputs take more than this in all. A file counts at each place where it is
    #[arg(long, value_name = "BYTES", default_value_t = EXPORTED_BYTES_MAX)]
    up_to: ByteSize,
    /// Run the command under the strace of its root file system, and write what it records to FILE
    #[arg(long, value_name = "FILE")]
    strace: Option<PathBuf>,
    /// Run it in the host's root file system, with the host's tools, where the server has --allow-host-rootfs
    #[arg(long)]
    with_tools: bool,
    /// Open a shell there in the place of the command, with the same inputs, environment and limits, on this
    /// terminal. Needs a server of this user, and exits as the shell does
    #[arg(long, conflicts_with_all = ["keep", "strace", "up_to"])]
    shell: bool,
}

pub(crate) fn replay(
    server: &Server,
    digest: &Digest,
    choices: &Choices,
    json: bool,
) -> anyhow::Result<ExitCode> {
    ensure!(!(choices.shell && json), "a shell prints no JSON; leave --json out");
    let mut reader = Reader::new(server);
    let read = reader.action(digest)?;
    let target = choices.keep.as_deref().map(Target::create).transpose()?;
    let function = digest.function();
    let instance = match &choices.instance {
        Some(instance) => instance.clone(),
        None => {
            let of = Some(Of::ActionDigest(digest.to_proto()));
            let runs = live::records(server, of, function.to_proto(), 1).unwrap_or_default();
            runs.first().map(|run| run.instance.clone()).unwrap_or_default()
        }
    };
    let changes = Changes {
        trace: choices.strace.is_some(),
        tools: choices.with_tools,
        shell: choices.shell,
    };
    let Variant { action, blobs } = variant::of(&read, changes, function);
    upload(server, &instance, function, blobs)?;
    if choices.shell {
        return shell::shell(server, &instance, &action, digest, &read.command);
    }
    let recorded = export::recorded(server, digest)?;
    let response = execute(server, &instance, &action)?;
    let status = response.status.clone().unwrap_or_default();
    let Some(mut result) = response.result else {
        let hint = if changes.trace { TRACER_HINT } else { "" };
        bail!("the action did not run: {}{hint}", visible(&status.message));
    };
    let mut allowance = Allowance::new(choices.up_to);
    if let Some(file) = &choices.strace {
        take_trace(&mut reader, &mut result, function, file, &mut allowance)?;
    }
    if let Some(mut target) = target {
        let directory = &read.command.working_directory;
        let outputs = Outputs::of(&mut reader, directory, &result, function, &mut allowance)?;
        target.outputs(&mut reader, "", &outputs)?;
        target.finish()?;
    }
    let differences = recorded.as_ref().map(|recorded| differences(recorded, &result));
    let is_same = status.code == 0 && differences.as_ref().is_none_or(Vec::is_empty);
    if json {
        print(&show::line(&json!({
            "action": show::name(digest),
            "replayed_as": show::name(&action),
            "exit_code": result.exit_code,
            "status": status.code,
            "message": status.message,
            "is_recorded": recorded.is_some(),
            "recorded_exit_code": recorded.as_ref().map(|it| it.exit_code),
            "differences": differences.iter().flatten().map(|(path, old, new)| {
                json!({ "path": path, "old": old, "new": new })
            }).collect::<Vec<_>>(),
        })))?;
    } else {
        print(&text(&result, &status, differences.as_deref()))?;
        streams(&mut reader, &result, function)?;
    }
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Changed = (String, Option<String>, Option<String>);

/// Outputs that are not the same in both results, and exit codes.
fn differences(recorded: &ActionResult, now: &ActionResult) -> Vec<Changed> {
    let of = |result: &ActionResult| -> std::collections::BTreeMap<String, String> {
        let outputs = show::outputs(result).into_iter();
        let outputs = outputs.map(|(path, kind, digest)| (path, format!("{kind} {digest}")));
        let code = ("exit code".to_owned(), result.exit_code.to_string());
        outputs.chain([code]).collect()
    };
    let (recorded, now) = (of(recorded), of(now));
    let names: std::collections::BTreeSet<&String> = recorded.keys().chain(now.keys()).collect();
    let changed = names.into_iter().filter(|name| recorded.get(*name) != now.get(*name));
    changed
        .map(|name| (name.clone(), recorded.get(name).cloned(), now.get(name).cloned()))
        .collect()
}

fn text(
    result: &ActionResult,
    status: &proto::google::rpc::Status,
    differences: Option<&[Changed]>,
) -> String {
    let mut text = format!("exit code {}\n", result.exit_code);
    if status.code != 0 {
        text += &format!("{}\n", visible(&status.message));
    }
    match differences {
        None => text += "there is no recorded result to compare it with\n",
        Some([]) => text += "the result is the recorded one\n",
        Some(changed) => {
            text += "the result is not the recorded one\n";
            for (path, old, new) in changed {
                let value = |value: &Option<String>| {
                    value.as_deref().map_or_else(|| "nothing".to_owned(), visible)
                };
                text +=
                    &format!("  {}\n    - {}\n    + {}\n", visible(path), value(old), value(new));
            }
        }
    }
    text
}

/// Prints the streams of the new run, escaped.
fn streams(
    reader: &mut Reader<'_>,
    result: &ActionResult,
    function: model::DigestFunction,
) -> anyhow::Result<()> {
    for (name, raw, digest) in [
        ("standard output", &result.stdout_raw, &result.stdout_digest),
        ("standard error", &result.stderr_raw, &result.stderr_digest),
    ] {
        let digest = digest.as_ref().map(|it| Digest::from_proto(it, function)).transpose()?;
        let bytes = match &digest {
            Some(digest) if raw.is_empty() => {
                reader.beginning(digest, STREAM_BYTES_SHOWN)?.with_context(|| gone(digest))?
            }
            _ => raw.slice(..raw.len().min(STREAM_BYTES_SHOWN as usize)),
        };
        if bytes.is_empty() {
            continue;
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: String = text.lines().map(|line| format!("  {}\n", visible(line))).collect();
        print(&format!("{name}\n{lines}"))?;
        let size_bytes = digest.map_or(raw.len() as u64, |digest| digest.size_bytes());
        if size_bytes > bytes.len() as u64 {
            let rest = digest.map(|it| format!("; `cat {}` writes all of it", show::name(&it)));
            print(&format!("  … of {}{}\n", size(size_bytes), rest.unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// Writes the trace to `file`, and takes it out of the outputs.
fn take_trace(
    reader: &mut Reader<'_>,
    result: &mut ActionResult,
    function: model::DigestFunction,
    file: &Path,
    allowance: &mut Allowance,
) -> anyhow::Result<()> {
    let at = result.output_files.iter().position(|output| output.path == TRACE);
    let Some(at) = at else {
        bail!("there is no trace, exit code {}{TRACER_HINT}", result.exit_code);
    };
    let output = result.output_files.remove(at);
    let digest = Digest::from_proto(&output.digest.unwrap_or_default(), function)?;
    allowance.take_path(TRACE, digest.size_bytes())?;
    let mut write = |sink: &mut dyn std::io::Write| {
        let is_there = reader.stream(&digest, |piece| {
            sink.write_all(piece).with_context(|| format!("writing {}", file.display()))
        })?;
        anyhow::ensure!(is_there, gone(&digest));
        Ok(())
    };
    let creating = || format!("creating {}", file.display());
    if std::fs::symlink_metadata(file).is_ok_and(|it| !it.is_file()) {
        // A pipe, a terminal or a symlink is not replaced.
        return write(&mut File::create(file).with_context(creating)?);
    }
    // An older trace stays until all of the new one is here.
    let directory = file.parent().filter(|it| !it.as_os_str().is_empty());
    let mode = std::fs::Permissions::from_mode(0o644);
    let sink =
        tempfile::Builder::new().permissions(mode).tempfile_in(directory.unwrap_or(Path::new(".")));
    let mut sink = sink.with_context(creating)?;
    write(&mut sink)?;
    sink.persist(file).with_context(creating)?;
    Ok(())
}

/// Uploads the blobs of the copy, which are small.
fn upload(
    server: &Server,
    instance: &str,
    function: model::DigestFunction,
    blobs: Vec<(Digest, Vec<u8>)>,
) -> anyhow::Result<()> {
    let requests = blobs.into_iter().map(|(digest, data)| batch_update_blobs_request::Request {
        digest: Some(digest.to_proto()),
        data: data.into(),
        ..Default::default()
    });
    let request = BatchUpdateBlobsRequest {
        instance_name: instance.to_owned(),
        requests: requests.collect(),
        digest_function: function.to_proto(),
    };
    let mut client = ContentAddressableStorageClient::new(server.channel());
    let answer = server.wait(client.batch_update_blobs(request));
    let answer = answer.map_err(server::said("write-cas"))?.into_inner();
    let mut statuses = answer.responses.into_iter().filter_map(|response| response.status);
    match statuses.find(|status| status.code != 0) {
        Some(status) => bail!("the server refused a blob: {}", visible(&status.message)),
        None => Ok(()),
    }
}

fn execute(server: &Server, instance: &str, action: &Digest) -> anyhow::Result<ExecuteResponse> {
    let request = ExecuteRequest {
        instance_name: instance.to_owned(),
        action_digest: Some(action.to_proto()),
        digest_function: action.function().to_proto(),
        skip_cache_lookup: true,
        ..ExecuteRequest::default()
    };
    let said = server::said("execute");
    let mut progress = Progress::start();
    progress.show("the action waits or runs");
    let response = server.wait(async {
        let client = ExecutionClient::new(server.channel());
        let mut client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
        let mut operations = client.execute(request).await.map_err(&said)?.into_inner();
        while let Some(operation) = operations.message().await.map_err(&said)? {
            if let Some(operation::Result::Response(any)) = operation.result {
                return decode::<ExecuteResponse>(&any.value.into())
                    .context("decoding the response");
            }
        }
        bail!("the server ended the call without an answer")
    });
    progress.end();
    let response = response?;
    let status = response.status.clone().unwrap_or_default();
    if Code::from(status.code) == Code::FailedPrecondition {
        bail!(
            "the server lacks blobs of the action, which a build that needs them uploads again: {}",
            visible(&status.message)
        );
    }
    Ok(response)
}
