//! Actions that do not run: what is missing of them, or wrong with them.

use anyhow::{Context as _, ensure};
use testkit::{Action, Digest, Run, proto};
use tonic::{Code, Status};

use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::{refused, same, same_bytes};
use crate::server::{Server, unique, unique_text};

pub(super) const CHECKS: &[Check] = &[
    must!(
        a_missing_action_is_told,
        "Execution.Execute",
        "`FAILED_PRECONDITION`: One or more errors occurred in setting up the action requested, such as a missing input or command or no worker being available."
    ),
    should!(
        a_missing_command_is_named,
        "Execution.Execute",
        "In the case of a missing input or command, the server SHOULD additionally send a"
    ),
    should!(
        a_missing_input_root_is_named,
        "Execution.Execute",
        "In the case of a missing input or command, the server SHOULD additionally send a"
    ),
    should!(
        every_missing_input_is_named,
        "Execution.Execute",
        "where, for each requested blob not present in the CAS, there is a `Violation` with a `type` of `MISSING` and a `subject` of"
    ),
    must!(
        an_action_runs_once_its_inputs_are_there,
        "Execution.Execute",
        "The client may be able to fix the errors and retry."
    ),
    must!(
        a_bad_digest_is_refused,
        "Execution.Execute",
        "`INVALID_ARGUMENT`: One or more arguments are invalid."
    ),
    must!(
        an_action_that_is_none_is_refused,
        "Execution.Execute",
        "`INVALID_ARGUMENT`: One or more arguments are invalid."
    ),
    must!(
        a_command_without_arguments_is_refused,
        "Execution.Execute",
        "`INVALID_ARGUMENT`: One or more arguments are invalid."
    ),
    should!(
        an_unknown_property_is_refused,
        "Platform.Property",
        "the server SHOULD reject the execution request."
    ),
    should!(
        properties_of_the_action_come_first,
        "Action.platform",
        "Servers SHOULD prefer those set here."
    ),
];

/// The code that an Execute ends with, be it of the call or of the response.
pub(crate) async fn code_of(action: &Action) -> anyhow::Result<Code> {
    match action.run_without_upload().await {
        Ok(run) => Ok(run.code()),
        Err(error) => match error.downcast::<Status>() {
            Ok(status) => Ok(status.code()),
            Err(error) => Err(error),
        },
    }
}

async fn a_missing_action_is_told(server: Server) -> Outcome {
    let code = code_of(&server.action("exit 0")?).await?;
    let good = [Code::FailedPrecondition, Code::NotFound, Code::InvalidArgument];
    ensure!(good.contains(&code), "{code:?} in place of {good:?}");
    Ok(())
}

/// The blobs that are named as missing when some of an action are not stored.
async fn missing_of(server: &Server, action: &Action, absent: &[Digest]) -> Outcome {
    let (_, mut blobs) = action.encode();
    for digest in absent {
        blobs.remove(digest);
    }
    server.client.put_all(blobs.into_values()).await?;
    let run = action.run_without_upload().await;
    let mut named = match run {
        Ok(run) => {
            same("the status", run.code(), Code::FailedPrecondition)?;
            run.missing()?
        }
        Err(error) => {
            let status = error.downcast::<Status>()?;
            let status = refused::<()>(Err(status), &[Code::FailedPrecondition])?;
            missing_subjects(status.details())?
        }
    };
    let mut expected: Vec<_> = absent.iter().map(|it| server.client.download_name(it)).collect();
    let instance = server.client.instance();
    for name in &mut expected {
        if let Some(rest) = name.strip_prefix(&format!("{instance}/")) {
            *name = rest.to_owned();
        }
    }
    named.sort();
    expected.sort();
    same("the subjects", named, expected)
}

