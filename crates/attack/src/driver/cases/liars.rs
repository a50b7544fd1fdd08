//! Requests that lie.

use anyhow::ensure;
use testkit::google::bytestream::WriteRequest;
use testkit::proto;
use tonic::Code;

use crate::case::{Case, action, command, steps};
use crate::judge::code_of;
use crate::world::World;

pub(super) const CASES: &[Case] = &[
    command("work-above", |it| it.working_directory = "..".into()),
    command("work-at-an-absolute-path", |it| it.working_directory = "/etc".into()),
    command("work-up-and-down", |it| it.working_directory = "directory/../../etc".into()),
    command("work-behind-a-nul", |it| it.working_directory = "directory\0/etc".into()),
    command("no-arguments", |it| it.arguments.clear()),
    command("a-program-without-name", |it| it.arguments = vec![String::new()]),
    command("an-argument-with-a-nul", |it| it.arguments.push("a\0b".into())),
    steps("an-argument-of-a-megabyte", |world| Box::pin(an_argument_of_a_megabyte(world))),
    command("a-variable-with-a-nul", |it| it.environment_variables.push(variable("A", "a\0b"))),
    command("a-variable-called-twice", |it| it.environment_variables.push(variable("A=B", "c"))),
    command("an-output-above", |it| it.output_paths = vec!["../out".into()]),
    command("an-absolute-output", |it| it.output_paths = vec!["/etc/cron.d/pwned".into()]),
    command("an-output-up-and-down", |it| it.output_paths = vec!["directory/../../out".into()]),
    command("an-output-behind-a-nul", |it| it.output_paths = vec!["out\0".into()]),
    command("an-output-with-a-long-name", |it| it.output_paths = vec!["x".repeat(256)]),
    command("an-output-too-deep", |it| it.output_paths = vec!["d/".repeat(200) + "out"]),
    command("outputs-in-190000-directories", |it| {
        let below = "d/".repeat(126);
        it.output_paths = (0..1500).map(|number| format!("{number}/{below}out")).collect();
    }),
    command("an-output-twice", |it| it.output_paths = vec!["out".into(), "out".into()]),
    command("an-output-below-a-file", |it| it.output_paths = vec!["input/out".into()]),
    action("a-timeout-below-zero", |it| it.timeout = Some(timeout(-1, 0))),
    action("a-timeout-of-odd-nanoseconds", |it| it.timeout = Some(timeout(1, 2_000_000_000))),
    action("no-command", |it| it.command_digest = None),
    action("no-input-root", |it| it.input_root_digest = None),
    action("a-command-that-is-a-path", |it| it.command_digest = Some(path_for_a_digest())),
    action("an-input-root-that-is-a-path", |it| it.input_root_digest = Some(path_for_a_digest())),
    steps("a-blob-of-another-digest", |world| Box::pin(a_blob_of_another_digest(world))),
    steps("a-stream-of-another-digest", |world| Box::pin(a_stream_of_another_digest(world))),
    steps("a-stream-that-is-too-short", |world| Box::pin(a_stream_of_another_size(world, 1))),
    steps("a-stream-that-is-too-long", |world| Box::pin(a_stream_of_another_size(world, -1))),
    steps("a-stream-that-never-ends", |world| Box::pin(an_unfinished_stream(world))),
    steps("a-stream-with-a-gap", |world| Box::pin(a_stream_with_a_gap(world))),
    steps("resource-names-that-are-paths", |world| Box::pin(names_that_are_paths(world))),
    steps("a-result-without-its-blobs", |world| Box::pin(a_result_without_blobs(world))),
    steps("a-result-of-another-instance", |world| Box::pin(a_result_of_another_instance(world))),
    steps("a-result-of-a-failed-action", |world| Box::pin(a_failed_action(world))),
];

fn variable(name: &str, value: &str) -> proto::command::EnvironmentVariable {
    proto::command::EnvironmentVariable { name: name.to_owned(), value: value.to_owned() }
}

fn timeout(seconds: i64, nanos: i32) -> testkit::google::protobuf::Duration {
    testkit::google::protobuf::Duration { seconds, nanos }
}

fn path_for_a_digest() -> proto::Digest {
    proto::Digest { hash: "../../../../../../etc/passwd".into(), size_bytes: 100 }
}

const TRUTH: &[u8] = b"what it says it is";
const LIE: &[u8] = b"what it really is.";

async fn ensure_missing(world: &World, content: &[u8]) -> anyhow::Result<()> {
    let digest = world.client.digest(content);
    let missing = world.client.missing(&[digest]).await?;
    ensure!(missing == [digest], "a lie was stored as {digest}");
    Ok(())
}

async fn a_blob_of_another_digest(world: &World) -> anyhow::Result<()> {
    use proto::batch_update_blobs_request::Request;
    let digest = Some(world.client.digest(TRUTH).to_proto());
    let request = Request { digest, data: LIE.to_vec().into(), ..Request::default() };
    let message = proto::BatchUpdateBlobsRequest { requests: vec![request], ..Default::default() };
    let response = world.client.cas().batch_update_blobs(message).await?.into_inner();
    let statuses = response.responses.into_iter().map(|it| it.status.unwrap_or_default());
    let codes: Vec<i32> = statuses.map(|status| status.code).collect();
    ensure!(codes == [Code::InvalidArgument as i32], "the server said {codes:?}");
    ensure_missing(world, TRUTH).await?;
    ensure_missing(world, LIE).await
}

