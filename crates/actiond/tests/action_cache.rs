//! `ActionCache` as clients without remote execution use it.

use prost::Message as _;
use testkit::proto::{self, ActionResult, OutputDirectory, OutputFile};
use testkit::{Client, Digest, DigestFunction, DigestFunctions, Kit, Outcome, Tree};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_result_comes_back,
    a_result_that_nobody_stored_is_not_found,
    instances_are_apart,
    functions_are_apart,
    a_result_with_a_missing_blob_is_a_miss,
    a_result_with_a_hole_in_its_tree_is_a_miss,
    a_failed_result_is_never_served,
    small_blobs_are_inlined_when_asked_for,
    malformed_updates_are_refused,
    paths_that_leave_the_working_directory_are_refused,
    data_in_an_update_is_verified_and_not_kept,
    many_wanted_files_of_many_files_are_answered,
    results_outlive_the_server,
}

async fn store(client: &Client, action: Digest, result: ActionResult) -> Result<(), tonic::Status> {
    let message = proto::UpdateActionResultRequest {
        instance_name: client.instance().to_owned(),
        action_digest: Some(action.to_proto()),
        action_result: Some(result),
        digest_function: client.function().to_proto(),
        ..Default::default()
    };
    client.action_cache().update_action_result(message).await.map(drop)
}

/// A result with one output file, which is stored.
async fn result(client: &Client, content: &str) -> anyhow::Result<ActionResult> {
    let digest = client.put(content).await?;
    let file = OutputFile {
        path: "out".to_owned(),
        digest: Some(digest.to_proto()),
        is_executable: true,
        ..Default::default()
    };
    Ok(ActionResult { output_files: vec![file], ..Default::default() })
}

async fn a_result_comes_back(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    for function in DigestFunctions::default().iter() {
        let client = daemon.client().with_function(function);
        let action = client.digest(b"action");
        let expected = result(&client, "content").await?;
        store(&client, action, expected.clone()).await?;
        assert_eq!(client.cached(&action).await?, Some(expected));
        let replaced = result(&client, "other content").await?;
        store(&client, action, replaced.clone()).await?;
        assert_eq!(client.cached(&action).await?, Some(replaced));
    }
    Ok(())
}

async fn a_result_that_nobody_stored_is_not_found(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    assert_eq!(client.cached(&client.digest(b"action")).await?, None);
    Ok(())
}

async fn instances_are_apart(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let action = client.digest(b"action");
    let one = client.with_instance("team/one");
    store(&one, action, result(&client, "content").await?).await?;
    assert!(one.cached(&action).await?.is_some());
    for other in ["", "team", "team/two", "team/one/more", "team-one"] {
        assert_eq!(client.with_instance(other).cached(&action).await?, None, "{other}");
    }
    Ok(())
}

async fn functions_are_apart(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let action = client.digest(b"action");
    store(&client, action, result(&client, "content").await?).await?;
    let same_bits = Digest::new(DigestFunction::Blake3, *action.hash(), action.size_bytes());
    let blake3 = client.with_function(DigestFunction::Blake3);
    assert_eq!(blake3.cached(&same_bits).await?, None);
    Ok(())
}

async fn a_result_with_a_missing_blob_is_a_miss(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let absent = client.digest(b"absent").to_proto();
    let whole = result(&client, "content").await?;
    let mut file = whole.clone();
    file.output_files[0].digest = Some(absent.clone());
    let stdout = ActionResult { stdout_digest: Some(absent.clone()), ..whole.clone() };
    let stderr = ActionResult { stderr_digest: Some(absent.clone()), ..whole.clone() };
    let mut tree = whole.clone();
    tree.output_directories.push(OutputDirectory {
        path: "dir".to_owned(),
        tree_digest: Some(absent),
        ..Default::default()
    });
    for (number, result) in [file, stdout, stderr, tree].into_iter().enumerate() {
        let action = client.digest(format!("action {number}"));
        store(&client, action, result).await?;
        assert_eq!(client.cached(&action).await?, None, "{number}");
    }
    // Deleting the blob later is no different.
    let action = client.digest(b"whole");
    store(&client, action, whole).await?;
    assert!(client.cached(&action).await?.is_some());
    client.delete(&[client.digest(b"content")]).await?;
    assert_eq!(client.cached(&action).await?, None);
    client.put("content").await?;
    assert_eq!(client.cached(&action).await?, None, "the result went with the blob");
    Ok(())
}

