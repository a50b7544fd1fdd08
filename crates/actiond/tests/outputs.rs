//! Declared outputs: what comes back of what an action left.

use std::os::unix::fs::MetadataExt as _;

use anyhow::Context as _;
use prost::Message as _;
use testkit::proto::command::OutputDirectoryFormat;
use testkit::{Action, Daemon, Digest, DigestFunction, Kit, Outcome, Run, proto};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    outputs_of_every_kind,
    outputs_of_the_older_lists,
    both_ways_of_declaring_at_once,
    an_output_that_is_not_made_is_left_out,
    the_parents_of_outputs_are_there_before,
    output_directories_are_not_there_before,
    outputs_are_relative_to_the_working_directory,
    paths_may_go_up_inside_the_root,
    the_executable_bit_is_kept,
    a_directory_comes_back_as_a_tree,
    the_tree_and_the_directories_agree,
    directories_only_when_asked_for,
    empty_directories_are_kept,
    equal_directories_are_told_once,
    symlinks_stay_symlinks,
    symlinks_in_the_older_lists,
    symlinks_in_a_directory_are_kept,
    no_symlink_is_followed,
    a_symlink_in_the_way_to_an_output_is_not_followed,
    what_cannot_be_stored_is_told_and_the_rest_comes_back,
    a_failure_comes_before_what_could_not_be_stored,
    a_timeout_comes_before_what_could_not_be_stored,
    outputs_over_the_limit_leave_the_rest,
    devices_can_not_be_made,
    an_output_can_be_an_input,
    an_output_directory_can_hold_inputs,
    one_output_inside_another,
    the_whole_root_can_be_an_output,
    hard_links_to_one_output_are_apart,
    an_output_is_a_blob_like_all_others,
    a_writer_that_stays_behind_can_not_change_an_output,
    an_output_nobody_may_read_comes_back,
    sparse_files_keep_their_content,
    a_thousand_outputs,
    outputs_of_a_failed_action_come_back,
}

async fn daemon(kit: &Kit) -> anyhow::Result<Daemon> {
    kit.daemon().host_rootfs().start().await
}

async fn outputs_of_every_kind(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action =
        daemon.client().action("echo f > file; mkdir dir; echo g > dir/g; ln -s file link");
    let action = action.output("file").output("dir").output("link").output("nothing");
    let run = action.run().await?;
    run.succeeded().await?;
    assert_eq!(run.outputs()?, ["directory dir", "file file", "symlink link -> file"]);
    assert_eq!(run.file("file").await?, "f\n");
    Ok(())
}

async fn outputs_of_the_older_lists(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("echo f > file; mkdir dir; echo g > dir/g");
    let run = action.output_file("file").output_directory("dir").run().await?;
    assert_eq!(run.succeeded().await?.outputs()?, ["directory dir", "file file"]);
    Ok(())
}

async fn both_ways_of_declaring_at_once(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("echo f > file; mkdir dir; echo g > dir/g");
    let action = action.output_file("file").output_directory("dir").output("file").output("dir");
    let run = action.run().await?;
    assert_eq!(run.succeeded().await?.outputs()?, ["directory dir", "file file"]);
    Ok(())
}

async fn an_output_that_is_not_made_is_left_out(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("true");
    let action = action.output("out").output("deep/er/out");
    assert_eq!(action.run().await?.succeeded().await?.outputs()?, [] as [String; 0]);
    let action = daemon.client().action("true # 2").output_file("f").output_directory("d");
    assert_eq!(action.run().await?.succeeded().await?.outputs()?, [] as [String; 0]);
    Ok(())
}

async fn the_parents_of_outputs_are_there_before(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("echo x > a/b/c/out; chmod 700 a; touch a/b/other");
    let run = action.output("a/b/c/out").run().await?;
    assert_eq!(run.succeeded().await?.file("a/b/c/out").await?, "x\n");
    Ok(())
}

async fn output_directories_are_not_there_before(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("test -d a && test ! -e a/dir && mkdir a/dir");
    let action = action.output_directory("a/dir");
    assert_eq!(action.run().await?.succeeded().await?.outputs()?, ["directory a/dir"]);
    Ok(())
}

