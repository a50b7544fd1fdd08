//! The surroundings of an action: its input root, its command's environment.

use std::time::Duration;

use anyhow::ensure;
use prost::Message as _;
use testkit::{Action, Run, proto};
use tonic::Code;

use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::{same, same_bytes};
use crate::server::{Server, noise, unique};

pub(crate) const CHECKS: &[Check] = &[
    must!(
        files_are_where_they_should_be,
        "Action.input_root_digest",
        "The files in the directory tree are available in the correct location on the build machine before the command is executed."
    ),
    must!(a_large_file_is_whole, "FileNode.digest", "The digest of the file's content."),
    must!(
        executable_files_are_executable,
        "FileNode.is_executable",
        "True if file is executable, false otherwise."
    ),
    must!(
        empty_files_and_directories_are_there,
        "Directory",
        "represents a directory node in a file tree, containing zero or more children"
    ),
    must!(
        symlinks_are_there,
        "SymlinkNode.target",
        "The target path can be relative to the parent directory of the symlink or it can be an absolute path starting with `/`."
    ),
    must!(
        symlinks_may_go_up,
        "SymlinkNode.target",
        "`..` components are allowed anywhere in the target path"
    ),
    must!(
        an_absolute_symlink_is_as_announced,
        "SymlinkAbsolutePathStrategy.Value",
        "Server will return an `INVALID_ARGUMENT` on input symlinks with absolute targets."
    ),
    must!(names_may_be_of_any_characters, "FileNode.name", "The name of the file."),
    must!(
        names_differ_by_case,
        "Directory",
        "Note that while the API itself is case-sensitive, the environment where the Action is executed may or may not be case-sensitive."
    ),
    must!(
        a_tree_is_exactly_the_tree,
        "Action.input_root_digest",
        "The files in the directory tree are available in the correct location on the build machine before the command is executed."
    ),
    must!(
        a_tree_of_many_files_is_there,
        "Action.input_root_digest",
        "The files in the directory tree are available in the correct location on the build machine before the command is executed."
    ),
    must!(an_empty_input_root_is_fine, "Action.input_root_digest", "The digest of the root"),
    must!(
        a_name_with_a_slash_is_refused,
        "Directory",
        "Every child in the directory must have a path of exactly one segment."
    ),
    must!(
        a_name_that_leads_out_is_refused,
        "Directory",
        "Every child in the directory must have a path of exactly one segment."
    ),
    should!(
        a_name_that_comes_twice_is_refused,
        "Directory",
        "Each child in the directory must have a unique path segment (file name)."
    ),
    should!(
        an_input_root_that_is_none_is_refused,
        "Execution.Execute",
        "`INVALID_ARGUMENT`: One or more arguments are invalid."
    ),
    must!(
        variables_are_set,
        "Command.environment_variables",
        "The environment variables to set when running the program."
    ),
    should!(the_search_path_is_respected, "Command.arguments", "variable, it SHOULD be respected."),
    must!(arguments_are_passed_as_they_are, "Command.arguments", "The arguments to the command."),
    must!(
        a_program_is_found_from_the_working_directory,
        "Command.arguments",
        "which may be either an absolute path, a path relative to the working directory, or an unqualified path"
    ),
    must!(
        the_command_runs_in_its_working_directory,
        "Command.working_directory",
        "The working directory, relative to the input root, for the command to run in."
    ),
    must!(
        the_command_runs_in_the_input_root,
        "Command.working_directory",
        "If it is left empty, then the action is run in the input root."
    ),
    should!(
        a_working_directory_that_is_not_there_is_refused,
        "Command.working_directory",
        "It must be a directory which exists in the input tree."
    ),
    should!(
        a_program_that_is_not_there_is_told,
        "Execution.Execute",
        "The possible errors include:"
    ),
    must!(
        the_mode_of_an_input_is_set,
        "NodeProperties.unix_mode",
        "The UNIX file mode, e.g., 0755."
    ),
    must!(
        the_modification_time_of_an_input_is_set,
        "NodeProperties.mtime",
        "The file's last modification timestamp."
    ),
    must!(
        the_modification_time_of_a_symlink_is_set,
        "SymlinkNode.node_properties",
        "The node properties of the SymlinkNode."
    ),
    must!(
        the_properties_of_a_directory_are_set,
        "Directory.node_properties",
        "The node properties of the Directory."
    ),
    should!(an_unknown_property_of_an_input_is_refused, "NodeProperty.name", "The property name."),
    must!(
        actions_do_not_see_each_other,
        "Command.output_paths",
        "Other files or directories that may be created during command execution are discarded."
    ),
];

