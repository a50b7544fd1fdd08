//! The history of executions and lookups, at the service `actiond.internal.v1.History`.

use std::path::Path;

use proto::actiond::internal::v1::history_client::HistoryClient;
use proto::actiond::internal::v1::list_records_request::Of;
use proto::actiond::internal::v1::{
    FollowRecordsRequest, GetTotalsRequest, ListActionsRequest, ListRecordsRequest, Record,
};
use testkit::proto::RequestMetadata;
use testkit::{Client, Daemon, Digest, Kit, Outcome, eventually_async};
use tonic::transport::Channel;
use tonic::{Code, Request};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    each_execution_and_lookup_is_recorded,
    a_miss_says_why,
    running_actions_are_listed,
    records_are_followed_as_they_come,
    a_broken_history_is_told_and_costs_nothing_else,
    without_history_there_is_none,
    records_are_those_of_the_callers_instances,
}

fn origin(target: &str) -> RequestMetadata {
    RequestMetadata {
        action_mnemonic: "Genrule".into(),
        target_id: target.into(),
        tool_invocation_id: "build-1".into(),
        configuration_id: "fast".into(),
        ..RequestMetadata::default()
    }
}

fn history(client: &Client) -> HistoryClient<Channel> {
    HistoryClient::new(client.channel())
}

async fn records(client: &Client, of: Option<Of>) -> anyhow::Result<Vec<Record>> {
    let request = ListRecordsRequest { of, ..ListRecordsRequest::default() };
    Ok(history(client).list_records(request).await?.into_inner().records)
}

fn of_action(digest: &Digest) -> Option<Of> {
    Some(Of::ActionDigest(digest.to_proto()))
}

/// Looks for a cached result, as a client does that runs the action itself.
async fn look_up(client: &Client, action: &Digest) -> Option<Code> {
    let request = testkit::proto::GetActionResultRequest {
        instance_name: client.instance().to_owned(),
        action_digest: Some(action.to_proto()),
        digest_function: client.function().to_proto(),
        ..Default::default()
    };
    let found = client.action_cache().get_action_result(request).await;
    found.err().map(|status| status.code())
}

async fn each_execution_and_lookup_is_recorded(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client().with_instance("main");
    let action = || {
        let action = client.action("cp in out").input("in", "hi\n").output("out");
        action.property("limits_pids", "99").sent_by(origin("//a:b"))
    };
    let digest = action().upload().await?;
    assert_eq!(look_up(&client, &digest).await, Some(Code::NotFound));
    assert!(!action().run().await?.from_cache());
    assert!(action().run().await?.from_cache());
    assert_eq!(look_up(&client, &digest).await, None);

    let found = records(&client, of_action(&digest)).await?;
    let outcomes: Vec<_> = found.iter().rev().map(|it| it.outcome.as_str()).collect();
    assert_eq!(outcomes, ["miss", "success", "cached", "hit"]);
    let ran = &found[2];
    let said = ran.origin.clone().unwrap_or_default();
    assert_eq!((said.target.as_str(), said.mnemonic.as_str()), ("//a:b", "Genrule"));
    assert_eq!((said.invocation.as_str(), said.configuration.as_str()), ("build-1", "fast"));
    assert_eq!((ran.instance.as_str(), ran.miss.as_str()), ("main", "absent"));
    assert_eq!((ran.exit_code, ran.outputs, ran.output_bytes), (Some(0), 1, 3));
    assert!(ran.operation.starts_with("operations/"), "{ran:?}");
    assert!(ran.command_digest.is_some() && ran.input_root_digest.is_some());
    let named = |values: &[proto::actiond::internal::v1::record::Value], name: &str| {
        values.iter().find(|it| it.name == name).map(|it| it.value)
    };
    assert!(named(&ran.stages, "run_us").is_some() && named(&ran.usage, "user_us").is_some());
    assert_eq!(named(&ran.limits, "pids_max"), Some(99));
    let result: testkit::proto::ActionResult = prost::Message::decode(ran.result.clone())?;
    assert_eq!(result.output_files[0].path, "out");

    let of_target = records(&client, Some(Of::Target("//a:b".into()))).await?;
    assert_eq!(of_target.len(), 2, "lookups of this client name no target");
    let of_build = records(&client, Some(Of::Invocation("build-1".into()))).await?;
    assert_eq!(of_build.len(), 1, "those that took time");
    let totals = history(&client).get_totals(GetTotalsRequest { seconds: 3600 }).await?;
    let events: u64 = totals.into_inner().totals.iter().map(|it| it.events).sum();
    assert_eq!(events, 4);
    Ok(())
}

async fn a_miss_says_why(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    let action = || client.action("echo hi > out; echo $RANDOM >> out").output("out");
    action().run().await?;
    action().skip_cache_lookup().run().await?;
    action().do_not_cache().run().await?;
    let digest = action().encode().0;
    let misses = async |digest: &Digest| {
        let found = records(&client, of_action(digest)).await?;
        anyhow::Ok(found.iter().rev().map(|it| it.miss.clone()).collect::<Vec<_>>())
    };
    assert_eq!(misses(&digest).await?, ["absent", "skipped"]);
    assert_eq!(misses(&action().do_not_cache().encode().0).await?, ["uncacheable"]);
    // The blob of the second run: somebody deletes it.
    let cached = action().run().await?;
    assert!(cached.from_cache());
    let blob = cached.output_file("out")?.digest.clone();
    let request = proto::actiond::internal::v1::DeleteBlobsRequest {
        blob_digests: blob.into_iter().collect(),
        digest_function: client.function().to_proto(),
        ..Default::default()
    };
    let mut cas = proto::actiond::internal::v1::cas_client::CasClient::new(client.channel());
    cas.delete_blobs(request).await?;
    assert!(!action().run().await?.from_cache());
    assert_eq!(misses(&digest).await?, ["absent", "skipped", "", "incomplete"]);
    Ok(())
}

