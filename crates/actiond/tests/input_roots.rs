//! Inputs as actions find them: the same with every strategy.

use std::process::ExitCode;

use inputroot::StrategyName;
use testkit::harness::{self, Case};
use testkit::{Action, Client, Daemon, Digest, DigestFunction, Kit, Outcome, elf, skip};
use tonic::Code;

/// A case for each strategy.
macro_rules! for_each_strategy {
    ($($case:ident),+ $(,)?) => {
        fn main() -> ExitCode {
            let mut cases = Vec::new();
            for strategy in StrategyName::ALL {
                $(cases.push(Case::new(format!("{strategy}: {}", stringify!($case)), move |kit| {
                    with_strategy(kit, strategy, $case)
                }));)+
            }
            harness::run(env!("CARGO_BIN_EXE_linux-actiond"), cases)
        }
    };
}

for_each_strategy! {
    inputs_are_what_was_uploaded,
    the_empty_root_is_a_directory,
    names_of_every_kind_are_kept,
    executables_run_and_data_does_not,
    one_blob_can_be_both_executable_and_not,
    an_empty_symlink_target_is_the_directory,
    symlinks_lead_where_they_say,
    a_large_tree_is_whole,
    a_deep_tree_is_whole,
    a_tree_that_shares_directories_is_whole,
    blake3_inputs_are_shown,
    inputs_can_not_be_changed,
    names_are_the_actions_own,
    files_can_be_made_beside_inputs_everywhere,
    what_an_action_makes_is_its_own,
    a_change_to_one_view_is_not_seen_in_another,
    mutable_inputs_can_be_changed,
    a_mutable_directory_can_be_renamed,
    mutable_outputs_come_back,
    the_blobs_stay_as_they_were,
    outputs_may_lie_beside_inputs,
    files_of_an_action_behave_as_on_any_disk,
    nothing_is_left_when_the_daemon_is_idle,
    nothing_is_left_when_the_daemon_is_killed,
}

async fn with_strategy<F>(kit: Kit, strategy: StrategyName, case: F) -> Outcome
where
    F: AsyncFnOnce(Daemon) -> Outcome,
{
    let flag = format!("--input-root-strategy={strategy}");
    match kit.daemon().host_rootfs().flag("--jobs=2").flag(flag).start().await {
        Ok(daemon) => case(daemon).await,
        Err(error) => match why_it_can_not_be_had(&error) {
            Some(reason) if !is_ours_to_have(&kit, strategy) => skip(reason),
            _ => Err(error),
        },
    }
}

/// Whether `strategy` must work, whatever the machine: the guest's kernel is built for it.
fn is_ours_to_have(kit: &Kit, strategy: StrategyName) -> bool {
    use StrategyName::{ErofsLoop, LinkOverlay, TmpfsOverlay};
    kit.is_in_vm() && !matches!(strategy, ErofsLoop | LinkOverlay | TmpfsOverlay)
}

/// The verdict of a daemon's last words, or those of the one in a VM, on the strategy that was asked for.
fn why_it_can_not_be_had(error: &anyhow::Error) -> Option<String> {
    let words = format!("{error:#}");
    let mut reasons =
        words.lines().filter_map(|line| line.split_once("no input root strategy works here: "));
    Some(reasons.next()?.1.to_owned())
}

/// An action that runs `script` for what it says.
async fn say(action: Action) -> anyhow::Result<String> {
    let run = action.run().await?;
    run.succeeded().await?.stdout().await
}

async fn inputs_are_what_was_uploaded(daemon: Daemon) -> Outcome {
    let large = "0123456789abcdef".repeat(200_000);
    let action =
        daemon.client().action("find . | sort; cat top dir/sub/file; wc -c < large; wc -c < empty");
    let action = action.input("top", "t").input("dir/sub/file", "f").input("large", large);
    let said = say(action.input("empty", "").directory("dir/nothing")).await?;
    let expected = ".\n./dir\n./dir/nothing\n./dir/sub\n./dir/sub/file\n./empty\n./large\n./top\ntf3200000\n0\n";
    assert_eq!(said, expected);
    Ok(())
}

