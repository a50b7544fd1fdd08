//! The verbs that ask a running server about its actions.

use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testkit::proto::{self, Message as _, RequestMetadata};
use testkit::wait::eventually;
use testkit::{Action, Client, Daemon, Digest, Kit, Outcome, eventually_async};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    running_actions_are_listed_and_killed,
    actions_are_watched,
    logs_show_the_past_and_follow,
    stats_add_up,
    contents_are_shown,
    hostile_names_are_escaped,
    two_actions_are_compared,
    a_miss_names_the_changed_file,
    a_miss_names_other_reasons,
    an_exported_action_runs_without_the_server,
    trees_without_end_are_refused,
    large_streams_and_blobs_are_cut,
    a_replay_leaves_the_cache_alone,
    a_replay_can_be_traced,
    mistakes_name_the_cure,
    the_rights_of_tokens_hold,
}

/// Runs the verb against the server of that root.
fn run(kit: &Kit, daemon: &Daemon, words: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(kit.binary());
    let (verb, rest) = words.split_first().context("a verb")?;
    command.arg(verb).arg("--root").arg(daemon.root()).args(rest).env_remove("ACTIOND_TOKEN");
    command.stdin(Stdio::null()).output().context("running the verb")
}

/// Returns the output of the verb, which must exit with `code`.
fn said(kit: &Kit, daemon: &Daemon, words: &[&str], code: i32) -> anyhow::Result<String> {
    let output = run(kit, daemon, words)?;
    let (stdout, stderr) =
        (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr).into_owned());
    ensure!(
        output.status.code() == Some(code),
        "{words:?}: {:?}\n{stdout}\n{stderr}",
        output.status
    );
    Ok(stdout)
}

/// The lines of JSON that the verb prints.
fn json(kit: &Kit, daemon: &Daemon, words: &[&str], code: i32) -> anyhow::Result<Vec<Value>> {
    let words = [words, &["--json"]].concat();
    let text = said(kit, daemon, &words, code)?;
    text.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
}

fn sent_by(action: Action, target: &str, build: &str) -> Action {
    action.sent_by(RequestMetadata {
        action_mnemonic: "Genrule".into(),
        target_id: target.into(),
        tool_invocation_id: build.into(),
        ..RequestMetadata::default()
    })
}

/// `cat in > out`, with that content of `in`.
fn copy(client: &Client, content: &str) -> Action {
    client
        .action("cat src/in > out")
        .input("src/in", content)
        .input("other/same", "x")
        .output("out")
}

async fn start(kit: &Kit) -> anyhow::Result<Daemon> {
    kit.only_on_the_host("the socket of the store is in the guest")?;
    kit.daemon().host_rootfs().flag("--http=off").start().await
}

async fn running_actions_are_listed_and_killed(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    assert!(said(&kit, &daemon, &["ps"], 0)?.contains("no action runs"));
    let client = daemon.client();
    let mut stream = sent_by(client.action("sleep 600"), "//a:slow", "b").start().await?;
    let listed = async || {
        let listed = json(&kit, &daemon, &["ps"], 0)?;
        Ok(listed.first().is_some_and(|it| it["running_for_us"].is_u64()))
    };
    eventually_async("the action runs", listed).await?;
    let text = said(&kit, &daemon, &["ps"], 0)?;
    assert!(text.contains("running") && text.contains("Genrule //a:slow"), "{text}");
    let listed = json(&kit, &daemon, &["ps"], 0)?;
    let name = listed[0]["operation"].as_str().context("a name")?;
    let killed = json(&kit, &daemon, &["kill", name, "operations/unknown"], 1)?;
    assert_eq!(killed[0]["outcome"], "cancelled");
    assert_eq!(killed[1]["outcome"], "unknown");
    while stream.message().await?.is_some_and(|operation| !operation.done) {}
    Ok(())
}

