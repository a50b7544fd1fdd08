//! A tier below the store: what is only upstream is as good as here, and an upstream that hangs, lies, loses
//! blobs or is not there costs a build time at most.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use testkit::proto::{self, ActionResult, OutputFile};
use testkit::upstream::incompressible;
use testkit::{
    Client, Daemon, DaemonBuilder, Digest, DigestFunction, Kit, Outcome, ReservedAddress,
    eventually, eventually_async,
};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    blobs_that_are_only_upstream_are_read,
    what_a_client_is_told_of_is_here_to_stay,
    a_result_that_is_only_upstream_is_a_hit,
    inputs_that_are_only_upstream_are_fetched,
    new_results_go_upstream,
    write_through_is_done_before_the_answer,
    the_journal_survives_a_restart,
    an_upstream_that_lies_is_not_believed,
    an_upstream_that_has_lost_a_blob_of_a_result_has_no_result,
    an_upstream_that_hangs_is_given_up,
    an_upstream_that_is_not_there_is_no_error,
    an_upstream_that_comes_back_is_used,
    a_thousand_readers_are_one_download,
    instances_stay_apart_upstream,
    headers_go_with_every_call_and_into_no_log,
    metrics_tell_of_the_upstream,
}

/// `printf %s secret | sha256sum`.
const HASH_OF_SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// Larger than what travels in batches, and not compressible.
fn large() -> Vec<u8> {
    incompressible(3 << 20)
}

/// A daemon whose store has the other one below it.
fn below(kit: &Kit, upstream: &Daemon) -> DaemonBuilder {
    above(kit, &upstream.address().to_string())
}

fn above(kit: &Kit, address: &str) -> DaemonBuilder {
    // On a busy machine the upstream may take its time.
    above_within(kit, address, "--upstream-timeout=120s")
}

fn above_within(kit: &Kit, address: &str, timeout: &str) -> DaemonBuilder {
    let address = format!("grpc://{address}");
    let daemon = kit.daemon().flag("--upstream-cas").flag(&address);
    daemon.flag("--upstream-ac").flag(&address).flag(timeout).host_rootfs()
}

/// Tests that stop servers or look into their stores.
fn two_here(kit: &Kit) -> anyhow::Result<()> {
    kit.only_on_the_host("a guest has no network for an upstream")
}

async fn upstream(kit: &Kit) -> anyhow::Result<Daemon> {
    two_here(kit)?;
    kit.daemon().host_rootfs().start().await
}

/// An upstream that can be started again where it was.
async fn upstream_at(kit: &Kit, address: &ReservedAddress) -> anyhow::Result<Daemon> {
    two_here(kit)?;
    kit.daemon().host_rootfs().listen(address.get()).start().await
}

async fn update(client: &Client, action: Digest, result: ActionResult) -> Outcome {
    let message = proto::UpdateActionResultRequest {
        instance_name: client.instance().to_owned(),
        action_digest: Some(action.to_proto()),
        action_result: Some(result),
        digest_function: client.function().to_proto(),
        ..Default::default()
    };
    client.action_cache().update_action_result(message).await?;
    Ok(())
}

/// A result with that output.
fn result(content: &Digest) -> ActionResult {
    let (path, digest) = ("out".to_owned(), Some(content.to_proto()));
    let file = OutputFile { path, digest, ..Default::default() };
    ActionResult { output_files: vec![file], ..Default::default() }
}

async fn is_cached(client: &Client, action: &Digest) -> anyhow::Result<bool> {
    Ok(client.cached(action).await?.is_some())
}

async fn blobs_that_are_only_upstream_are_read(kit: Kit) -> Outcome {
    let all = "--digest-functions=sha256,blake3,sha384,sha512,sha1,md5";
    two_here(&kit)?;
    let upstream = kit.daemon().flag(all).start().await?;
    let daemon = below(&kit, &upstream).flag(all).start().await?;
    for function in DigestFunction::ALL {
        let (theirs, ours) =
            (upstream.client().with_function(function), daemon.client().with_function(function));
        for content in [b"small".to_vec(), vec![7; 1 << 20], large()] {
            let digest = theirs.put(content.clone()).await?;
            assert_eq!(ours.get(&digest).await?, content);
        }
        let absent = ours.digest(b"nowhere");
        let refused = ours.read(&ours.download_name(&absent), 0, 0).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }
    Ok(())
}