async fn succeeds(action: Action) -> anyhow::Result<Run> {
    let run = action.run().await?;
    run.succeeded().await?;
    Ok(run)
}

/// The code that an action ends with.
async fn code_of(action: &Action) -> anyhow::Result<Code> {
    match action.run().await {
        Ok(run) => Ok(run.code()),
        Err(error) => Ok(error.downcast::<tonic::Status>()?.code()),
    }
}

async fn files_are_where_they_should_be(server: Server) -> Outcome {
    let (one, two) = (unique("one"), unique("two"));
    let action = server.action("cat a/b/one two > out")?.output("out");
    let run = succeeds(action.input("a/b/one", one.clone()).input("two", two.clone())).await?;
    same_bytes("out", run.file("out").await?.as_bytes(), &[one, two].concat())
}

async fn a_large_file_is_whole(server: Server) -> Outcome {
    let content = noise(3_000_000);
    let digest = server.client.digest(&content).to_proto();
    let run = succeeds(server.action("cat in > out")?.input("in", content).output("out")).await?;
    same("the digest", run.output_file("out")?.digest.clone(), Some(digest))
}

async fn executable_files_are_executable(server: Server) -> Outcome {
    let script = "#!/bin/sh\necho ran\n";
    let action = server.action("test ! -x plain || exit 1; ./run > out")?.output("out");
    let run = succeeds(action.executable("run", script).input("plain", unique("plain"))).await?;
    same("out", run.file("out").await?, "ran\n".to_owned())
}

async fn empty_files_and_directories_are_there(server: Server) -> Outcome {
    let action = server.action("test -f a/file && test ! -s a/file && test -d b/dir")?;
    succeeds(action.input("a/file", "").directory("b/dir")).await?;
    Ok(())
}

async fn symlinks_are_there(server: Server) -> Outcome {
    let script = "test $(readlink a/link) = b/file && cat a/link && test -L dangling";
    let action = server.action(script)?.input("a/b/file", unique("in"));
    succeeds(action.symlink("a/link", "b/file").symlink("dangling", "nowhere")).await?;
    Ok(())
}

async fn symlinks_may_go_up(server: Server) -> Outcome {
    let action = server.action("cat a/b/link")?.input("c/file", unique("in"));
    succeeds(action.symlink("a/b/link", "../../c/file")).await?;
    Ok(())
}

async fn an_absolute_symlink_is_as_announced(server: Server) -> Outcome {
    use proto::symlink_absolute_path_strategy::Value as Strategy;
    let action = server.action("test $(readlink link) = /no/where")?.symlink("link", "/no/where");
    if server.cache()?.symlink_absolute_path_strategy == i32::from(Strategy::Disallowed) {
        return same("the code", code_of(&action).await?, Code::InvalidArgument);
    }
    succeeds(action).await?;
    Ok(())
}

async fn names_may_be_of_any_characters(server: Server) -> Outcome {
    let names = ["with space", "ünï-çødé", "-dash", "quote'\"", "back\\slash", "new\nline", "*?"];
    let mut action = server.action("for name in *; do cat \"./$name\" || exit; done")?;
    for name in names {
        action = action.input(name, "x");
    }
    same("stdout", succeeds(action).await?.stdout().await?, "x".repeat(names.len()))
}

async fn names_differ_by_case(server: Server) -> Outcome {
    let action = server.action("cat foo Foo > out")?.input("foo", "1").input("Foo", "2");
    let run = action.output("out").run().await?;
    if run.code() == Code::InvalidArgument {
        return skip("the worker does not tell cases apart");
    }
    same("out", run.file("out").await?, "12".to_owned())
}

async fn a_tree_is_exactly_the_tree(server: Server) -> Outcome {
    let action = server.action("find . | sort")?.input("a/b", "x").input("c", "y").directory("d");
    let run = succeeds(action).await?;
    same("stdout", run.stdout().await?, ".\n./a\n./a/b\n./c\n./d\n".to_owned())
}

async fn a_tree_of_many_files_is_there(server: Server) -> Outcome {
    let mut action = server.action("cat */* | wc -c")?;
    let content = unique("in");
    for number in 0..2000 {
        action = action.input(&format!("{}/{number}", number % 50), content.clone());
    }
    let run = succeeds(action).await?;
    let count = run.stdout().await?.trim().parse::<usize>()?;
    same("bytes", count, 2000 * content.len())
}

async fn an_empty_input_root_is_fine(server: Server) -> Outcome {
    let run = succeeds(server.action("ls -A | wc -l")?).await?;
    same("entries", run.stdout().await?.trim().to_owned(), "0".to_owned())
}