async fn outputs_are_relative_to_the_working_directory(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("pwd; echo x > out; echo y > sub/out");
    let action =
        action.working_directory("a/b").input("a/b/in", "").output("out").output("sub/out");
    let run = action.run().await?;
    assert_eq!(run.succeeded().await?.outputs()?, ["file out", "file sub/out"]);
    assert_eq!(run.stdout().await?, "/execroot/a/b\n");
    // A directory that is there only because it is above an output will do.
    let action = daemon.client().action("echo x > out").working_directory("new").output("out");
    assert_eq!(action.run().await?.succeeded().await?.outputs()?, ["file out"]);
    Ok(())
}

async fn paths_may_go_up_inside_the_root(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("echo x > ../../out");
    let action = action.working_directory("a/b").directory("a/b").output("../../out");
    assert_eq!(action.run().await?.succeeded().await?.outputs()?, ["file ../../out"]);
    let action = daemon.client().action("true").working_directory("a").directory("a");
    let run = action.output("../../out").run().await?;
    assert_eq!(run.code(), Code::InvalidArgument);
    Ok(())
}

async fn the_executable_bit_is_kept(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let script = "mkdir d; for m in 0644 0755 0700 0444 0101; do \
                  for f in f$m d/f$m; do echo $m > $f; chmod $m $f; done; done";
    let mut action = daemon.client().action(script).output("d");
    for mode in ["0644", "0755", "0700", "0444", "0101"] {
        action = action.output(&format!("f{mode}"));
    }
    let run = action.run().await?;
    run.succeeded().await?;
    for (mode, executable) in
        [("0644", false), ("0755", true), ("0700", true), ("0444", false), ("0101", true)]
    {
        assert_eq!(run.output_file(&format!("f{mode}"))?.is_executable, executable, "{mode}");
    }
    let root = run.tree("d").await?.root.context("a root")?;
    let executable: Vec<_> =
        root.files.iter().filter(|file| file.is_executable).map(|file| &file.name).collect();
    assert_eq!(executable, ["f0101", "f0700", "f0755"]);
    Ok(())
}

/// An action that makes a directory with some of everything.
fn directory(daemon: &Daemon) -> Action {
    let script = "mkdir -p d/sub/deep d/empty; echo b > d/b; echo a > d/a; chmod +x d/a; \
                  echo c > d/sub/deep/c; ln -s a d/link";
    daemon.client().action(script).output("d")
}

async fn a_directory_comes_back_as_a_tree(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let run = directory(&daemon).run().await?;
    let tree = run.succeeded().await?.tree("d").await?;
    let root = tree.root.clone().context("a root")?;
    let names: Vec<_> =
        root.files.iter().map(|file| (file.name.as_str(), file.is_executable)).collect();
    assert_eq!(names, [("a", true), ("b", false)]);
    let names: Vec<_> = root.directories.iter().map(|directory| &directory.name).collect();
    assert_eq!(names, ["empty", "sub"]);
    assert_eq!((root.symlinks[0].name.as_str(), root.symlinks[0].target.as_str()), ("link", "a"));
    // Every child is found by the digest of its own bytes, as clients look for it.
    let find = |digest: &Option<proto::Digest>| {
        let is_it = |child: &&proto::Directory| {
            let digest_of = Digest::of(DigestFunction::Sha256, &child.encode_to_vec());
            Some(digest_of.to_proto()) == *digest
        };
        tree.children.iter().find(is_it).context("a child is missing")
    };
    assert_eq!(find(&root.directories[0].digest)?, &proto::Directory::default());
    let sub = find(&root.directories[1].digest)?;
    assert_eq!(find(&sub.directories[0].digest)?.files[0].name, "c");
    Ok(())
}