async fn the_empty_root_is_a_directory(daemon: Daemon) -> Outcome {
    assert_eq!(say(daemon.client().action("ls -A; stat -c %F .")).await?, "directory\n");
    Ok(())
}

async fn names_of_every_kind_are_kept(daemon: Daemon) -> Outcome {
    let names = ["with space", "new\nline", "ünïcödé", "-dash", "'quote\"", "*", "a\\b", ".hidden"];
    let long = "x".repeat(255);
    let mut action = daemon.client().action("for f in * .h*; do cat \"./$f\"; done");
    for name in names.iter().copied().chain([long.as_str()]) {
        action = action.input(name, "1").input(&format!("in/{name}"), "2");
    }
    let action = action.property("mutates_inputs", "0");
    let run = action.run().await?;
    // `in` is a directory, which `cat` complains about; all else is there.
    assert_eq!(run.stdout().await?, "1".repeat(9));
    Ok(())
}

async fn executables_run_and_data_does_not(daemon: Daemon) -> Outcome {
    let client = daemon.client();
    let program = elf::exit_with(7);
    let (program_mode, data) = (program_mode(&daemon), data_mode(&daemon).await?);
    let script =
        "./bin/run; echo $?; ./data; echo $?; stat -c %a bin/run data; sh bin/script; bin/script";
    let action = client.action(script).executable("bin/run", program.clone());
    let action = action.input("data", program).executable("bin/script", "#!/bin/sh\necho script\n");
    assert_eq!(say(action).await?, format!("7\n126\n{program_mode}\n{data}\nscript\nscript\n"));
    Ok(())
}

async fn one_blob_can_be_both_executable_and_not(daemon: Daemon) -> Outcome {
    let program = elf::exit_with(9);
    let action = daemon.client().action("./a; echo $?; ./b; echo $?; ./c; echo $?; cmp a b");
    let action = action.executable("a", program.clone()).input("b", program.clone());
    assert_eq!(say(action.executable("c", program)).await?, "9\n126\n9\n");
    Ok(())
}

/// Bazel encodes the target `.` as the empty string.
async fn an_empty_symlink_target_is_the_directory(daemon: Daemon) -> Outcome {
    let action = daemon.client().action("readlink here; cat here/file");
    let action = action.input("file", "content\n").symlink("here", "");
    assert_eq!(say(action).await?, ".\ncontent\n");
    Ok(())
}

async fn symlinks_lead_where_they_say(daemon: Daemon) -> Outcome {
    let script = "readlink to-file to-dir gone absolute up; cat to-file to-dir/file; test ! -e gone; cat dir/up";
    let action = daemon.client().action(script).input("file", "1").input("dir/file", "2");
    let action =
        action.symlink("to-file", "file").symlink("to-dir", "dir").symlink("gone", "nowhere");
    let action = action
        .symlink("absolute", "/etc/hosts")
        .symlink("up", "../..")
        .symlink("dir/up", "../file");
    assert_eq!(say(action).await?, "file\ndir\nnowhere\n/etc/hosts\n../..\n121");
    Ok(())
}

async fn a_large_tree_is_whole(daemon: Daemon) -> Outcome {
    let mut action = daemon
        .client()
        .action("find . -type f | wc -l; find . -type f -exec cat {} + | sort | uniq -d | wc -l");
    for number in 0..2000 {
        action = action.input(&format!("d{}/f{number}", number % 40), format!("{number}\n"));
    }
    assert_eq!(say(action).await?, "2000\n0\n");
    Ok(())
}

async fn a_deep_tree_is_whole(daemon: Daemon) -> Outcome {
    let path = "d/".repeat(120) + "file";
    let action = daemon.client().action(&format!("cat {path}")).input(&path, "deep");
    assert_eq!(say(action).await?, "deep");
    Ok(())
}