/// An action with an input root that has files of these names.
async fn with_names(server: &Server, names: &[&str]) -> anyhow::Result<Action> {
    let file = server.client.put(unique("in")).await?.to_proto();
    let node = |name: &&str| proto::FileNode {
        name: (*name).to_owned(),
        digest: Some(file.clone()),
        ..Default::default()
    };
    let files = names.iter().map(node).collect();
    let root = proto::Directory { files, ..Default::default() };
    let root = server.client.put(root.encode_to_vec()).await?;
    Ok(server.action("exit 0")?.input_root(root))
}

async fn a_name_with_a_slash_is_refused(server: Server) -> Outcome {
    let action = with_names(&server, &["a/b"]).await?;
    same("the code", code_of(&action).await?, Code::InvalidArgument)
}

async fn a_name_that_leads_out_is_refused(server: Server) -> Outcome {
    for name in ["..", ".", ""] {
        let action = with_names(&server, &[name]).await?;
        same(name, code_of(&action).await?, Code::InvalidArgument)?;
    }
    Ok(())
}

async fn a_name_that_comes_twice_is_refused(server: Server) -> Outcome {
    let action = with_names(&server, &["a", "a"]).await?;
    same("the code", code_of(&action).await?, Code::InvalidArgument)
}

async fn an_input_root_that_is_none_is_refused(server: Server) -> Outcome {
    let root = server.client.put([&[0xff; 20][..], &unique("no directory")].concat()).await?;
    let action = server.action("exit 0")?.input_root(root);
    same("the code", code_of(&action).await?, Code::InvalidArgument)
}

async fn variables_are_set(server: Server) -> Outcome {
    let action = server.action("printf '%s|%s' \"$ONE\" \"$TWO\"")?;
    let run = succeeds(action.env("ONE", "1 = 1").env("TWO", "")).await?;
    same("stdout", run.stdout().await?, "1 = 1|".to_owned())
}

async fn the_search_path_is_respected(server: Server) -> Outcome {
    server.action("exit 0")?;
    let script = "#!/bin/sh\necho found\n";
    let action =
        server.command(["actiond-conformance-program"]).env("PATH", "/nowhere:/bin:/usr/bin:tools");
    let run = action.executable("tools/actiond-conformance-program", script).run().await?;
    same("stdout", run.stdout().await?, "found\n".to_owned())
}

async fn arguments_are_passed_as_they_are(server: Server) -> Outcome {
    server.action("exit 0")?;
    let words = ["a b", "", "$HOME", "\"", "ü", "new\nline"];
    let script = "for word; do printf '[%s]' \"$word\"; done";
    let arguments = ["/bin/sh", "-c", script, "sh"].into_iter().chain(words);
    let run = succeeds(server.command(arguments)).await?;
    let expected: String = words.iter().map(|word| format!("[{word}]")).collect();
    same("stdout", run.stdout().await?, expected)
}

async fn a_program_is_found_from_the_working_directory(server: Server) -> Outcome {
    server.action("exit 0")?;
    let script = "#!/bin/sh\necho found\n";
    let action = server.command(["../tools/run"]).env("PATH", "/bin:/usr/bin");
    let action = action.executable("tools/run", script).directory("work");
    let run = succeeds(action.working_directory("work")).await?;
    same("stdout", run.stdout().await?, "found\n".to_owned())
}

async fn the_command_runs_in_its_working_directory(server: Server) -> Outcome {
    let action = server.action("test -f here && test -f ../up")?;
    let action = action.input("a/b/here", unique("in")).input("a/up", unique("in"));
    succeeds(action.working_directory("a/b")).await?;
    Ok(())
}

async fn the_command_runs_in_the_input_root(server: Server) -> Outcome {
    succeeds(server.action("test -f top")?.input("top", unique("in"))).await?;
    Ok(())
}

async fn a_working_directory_that_is_not_there_is_refused(server: Server) -> Outcome {
    let action = server.action("exit 0")?.working_directory("not/there");
    let code = code_of(&action).await?;
    let good = [Code::InvalidArgument, Code::FailedPrecondition];
    ensure!(good.contains(&code), "{code:?} in place of {good:?}");
    Ok(())
}

/// As an error, or as the shell does, by exit code 127.
async fn a_program_that_is_not_there_is_told(server: Server) -> Outcome {
    server.action("exit 0")?;
    let run = server.command(["/not/there"]).timeout(Duration::from_secs(60)).run().await?;
    let good = [Code::InvalidArgument, Code::FailedPrecondition, Code::NotFound];
    let told = match run.code() {
        Code::Ok => run.exit_code()? != 0,
        code => good.contains(&code),
    };
    ensure!(told, "{:?} {}, {:?}", run.code(), run.message(), run.response.result);
    Ok(())
}