async fn what_a_client_is_told_of_is_here_to_stay(kit: Kit) -> Outcome {
    let mut upstream = upstream(&kit).await?;
    let daemon = below(&kit, &upstream).start().await?;
    let mut digests = Vec::new();
    for number in 0..50 {
        digests.push(upstream.client().put(format!("blob {number}")).await?);
    }
    digests.push(upstream.client().put(large()).await?);
    let absent = upstream.client().digest(b"nowhere");
    let client = daemon.client();
    let asked: Vec<_> = digests.iter().chain([&absent]).copied().collect();
    assert_eq!(client.missing(&asked).await?, [absent]);
    upstream.kill()?;
    // Nothing that was said to be there depends on the upstream.
    for digest in &digests {
        assert_eq!(client.get(digest).await?.len() as u64, digest.size_bytes());
    }
    Ok(())
}

async fn a_result_that_is_only_upstream_is_a_hit(kit: Kit) -> Outcome {
    let mut upstream = upstream(&kit).await?;
    let script = "mkdir -p dir/sub; cp in dir/sub/file; cp in out; echo said";
    let run = |client: Client| {
        let action = client.action(script).input("in", large()).output("out").output("dir");
        async move { action.run().await }
    };
    let made = run(upstream.client()).await?;
    assert!(!made.succeeded().await?.from_cache());
    let daemon = below(&kit, &upstream).start().await?;
    let fetched = run(daemon.client()).await?;
    assert!(fetched.succeeded().await?.from_cache());
    upstream.kill()?;
    // With all that it names.
    assert_eq!(fetched.stdout().await?, "said\n");
    let out = Digest::from_proto_field(
        fetched.output_file("out")?.digest.as_ref(),
        DigestFunction::Sha256,
    )?;
    assert_eq!(daemon.client().get(&out).await?, large());
    assert_eq!(fetched.tree("dir").await?.children.len(), 1);
    assert!(run(daemon.client()).await?.succeeded().await?.from_cache());
    Ok(())
}

async fn inputs_that_are_only_upstream_are_fetched(kit: Kit) -> Outcome {
    let upstream = upstream(&kit).await?;
    let daemon = below(&kit, &upstream).start().await?;
    let action = |client: Client| {
        let action = client.action("cat a/b/c/deep top many/* | wc -c").input("top", large());
        let action = action.input("a/b/c/deep", "deep");
        (0..100).fold(action, |action, number| {
            action.input(&format!("many/{number}"), format!("{number}"))
        })
    };
    action(upstream.client()).upload().await?;
    let run = action(daemon.client()).run_without_upload().await?;
    let expected = large().len() + 4 + 10 + 180;
    assert_eq!(run.succeeded().await?.stdout().await?.trim(), expected.to_string());
    // The answer names the blob that neither of them has.
    let lost = daemon.client().action("cat in").input("in", "nobody has it");
    let run = lost.run_without_upload().await?;
    assert_eq!(run.code(), Code::FailedPrecondition);
    Ok(())
}

async fn new_results_go_upstream(kit: Kit) -> Outcome {
    let upstream = upstream(&kit).await?;
    let daemon = below(&kit, &upstream).start().await?;
    let action = |client: Client| {
        let action =
            client.action("mkdir dir; cp in dir/file; cp in out; echo said").input("in", large());
        action.output("out").output("dir")
    };
    let (made, digest) = (action(daemon.client()).run().await?, action(daemon.client()).encode().0);
    made.succeeded().await?;
    let theirs = upstream.client();
    eventually_async("the result is upstream", async || is_cached(&theirs, &digest).await).await?;
    let again = action(theirs).run_without_upload().await?;
    assert!(again.succeeded().await?.from_cache());
    assert_eq!(again.stdout().await?, "said\n");
    // Those that clients upload as well.
    let ours = daemon.client();
    let (action, content) = (ours.digest(b"another action"), ours.put("content").await?);
    update(&ours, action, result(&content)).await?;
    let theirs = upstream.client();
    eventually_async("it is upstream", async || is_cached(&theirs, &action).await).await
}