async fn a_tree_that_shares_directories_is_whole(daemon: Daemon) -> Outcome {
    let mut action = daemon.client().action("find . -type f | wc -l; cat */x/y/f | sort -u");
    for number in 0..50 {
        action = action.input(&format!("d{number}/x/y/f"), "same\n");
    }
    assert_eq!(say(action).await?, "50\nsame\n");
    Ok(())
}

async fn blake3_inputs_are_shown(daemon: Daemon) -> Outcome {
    let client = daemon.client().with_function(DigestFunction::Blake3);
    let action = client.action("cat dir/file; ./run; echo $?").input("dir/file", "content\n");
    assert_eq!(say(action.executable("run", elf::exit_with(3))).await?, "content\n3\n");
    Ok(())
}

/// Commands that change the content or an attribute of an input file.
const CHANGES: [&str; 12] = [
    "echo x > file",
    "echo x >> file",
    "true > file",
    "truncate -s 0 file",
    "echo x 1<> file",
    "chmod 777 file",
    "chown 65534 file",
    "touch -d @5 file",
    "touch -d @1 dir/file",
    "setfattr -n user.x -v y file",
    "exec 9< file; echo x > /proc/self/fd/9",
    CHANGE_IN_A_MOVED_DIRECTORY,
];

/// Where rename(2) of an input directory fails, mv(1) copies, and copies are the action's own.
const CHANGE_IN_A_MOVED_DIRECTORY: &str = "mv dir other; echo x > other/file";

/// Changes that succeed where inputs belong to the action's user. What they change is a copy of the action's own.
const CHANGES_BY_THE_OWNER: [&str; 5] = [
    "chmod 777 file",
    "chown 65534 file",
    "touch -d @5 file",
    "touch -d @1 dir/file",
    "chmod 777 file; echo x > file; chmod 777 tool; echo x > tool",
];

/// Commands that change what lies where, and directories: all of that is the action's own.
const NAMES: [&str; 12] = [
    "mv dir other",
    "rmdir empty",
    "rm link",
    "chmod 711 dir; test $(stat -c %a dir) = 711",
    "chmod 711 .; test $(stat -c %a .) = 711",
    "touch -d @5 dir; test $(stat -c %Y dir) = 5",
    "ln -sf elsewhere link; test \"$(readlink link)\" = elsewhere",
    "mv tool dir/tool",
    "echo new > new; mv -fT new tool",
    "rm tool; echo new > tool",
    "rmdir empty; echo new > empty",
    "mv dir other; mkdir dir; mv other/file dir || mv other dir",
];

/// Those of input files that a bind mount keeps in their places.
const FILE_NAMES: [&str; 5] = [
    "rm -f file",
    "mv file other",
    "rm -rf dir",
    "echo new > /tmp/new; mv -f /tmp/new file",
    "echo new > new; mv -fT new file",
];

fn changing(client: &Client, change: &str) -> Action {
    client
        .action(change)
        .input("file", "content")
        .executable("tool", "tool")
        .input("dir/file", "content")
        .directory("empty")
        .symlink("link", "file")
}

async fn inputs_can_not_be_changed(daemon: Daemon) -> Outcome {
    let client = daemon.client();
    let mut possible = Vec::new();
    if copies_moved_directories(&daemon).await? {
        possible.push(CHANGE_IN_A_MOVED_DIRECTORY);
    }
    if has_one_id(&daemon) {
        possible.extend(CHANGES_BY_THE_OWNER);
        for change in CHANGES_BY_THE_OWNER {
            let run = changing(&client, change).run().await?;
            assert_eq!(run.exit_code()?, 0, "{change}: {}", run.stderr().await?);
            assert_eq!(client.get(&client.digest("content")).await?, b"content", "{change}");
            assert_eq!(client.get(&client.digest("tool")).await?, b"tool", "{change}");
        }
    }
    for change in CHANGES.iter().filter(|change| !possible.contains(change)) {
        let run = changing(&client, change).run().await?;
        assert_ne!(run.exit_code()?, 0, "it worked: {change}");
    }
    let unchanged =
        "cat file dir/file tool; readlink link; find . | wc -l; stat -c %a file dir/file tool";
    let said = say(changing(&client, unchanged)).await?;
    let (program, data) = (program_mode(&daemon), data_mode(&daemon).await?);
    assert_eq!(said, format!("contentcontenttoolfile\n7\n{data}\n{data}\n{program}\n"));
    Ok(())
}