async fn a_result_with_a_hole_in_its_tree_is_a_miss(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let mut tree = Tree::new();
    tree.file("sub/file", "inside");
    let mut blobs = std::collections::BTreeMap::new();
    let root = tree.encode(client.function(), &mut blobs);
    let directory = |digest: &Digest| proto::Directory::decode(blobs[digest].as_slice());
    let child = directory(&root)?.directories[0].digest.clone();
    let child = Digest::from_proto_field(child.as_ref(), client.function())?;
    let message = proto::Tree { root: Some(directory(&root)?), children: vec![directory(&child)?] };
    let tree_digest = client.put(message.encode_to_vec()).await?;
    client.put("inside").await?;
    let output = OutputDirectory {
        path: "dir".to_owned(),
        tree_digest: Some(tree_digest.to_proto()),
        ..Default::default()
    };
    let action = client.digest(b"action");
    let result = ActionResult { output_directories: vec![output], ..Default::default() };
    store(&client, action, result).await?;
    assert!(client.cached(&action).await?.is_some());
    client.delete(&[client.digest(b"inside")]).await?;
    assert_eq!(client.cached(&action).await?, None);
    Ok(())
}

async fn a_failed_result_is_never_served(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let action = client.digest(b"action");
    let failed = ActionResult { exit_code: 1, ..result(&client, "content").await? };
    store(&client, action, failed).await?;
    assert_eq!(client.cached(&action).await?, None);
    Ok(())
}

async fn small_blobs_are_inlined_when_asked_for(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let mut expected = result(&client, "content").await?;
    expected.stdout_digest = Some(client.put("out").await?.to_proto());
    expected.stderr_digest = Some(client.put("err").await?.to_proto());
    let action = client.digest(b"action");
    store(&client, action, expected.clone()).await?;
    let message = proto::GetActionResultRequest {
        action_digest: Some(action.to_proto()),
        inline_stdout: true,
        inline_stderr: true,
        inline_output_files: vec!["out".to_owned(), "nothing".to_owned()],
        ..Default::default()
    };
    let got = client.action_cache().get_action_result(message).await?.into_inner();
    assert_eq!((&got.stdout_raw[..], &got.stderr_raw[..]), (&b"out"[..], &b"err"[..]));
    assert_eq!(got.output_files[0].contents, b"content"[..]);
    assert_eq!(got.stdout_digest, expected.stdout_digest, "digests stay");

    // A file that is too large stays a digest.
    let large = client.put(vec![7; 2 << 20]).await?;
    expected.stdout_digest = Some(large.to_proto());
    store(&client, action, expected).await?;
    let message = proto::GetActionResultRequest {
        action_digest: Some(action.to_proto()),
        inline_stdout: true,
        ..Default::default()
    };
    let got = client.action_cache().get_action_result(message).await?.into_inner();
    assert_eq!(got.stdout_raw, b""[..]);
    assert_eq!(got.stdout_digest, Some(large.to_proto()));
    Ok(())
}