async fn actions_are_watched(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let client = daemon.client();
    sent_by(client.action("exit 3"), "//a:bad", "b").run().await?;
    let mut stream = sent_by(client.action("sleep 600"), "//a:slow", "b").start().await?;
    let mut command = Command::new(kit.binary());
    command.args(["top", "--json", "--period=100", "--root"]).arg(daemon.root());
    let mut child = command.env_remove("ACTIOND_TOKEN").stdout(Stdio::piped()).spawn()?;
    let lines =
        std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().context("a pipe")?));
    let mut seen = None;
    // It looks again until the action runs.
    for line in lines {
        let shown: Value = serde_json::from_str(&line?)?;
        if let Some(operation) = shown["running"][0]["operation"].as_str() {
            assert_eq!(shown["running"][0]["origin"]["target"], "//a:slow");
            assert_eq!(shown["recent"][0]["origin"]["target"], "//a:bad");
            assert_eq!((&shown["executions"], &shown["failed"]), (&1.into(), &1.into()));
            seen = Some(operation.to_owned());
            break;
        }
    }
    child.kill()?;
    child.wait()?;
    said(&kit, &daemon, &["kill", &seen.context("it was seen")?], 0)?;
    while stream.message().await?.is_some_and(|operation| !operation.done) {}
    let refused = run(&kit, &daemon, &["top"])?;
    let error = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && error.contains("needs a terminal"), "{error}");
    Ok(())
}

async fn logs_show_the_past_and_follow(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let client = daemon.client();
    sent_by(client.action("exit 3"), "//a:bad", "b").run().await?;
    sent_by(client.action("true"), "//a:good", "b").run().await?;
    let text = said(&kit, &daemon, &["logs"], 0)?;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("exit 3") && lines[0].contains("Genrule //a:bad"), "{text}");
    assert!(lines[1].contains("success") && lines[1].contains("(absent)"), "{text}");
    assert_eq!(json(&kit, &daemon, &["logs", "-n1"], 0)?[0]["origin"]["target"], "//a:good");
    assert_eq!(json(&kit, &daemon, &["logs", "--target=//a:bad"], 0)?.len(), 1);

    // A build that finds all in the cache looks up alone, however many actions it has.
    for number in 0..100 {
        client.cached(&client.digest(format!("{number}"))).await?;
    }
    eventually("the lookups are recorded", || {
        let records = json(&kit, &daemon, &["logs", "--lookups", "-n90"], 0)?;
        Ok(records.iter().filter(|record| record["kind"] == "lookup").count() == 90)
    })
    .await?;
    assert_eq!(said(&kit, &daemon, &["logs"], 0)?, text);

    let mut command = Command::new(kit.binary());
    command.args(["logs", "-f", "-n1", "--json", "--root"]).arg(daemon.root());
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().context("a pipe")?));
    let mut next = || -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&lines.next().context("the verb ended")??)?)
    };
    // It follows before it shows the past.
    assert_eq!(next()?["origin"]["target"], "//a:good");
    sent_by(client.action("exit 4"), "//a:new", "b").run().await?;
    assert_eq!(next()?["exit_code"], 4);
    child.kill()?;
    child.wait()?;
    Ok(())
}

async fn stats_add_up(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let client = daemon.client();
    for _ in 0..3 {
        sent_by(client.action("true"), "//a:b", "b").run().await?;
    }
    client.action("exit 1").run().await?;
    let text = said(&kit, &daemon, &["stats"], 0)?;
    assert!(text.contains("executions 4: 2 from the cache (50 %), 1 failed"), "{text}");
    let row = "  absent                    0           2  no result of the action is cached\n";
    assert!(text.contains(row) && text.contains("Genrule"), "{text}");
    let value = &json(&kit, &daemon, &["stats", "--since=2h"], 0)?[0];
    assert_eq!(value["seconds"], 7200);
    assert_eq!(value["dropped_records"], 0);
    let events: u64 = value["totals"]
        .as_array()
        .context("totals")?
        .iter()
        .filter_map(|total| total["events"].as_u64())
        .sum();
    assert_eq!(events, 4);

    // As Bazel does it: a lookup, then an execution.
    let new = client.action("echo new");
    assert!(client.cached(&new.encode().0).await?.is_none());
    new.run().await?;
    let row = "  absent                    1           3  no result of the action is cached\n";
    eventually("the lookup is recorded", || {
        let text = said(&kit, &daemon, &["stats"], 0)?;
        Ok(text.contains(row) && text.contains("that is a miss of each"))
    })
    .await?;
    Ok(())
}