async fn the_tree_and_the_directories_agree(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let format = OutputDirectoryFormat::TreeAndDirectory as i32;
    let action =
        directory(&daemon).change_command(|command| command.output_directory_format = format);
    let run = action.run().await?;
    let output = &run.succeeded().await?.result()?.output_directories[0];
    let root = Digest::from_proto_field(output.root_directory_digest.as_ref(), client.function())?;
    let tree = run.tree("d").await?;
    let request =
        proto::GetTreeRequest { root_digest: Some(root.to_proto()), ..Default::default() };
    let mut stream = client.cas().get_tree(request).await?.into_inner();
    let mut told = Vec::new();
    while let Some(page) = stream.message().await? {
        told.extend(page.directories);
    }
    assert_eq!(told[0], tree.root.context("a root")?);
    assert_eq!(told.len(), 1 + tree.children.len());
    assert!(tree.children.iter().all(|child| told.contains(child)));
    Ok(())
}

async fn directories_only_when_asked_for(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let check = async |format: OutputDirectoryFormat, expected: (bool, bool)| {
        let action = directory(&daemon)
            .change_command(|command| command.output_directory_format = format as i32);
        let run = action.run().await?;
        let output = &run.succeeded().await?.result()?.output_directories[0];
        let got = (output.tree_digest.is_some(), output.root_directory_digest.is_some());
        assert_eq!(got, expected, "{format:?}");
        anyhow::Ok(())
    };
    check(OutputDirectoryFormat::DirectoryOnly, (false, true)).await?;
    check(OutputDirectoryFormat::TreeAndDirectory, (true, true)).await?;
    Ok(())
}

async fn empty_directories_are_kept(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("mkdir -p top d/empty d/nested/empty; : > d/nested/file");
    let run = action.output("d").output("top").run().await?;
    let tree = run.succeeded().await?.tree("d").await?;
    let root = tree.root.context("a root")?;
    let names: Vec<_> = root.directories.iter().map(|directory| &directory.name).collect();
    assert_eq!(names, ["empty", "nested"]);
    assert_eq!(run.tree("top").await?.root, Some(proto::Directory::default()));
    Ok(())
}

async fn equal_directories_are_told_once(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("mkdir -p d/a/x d/b/x d/c/x").output("d");
    let tree = action.run().await?.succeeded().await?.tree("d").await?;
    // The empty directory, and the one that holds it.
    assert_eq!(tree.children.len(), 2);
    Ok(())
}

async fn symlinks_stay_symlinks(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let script = "mkdir dir; ln -s dir to-dir; ln -s nowhere dangling; ln -s /etc/passwd absolute; \
                  ln -s ../../../../etc/shadow up; ln -s loop loop";
    let mut action = daemon.client().action(script);
    for name in ["to-dir", "dangling", "absolute", "up", "loop"] {
        action = action.output(name);
    }
    let run = action.run().await?;
    let expected = [
        "symlink absolute -> /etc/passwd",
        "symlink dangling -> nowhere",
        "symlink loop -> loop",
        "symlink to-dir -> dir",
        "symlink up -> ../../../../etc/shadow",
    ];
    assert_eq!(run.succeeded().await?.outputs()?, expected);
    Ok(())
}

#[expect(deprecated, reason = "clients of REAPI 2.0 read the older lists")]
async fn symlinks_in_the_older_lists(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("echo x > f; mkdir d; ln -s f to-file; ln -s d to-dir");
    let run = action.output_file("to-file").output_directory("to-dir").run().await?;
    let result = run.succeeded().await?.result()?;
    let link = |links: &[proto::OutputSymlink]| links.first().map(|link| link.target.clone());
    assert_eq!(link(&result.output_file_symlinks), Some("f".to_owned()));
    assert_eq!(link(&result.output_directory_symlinks), Some("d".to_owned()));
    assert!(result.output_files.is_empty() && result.output_directories.is_empty());
    Ok(())
}

async fn symlinks_in_a_directory_are_kept(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let script = "mkdir d; ln -s /etc d/absolute; ln -s ../../.. d/up; ln -s gone d/dangling";
    let run = daemon.client().action(script).output("d").run().await?;
    let root = run.succeeded().await?.tree("d").await?.root.context("a root")?;
    let links: Vec<_> =
        root.symlinks.iter().map(|link| (link.name.as_str(), link.target.as_str())).collect();
    assert_eq!(links, [("absolute", "/etc"), ("dangling", "gone"), ("up", "../../..")]);
    assert!(root.files.is_empty() && root.directories.is_empty());
    Ok(())
}

