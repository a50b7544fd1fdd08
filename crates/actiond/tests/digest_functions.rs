//! Every digest function on every path: blobs, results, actions, trees, and a restart.

use testkit::proto::{self, digest_function};
use testkit::{Client, Daemon, Digest, DigestFunction, Kit, Outcome};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    blobs_come_and_go,
    blobs_of_one_content_are_apart,
    actions_run_and_are_cached,
    trees_are_told,
    blobs_and_results_survive_a_restart,
    a_function_that_is_not_said_is_inferred,
    what_is_not_offered_is_refused,
    the_operators_choice_is_announced,
    hashes_of_justbuild_are_refused_in_words,
}

const ALL: &str = "--digest-functions=sha256,blake3,sha384,sha512,sha1,md5";

async fn daemon(kit: &Kit) -> anyhow::Result<Daemon> {
    kit.daemon().host_rootfs().flag(ALL).start().await
}

fn clients(daemon: &Daemon) -> impl Iterator<Item = Client> {
    let client = daemon.client();
    DigestFunction::ALL.into_iter().map(move |function| client.with_function(function))
}

async fn blobs_come_and_go(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    for client in clients(&daemon) {
        let function = client.function();
        assert_eq!(client.missing(&[Digest::empty(function)]).await?, [], "{function}");
        assert_eq!(client.get(&Digest::empty(function)).await?, b"");
        let digest = client.digest("batch");
        assert_eq!(client.missing(&[digest]).await?, [digest]);
        client.put("batch").await?;
        assert_eq!(client.missing(&[digest]).await?, []);
        assert_eq!(client.get(&digest).await?, b"batch");
        let content = vec![7; 3 << 20];
        let large = client.digest(&content);
        client.write(&client.upload_name(&large), &content, 1 << 20).await?;
        assert!(client.get(&large).await? == content, "{function}");
        let lie = client.digest("something else");
        let refused = client.write(&client.upload_name(&lie), b"what it is not", 100).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
        client.delete(&[digest, large]).await?;
        assert_eq!(client.missing(&[digest, large]).await?, [digest, large]);
    }
    Ok(())
}

async fn blobs_of_one_content_are_apart(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    for client in clients(&daemon) {
        let digest = client.digest("same content");
        assert_eq!(client.missing(&[digest]).await?, [digest], "{}", client.function());
        client.put("same content").await?;
    }
    Ok(())
}

async fn actions_run_and_are_cached(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    for client in clients(&daemon) {
        let function = client.function();
        let action = client
            .action("cat d/in > out; mkdir t; echo x > t/y; echo done")
            .input("d/in", "content")
            .input("d/empty", "")
            .output("out")
            .output("t");
        let first = action.run().await?;
        assert_eq!(first.succeeded().await?.file("out").await?, "content", "{function}");
        assert_eq!(first.stdout().await?, "done\n");
        let digest = first.output_file("out")?.digest.clone();
        assert_eq!(digest, Some(client.digest("content").to_proto()), "{function}");
        assert_eq!(first.tree("t").await?.root.map(|root| root.files.len()), Some(1));
        assert!(action.run().await?.from_cache(), "{function}");
        let missing = client.action("true").input_root(client.digest("not a tree")).run().await?;
        let segment = function.resource_name_segment();
        let prefix = segment.map_or("blobs/".to_owned(), |name| format!("blobs/{name}/"));
        assert_eq!(missing.missing()?, [format!("{prefix}{}", client.digest("not a tree"))]);
    }
    Ok(())
}

async fn trees_are_told(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    for client in clients(&daemon) {
        let action = client.action("true").input("a/b/c", "deep");
        let (action_digest, blobs) = action.encode();
        let message = <proto::Action as prost::Message>::decode(blobs[&action_digest].as_slice())?;
        action.upload().await?;
        // Without the function: it is inferred where the length tells.
        let is_told = client.function() == DigestFunction::Blake3;
        let request = proto::GetTreeRequest {
            root_digest: message.input_root_digest,
            digest_function: if is_told { client.function().to_proto() } else { 0 },
            ..Default::default()
        };
        let mut pages = client.cas().get_tree(request).await?.into_inner();
        let mut directories = 0;
        while let Some(page) = pages.message().await? {
            directories += page.directories.len();
        }
        assert!(directories >= 3, "{}: {directories}", client.function());
    }
    Ok(())
}