async fn contents_are_shown(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let client = daemon.client();
    let action = copy(&client, "hi it's\n").env("NAME", "a b").executable("bin/run", "#!");
    let action = sent_by(action.symlink("link", "src/in"), "//a:b", "b");
    action.run().await?.succeeded().await?;
    let digest = action.encode().0.to_string();

    let text = said(&kit, &daemon, &["show", &digest], 0)?;
    for expected in
        ["Action ", "cat src/in > out", "NAME='a b'", "declared outputs\n  out\n", "success"]
    {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let value = &json(&kit, &daemon, &["show", &digest], 0)?[0];
    assert_eq!(value["kind"], "action");
    assert_eq!(value["environment"]["NAME"], "a b");
    assert_eq!(value["outputs"][0]["path"], "out");
    assert_eq!(value["runs"][0]["outcome"], "success");
    let command = value["command"].as_str().context("a digest")?;
    assert_eq!(json(&kit, &daemon, &["show", command], 0)?[0]["kind"], "command");
    let out = value["outputs"][0]["digest"].as_str().context("a digest")?;
    assert_eq!(said(&kit, &daemon, &["cat", out], 0)?, "hi it's\n");
    assert!(said(&kit, &daemon, &["show", out], 0)?.contains("hi it's"));

    let entries = json(&kit, &daemon, &["ls", &digest], 0)?;
    let entry = |path: &str| entries.iter().find(|it| it["path"] == path).context(path.to_owned());
    assert_eq!(entry("src")?["kind"], "directory");
    assert_eq!(entry("link")?["target"], "src/in");
    let src = entry("src")?["digest"].as_str().context("a digest")?;
    assert!(said(&kit, &daemon, &["ls", src], 0)?.contains("in"));
    assert!(said(&kit, &daemon, &["show", src], 0)?.starts_with("Directory "));
    let tree = json(&kit, &daemon, &["tree", &digest], 0)?;
    let run = tree.iter().find(|it| it["path"] == "bin/run").context("bin/run")?;
    assert_eq!(run["executable"], true);
    Ok(())
}

async fn hostile_names_are_escaped(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let client = daemon.client();
    let hostile = "x\u{1b}[2J\u{202e}\ny";
    let action =
        client.action("true").input(hostile, "1").input("dir/a", hostile).env("A", hostile);
    let action = sent_by(action, hostile, hostile);
    action.run().await?;
    let digest = action.encode().0.to_string();
    let other = sent_by(client.action("true").input(hostile, "2").output("o"), hostile, hostile);
    other.run().await?;
    let other_digest = other.encode().0.to_string();
    let logged = json(&kit, &daemon, &["logs", "-n1"], 0)?;
    let target = logged[0]["origin"]["target"].as_str().context("a target")?.to_owned();
    for (words, code) in [
        (&["show", &digest][..], 0),
        (&["ls", &digest], 0),
        (&["tree", &digest], 0),
        (&["logs"], 0),
        (&["diff", &digest, &other_digest], 1),
        (&["why", &target], 0),
        (&["replay", &digest], 0),
    ] {
        let text = said(&kit, &daemon, words, code)?;
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{words:?}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with('y')), "{words:?}: {text:?}");
    }
    Ok(())
}

async fn two_actions_are_compared(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let client = daemon.client();
    let (old, new) = (copy(&client, "1").env("A", "1"), copy(&client, "2"));
    let (old, new) = (old.upload().await?.to_string(), new.upload().await?.to_string());
    let text = said(&kit, &daemon, &["diff", &old, &new], 1)?;
    assert!(text.contains("input src/in\n  - file ") && text.contains("environment A\n"), "{text}");
    assert!(!text.contains("other"), "{text}");
    let value = &json(&kit, &daemon, &["diff", &old, &new], 1)?[0];
    assert_eq!(value["differences"].as_array().map(Vec::len), Some(2));
    assert_eq!(said(&kit, &daemon, &["diff", &old, &old], 0)?, "no difference\n");
    Ok(())
}