async fn no_symlink_is_followed(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let secret = daemon.root().join("secret");
    std::fs::write(&secret, "the host's")?;
    let script =
        format!("ln -s {} out; mkdir d; ln -s {} d/out", secret.display(), secret.display());
    let run = daemon.client().action(&script).output("out").output("d").run().await?;
    run.succeeded().await?;
    assert!(run.result()?.output_files.is_empty());
    let secret = daemon.client().digest("the host's");
    assert_eq!(daemon.client().missing(&[secret]).await?, [secret]);
    Ok(())
}

async fn a_symlink_in_the_way_to_an_output_is_not_followed(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    // The parent of the output is there before; the action puts a link in its place.
    for target in ["/etc", "/proc/self/root/etc", "../../../../etc", "elsewhere"] {
        let script =
            format!("mkdir elsewhere; echo x > elsewhere/passwd; rmdir sub && ln -s {target} sub");
        let run = daemon.client().action(&script).output("sub/passwd").run().await?;
        let files = run.result().map_or(0, |result| result.output_files.len());
        assert_eq!(files, 0, "{target}: {:?}", run.response);
    }
    Ok(())
}

/// Outputs of which one cannot be stored, beside one that can.
struct Unstorable {
    /// Makes them, with `echo kept > dir/log` for the one that can.
    script: &'static str,
    declare: fn(Action) -> Action,
    code: Code,
    /// The text about what is missing in the result.
    what: &'static str,
    /// Why, in a few words.
    why: &'static str,
}

const UNSTORABLE: [Unstorable; 9] = [
    Unstorable {
        script: "mkfifo out",
        declare: |action| action.output("out"),
        code: Code::InvalidArgument,
        what: "`out`",
        why: "a pipe",
    },
    Unstorable {
        script: "mkfifo dir/fifo",
        declare: |action| action,
        code: Code::InvalidArgument,
        what: "`dir/fifo`",
        why: "a pipe",
    },
    Unstorable {
        script: r"mkdir dir/sub; touch $(printf 'dir/sub/\377')",
        declare: |action| action,
        code: Code::InvalidArgument,
        what: "`dir/sub/\u{fffd}`",
        why: "is not UTF-8",
    },
    Unstorable {
        script: r"ln -s $(printf '\377') dir/link",
        declare: |action| action,
        code: Code::InvalidArgument,
        what: "`dir/link`",
        why: "is not UTF-8",
    },
    Unstorable {
        script: "cd dir; for i in $(seq 130); do mkdir deep && cd deep; done",
        declare: |action| action,
        code: Code::InvalidArgument,
        what: "deep/deep/deep",
        why: "has more than",
    },
    Unstorable {
        script: "mkdir out",
        declare: |action| action.change_command(old_lists(&["out"], &[])),
        code: Code::FailedPrecondition,
        what: "`out`",
        why: "declared as an output file, and the action made a directory",
    },
    Unstorable {
        script: "echo x > out",
        declare: |action| action.change_command(old_lists(&[], &["out"])),
        code: Code::FailedPrecondition,
        what: "`out`",
        why: "declared as an output directory, and the action made a file",
    },
    Unstorable {
        script: "ln -s one out; ln -s dir one",
        declare: |action| action.change_command(old_lists(&["out"], &[])),
        code: Code::FailedPrecondition,
        what: "`out`",
        why: "declared as an output file, and the action made a directory",
    },
    Unstorable {
        script: "ln -s dir/log out",
        declare: |action| action.change_command(old_lists(&[], &["out"])),
        code: Code::FailedPrecondition,
        what: "`out`",
        why: "declared as an output directory, and the action made a file",
    },
];

/// Declares outputs as clients of REAPI 2.0 do, and `dir` with them.
#[expect(deprecated, reason = "clients of REAPI 2.0 send nothing else")]
fn old_lists(
    files: &'static [&'static str],
    directories: &'static [&'static str],
) -> impl FnOnce(&mut proto::Command) {
    let strings = |list: &[&str]| list.iter().map(|&path| path.to_owned()).collect();
    move |command| {
        command.output_paths.clear();
        command.output_files = strings(files);
        command.output_directories = strings(&[directories, &["dir"]].concat());
    }
}