async fn running_actions_are_listed(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    let stream = client.action("sleep 600").sent_by(origin("//a:slow")).start().await?;
    let running = async || {
        let listed = history(&client).list_actions(ListActionsRequest {}).await?.into_inner();
        Ok(listed.actions.iter().any(|action| {
            let target = action.origin.as_ref().map(|origin| origin.target.as_str());
            target == Some("//a:slow") && action.running_for_us.is_some()
        }))
    };
    eventually_async("the action is listed", running).await?;
    drop(stream);
    Ok(())
}

async fn records_are_followed_as_they_come(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    let followed = history(&client).follow_records(FollowRecordsRequest {}).await?;
    let mut followed = followed.into_inner();
    assert_eq!(followed.message().await?.and_then(|it| it.record), None, "it follows now");
    client.action("exit 3").sent_by(origin("//a:x")).run().await?;
    let next = followed.message().await?.and_then(|it| it.record);
    assert_eq!(next.and_then(|record| record.exit_code), Some(3));
    Ok(())
}

fn database(daemon: &Daemon) -> anyhow::Result<std::path::PathBuf> {
    Ok(daemon.store()?.join("history/events.db"))
}

async fn a_broken_history_is_told_and_costs_nothing_else(kit: Kit) -> Outcome {
    kit.only_on_the_host("the history is in the guest")?;
    let mut daemon = kit.daemon().host_rootfs().start().await?;
    daemon.client().action("true").run().await?.succeeded().await?;
    daemon.terminate()?;
    assert!(daemon.wait()?.success());
    let path = database(&daemon)?;
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).map(|it| it.permissions().mode() & 0o777)
    };
    assert_eq!(mode(&path)?, 0o600);
    std::fs::write(&path, vec![b'x'; 10_000])?;
    let daemon = daemon.successor().start().await?;
    assert_eq!(daemon.log().matches("the history is broken").count(), 1, "{}", daemon.log());
    let client = daemon.client();
    assert!(client.action("true").run().await?.from_cache());
    assert_eq!(records(&client, None).await?.len(), 1, "the new one");
    Ok(())
}

async fn without_history_there_is_none(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--history-days=0").start().await?;
    let client = daemon.client();
    client.action("true").run().await?.succeeded().await?;
    let asked = history(&client).list_records(ListRecordsRequest::default()).await;
    let status = asked.err().ok_or_else(|| anyhow::anyhow!("there are records"))?;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("--history-days"), "{status:?}");
    if let Ok(path) = database(&daemon) {
        assert!(!path.exists());
    }
    let (mut command, _root) = kit.daemon().flag("--history-bytes=1m").command()?;
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--history-bytes"), "{said}");
    Ok(())
}

async fn records_are_those_of_the_callers_instances(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM has no principals")?;
    let directory = tempfile::tempdir()?;
    let tokens = directory.path().join("tokens.toml");
    // `printf %s secret | sha256sum`
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let entry = format!(
        "[[token]]\nname = 'ci'\nsha256 = '{hash}'\nrights = ['none']\ninstances = {{ main = ['read'] }}\n"
    );
    std::fs::write(&tokens, entry)?;
    let daemon = kit.daemon().host_rootfs().flag("--token-file").flag(&tokens).start().await?;
    let client = daemon.client();
    for instance in ["main", "other"] {
        let client = client.with_instance(instance);
        client.action("true").sent_by(origin("//a:b")).run().await?.succeeded().await?;
    }
    assert_eq!(records(&client, None).await?.len(), 2, "a caller with all rights");
    fn limited<T>(message: T) -> anyhow::Result<Request<T>> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", "Bearer secret".parse()?);
        Ok(request)
    }
    for of in [None, Some(Of::Target("//a:b".into())), Some(Of::Invocation("build-1".into()))] {
        let request = ListRecordsRequest { of, ..ListRecordsRequest::default() };
        let listed = history(&client).list_records(limited(request)?).await?.into_inner();
        let instances: Vec<_> = listed.records.iter().map(|it| it.instance.as_str()).collect();
        assert_eq!(instances, ["main"]);
    }
    let totals = history(&client).get_totals(limited(GetTotalsRequest { seconds: 60 })?).await;
    assert_eq!(totals.err().map(|status| status.code()), Some(Code::PermissionDenied));
    let followed = history(&client).follow_records(limited(FollowRecordsRequest {})?).await?;
    let mut followed = followed.into_inner();
    followed.message().await?;
    let slow = client.with_instance("other").action("sleep 600").start().await?;
    let listed = async || {
        let all = history(&client).list_actions(ListActionsRequest {}).await?.into_inner();
        Ok(!all.actions.is_empty())
    };
    eventually_async("the action runs", listed).await?;
    let visible = history(&client).list_actions(limited(ListActionsRequest {})?).await?;
    assert!(visible.into_inner().actions.is_empty(), "it is another instance's");
    drop(slow);
    for instance in ["other", "main"] {
        let client = client.with_instance(instance);
        client.action("exit 1").run().await?;
    }
    let next = followed.message().await?.and_then(|it| it.record);
    assert_eq!(next.map(|record| record.instance), Some("main".to_owned()));
    Ok(())
}