async fn a_miss_names_the_changed_file(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let client = daemon.client();
    let reason =
        || -> anyhow::Result<Value> { Ok(json(&kit, &daemon, &["why", "//a:b"], 0)?.remove(0)) };
    let build = async |content: &str, build: &str| {
        // An action of the same target and kind that makes something else runs in between.
        let other = client.action("cat src/in > second").input("src/in", content).output("second");
        sent_by(copy(&client, content), "//a:b", build).run().await?;
        sent_by(other, "//a:b", build).run().await
    };
    build("1", "build-1").await?;
    assert_eq!(reason()?["reason"], "never_seen");
    build("2", "build-2").await?;
    let found = json(&kit, &daemon, &["why", "//a:b"], 0)?;
    assert_eq!(found.len(), 2, "both actions of the build");
    for why in &found {
        assert_eq!(why["reason"], "input", "{why}");
        let differences = why["differences"].as_array().context("differences")?;
        assert_eq!(differences.len(), 1, "compared with the run that made the same: {why}");
        assert_eq!(differences[0]["name"], "src/in");
    }
    let text = said(&kit, &daemon, &["why", "//a:b"], 0)?;
    assert!(text.contains("an input is changed since the last run: src/in"), "{text}");
    // By digest, too.
    let digest = copy(&client, "2").encode().0.to_string();
    let text = said(&kit, &daemon, &["why", &digest], 0)?;
    assert!(text.contains("src/in"), "{text}");
    Ok(())
}

async fn a_miss_names_other_reasons(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let client = daemon.client();
    let check = async |action: Action, expected: &str| -> Outcome {
        sent_by(action, "//a:b", expected).run().await?;
        let found = json(&kit, &daemon, &["why", "//a:b"], 0)?;
        ensure!(found[0]["reason"] == expected, "{expected}: {}", found[0]);
        Ok(())
    };
    check(copy(&client, "1"), "never_seen").await?;
    check(copy(&client, "1"), "hit").await?;
    check(copy(&client, "1").skip_cache_lookup(), "skipped").await?;
    check(copy(&client, "1").do_not_cache(), "uncacheable").await?;
    check(copy(&client, "1").env("A", "1"), "environment").await?;
    check(copy(&client, "1").env("BUILD_TIMESTAMP", "1").env("A", "1"), "stamp").await?;
    let fails = || client.action("exit 1").output("failed");
    sent_by(fails(), "//a:b", "x").run().await?;
    check(fails(), "failed_before").await?;
    // The operator removes the output of a cached result.
    let made = || client.action("echo made > out").output("out");
    let run = made().run().await?;
    let output = run.output_file("out")?.digest.clone().context("a digest")?;
    let output = format!("{}/{}", output.hash, output.size_bytes);
    let mut remove = Command::new(kit.binary());
    let removed = remove.args(["store", "rm", &output, "--root"]).arg(daemon.root()).output()?;
    ensure!(removed.status.success(), "{removed:?}");
    check(made(), "evicted").await
}

async fn an_exported_action_runs_without_the_server(kit: Kit) -> Outcome {
    let mut daemon = start(&kit).await?;
    let client = daemon.client();
    let script = "cat ../src/in; cat \"$NAME\" > dir/out; mkdir -p ../d/e; echo 1 > ../d/e/f";
    let action = client
        .action(script)
        .input("src/in", "hi\n")
        .input("wd/it's a file", "content\n")
        .symlink("outside", "/etc")
        .env("NAME", "it's a file")
        .working_directory("wd")
        .output("dir/out")
        .output("../d");
    action.run().await?.succeeded().await?;
    let digest = action.encode().0.to_string();
    let place = tempfile::tempdir()?;
    let directory = place.path().join("exported");
    let path = directory.to_str().context("UTF-8")?;
    said(&kit, &daemon, &["export", &digest, path], 0)?;
    let read = |path: &str| std::fs::read_to_string(directory.join(path));
    assert_eq!(read("outputs/wd/dir/out")?, "content\n");
    assert_eq!(read("outputs/d/e/f")?, "1\n");
    assert_eq!(read("stdout")?, "hi\n");
    // Into a directory that is not empty nothing is written.
    let again = run(&kit, &daemon, &["export", &digest, path])?;
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && stderr.contains("is not empty"), "{stderr}");

    daemon.terminate()?;
    daemon.wait()?;
    let ran = Command::new(directory.join("command.sh")).output()?;
    ensure!(ran.status.success(), "{ran:?}");
    assert_eq!(ran.stdout, b"hi\n");
    let read = |path: &str| std::fs::read_to_string(directory.join(path));
    assert_eq!(read("inputs/wd/dir/out")?, "content\n");
    Ok(())
}