/// The subjects in a status' details.
fn missing_subjects(details: &[u8]) -> anyhow::Result<Vec<String>> {
    use prost::Message as _;
    use testkit::google::rpc::{self, PreconditionFailure};
    let mut subjects = Vec::new();
    for any in rpc::Status::decode(details)?.details {
        if any.type_url.ends_with("google.rpc.PreconditionFailure") {
            let failure = PreconditionFailure::decode(any.value.as_slice())?;
            for violation in failure.violations {
                same("the type", violation.r#type.as_str(), "MISSING")?;
                subjects.push(violation.subject);
            }
        }
    }
    Ok(subjects)
}

async fn a_missing_command_is_named(server: Server) -> Outcome {
    use prost::Message as _;
    let action = server.action(&format!("echo {}", unique_text("unlike").trim()))?;
    let (digest, blobs) = action.encode();
    let message = proto::Action::decode(blobs[&digest].as_slice())?;
    let function = server.client.function();
    let command = Digest::from_proto_field(message.command_digest.as_ref(), function)?;
    missing_of(&server, &action, &[command]).await
}

async fn a_missing_input_root_is_named(server: Server) -> Outcome {
    let root = server.client.digest(unique("absent"));
    missing_of(&server, &server.action("exit 0")?.input_root(root), &[root]).await
}

async fn every_missing_input_is_named(server: Server) -> Outcome {
    let (one, two, stored) = (unique("1"), unique("2"), unique("stored"));
    let absent = [server.client.digest(&one), server.client.digest(&two)];
    let action = server.action("exit 0")?;
    let action = action.input("a/one", one).input("b/c/two", two).input("stored", stored);
    missing_of(&server, &action, &absent).await
}

async fn an_action_runs_once_its_inputs_are_there(server: Server) -> Outcome {
    let content = unique("late");
    let digest = server.client.digest(&content);
    let action = server.action("cat in > out")?.input("in", content.clone()).output("out");
    missing_of(&server, &action, &[digest]).await?;
    let run = action.run().await?;
    run.succeeded().await?;
    same_bytes("out", run.file("out").await?.as_bytes(), &content)
}

async fn a_bad_digest_is_refused(server: Server) -> Outcome {
    server.execution()?;
    let digest = proto::Digest { hash: "no hash".to_owned(), size_bytes: 3 };
    let request = proto::ExecuteRequest {
        instance_name: server.client.instance().to_owned(),
        action_digest: Some(digest),
        ..Default::default()
    };
    refused(server.client.execution().execute(request).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn an_action_that_is_none_is_refused(server: Server) -> Outcome {
    server.execution()?;
    let digest = server.client.put([&[0xff; 20][..], &unique("no action")].concat()).await?;
    let request = proto::ExecuteRequest {
        action_digest: Some(digest.to_proto()),
        ..server.command(["/bin/true"]).request()
    };
    let answer = server.client.execution().execute(request).await;
    let code = match answer {
        Err(status) => status.code(),
        Ok(stream) => Run::collect(server.client.clone(), stream.into_inner()).await?.code(),
    };
    same("the code", code, Code::InvalidArgument)
}

async fn a_command_without_arguments_is_refused(server: Server) -> Outcome {
    let action = server.action("exit 0")?.change_command(|command| command.arguments.clear());
    action.upload().await?;
    same("the code", code_of(&action).await?, Code::InvalidArgument)
}

async fn an_unknown_property_is_refused(server: Server) -> Outcome {
    let action = server.action("exit 0")?.property("actiond-conformance-unknown", "x");
    action.upload().await?;
    let code = code_of(&action).await?;
    let good = [Code::InvalidArgument, Code::FailedPrecondition];
    ensure!(good.contains(&code), "{code:?} in place of {good:?}");
    Ok(())
}

/// The Command's platform asks for what no worker has; the Action's is what works.
#[expect(deprecated, reason = "older clients send the platform with the Command")]
async fn properties_of_the_action_come_first(server: Server) -> Outcome {
    use prost::Message as _;
    let mut action = server.action("exit 0")?;
    let (digest, blobs) = action.encode();
    let platform = proto::Action::decode(blobs[&digest].as_slice())?.platform;
    if platform.as_ref().is_none_or(|platform| platform.properties.is_empty()) {
        return skip("no property is needed here: see --platform");
    }
    let is_shell =
        |command: &proto::Command| command.arguments.first().is_some_and(|it| it == "/bin/sh");
    let mut commands = blobs.values().filter_map(|it| proto::Command::decode(it.as_slice()).ok());
    let mut command = commands.find(is_shell).context("the command")?;
    let other = proto::platform::Property {
        name: "OSFamily".to_owned(),
        value: "actiond-conformance".to_owned(),
    };
    command.platform = Some(proto::Platform { properties: vec![other] });
    let command = server.client.put(command.encode_to_vec()).await?;
    action.upload().await?;
    let mut message = proto::Action::decode(blobs[&digest].as_slice())?;
    message.command_digest = Some(command.to_proto());
    let digest = server.client.put(message.encode_to_vec()).await?;
    action = action.skip_cache_lookup();
    let request =
        proto::ExecuteRequest { action_digest: Some(digest.to_proto()), ..action.request() };
    let stream = server.client.execution().execute(request).await?.into_inner();
    Run::collect(server.client.clone(), stream).await?.succeeded().await?;
    Ok(())
}