async fn write_through_is_done_before_the_answer(kit: Kit) -> Outcome {
    let upstream = upstream(&kit).await?;
    let daemon = below(&kit, &upstream).flag("--upstream-writes=through").start().await?;
    let ours = daemon.client();
    let action = ours.action("cp in out").input("in", "content").output("out");
    action.run().await?.succeeded().await?;
    assert!(is_cached(&upstream.client(), &action.encode().0).await?);
    let (action, content) = (ours.digest(b"another action"), ours.put("content").await?);
    update(&ours, action, result(&content)).await?;
    assert!(is_cached(&upstream.client(), &action).await?);
    let off = below(&kit, &upstream).flag("--upstream-writes=off").start().await?;
    let action = ours.digest(b"a third action");
    off.client().put("content").await?;
    update(&off.client(), action, result(&content)).await?;
    assert!(!is_cached(&upstream.client(), &action).await?);
    Ok(())
}

async fn the_journal_survives_a_restart(kit: Kit) -> Outcome {
    let address = ReservedAddress::new()?;
    let mut upstream = upstream_at(&kit, &address).await?;
    let mut daemon = below(&kit, &upstream).start().await?;
    upstream.kill()?;
    let ours = daemon.client();
    let mut actions = Vec::new();
    for number in 0..20 {
        let content = ours.put(format!("content {number}")).await?;
        actions.push(ours.digest(format!("action {number}")));
        update(&ours, actions[number], result(&content)).await?;
    }
    // Killed, it can't tidy up.
    daemon.kill()?;
    let again = upstream.successor().start().await?;
    let daemon = daemon.successor().start().await?;
    let theirs = again.client();
    for action in &actions {
        eventually_async("the result is upstream", async || is_cached(&theirs, action).await)
            .await?;
    }
    ensure!(is_cached(&daemon.client(), &actions[0]).await?);
    Ok(())
}

/// The file of a blob in the store of a daemon.
fn file(daemon: &Daemon, digest: &Digest) -> anyhow::Result<PathBuf> {
    let hex = digest.hex();
    Ok(daemon.store()?.join("cas/blobs/sha256").join(&hex[..2]).join(&hex))
}

async fn an_upstream_that_lies_is_not_believed(kit: Kit) -> Outcome {
    let upstream = upstream(&kit).await?;
    let daemon = below(&kit, &upstream).start().await?;
    let theirs = upstream.client();
    for content in [b"small".to_vec(), vec![7; 1 << 20], large()] {
        let digest = theirs.put(content.clone()).await?;
        let path = file(&upstream, &digest)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let mut forged = content.clone();
        forged[0] ^= 1;
        std::fs::write(&path, forged)?;
        let action = theirs.digest(format!("action of {digest}"));
        update(&theirs, action, result(&digest)).await?;
        let ours = daemon.client();
        assert_eq!(ours.missing(&[digest]).await?, [digest]);
        let refused = ours.read(&ours.download_name(&digest), 0, 0).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert!(!is_cached(&ours, &action).await?, "a result with a forged output");
        // The client's own is taken, and not in doubt.
        ours.put(content.clone()).await?;
        assert_eq!(ours.get(&digest).await?, content);
    }
    eventually("the log says it", || Ok(daemon.log().contains("another content"))).await?;
    Ok(())
}

async fn an_upstream_that_has_lost_a_blob_of_a_result_has_no_result(kit: Kit) -> Outcome {
    let upstream = upstream(&kit).await?;
    let theirs = upstream.client();
    let content = theirs.put("content").await?;
    let action = theirs.digest(b"action");
    update(&theirs, action, result(&content)).await?;
    // Behind the server's back, so that it still says that it has the blob.
    std::fs::remove_file(file(&upstream, &content)?)?;
    let daemon = below(&kit, &upstream).start().await?;
    assert!(!is_cached(&daemon.client(), &action).await?);
    assert_eq!(daemon.client().missing(&[content]).await?, [content]);
    Ok(())
}