/// 101 Directories that name each other: a tree of 2^100 files. The last one is the root.
fn exponential(client: &Client, file: &Digest) -> Vec<proto::Directory> {
    let file = proto::FileNode {
        name: "f".into(),
        digest: Some(file.to_proto()),
        ..proto::FileNode::default()
    };
    let mut levels = vec![proto::Directory { files: vec![file], ..Default::default() }];
    for number in 0..100 {
        let digest = client.digest(levels[number].encode_to_vec()).to_proto();
        let node = |name: &str| proto::DirectoryNode {
            name: name.to_owned(),
            digest: Some(digest.clone()),
        };
        let directories = vec![node("a"), node("b")];
        levels.push(proto::Directory { directories, ..Default::default() });
    }
    levels
}

async fn trees_without_end_are_refused(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let client = daemon.client();
    let file = client.put(b"content".to_vec()).await?;
    let levels = exponential(&client, &file);
    client.put_all(levels.iter().map(|level| level.encode_to_vec())).await?;
    let root = client.digest(levels[100].encode_to_vec());
    let action = async |input_root: &Digest| {
        client.action("true").output("out").input_root(*input_root).upload().await
    };
    let place = tempfile::tempdir()?;
    let check = |verb: &str, digest: &Digest, more: &[&str], expected: &str| -> Outcome {
        let digest = digest.to_string();
        let directory = place.path().join("exported");
        let mut words = vec![verb, &digest];
        if verb == "export" {
            words.push(directory.to_str().context("UTF-8")?);
        }
        words.extend(more);
        let output = run(&kit, &daemon, &words)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{words:?} ended well");
        ensure!(stderr.contains(expected), "{words:?}: {stderr}");
        ensure!(output.stdout.is_empty(), "{words:?} printed {} bytes", output.stdout.len());
        ensure!(!directory.exists(), "{words:?} wrote something");
        Ok(())
    };
    let of_inputs = action(&root).await?;
    check("tree", &root, &[], "more than 1000000 entries")?;
    check("tree", &of_inputs, &[], "more than 1000000 entries")?;
    check("export", &of_inputs, &[], "more than 1000000 entries")?;
    // As inputs, it is compared up to a bound.
    let empty = client.put(Vec::new()).await?;
    let other = client.digest(levels[99].encode_to_vec());
    let (of_inputs, of_other) = (of_inputs.to_string(), action(&other).await?.to_string());
    let difference = &json(&kit, &daemon, &["diff", &of_inputs, &of_other], 1)?[0];
    assert_eq!(difference["is_cut"], true, "{difference}");

    // As outputs of a cached result, which the server serves: all that the tree names is there.
    let (children, roots) = levels.split_at(100);
    let tree = proto::Tree { root: roots.first().cloned(), children: children.to_vec() };
    let tree = client.put(tree.encode_to_vec()).await?;
    let of_outputs = action(&empty).await?;
    let output = |tree: &Digest| proto::OutputDirectory {
        path: "out".into(),
        tree_digest: Some(tree.to_proto()),
        ..Default::default()
    };
    let cache = async |action: &Digest, result: proto::ActionResult| -> Outcome {
        let request = proto::UpdateActionResultRequest {
            action_digest: Some(action.to_proto()),
            action_result: Some(result),
            digest_function: client.function().to_proto(),
            ..Default::default()
        };
        client.action_cache().update_action_result(request).await?;
        Ok(())
    };
    let output_directories = vec![output(&tree)];
    cache(&of_outputs, proto::ActionResult { output_directories, ..Default::default() }).await?;
    ensure!(client.cached(&of_outputs).await?.is_some(), "the result is served");
    // One entry is the output itself.
    check("export", &of_outputs, &[], "more than 999999 entries")?;

    // A thousand files in a Tree of some kilobytes: what they take in all is bounded, too.
    let node = |number: u32| proto::FileNode {
        name: format!("{number:04}"),
        digest: Some(file.to_proto()),
        ..Default::default()
    };
    let files = (0..1000).map(node).collect();
    let directory = proto::Directory { files, ..Default::default() };
    let tree = proto::Tree { root: Some(directory), children: Vec::new() };
    let tree = client.put(tree.encode_to_vec()).await?;
    let output_directories = vec![output(&tree)];
    cache(&of_outputs, proto::ActionResult { output_directories, ..Default::default() }).await?;
    check("export", &of_outputs, &["--up-to=6999"], "A larger --up-to allows it")?;
    let directory = place.path().join("written");
    let path = directory.to_str().context("UTF-8")?;
    said(&kit, &daemon, &["export", &of_outputs.to_string(), path, "--up-to=7000"], 0)?;
    assert_eq!(directory.join("outputs/out").read_dir()?.count(), 1000);
    Ok(())
}