async fn blobs_and_results_survive_a_restart(kit: Kit) -> Outcome {
    let mut daemon = daemon(&kit).await?;
    for client in clients(&daemon) {
        client.action("echo > out").output("out").run().await?.succeeded().await?;
        client.put("kept").await?;
    }
    daemon.terminate()?;
    assert!(daemon.wait()?.success());
    // The operator may take back what was offered, and offer it again.
    let root = daemon.store()?.to_owned();
    let fewer = kit.daemon().root(&root).flag("--digest-functions=sha256");
    let mut fewer = fewer.start().await?;
    assert_eq!(fewer.client().get(&fewer.client().digest("kept")).await?, b"kept");
    fewer.terminate()?;
    assert!(fewer.wait()?.success());
    let again = kit.daemon().root(&root).host_rootfs().flag(ALL).start().await?;
    for client in clients(&again) {
        let function = client.function();
        assert_eq!(client.get(&client.digest("kept")).await?, b"kept", "{function}");
        let action = client.action("echo > out").output("out");
        assert!(action.run().await?.from_cache(), "{function}");
    }
    Ok(())
}

async fn a_function_that_is_not_said_is_inferred(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    for client in clients(&daemon).filter(|it| it.function() != DigestFunction::Blake3) {
        let function = client.function();
        let digest = client.digest("inferred").to_proto();
        let update = proto::batch_update_blobs_request::Request {
            digest: Some(digest.clone()),
            data: "inferred".into(),
            ..Default::default()
        };
        let update =
            proto::BatchUpdateBlobsRequest { requests: vec![update], ..Default::default() };
        let answer = client.cas().batch_update_blobs(update).await?.into_inner();
        let code = answer.responses[0].status.as_ref().map_or(0, |status| status.code);
        assert_eq!(code, 0, "{function}: {answer:?}");
        assert_eq!(client.get(&client.digest("inferred")).await?, b"inferred");
        let find = proto::FindMissingBlobsRequest {
            blob_digests: vec![digest.clone(), client.digest("absent").to_proto()],
            ..Default::default()
        };
        let missing = client.cas().find_missing_blobs(find).await?.into_inner();
        assert_eq!(missing.missing_blob_digests, [client.digest("absent").to_proto()]);
        let read = proto::BatchReadBlobsRequest { digests: vec![digest], ..Default::default() };
        let answer = client.cas().batch_read_blobs(read).await?.into_inner();
        assert_eq!(answer.responses[0].data, "inferred", "{function}");
        let action = client.action("echo inferred");
        action.upload().await?;
        let request = proto::ExecuteRequest { digest_function: 0, ..action.request() };
        let stream = client.execution().execute(request).await?.into_inner();
        let run = testkit::Run::collect(client.clone(), stream).await?;
        assert_eq!(run.succeeded().await?.stdout().await?, "inferred\n", "{function}");
    }
    Ok(())
}

async fn what_is_not_offered_is_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().flag("--digest-functions=sha512,sha256").start().await?;
    for function in [DigestFunction::Md5, DigestFunction::Sha1, DigestFunction::Blake3] {
        let client = daemon.client().with_function(function);
        let digest = client.digest("abc");
        let refused = client.missing(&[digest]).await.unwrap_err();
        let status = refused.downcast::<tonic::Status>()?;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("sha512,sha256"), "{status}");
        let upload = client.write(&client.upload_name(&digest), b"abc", 3).await;
        let accepted = upload.is_ok();
        assert!(!accepted, "{function}");
        assert!(client.read(&client.download_name(&digest), 0, 0).await.is_err());
        assert!(client.cached(&digest).await.is_err());
    }
    Ok(())
}

async fn the_operators_choice_is_announced(kit: Kit) -> Outcome {
    let daemon = kit.daemon().flag("--digest-functions=sha512,SHA-256").start().await?;
    let request = proto::GetCapabilitiesRequest::default();
    let capabilities = daemon.client().capabilities().get_capabilities(request).await?.into_inner();
    use digest_function::Value::{Sha256, Sha512};
    let expected = [Sha512, Sha256].map(i32::from);
    let cache = capabilities.cache_capabilities.unwrap_or_default();
    assert_eq!(cache.digest_functions, expected);
    let execution = capabilities.execution_capabilities.unwrap_or_default();
    assert_eq!(execution.digest_functions, expected);
    assert_eq!(execution.digest_function, expected[0]);
    Ok(())
}

async fn hashes_of_justbuild_are_refused_in_words(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let digest = proto::Digest { hash: "62".repeat(21), size_bytes: 3 };
    let find = proto::FindMissingBlobsRequest { blob_digests: vec![digest], ..Default::default() };
    let status = daemon.client().cas().find_missing_blobs(find).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("--compatible"), "{status}");
    Ok(())
}