async fn an_upstream_that_hangs_is_given_up(kit: Kit) -> Outcome {
    let upstream = upstream(&kit).await?;
    let address = upstream.address().to_string();
    let daemon = above_within(&kit, &address, "--upstream-timeout=1s").flag("--http=127.0.0.1:0");
    let daemon = daemon.start().await?;
    let known = upstream.client().put("content").await?;
    daemon.client().get(&known).await?;
    upstream.signal(Signal::STOP)?;
    let run = async |number: usize| {
        let action = daemon.client().action(&format!("echo {number}"));
        action.run().await?.succeeded().await.map(drop)
    };
    run(0).await?;
    let given_up = || daemon.log().contains("given up for a while");
    let mut number = 1;
    while !given_up() {
        ensure!(number < 20, "the upstream is not given up:\n{}", daemon.log());
        run(number).await?;
        number += 1;
    }
    // Every build goes on, and none asks any more.
    let failures = daemon.metric("upstream_failures_total{tier=\"ac\"}")?;
    for number in 100..110 {
        run(number).await?;
    }
    assert_eq!(daemon.metric("upstream_failures_total{tier=\"ac\"}")?, failures);
    ensure!(daemon.metric("upstream_skipped_total{tier=\"ac\"}")? >= 10, "they are skipped");
    upstream.signal(Signal::CONT)?;
    Ok(())
}

async fn an_upstream_that_is_not_there_is_no_error(kit: Kit) -> Outcome {
    two_here(&kit)?;
    let nowhere = ReservedAddress::new()?;
    let daemon = above(&kit, &nowhere.get().to_string()).start().await?;
    let client = daemon.client();
    let run = client.action("cp in out").input("in", "content").output("out").run().await?;
    assert_eq!(run.succeeded().await?.file("out").await?, "content");
    let absent = client.digest(b"nowhere");
    assert_eq!(client.missing(&[absent]).await?, [absent]);
    eventually("the log says it", || Ok(daemon.log().contains("the upstream is down"))).await?;
    Ok(())
}

async fn an_upstream_that_comes_back_is_used(kit: Kit) -> Outcome {
    let address = ReservedAddress::new()?;
    let mut upstream = upstream_at(&kit, &address).await?;
    let daemon = below(&kit, &upstream).start().await?;
    let content = upstream.client().put("content").await?;
    upstream.kill()?;
    let ours = daemon.client();
    assert_eq!(ours.missing(&[content]).await?, [content]);
    let again = upstream.successor().start().await?;
    eventually_async("the upstream is used", async || {
        Ok(ours.missing(&[content]).await?.is_empty())
    })
    .await?;
    drop(again);
    Ok(())
}

async fn a_thousand_readers_are_one_download(kit: Kit) -> Outcome {
    let upstream = upstream(&kit).await?;
    let daemon = below(&kit, &upstream).flag("--http=127.0.0.1:0").start().await?;
    let content = large();
    let digest = upstream.client().put(content.clone()).await?;
    let client = daemon.client();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let client = client.clone();
        readers.spawn(async move { client.missing(&[digest]).await });
    }
    while let Some(missing) = readers.join_next().await {
        assert_eq!(missing??, []);
    }
    let received = daemon.metric("upstream_received_bytes_total{tier=\"cas\"}")?;
    assert_eq!(received, content.len() as u64);
    Ok(())
}