async fn large_streams_and_blobs_are_cut(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let client = daemon.client();
    let action = client.action("yes line | head -c 3000000");
    action.run().await?.succeeded().await?;
    let digest = action.encode().0.to_string();
    let text = said(&kit, &daemon, &["replay", &digest], 0)?;
    assert!((1 << 20..3 << 20).contains(&text.len()), "{} bytes", text.len());
    let last = text.lines().last().context("a line")?;
    assert!(last.contains("2.86 MiB") && last.contains("cat "), "{last}");

    // Larger than any message.
    let large = "ä".repeat(33 << 20);
    let digest = client.digest(&large);
    client.write(&client.upload_name(&digest), large.as_bytes(), 1 << 20).await?;
    let large = digest.to_string();
    let text = said(&kit, &daemon, &["show", &large], 0)?;
    assert!(text.starts_with("66.0 MiB of text") && text.len() < 100_000, "{} bytes", text.len());
    let output = run(&kit, &daemon, &["ls", &large])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("`cat` writes it out"), "{stderr}");
    Ok(())
}

async fn a_replay_leaves_the_cache_alone(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let client = daemon.client().with_instance("main");
    let same = client.action("echo text; echo 1 > out").output("out");
    same.run().await?.succeeded().await?;
    let digest = same.encode().0.to_string();
    let text = said(&kit, &daemon, &["replay", &digest], 0)?;
    assert!(text.contains("the result is the recorded one") && text.contains("  text"), "{text}");

    let other = client.action("cat /proc/sys/kernel/random/uuid > out").output("out");
    let first = other.run().await?;
    let digest = other.encode().0.to_string();
    let place = tempfile::tempdir()?;
    let kept = place.path().join("kept");
    let keep = format!("--keep={}", kept.display());
    let value = json(&kit, &daemon, &["replay", &digest, &keep], 1)?.remove(0);
    assert_eq!(value["differences"][0]["path"], "out", "{value}");
    assert_ne!(std::fs::read_to_string(kept.join("out"))?, first.file("out").await?);
    let again = other.run().await?;
    assert!(again.from_cache());
    assert_eq!(again.file("out").await?, first.file("out").await?, "the cached result stayed");
    Ok(())
}

