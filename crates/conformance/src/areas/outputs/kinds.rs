//! Symlinks, outputs of older clients, and outputs of another kind than declared.

use testkit::proto;
use tonic::Code;

use super::run::succeeds;
use crate::check::{Check, Outcome, must, should};
use crate::expect::same;
use crate::server::Server;

pub(super) const CHECKS: &[Check] = &[
    must!(
        a_symlink_is_returned,
        "ActionResult.output_symlinks",
        "if the corresponding path existed after the action completed and was a symbolic link."
    ),
    must!(
        a_dangling_symlink_is_returned,
        "ActionResult.output_symlinks",
        "if the corresponding path existed after the action completed and was a symbolic link."
    ),
    must!(
        an_absolute_symlink_is_returned_or_refused,
        "SymlinkAbsolutePathStrategy.Value",
        "If an action tries to create an output symlink with an absolute target, a `FAILED_PRECONDITION` will be returned."
    ),
    must!(
        older_clients_get_files,
        "Command.output_files",
        "A list of the output files that the client expects to retrieve from the action."
    ),
    must!(
        older_clients_get_directories,
        "Command.output_directories",
        "an entire directory structure will be returned as a"
    ),
    should!(
        older_clients_get_file_symlinks,
        "ActionResult.output_file_symlinks",
        "Servers that wish to be compatible with v2.0 API should still populate this field in addition to `output_symlinks`."
    ),
    should!(
        older_clients_get_directory_symlinks,
        "ActionResult.output_directory_symlinks",
        "Servers that wish to be compatible with v2.0 API should still populate this field in addition to `output_symlinks`."
    ),
    must!(
        output_paths_win,
        "Command.output_paths",
        "If `output_paths` is used, `output_files` and `output_directories` will be ignored!"
    ),
    must!(
        a_directory_in_place_of_a_file_is_told,
        "ActionResult.output_files",
        "If an output listed in `output_files` was found, but was a directory rather than a regular file, the server will return a FAILED_PRECONDITION."
    ),
    must!(
        a_file_in_place_of_a_directory_is_told,
        "ActionResult.output_directories",
        "was found in `output_directories`, but was not a directory, the server will return a FAILED_PRECONDITION."
    ),
    should!(
        the_rest_of_a_wrong_result_is_kept,
        "ExecuteResponse.status",
        "the server may populate the output-, stdout-, and stderr-related fields if it has any information available"
    ),
    must!(
        a_bad_output_path_is_refused,
        "Command.output_paths",
        "The path MUST NOT include a trailing slash, nor a leading slash, being a relative path."
    ),
];

async fn a_symlink_is_returned(server: Server) -> Outcome {
    let action = server.action("echo > file; ln -s file out")?.output("file").output("out");
    let run = succeeds(action).await?;
    same("outputs", run.outputs()?, ["file file", "symlink out -> file"].map(str::to_owned).into())
}

async fn a_dangling_symlink_is_returned(server: Server) -> Outcome {
    let run = succeeds(server.action("ln -s no/where out")?.output("out")).await?;
    same("outputs", run.outputs()?, vec!["symlink out -> no/where".to_owned()])
}

async fn an_absolute_symlink_is_returned_or_refused(server: Server) -> Outcome {
    use proto::symlink_absolute_path_strategy::Value as Strategy;
    let run = server.action("ln -s /no/where out")?.output("out").run().await?;
    if server.cache()?.symlink_absolute_path_strategy == i32::from(Strategy::Disallowed) {
        return same("the status", run.code(), Code::FailedPrecondition);
    }
    same("outputs", run.outputs()?, vec!["symlink out -> /no/where".to_owned()])
}

async fn older_clients_get_files(server: Server) -> Outcome {
    let run =
        succeeds(server.action("echo > a/out")?.output_file("a/out").output_file("b")).await?;
    same("outputs", run.outputs()?, vec!["file a/out".to_owned()])
}

async fn older_clients_get_directories(server: Server) -> Outcome {
    let action = server.action("mkdir -p a/out; echo > a/out/file")?.output_directory("a/out");
    let run = succeeds(action).await?;
    same("outputs", run.outputs()?, vec!["directory a/out".to_owned()])
}

#[expect(deprecated, reason = "older clients read nothing else")]
async fn older_clients_get_file_symlinks(server: Server) -> Outcome {
    let action = server.action("echo > file; ln -s file out")?.output_file("out");
    let run = succeeds(action).await?;
    let links: Vec<_> =
        run.result()?.output_file_symlinks.iter().map(|it| (&*it.path, &*it.target)).collect();
    same("output_file_symlinks", links, vec![("out", "file")])
}

#[expect(deprecated, reason = "older clients read nothing else")]
async fn older_clients_get_directory_symlinks(server: Server) -> Outcome {
    let action = server.action("mkdir dir; ln -s dir out")?.output_directory("out");
    let run = succeeds(action).await?;
    let links: Vec<_> =
        run.result()?.output_directory_symlinks.iter().map(|it| (&*it.path, &*it.target)).collect();
    same("output_directory_symlinks", links, vec![("out", "dir")])
}

async fn output_paths_win(server: Server) -> Outcome {
    let action = server.action("echo > new; echo > old")?.output("new").output_file("old");
    same("outputs", succeeds(action).await?.outputs()?, vec!["file new".to_owned()])
}

async fn a_directory_in_place_of_a_file_is_told(server: Server) -> Outcome {
    let run = server.action("mkdir out")?.output_file("out").run().await?;
    same("the status", run.code(), Code::FailedPrecondition)
}

async fn a_file_in_place_of_a_directory_is_told(server: Server) -> Outcome {
    let run = server.action("echo > out")?.output_directory("out").run().await?;
    same("the status", run.code(), Code::FailedPrecondition)
}

async fn the_rest_of_a_wrong_result_is_kept(server: Server) -> Outcome {
    let action = server.action("mkdir wrong; echo > right; echo told")?;
    let run = action.output_file("right").output_file("wrong").run().await?;
    same("the status", run.code(), Code::FailedPrecondition)?;
    same("stdout", run.stdout().await?, "told\n".to_owned())?;
    same("outputs", run.outputs()?, vec!["file right".to_owned()])
}

async fn a_bad_output_path_is_refused(server: Server) -> Outcome {
    for path in ["/out", "out/"] {
        let run = server.action("exit 0")?.output(path).run().await;
        let code = match run {
            Ok(run) => run.code(),
            Err(error) => error.downcast::<tonic::Status>()?.code(),
        };
        same(path, code, Code::InvalidArgument)?;
    }
    Ok(())
}