impl Unstorable {
    fn action(&self, daemon: &Daemon, end: &str) -> Action {
        let script = format!(
            "echo said; echo warned >&2; mkdir dir; echo kept > dir/log; ({}); {end}",
            self.script
        );
        (self.declare)(daemon.client().action(&script).output("dir"))
    }

    /// Checks that all that could be stored is here, and that the result is not served again.
    async fn check(&self, action: &Action, run: &Run) -> Outcome {
        assert_eq!(
            (run.stdout().await?, run.stderr().await?),
            ("said\n".into(), "warned\n".into())
        );
        let root = run.tree("dir").await?.root.context("a root")?;
        assert_eq!(root.files.len(), 1, "{}: {root:?}", self.script);
        assert_eq!(root.files[0].name, "log");
        assert_eq!(root.files[0].digest, Some(run_digest(action, "kept\n")));
        assert!(!run.outputs()?.iter().any(|output| output.contains("out")), "{}", self.script);
        assert!(run.execution_metadata()?.worker_completed_timestamp.is_some());
        assert_eq!(action.client().cached(&action.encode().0).await?, None, "{}", self.script);
        Ok(())
    }
}

fn run_digest(action: &Action, content: &str) -> proto::Digest {
    action.client().digest(content).to_proto()
}

async fn what_cannot_be_stored_is_told_and_the_rest_comes_back(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    for case in &UNSTORABLE {
        let action = case.action(&daemon, "true");
        let run = action.run().await?;
        assert_eq!((run.code(), run.exit_code()?), (case.code, 0), "{}", case.script);
        assert!(run.message().contains(case.why), "{}: {}", case.script, run.message());
        let message = &run.response.message;
        assert!(message.starts_with("not in the result: `"), "{message}");
        assert!(message.contains(case.what) && !message.contains(case.why), "{message}");
        case.check(&action, &run).await?;
    }
    // The status tells the first, the message all others.
    let action = daemon.client().action("mkfifo a b; echo c > c");
    let run = action.output("a").output("b").output("c").run().await?;
    assert_eq!((run.code(), run.file("c").await?), (Code::InvalidArgument, "c\n".into()));
    assert!(run.message().contains("`a` is"), "{}", run.message());
    let message = &run.response.message;
    assert!(message.starts_with("not in the result: `a`; output `b` is a socket"), "{message}");
    Ok(())
}

async fn a_failure_comes_before_what_could_not_be_stored(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    for case in &UNSTORABLE {
        let action = case.action(&daemon, "exit 3");
        let run = action.run().await?;
        assert_eq!((run.code(), run.exit_code()?), (Code::Ok, 3), "{}", case.script);
        let message = &run.response.message;
        assert!(message.contains("not in the result") && message.contains(case.why), "{message}");
        case.check(&action, &run).await?;
    }
    Ok(())
}

async fn a_timeout_comes_before_what_could_not_be_stored(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let script = "echo kept > log; mkfifo out; echo ready >&2; read forever < out";
    // Longer and longer, until the script came to its end within the time.
    for seconds in [1, 4, 16, 64, 256] {
        let action = daemon.client().action(script).output("log").output("out");
        let run = action.timeout(std::time::Duration::from_secs(seconds)).run().await?;
        assert_eq!(run.code(), Code::DeadlineExceeded);
        if run.stderr().await? != "ready\n" {
            continue;
        }
        assert_eq!((run.exit_code()?, run.file("log").await?), (137, "kept\n".into()));
        assert!(run.message().contains("timeout"), "{}", run.message());
        let message = &run.response.message;
        assert!(message.starts_with("not in the result: output `out` is a socket"), "{message}");
        return Ok(());
    }
    anyhow::bail!("the action wrote nothing in minutes")
}