async fn a_stream_of_another_digest(world: &World) -> anyhow::Result<()> {
    let name = world.client.upload_name(&world.client.digest(TRUTH));
    ensure!(world.client.write(&name, LIE, 4).await.is_err(), "the server took it");
    ensure_missing(world, TRUTH).await
}

/// The stream has so many bytes fewer than its name says.
async fn a_stream_of_another_size(world: &World, fewer: i64) -> anyhow::Result<()> {
    let digest = world.client.digest(TRUTH);
    let said = i64::try_from(digest.size_bytes())? + fewer;
    let name =
        format!("uploads/6ba7b810-9dad-41d1-80b4-00c04fd430c8/blobs/{}/{said}", digest.hex());
    ensure!(world.client.write(&name, TRUTH, 4).await.is_err(), "the server took it");
    ensure_missing(world, TRUTH).await
}

async fn an_unfinished_stream(world: &World) -> anyhow::Result<()> {
    let name = world.client.upload_name(&world.client.digest(TRUTH));
    let all = WriteRequest {
        resource_name: name,
        data: TRUTH.to_vec().into(),
        ..WriteRequest::default()
    };
    // All of it is there; what was not said is that it is.
    let _refused_or_not = world.client.write_messages(vec![all]).await;
    ensure_missing(world, TRUTH).await
}

async fn a_stream_with_a_gap(world: &World) -> anyhow::Result<()> {
    let name = world.client.upload_name(&world.client.digest(TRUTH));
    let part = |resource_name: &str, at: usize, finish_write| WriteRequest {
        resource_name: resource_name.to_owned(),
        write_offset: at as i64,
        finish_write,
        data: TRUTH[at..(at + 4).min(TRUTH.len())].to_vec().into(),
    };
    let messages = vec![part(&name, 0, false), part("", 8, true)];
    ensure!(world.client.write_messages(messages).await.is_err(), "the server took it");
    ensure_missing(world, TRUTH).await
}

async fn names_that_are_paths(world: &World) -> anyhow::Result<()> {
    let hash = "a".repeat(64);
    for name in [
        "../../../../etc/passwd".to_owned(),
        "blobs/../../../../etc/passwd/100".to_owned(),
        format!("blobs/{hash}/-1"),
        format!("blobs/{hash}/../1"),
        format!("blobs/..%2f..%2f{hash}/1"),
        format!("blobs/{hash}\0/1"),
        "/".to_owned(),
        String::new(),
    ] {
        ensure!(world.client.read(&name, 0, 0).await.is_err(), "{name:?} can be read");
        let upload = format!("uploads/../../../x/{name}");
        ensure!(world.client.write(&upload, TRUTH, 4).await.is_err(), "{upload:?} can be written");
    }
    ensure_missing(world, TRUTH).await
}

/// A result that names a blob that is not there.
fn result_of(world: &World, content: &[u8]) -> proto::ActionResult {
    let digest = Some(world.client.digest(content).to_proto());
    let file = proto::OutputFile { path: "out".into(), digest, ..proto::OutputFile::default() };
    proto::ActionResult { output_files: vec![file], ..proto::ActionResult::default() }
}

async fn store_result(
    world: &World,
    instance: &str,
    action: &testkit::Digest,
    result: proto::ActionResult,
) -> Result<(), tonic::Status> {
    let message = proto::UpdateActionResultRequest {
        instance_name: instance.to_owned(),
        action_digest: Some(action.to_proto()),
        action_result: Some(result),
        ..Default::default()
    };
    world.client.action_cache().update_action_result(message).await.map(drop)
}

async fn a_result_without_blobs(world: &World) -> anyhow::Result<()> {
    let action = world.client.digest(b"an action that nobody ran");
    // It may be refused at once, too.
    let _taken = store_result(world, "", &action, result_of(world, TRUTH)).await;
    ensure!(world.client.cached(&action).await?.is_none(), "a result without its blobs is served");
    Ok(())
}

async fn a_result_of_another_instance(world: &World) -> anyhow::Result<()> {
    let action = world.client.digest(b"an action of another instance");
    let good = proto::ActionResult { exit_code: 0, ..proto::ActionResult::default() };
    let _taken = store_result(world, "another", &action, good).await;
    ensure!(
        world.client.cached(&action).await?.is_none(),
        "a result of another instance is served"
    );
    Ok(())
}

async fn a_failed_action(world: &World) -> anyhow::Result<()> {
    let action = world.ready(&["no-such-attack"]).await?;
    let action = action.change_action(|it| it.do_not_cache = false).salt("a failed action");
    for _ in 0..2 {
        let run = world.run(&action).await?;
        ensure!(run.exit_code()? != 0 && !run.from_cache(), "a failure came from the cache");
    }
    let code = code_of(world.run(&action).await)?;
    ensure!(code.0 == Code::Ok, "{code:?}");
    Ok(())
}

/// No program takes so much: the action fails, and the client is not told that the server is broken.
async fn an_argument_of_a_megabyte(world: &World) -> anyhow::Result<()> {
    let action = world.ready(&["nothing"]).await?;
    let run =
        world.run(&action.change_command(|it| it.arguments.push("x".repeat(1 << 20)))).await?;
    let stderr = run.stderr().await?;
    let is_told = stderr.contains("Argument list too long");
    ensure!(run.exit_code()? == 126 && is_told, "exit code {}: {stderr}", run.exit_code()?);
    Ok(())
}