async fn instances_stay_apart_upstream(kit: Kit) -> Outcome {
    let upstream = upstream(&kit).await?;
    let address = format!("grpc://{}/fleet", upstream.address());
    let daemon =
        kit.daemon().flag("--upstream-cas").flag(&address).flag("--upstream-ac").flag(&address);
    let daemon = daemon.flag("--upstream-writes=through").start().await?;
    let ours = daemon.client().with_instance("team");
    let (action, content) = (ours.digest(b"action"), ours.put("content").await?);
    update(&ours, action, result(&content)).await?;
    let theirs = upstream.client();
    assert!(is_cached(&theirs.with_instance("fleet/team"), &action).await?);
    for other in ["", "team", "fleet"] {
        assert!(!is_cached(&theirs.with_instance(other), &action).await?, "{other}");
    }
    assert!(!is_cached(&daemon.client(), &action).await?);
    Ok(())
}

async fn headers_go_with_every_call_and_into_no_log(kit: Kit) -> Outcome {
    two_here(&kit)?;
    let directory = kit.daemon().directory()?;
    let tokens = directory.path().join("tokens.toml");
    let rights = "['read']";
    let entry = format!("[[token]]\nname = 'ci'\nsha256 = '{HASH_OF_SECRET}'\nrights = {rights}\n");
    std::fs::write(&tokens, entry)?;
    let upstream = kit.daemon().flag("--token-file").flag(&tokens).flag("--listen=127.0.0.1:0");
    let upstream = upstream.start().await?;
    let port = second_port(&upstream).await?;
    let content = upstream.client().put("content").await?;
    // An upstream that refuses is as good as an empty one.
    let daemon = above(&kit, &port).start().await?;
    assert_eq!(daemon.client().missing(&[content]).await?, [content]);
    let headers = directory.path().join("headers");
    std::fs::write(&headers, "authorization: Bearer secret\n")?;
    let set = |mode| std::fs::set_permissions(&headers, std::fs::Permissions::from_mode(mode));
    let with_headers = || above(&kit, &port).flag("--upstream-header-file").flag(&headers);
    set(0o644)?;
    let refused = format!("{:#}", with_headers().start().await.err().context("all can read it")?);
    ensure!(refused.contains("everybody can read") && !refused.contains("Bearer"), "{refused}");
    set(0o600)?;
    let daemon = with_headers().flag("--log=trace").start().await?;
    assert_eq!(daemon.client().missing(&[content]).await?, []);
    ensure!(!daemon.log().contains("Bearer secret"), "the log has the secret:\n{}", daemon.log());
    Ok(())
}

/// The second place of a daemon.
async fn second_port(daemon: &Daemon) -> anyhow::Result<String> {
    let second = || {
        let log = daemon.log();
        let mut places = log.lines().filter_map(|line| line.split("serving on ").nth(1));
        places.nth(1).map(str::to_owned)
    };
    eventually("it serves at both places", || Ok(second().is_some())).await?;
    second().context("the second place")
}

async fn metrics_tell_of_the_upstream(kit: Kit) -> Outcome {
    let upstream = upstream(&kit).await?;
    let daemon = below(&kit, &upstream).flag("--http=127.0.0.1:0").start().await?;
    let ours = daemon.client();
    let digest = upstream.client().put("content").await?;
    ours.get(&digest).await?;
    let absent = ours.digest(b"nowhere");
    ours.missing(&[absent]).await?;
    assert_eq!(daemon.metric("upstream_up{tier=\"cas\"}")?, 1);
    assert_eq!(daemon.metric("upstream_hits_total{tier=\"cas\"}")?, 1);
    assert_eq!(daemon.metric("upstream_misses_total{tier=\"cas\"}")?, 1);
    assert_eq!(daemon.metric("upstream_failures_total{tier=\"cas\"}")?, 0);
    assert_eq!(daemon.metric("upstream_received_bytes_total{tier=\"cas\"}")?, 7);
    for name in ["upstream_calls_total", "upstream_call_microseconds_total"] {
        ensure!(daemon.metric(&format!("{name}{{tier=\"cas\"}}"))? > 0, "{name}");
    }
    // Results that wait, and an upstream that is asked for none.
    assert_eq!(daemon.metric("upstream_queue")?, 0);
    assert_eq!(daemon.metric("upstream_hits_total{tier=\"ac\"}")?, 0);
    eventually("the log says it", || Ok(daemon.log().contains("the upstream is up"))).await?;
    Ok(())
}