/// Runs `script` beside the file `in` with these properties, and returns what it prints.
async fn with_properties(
    server: &Server,
    script: &str,
    name: &str,
    properties: proto::NodeProperties,
) -> anyhow::Result<String> {
    announces(server, name)?;
    let file = proto::FileNode {
        name: "in".to_owned(),
        digest: Some(server.client.put(unique("in")).await?.to_proto()),
        node_properties: Some(properties),
        ..Default::default()
    };
    let root = proto::Directory { files: vec![file], ..Default::default() };
    let root = server.client.put(root.encode_to_vec()).await?;
    let run = succeeds(server.action(script)?.input_root(root)).await?;
    Ok(run.stdout().await?.trim().to_owned())
}

async fn the_mode_of_an_input_is_set(server: Server) -> Outcome {
    let properties = proto::NodeProperties { unix_mode: Some(0o751), ..Default::default() };
    let mode = with_properties(&server, "stat -c %a in", "unix_mode", properties).await?;
    same("the mode", mode, "751".to_owned())
}

async fn the_modification_time_of_an_input_is_set(server: Server) -> Outcome {
    let time = testkit::google::protobuf::Timestamp { seconds: 1_234_567_890, nanos: 0 };
    let properties = proto::NodeProperties { mtime: Some(time), ..Default::default() };
    let mtime = with_properties(&server, "stat -c %Y in", "mtime", properties).await?;
    same("mtime", mtime, "1234567890".to_owned())
}

fn announces(server: &Server, name: &str) -> Outcome {
    if server.execution()?.supported_node_properties.iter().any(|it| it == name) {
        return Ok(());
    }
    skip(format!("supported_node_properties does not contain {name}"))
}

fn mtime(seconds: i64) -> proto::NodeProperties {
    let time = testkit::google::protobuf::Timestamp { seconds, nanos: 0 };
    proto::NodeProperties { mtime: Some(time), ..Default::default() }
}

async fn the_modification_time_of_a_symlink_is_set(server: Server) -> Outcome {
    announces(&server, "mtime")?;
    let link = proto::SymlinkNode {
        name: "link".to_owned(),
        target: "nowhere".to_owned(),
        node_properties: Some(mtime(1_234_567_890)),
    };
    let root = proto::Directory { symlinks: vec![link], ..Default::default() };
    let root = server.client.put(root.encode_to_vec()).await?;
    let run = succeeds(server.action("stat -c %Y link")?.input_root(root)).await?;
    same("mtime", run.stdout().await?.trim(), "1234567890")
}

async fn the_properties_of_a_directory_are_set(server: Server) -> Outcome {
    announces(&server, "mtime")?;
    announces(&server, "unix_mode")?;
    let properties = proto::NodeProperties { unix_mode: Some(0o750), ..mtime(1_234_567_890) };
    let below = proto::Directory { node_properties: Some(properties), ..Default::default() };
    let node = proto::DirectoryNode {
        name: "dir".to_owned(),
        digest: Some(server.client.put(below.encode_to_vec()).await?.to_proto()),
    };
    let root = proto::Directory { directories: vec![node], ..Default::default() };
    let root = server.client.put(root.encode_to_vec()).await?;
    let run = succeeds(server.action("stat -c '%Y %a' dir")?.input_root(root)).await?;
    same("mtime and mode", run.stdout().await?.trim(), "1234567890 750")
}

async fn an_unknown_property_of_an_input_is_refused(server: Server) -> Outcome {
    let property =
        proto::NodeProperty { name: "actiond-conformance".to_owned(), value: "x".to_owned() };
    let file = proto::FileNode {
        name: "in".to_owned(),
        digest: Some(server.client.put(unique("in")).await?.to_proto()),
        node_properties: Some(proto::NodeProperties {
            properties: vec![property],
            ..Default::default()
        }),
        ..Default::default()
    };
    let root = proto::Directory { files: vec![file], ..Default::default() };
    let root = server.client.put(root.encode_to_vec()).await?;
    same(
        "the code",
        code_of(&server.action("true")?.input_root(root)).await?,
        Code::InvalidArgument,
    )
}

async fn actions_do_not_see_each_other(server: Server) -> Outcome {
    succeeds(server.action("echo > left")?).await?;
    succeeds(server.action("test ! -e left")?).await?;
    Ok(())
}