/// Whether actions have the user of the server, to whom inputs belong.
fn has_one_id(daemon: &Daemon) -> bool {
    daemon.log().contains("in a user namespace of one id")
}

/// The mode of an input that is executable.
fn program_mode(daemon: &Daemon) -> &'static str {
    if has_one_id(daemon) { "555" } else { "755" }
}

/// Whether an input is a mount of its own, which shows the mode of its blob and keeps its place.
async fn is_bind(daemon: &Daemon) -> anyhow::Result<bool> {
    let script = "grep -c ' /execroot/data ' /proc/self/mountinfo || true";
    Ok(say(daemon.client().action(script).input("data", "x")).await? != "0\n")
}

/// The mode of an input that is no executable. A hard link to its blob has the blob's.
async fn data_mode(daemon: &Daemon) -> anyhow::Result<&'static str> {
    let is_link = daemon.log().contains("strategy=\"link-overlay\"");
    Ok(if is_link || has_one_id(daemon) || is_bind(daemon).await? { "444" } else { "644" })
}

/// Whether rename(2) of an input directory fails, so that mv(1) makes a copy of the action's own.
async fn copies_moved_directories(daemon: &Daemon) -> anyhow::Result<bool> {
    let action =
        daemon.client().action("mv dir other; stat -c %u other/file").input("dir/file", "x");
    Ok(say(action).await? != "0\n")
}

async fn names_are_the_actions_own(daemon: Daemon) -> Outcome {
    let client = daemon.client();
    let of_files: &[&str] = if is_bind(&daemon).await? { &[] } else { &FILE_NAMES };
    for change in NAMES.iter().chain(of_files) {
        let run = changing(&client, change).run().await?;
        anyhow::ensure!(run.exit_code()? == 0, "{change}: {}", run.stderr().await?);
        assert_eq!(client.get(&client.digest("content")).await?, b"content", "{change}");
        assert_eq!(client.get(&client.digest("tool")).await?, b"tool", "{change}");
    }
    let unchanged = "cat file dir/file tool; readlink link; find . | wc -l";
    assert_eq!(say(changing(&client, unchanged)).await?, "contentcontenttoolfile\n7\n");
    Ok(())
}

async fn files_can_be_made_beside_inputs_everywhere(daemon: Daemon) -> Outcome {
    let script = "for d in . dir dir/sub; do echo new > $d/new; mkdir $d/made; ln -s x $d/made/link; \
                  mv $d/new $d/newer; echo more >> $d/newer; ln $d/newer $d/hard; done; \
                  cat newer dir/newer dir/sub/newer dir/file; rm dir/newer; rm -r dir/made; ls dir";
    let action =
        daemon.client().action(script).input("dir/file", "old\n").input("dir/sub/file", "old\n");
    let said = say(action).await?;
    assert_eq!(said, "new\nmore\nnew\nmore\nnew\nmore\nold\nfile\nhard\nsub\n");
    Ok(())
}

async fn what_an_action_makes_is_its_own(daemon: Daemon) -> Outcome {
    let script = "echo x > new; chmod 640 new; mkdir d; chmod 700 d; stat -c '%a %u' new d; touch -d @1000 new; stat -c %Y new";
    let action = daemon.client().action(script).input("dir/file", "");
    assert_eq!(say(action).await?, "640 65534\n700 65534\n1000\n");
    Ok(())
}

