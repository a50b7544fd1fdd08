//! Actions whose input root is their root.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use prost::Message as _;
use testkit::proto::command::OutputDirectoryFormat;
use testkit::{Action, Client, Daemon, Digest, Kit, Outcome, proto};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    the_input_root_is_the_root,
    what_has_the_marks_of_buildstream_has_its_root,
    one_mark_alone_is_none,
    the_whole_root_comes_back,
    absolute_symlinks_on_the_way_to_an_output_lead_into_it,
    a_program_that_is_missing_is_told,
}

/// A shell with its libraries in the input root, as a client that builds whole systems has them.
fn in_a_root(daemon: &Daemon, script: &str) -> anyhow::Result<Action> {
    let action = daemon.client().bare_action(["/bin/sh", "-c", script]).env("PATH", "/bin");
    let mut files = vec!["/bin/sh".to_owned(), "/bin/cat".to_owned()];
    for program in ["/bin/sh", "/bin/cat"] {
        let output = Command::new("ldd").arg(program).output().context("ldd")?;
        let libraries = String::from_utf8(output.stdout)?;
        let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        files.extend(paths.map(str::to_owned));
    }
    files.sort();
    files.dedup();
    files.iter().try_fold(action, |action, path| {
        let content = std::fs::read(Path::new(path)).with_context(|| path.clone())?;
        Ok(action.executable(path.trim_start_matches('/'), content))
    })
}

/// An action as BuildStream sends it.
fn marked(action: Action) -> Action {
    let action = ["dev", "proc", "tmp"].into_iter().fold(action, Action::directory);
    action.change_command(|command| {
        command.output_directory_format = OutputDirectoryFormat::DirectoryOnly.into();
    })
}

async fn the_input_root_is_the_root(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let script = "pwd; cat /input; echo changed > /input; cat /input; echo new > /new; \
        test -e /execroot || echo alone; test -c /dev/null && test -d /proc/self && echo own > /tmp/x";
    let action = in_a_root(&daemon, script)?.input("input", "word\n");
    let action = action.property("rootfs", "input-root").output("new");
    let run = action.run().await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "/\nword\nchanged\nalone\n");
    assert_eq!(run.file("new").await?, "new\n");
    assert!(action.run().await?.from_cache());
    Ok(())
}

async fn what_has_the_marks_of_buildstream_has_its_root(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let action = marked(in_a_root(&daemon, "pwd; echo out > ../installed/out")?);
    let action = action.directory("build").directory("installed").working_directory("build");
    let action = action.output(".").output("../installed").property("OSFamily", "linux");
    let run = action.run().await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "/build\n");
    assert_eq!(run.outputs()?, ["directory .", "directory ../installed"]);
    assert!(action.run().await?.from_cache());
    Ok(())
}

async fn one_mark_alone_is_none(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    // With another root that it asks for.
    let run = marked(in_a_root(&daemon, "pwd")?).property("rootfs", "host").run().await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "/execroot\n");
    let mount_points = ["dev", "proc", "tmp"];
    let unmarked = mount_points.into_iter().fold(in_a_root(&daemon, "pwd")?, Action::directory);
    let run = unmarked.run().await?;
    assert_eq!(run.exit_code()?, 127, "there is no shell in a root without programs");
    Ok(())
}

async fn read(client: &Client, digest: &Digest) -> anyhow::Result<proto::Directory> {
    Ok(proto::Directory::decode(client.get(digest).await?.as_slice())?)
}

async fn the_whole_root_comes_back(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let script = "echo new > /bin/new; echo hidden > /tmp/hidden; echo hidden > /dev/shm/hidden";
    let action = marked(in_a_root(&daemon, script)?).directory("work");
    let run = action.working_directory("work").output("..").run().await?;
    run.succeeded().await?;
    assert_eq!(run.outputs()?, ["directory .."]);
    let client = daemon.client();
    let output = &run.result()?.output_directories[0];
    let root = Digest::from_proto_field(output.root_directory_digest.as_ref(), client.function())?;
    let directory = read(&client, &root).await?;
    for node in &directory.directories {
        let digest = Digest::from_proto_field(node.digest.as_ref(), client.function())?;
        let below = read(&client, &digest).await?;
        let names: Vec<_> = below.files.iter().map(|file| file.name.as_str()).collect();
        match node.name.as_str() {
            "bin" => assert_eq!(names, ["cat", "new", "sh"]),
            "dev" | "proc" | "tmp" | "work" => {
                assert_eq!((names.len(), below.directories.len()), (0, 0), "{}", node.name);
            }
            _ => {}
        }
    }
    Ok(())
}

async fn absolute_symlinks_on_the_way_to_an_output_lead_into_it(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let action = in_a_root(&daemon, "echo out > /link/out")?.symlink("link", "/real");
    let action = action.directory("real").property("rootfs", "input-root").output("link/out");
    let run = action.run().await?;
    assert_eq!(run.succeeded().await?.file("link/out").await?, "out\n");
    Ok(())
}

async fn a_program_that_is_missing_is_told(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let action = daemon.client().bare_action(["/bin/nothing"]).property("rootfs", "input-root");
    let run = action.run().await?;
    assert_eq!((run.code(), run.exit_code()?), (Code::Ok, 127));
    let stderr = run.stderr().await?;
    assert!(stderr.contains("`/bin/nothing`: it does not exist"), "{stderr}");
    Ok(())
}