async fn outputs_over_the_limit_leave_the_rest(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--output-entries-limit=10").start().await?;
    let script = "mkdir -p d/many; seq 11 | while read i; do : > d/many/$i; done; echo a > d/a; \
                  echo log > log";
    let action = |end: &str| {
        let script = format!("{script}; {end}");
        daemon.client().action(&script).output("d").output("log").output("d/many")
    };
    let run = action("true").run().await?;
    assert_eq!((run.code(), run.exit_code()?), (Code::ResourceExhausted, 0));
    assert!(run.message().contains("more than 10 files and directories"), "{}", run.message());
    assert_eq!(run.response.message, "not in the result: `d/many`");
    assert_eq!(run.outputs()?, ["directory d", "file log"]);
    let root = run.tree("d").await?.root.context("a root")?;
    assert_eq!((root.files.len(), root.directories.len()), (1, 0), "{root:?}");
    let run = action("exit 1").run().await?;
    assert_eq!(
        (run.code(), run.exit_code()?, run.file("log").await?),
        (Code::Ok, 1, "log\n".into())
    );
    assert!(run.response.message.contains("more than 10 files"), "{}", run.response.message);
    // As many as there may be.
    let action = daemon.client().action("mkdir d; seq 9 | while read i; do : > d/$i; done");
    assert_eq!(action.output("d").run().await?.succeeded().await?.outputs()?, ["directory d"]);
    Ok(())
}

async fn devices_can_not_be_made(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let run = daemon.client().action("mknod null c 1 3").output("null").run().await?;
    assert_ne!(run.exit_code()?, 0);
    Ok(())
}

async fn an_output_can_be_an_input(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("true").executable("bin/tool", "tool").output("bin/tool");
    let run = action.run().await?;
    let file = run.succeeded().await?.output_file("bin/tool")?;
    assert!(file.is_executable);
    assert_eq!(file.digest, Some(daemon.client().digest("tool").to_proto()));
    Ok(())
}

async fn an_output_directory_can_hold_inputs(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action =
        daemon.client().action("echo new > d/new; mkdir d/sub/more; echo x > d/sub/more/x");
    let action = action.input("d/old", "old").input("d/sub/old", "old").symlink("d/link", "old");
    let run = action.output("d").run().await?;
    let tree = run.succeeded().await?.tree("d").await?;
    let root = tree.root.context("a root")?;
    let names: Vec<_> = root.files.iter().map(|file| &file.name).collect();
    assert_eq!(names, ["new", "old"]);
    assert_eq!(root.symlinks[0].target, "old");
    let sub = tree.children.iter().find(|child| !child.directories.is_empty()).context("sub")?;
    assert_eq!((sub.files[0].name.as_str(), sub.directories[0].name.as_str()), ("old", "more"));
    Ok(())
}

async fn one_output_inside_another(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("mkdir -p d/sub; echo x > d/sub/f; echo y > d/g");
    let run = action.output("d").output("d/sub/f").output("d/sub").run().await?;
    run.succeeded().await?;
    assert_eq!(run.outputs()?, ["directory d", "directory d/sub", "file d/sub/f"]);
    assert_eq!(run.file("d/sub/f").await?, "x\n");
    assert_eq!(run.tree("d").await?.children.len(), 1);
    assert_eq!(run.tree("d/sub").await?.root.context("a root")?.files[0].name, "f");
    Ok(())
}

async fn the_whole_root_can_be_an_output(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    for path in ["", "."] {
        let action = daemon.client().action("echo new > new").input("old", "old").salt(path);
        let action = if path.is_empty() { action.output_directory("") } else { action.output(".") };
        let run = action.run().await?;
        let root = run.succeeded().await?.tree(path).await?.root.context("a root")?;
        let names: Vec<_> = root.files.iter().map(|file| &file.name).collect();
        assert_eq!(names, ["new", "old"], "{path:?}");
    }
    Ok(())
}

async fn hard_links_to_one_output_are_apart(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let script = "echo x > one; ln one two; ln one kept; mkdir d; ln one d/three";
    let run = daemon.client().action(script).output("one").output("two").output("d").run().await?;
    run.succeeded().await?;
    assert_eq!((run.file("one").await?, run.file("two").await?), ("x\n".into(), "x\n".into()));
    let root = run.tree("d").await?.root.context("a root")?;
    assert_eq!(root.files[0].digest, run.output_file("one")?.digest);
    let one_name = || Ok(blob_metadata(&daemon, "x\n")?.nlink() == 1);
    testkit::eventually("the blob has one name", one_name).await
}

