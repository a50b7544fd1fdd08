//! Output files, and the places of outputs.

use anyhow::ensure;
use testkit::Digest;
use tonic::Code;

use super::run::succeeds;
use super::trees::ALL_KINDS;
use crate::check::{Check, Outcome, must, should};
use crate::expect::{same, same_bytes};
use crate::server::{Server, unique};

pub(super) const CHECKS: &[Check] = &[
    must!(
        an_output_file_is_returned,
        "ActionResult.output_files",
        "if the corresponding file existed after the action completed, a single entry will be present either in this field"
    ),
    must!(
        an_executable_file_is_told,
        "OutputFile.is_executable",
        "True if file is executable, false otherwise."
    ),
    must!(an_empty_file_is_returned, "OutputFile.digest", "The digest of the file's content."),
    must!(
        an_output_that_is_not_made_is_left_out,
        "ActionResult.output_files",
        "If the action does not produce the requested output, then that output will be omitted from the list."
    ),
    must!(
        what_is_not_declared_is_discarded,
        "Command.output_paths",
        "Other files or directories that may be created during command execution are discarded."
    ),
    must!(
        directories_above_an_output_are_there,
        "Command.output_paths",
        "Directories leading up to the output paths are created by the worker prior to execution, even if they are not explicitly part of the input root."
    ),
    must!(
        an_output_itself_is_not_there,
        "Command.output_directories",
        "(but not the output directories themselves) are created by the worker prior to execution"
    ),
    must!(
        outputs_are_relative_to_the_working_directory,
        "OutputFile.path",
        "The full path of the file relative to the working directory, including the filename."
    ),
    must!(
        an_input_can_be_an_output,
        "Command.output_paths",
        "Only the listed paths will be returned to the client as output."
    ),
    must!(
        outputs_of_failed_commands_are_returned,
        "ActionResult.output_files",
        "if the corresponding file existed after the action completed, a single entry will be present"
    ),
    must!(
        every_output_is_in_the_cas,
        "ContentAddressableStorage",
        "The CAS (content-addressable storage) is used to store the inputs to and outputs from the execution service."
    ),
    should!(
        an_output_below_an_input_symlink_is_returned,
        "Command.output_paths",
        "A list of the output paths that the client expects to retrieve from the action."
    ),
];

async fn an_output_file_is_returned(server: Server) -> Outcome {
    let run = succeeds(server.action("echo content > out")?.output("out")).await?;
    same("outputs", run.outputs()?, vec!["file out".to_owned()])?;
    same("content", run.file("out").await?, "content\n".to_owned())
}

async fn an_executable_file_is_told(server: Server) -> Outcome {
    let action = server.action("echo > run; chmod 755 run; echo > plain; chmod 644 plain")?;
    let run = succeeds(action.output("plain").output("run")).await?;
    same("run", run.output_file("run")?.is_executable, true)?;
    same("plain", run.output_file("plain")?.is_executable, false)
}

async fn an_empty_file_is_returned(server: Server) -> Outcome {
    let run = succeeds(server.action(": > out")?.output("out")).await?;
    let digest = server.client.digest(b"").to_proto();
    same("the digest", run.output_file("out")?.digest.clone(), Some(digest))
}

async fn an_output_that_is_not_made_is_left_out(server: Server) -> Outcome {
    let run = succeeds(server.action("echo > a")?.output("a").output("b")).await?;
    same("outputs", run.outputs()?, vec!["file a".to_owned()])
}

async fn what_is_not_declared_is_discarded(server: Server) -> Outcome {
    let run =
        succeeds(server.action("echo > a; echo > b; mkdir c; echo > c/d")?.output("a")).await?;
    same("outputs", run.outputs()?, vec!["file a".to_owned()])
}

async fn directories_above_an_output_are_there(server: Server) -> Outcome {
    let run = succeeds(server.action("echo > a/b/out")?.output("a/b/out")).await?;
    same("outputs", run.outputs()?, vec!["file a/b/out".to_owned()])
}

async fn an_output_itself_is_not_there(server: Server) -> Outcome {
    let action = server.action("test ! -e a/b/out && test -d a/b && mkdir a/b/out")?;
    succeeds(action.output_directory("a/b/out")).await?;
    Ok(())
}

async fn outputs_are_relative_to_the_working_directory(server: Server) -> Outcome {
    let action = server.action("echo content > sub/out")?.directory("work");
    let run = succeeds(action.working_directory("work").output("sub/out")).await?;
    same("outputs", run.outputs()?, vec!["file sub/out".to_owned()])
}

async fn an_input_can_be_an_output(server: Server) -> Outcome {
    let content = unique("in");
    let run = succeeds(server.action("exit 0")?.input("in", content.clone()).output("in")).await?;
    same_bytes("in", run.file("in").await?.as_bytes(), &content)
}

async fn outputs_of_failed_commands_are_returned(server: Server) -> Outcome {
    let run = server.action("echo > out; exit 7")?.output("out").run().await?;
    same("the status", run.code(), Code::Ok)?;
    same("the exit code", run.exit_code()?, 7)?;
    same("outputs", run.outputs()?, vec!["file out".to_owned()])
}

async fn every_output_is_in_the_cas(server: Server) -> Outcome {
    let run = succeeds(server.action(ALL_KINDS)?.output("out")).await?;
    let tree = run.tree("out").await?;
    let mut digests = Vec::new();
    for file in tree.root.iter().chain(&tree.children).flat_map(|it| &it.files) {
        let digest = Digest::from_proto_field(file.digest.as_ref(), server.client.function())?;
        digests.push(digest);
    }
    ensure!(digests.len() >= 5, "{} files", digests.len());
    same("missing", server.client.missing(&digests).await?, vec![])
}

async fn an_output_below_an_input_symlink_is_returned(server: Server) -> Outcome {
    let action =
        server.action("echo content > link/out")?.directory("real").symlink("link", "real");
    let run = succeeds(action.output("link/out")).await?;
    same("outputs", run.outputs()?, vec!["file link/out".to_owned()])
}