async fn a_change_to_one_view_is_not_seen_in_another(daemon: Daemon) -> Outcome {
    let client = daemon.client();
    let seen = "ls -A . dir; cat dir/file";
    let action = |script: &str, salt: &str| {
        client.action(script).input("dir/file", "content\n").salt(salt).do_not_cache()
    };
    let before = say(action(seen, "1")).await?;
    say(action("echo x > new; mkdir dir/made", "2")).await?;
    let mutating = action("rm -r dir; echo x > dir", "3").property("mutates_inputs", "1");
    say(mutating).await?;
    assert_eq!(say(action(seen, "4")).await?, before);
    let mutable = action(seen, "5").property("mutates_inputs", "1");
    assert_eq!(say(mutable).await?, before);
    Ok(())
}

async fn mutable_inputs_can_be_changed(daemon: Daemon) -> Outcome {
    let client = daemon.client();
    let not_for_any_owner = ["setfattr -n user.x -v y file", "chown 65534 file"];
    let changes = CHANGES.iter().chain(&NAMES).chain(&FILE_NAMES);
    for change in changes.filter(|change| !not_for_any_owner.contains(change)) {
        let run = changing(&client, change).property("mutates_inputs", "1").run().await?;
        anyhow::ensure!(run.exit_code()? == 0, "{change}: {}", run.stderr().await?);
    }
    Ok(())
}

async fn a_mutable_directory_can_be_renamed(daemon: Daemon) -> Outcome {
    let script = "mv dir other; mv other/sub sub; cat other/file sub/file; test ! -e dir; mkdir dir; ls -A dir";
    let action = daemon.client().action(script).input("dir/file", "1").input("dir/sub/file", "2");
    assert_eq!(say(action.property("mutates_inputs", "1")).await?, "12");
    Ok(())
}

async fn mutable_outputs_come_back(daemon: Daemon) -> Outcome {
    let script = "echo more >> changed; rm gone; echo new > made; mv moved other; rm -r dir/sub; echo x > dir/x";
    let mut action = daemon.client().action(script).property("mutates_inputs", "1");
    for input in ["changed", "gone", "moved", "kept", "dir/file", "dir/sub/file"] {
        action = action.input(input, format!("{input}\n"));
    }
    for output in ["changed", "gone", "moved", "other", "made", "kept", "dir"] {
        action = action.output(output);
    }
    let run = action.run().await?;
    let expected = ["directory dir", "file changed", "file kept", "file made", "file other"];
    assert_eq!(run.succeeded().await?.outputs()?, expected);
    assert_eq!(run.file("changed").await?, "changed\nmore\n");
    assert_eq!(run.file("other").await?, "moved\n");
    assert_eq!(run.file("kept").await?, "kept\n");
    let root = run.tree("dir").await?.root.unwrap_or_default();
    let names: Vec<_> = root.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!((names, root.directories.len()), (vec!["file", "x"], 0));
    Ok(())
}

async fn the_blobs_stay_as_they_were(daemon: Daemon) -> Outcome {
    let client = daemon.client();
    for mutates in ["0", "1"] {
        for change in CHANGES.iter().chain(&NAMES).chain(&FILE_NAMES) {
            changing(&client, change).property("mutates_inputs", mutates).run().await?;
        }
    }
    for content in ["content", "tool"] {
        assert_eq!(client.get(&client.digest(content)).await?, content.as_bytes());
        let path = blob_path(&daemon, &client.digest(content))?;
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path)?);
        assert_eq!(mode & 0o7777, 0o444);
    }
    Ok(())
}

fn blob_path(daemon: &Daemon, digest: &Digest) -> anyhow::Result<std::path::PathBuf> {
    let hex = digest.hex();
    let blobs = daemon.store()?.join("cas/blobs").join(digest.function().name());
    Ok(blobs.join(&hex[..2]).join(hex))
}