fn blob_metadata(daemon: &Daemon, content: &str) -> anyhow::Result<std::fs::Metadata> {
    let hex = daemon.client().digest(content).hex();
    let path = daemon.store()?.join("cas/blobs/sha256").join(&hex[..2]).join(&hex);
    Ok(std::fs::symlink_metadata(path)?)
}

async fn an_output_is_a_blob_like_all_others(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let script =
        "echo plain > plain; echo special > special; chmod 6755 special; touch -d @1 plain";
    let run = daemon.client().action(script).output("plain").output("special").run().await?;
    run.succeeded().await?;
    for content in ["plain\n", "special\n"] {
        // The name that the action gave it goes away after the answer.
        let one_name = || Ok(blob_metadata(&daemon, content)?.nlink() == 1);
        testkit::eventually("the blob has one name", one_name).await?;
        let metadata = blob_metadata(&daemon, content)?;
        assert!(metadata.file_type().is_file());
        let owner = (metadata.uid(), metadata.gid(), metadata.nlink());
        assert_eq!((metadata.mode() & 0o7777, owner), (0o444, (0, 0, 1)), "{content}");
    }
    assert!(run.output_file("special")?.is_executable);
    Ok(())
}

async fn a_writer_that_stays_behind_can_not_change_an_output(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    // The writer begins when the shell, which holds the other end of the pipe, has ended.
    let script = "echo good > out; mkfifo end; \
                  (setsid sh -c 'exec 3>>out 4<end; : > ready; read x <&4; \
                                 while echo bad >&3; do :; done' &); \
                  exec 5>end; until test -e ready; do :; done";
    let client = daemon.client();
    let run = client.action(script).output("out").run().await?;
    let collected = run.succeeded().await?.file("out").await?;
    // It may have written before it was killed with the rest of its action, and nothing later.
    let written = collected.strip_prefix("good\n").context("what was there before is gone")?;
    anyhow::ensure!(written.lines().all(|line| line == "bad"), "{written}");
    for number in 0..3 {
        client.action(&format!("echo {number}")).run().await?.succeeded().await?;
        assert_eq!(run.file("out").await?, collected);
    }
    Ok(())
}

async fn an_output_nobody_may_read_comes_back(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let script = "echo x > out; chmod 0 out; mkdir d; echo y > d/y; chmod 0 d/y d";
    let run = daemon.client().action(script).output("out").output("d").run().await?;
    assert_eq!(run.succeeded().await?.file("out").await?, "x\n");
    assert_eq!(run.tree("d").await?.root.context("a root")?.files[0].name, "y");
    Ok(())
}

async fn sparse_files_keep_their_content(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let script = "truncate -s 20M out; echo end >> out";
    let run = daemon.client().action(script).output("out").run().await?;
    let content = run.succeeded().await?.file("out").await?;
    assert_eq!(content.len(), (20 << 20) + 4);
    assert!(content.ends_with("end\n"));
    Ok(())
}

async fn a_thousand_outputs(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let script = "for i in $(seq 1000); do echo $i > o$i; done; mkdir d; for i in $(seq 1000); do echo d$i > d/$i; done";
    let mut action = daemon.client().action(script).output("d");
    for number in 1..=1000 {
        action = action.output(&format!("o{number}"));
    }
    let run = action.run().await?;
    run.succeeded().await?;
    assert_eq!(run.result()?.output_files.len(), 1000);
    for file in &run.result()?.output_files {
        let content = format!("{}\n", file.path.trim_start_matches('o'));
        assert_eq!(file.digest, Some(daemon.client().digest(&content).to_proto()), "{}", file.path);
    }
    let files = run.tree("d").await?.root.context("a root")?.files;
    assert_eq!(files.len(), 1000);
    for file in files {
        let content = format!("d{}\n", file.name);
        assert_eq!(file.digest, Some(daemon.client().digest(&content).to_proto()), "{}", file.name);
    }
    Ok(())
}

async fn outputs_of_a_failed_action_come_back(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let run =
        daemon.client().action("echo log > test.log; exit 1").output("test.log").run().await?;
    assert_eq!((run.exit_code()?, run.file("test.log").await?), (1, "log\n".to_owned()));
    Ok(())
}