async fn a_replay_can_be_traced(kit: Kit) -> Outcome {
    if !std::path::Path::new("/usr/bin/strace").is_file() {
        return testkit::skip("there is no /usr/bin/strace; `cargo xtask setup` installs it");
    }
    let daemon = start(&kit).await?;
    let action = copy(&daemon.client(), "text").env("NAME", "value");
    action.run().await?.succeeded().await?;
    let digest = action.encode().0.to_string();
    let place = tempfile::tempdir()?;
    let trace = place.path().join("trace");
    let flag = format!("--strace={}", trace.display());
    let keep = format!("--keep={}", place.path().join("kept").display());
    let text = said(&kit, &daemon, &["replay", &digest, &flag, &keep], 0)?;
    assert!(text.contains("the result is the recorded one"), "{text}");
    let traced = std::fs::read_to_string(&trace)?;
    assert!(traced.contains("execve(") && traced.contains("\"src/in\""), "{traced}");
    let kept = std::fs::read_dir(place.path().join("kept"))?.count();
    assert_eq!(kept, 1, "the trace is not among the action's outputs");

    // An action that has nothing but its inputs has no tracer.
    let bare = daemon.client().bare_action(["./tool"]);
    let bare = bare.executable("tool", testkit::elf::exit_with(7));
    bare.run().await?;
    let digest = bare.encode().0.to_string();
    let output = run(&kit, &daemon, &["replay", &digest, &flag])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && stderr.contains("--with-tools"), "{stderr}");
    let text = said(&kit, &daemon, &["replay", &digest, &flag, "--with-tools"], 0)?;
    assert!(text.contains("exit code 7\n"), "{text}");
    let traced = std::fs::read_to_string(&trace)?;
    assert!(traced.contains("execve(\"./tool\"") && traced.contains("exited with 7"), "{traced}");
    Ok(())
}

async fn mistakes_name_the_cure(kit: Kit) -> Outcome {
    let daemon = start(&kit).await?;
    let gone = testkit::Digest::of(testkit::DigestFunction::Sha256, b"gone").to_string();
    let client = daemon.client();
    let file = client.digest(b"text");
    client.write(&client.upload_name(&file), b"text", 1 << 20).await?;
    let file = file.to_string();
    let check = |words: &[&str], expected: &str| -> Outcome {
        let output = run(&kit, &daemon, words)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{words:?} ended well");
        ensure!(stderr.contains(expected), "{words:?}: {stderr}");
        Ok(())
    };
    check(&["show", &gone], "evicted, or never uploaded")?;
    check(&["cat", &gone], "evicted, or never uploaded")?;
    check(&["ls", &file], "neither a Directory nor an Action")?;
    check(&["diff", &file, &gone], "evicted, or never uploaded")?;
    check(&["why", "//no:such"], "linux-actiond logs")?;
    check(&["show", "nonsense"], "HASH/SIZE")?;
    let nowhere = Command::new(kit.binary()).args(["ps", "--root", "/nowhere"]).output()?;
    let stderr = String::from_utf8_lossy(&nowhere.stderr);
    assert!(stderr.contains("linux-actiond serve") && stderr.contains("--root"), "{stderr}");
    Ok(())
}

async fn the_rights_of_tokens_hold(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM has no principals")?;
    let directory = tempfile::tempdir()?;
    let tokens = directory.path().join("tokens.toml");
    // `printf %s secret | sha256sum`
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let entry = format!("[[token]]\nname = 'reader'\nsha256 = '{hash}'\nrights = ['read']\n");
    std::fs::write(&tokens, entry)?;
    let daemon = kit.daemon().host_rootfs().flag("--token-file").flag(&tokens);
    let daemon = daemon.flag("--http=off").start().await?;
    let client = daemon.client();
    let action = client.action("true");
    action.run().await?;
    let digest = action.encode().0.to_string();
    let place = daemon.address().to_string();
    let ask = |words: &[&str]| -> anyhow::Result<Output> {
        let mut command = Command::new(kit.binary());
        command.args(words).args(["--server", &place]).env("ACTIOND_TOKEN", "secret");
        command.stdin(Stdio::null()).output().context("running the verb")
    };
    for words in [&["ps"][..], &["logs"], &["stats"], &["show", &digest], &["why", &digest]] {
        let output = ask(words)?;
        ensure!(output.status.success(), "{words:?}: {output:?}");
    }
    for (words, right) in
        [(&["kill", "operations/1"][..], "execute"), (&["replay", &digest], "write-cas")]
    {
        let output = ask(words)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{words:?} ended well");
        ensure!(stderr.contains(&format!("the right `{right}`")), "{words:?}: {stderr}");
    }
    // The path of the socket is only for those who own the root.
    let socket = daemon.root().join("socket");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(socket)?.permissions());
    assert_eq!(mode & 0o777, 0o600);
    Ok(())
}