async fn outputs_may_lie_beside_inputs(daemon: Daemon) -> Outcome {
    let script = "cp dir/in dir/out; cp dir/in dir/sub/out; cp dir/in new/deep/out";
    let action = daemon.client().action(script).input("dir/in", "x").input("dir/sub/in", "y");
    let run = action.output("dir/out").output("dir/sub/out").output("new/deep/out").run().await?;
    run.succeeded().await?;
    for path in ["dir/out", "dir/sub/out", "new/deep/out"] {
        assert_eq!(run.file(path).await?, "x", "{path}");
    }
    // A file where the parent of an output has to be can't be.
    let action = daemon.client().action("true").input("file", "x").output("file/out");
    assert_eq!(action.run().await?.code(), Code::InvalidArgument);
    Ok(())
}

async fn files_of_an_action_behave_as_on_any_disk(daemon: Daemon) -> Outcome {
    let script = "set -e; mkfifo fifo; (cat fifo > got &) ; echo through > fifo; \
                  while ! test -s got; do :; done; cat got; \
                  truncate -s 1M sparse; fallocate -l 64K solid; sync solid; \
                  dd if=dir/in of=copy bs=1 status=none; cp --reflink=auto dir/in copy2; cmp copy copy2; \
                  flock solid true; ln copy hard; stat -c %h hard; test copy -ef hard; \
                  mkdir -p a/b/c; rmdir -p a/b/c; test ! -e a; echo done";
    let run = daemon.client().action(script).input("dir/in", "content").run().await?;
    if run.stderr().await?.contains("fallocate: command not found") {
        return skip("runtimes have neither fallocate nor flock");
    }
    assert_eq!(run.succeeded().await?.stdout().await?, "through\n2\ndone\n");
    Ok(())
}

/// Entries below the daemon's directory of running actions, and mounts and loop
/// devices that name its root.
fn left_behind(daemon: &Daemon) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    let root = daemon.root().display().to_string();
    for line in std::fs::read_to_string("/proc/self/mountinfo")?.lines() {
        if line.contains(&root) {
            left.push(line.to_owned());
        }
    }
    for entry in std::fs::read_dir("/sys/block")? {
        let backing = std::fs::read_to_string(entry?.path().join("loop/backing_file"));
        left.extend(backing.ok().filter(|path| path.contains(&root)));
    }
    Ok(left)
}

async fn run_a_few(client: &Client) -> Outcome {
    for number in 0..5 {
        let action = client.action("echo x > dir/out").input("dir/in", number.to_string());
        action.output("dir/out").run().await?.succeeded().await?;
    }
    Ok(())
}

async fn nothing_is_left_when_the_daemon_is_idle(mut daemon: Daemon) -> Outcome {
    run_a_few(&daemon.client()).await?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    assert!(!mounts.contains(&daemon.root().display().to_string()), "{mounts}");
    daemon.terminate()?;
    assert!(daemon.wait()?.success(), "{}", daemon.log());
    testkit::eventually("all is gone", || Ok(left_behind(&daemon)?.is_empty())).await?;
    Ok(())
}

async fn nothing_is_left_when_the_daemon_is_killed(mut daemon: Daemon) -> Outcome {
    run_a_few(&daemon.client()).await?;
    let mut running = daemon.client().action("sleep 1000").input("dir/in", "x").start().await?;
    while let Some(operation) = running.message().await? {
        let stage = testkit::run::metadata(&operation)?.stage;
        if stage == testkit::proto::execution_stage::Value::Executing as i32 {
            break;
        }
    }
    daemon.kill()?;
    testkit::eventually("all is gone", || Ok(left_behind(&daemon)?.is_empty())).await?;
    // And the next one starts from there.
    let daemon = daemon.successor().start().await?;
    run_a_few(&daemon.client()).await
}