async fn paths_that_leave_the_working_directory_are_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let action = client.digest(b"action");
    for path in ["../../etc/cron.d/x", "/etc/cron.d/x", "a//b", "a/./b", "a\0b", ""] {
        let mut bad = result(&client, "content").await?;
        bad.output_files[0].path = path.to_owned();
        let symlink = proto::OutputSymlink {
            path: path.to_owned(),
            target: "content".to_owned(),
            ..Default::default()
        };
        let link = ActionResult { output_symlinks: vec![symlink], ..Default::default() };
        // Of a failed action as well.
        let failed = ActionResult { exit_code: 1, ..bad.clone() };
        for bad in [bad, link, failed] {
            let status = store(&client, action, bad).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{path:?}");
            assert!(status.message().contains(path.trim_end_matches("\0b")), "{status}");
        }
        assert_eq!(client.cached(&action).await?, None, "{path:?}");
    }
    Ok(())
}

async fn data_in_an_update_is_verified_and_not_kept(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let action = client.digest(b"action");
    let mut good = result(&client, "content").await?;
    good.output_files[0].contents = "content".into();
    let mut lie = good.clone();
    lie.output_files[0].contents = "another content".into();
    let stream = ActionResult {
        stdout_raw: "not out".into(),
        stdout_digest: Some(client.put("out").await?.to_proto()),
        ..good.clone()
    };
    for lie in [lie, stream] {
        let status = store(&client, action, lie).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(client.cached(&action).await?, None);
    }
    // A stream without a digest becomes a blob.
    good.stderr_raw = "err".into();
    store(&client, action, good.clone()).await?;
    good.output_files[0].contents.clear();
    good.stderr_raw.clear();
    good.stderr_digest = Some(client.digest(b"err").to_proto());
    assert_eq!(client.cached(&action).await?, Some(good));
    assert_eq!(client.get(&client.digest(b"err")).await?, b"err");
    Ok(())
}

/// Both lists have the length at which comparing each with each would take minutes.
async fn many_wanted_files_of_many_files_are_answered(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let action = client.digest(b"action");
    let digest = client.put("x").await?.to_proto();
    let file = |number| OutputFile {
        path: format!("{number:05}"),
        digest: Some(digest.clone()),
        ..Default::default()
    };
    let output_files: Vec<OutputFile> = (0..30_000).map(file).collect();
    let result = ActionResult { output_files, ..Default::default() };
    store(&client, action, result).await?;
    let absent = (0..100_000).map(|number| format!("no{number}"));
    let message = proto::GetActionResultRequest {
        action_digest: Some(action.to_proto()),
        inline_output_files: absent.chain(["29999".to_owned(), "00000".to_owned()]).collect(),
        ..Default::default()
    };
    let got = client.action_cache().get_action_result(message).await?.into_inner();
    let filled = got.output_files.iter().filter(|file| !file.contents.is_empty());
    let paths: Vec<&str> = filled.map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["00000", "29999"]);
    Ok(())
}

async fn malformed_updates_are_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let good = result(&client, "content").await?;
    let mut no_digest = good.clone();
    no_digest.output_files[0].digest = None;
    let mut bad_digest = good.clone();
    bad_digest.output_files[0].digest =
        Some(proto::Digest { hash: "../../etc/passwd".to_owned(), size_bytes: 1 });
    let action = client.digest(b"action");
    for result in [no_digest, bad_digest] {
        let status = store(&client, action, result).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    let without_result = proto::UpdateActionResultRequest {
        action_digest: Some(action.to_proto()),
        ..Default::default()
    };
    let without_action =
        proto::UpdateActionResultRequest { action_result: Some(good), ..Default::default() };
    for message in [without_result, without_action] {
        let status = client.action_cache().update_action_result(message).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    assert_eq!(client.cached(&action).await?, None);
    Ok(())
}

async fn results_outlive_the_server(kit: Kit) -> Outcome {
    kit.only_on_the_host("a killed VM loses its last seconds, as a power cut does")?;
    let mut daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let action = client.digest(b"action");
    let expected = result(&client, "content").await?;
    store(&client, action, expected.clone()).await?;
    daemon.kill()?;
    let daemon = daemon.successor().start().await?;
    assert_eq!(daemon.client().cached(&action).await?, Some(expected));
    Ok(())
}
