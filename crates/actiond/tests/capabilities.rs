//! The server's statements about itself.

use anyhow::Context as _;
use prost::Message as _;
use testkit::proto::{self, digest_function, symlink_absolute_path_strategy};
use testkit::{Client, Compressor, Digest, Kit, Outcome, elf};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    the_versions_span_all_of_v2,
    sha256_comes_first,
    only_what_works_is_announced,
    instances_are_all_the_same,
    other_instances_than_the_allowed_ones_are_refused,
    a_server_can_keep_results_of_clients_out,
    a_server_can_be_for_reading_only,
    health_is_serving,
    methods_that_are_not_there_say_so,
    reflection_lists_the_services,
    reflection_describes_a_method,
}

async fn capabilities(kit: &Kit, instance: &str) -> anyhow::Result<proto::ServerCapabilities> {
    let daemon = kit.daemon().start().await?;
    let message = proto::GetCapabilitiesRequest { instance_name: instance.to_owned() };
    Ok(daemon.client().capabilities().get_capabilities(message).await?.into_inner())
}

/// The code that an upload of a result is answered with.
async fn update(client: &Client, action: &Digest) -> Code {
    let message = proto::UpdateActionResultRequest {
        action_digest: Some(action.to_proto()),
        action_result: Some(proto::ActionResult::default()),
        ..Default::default()
    };
    let answer = client.action_cache().update_action_result(message).await;
    answer.err().map_or(Code::Ok, |status| status.code())
}

async fn a_server_can_keep_results_of_clients_out(kit: Kit) -> Outcome {
    let daemon = kit.daemon().flag("--ac-update=off").start().await?;
    let client = daemon.client();
    let message = proto::GetCapabilitiesRequest::default();
    let answer = client.capabilities().get_capabilities(message).await?.into_inner();
    let cache = answer.cache_capabilities.context("cache capabilities")?;
    assert!(!cache.action_cache_update_capabilities.is_some_and(|update| update.update_enabled));
    assert!(answer.execution_capabilities.is_some_and(|execution| execution.exec_enabled));
    let action = client.bare_action(["./tool"]).executable("tool", elf::exit_with(0));
    assert_eq!(update(&client, &action.encode().0).await, Code::PermissionDenied);
    // Its own results are kept.
    action.run().await?.succeeded().await?;
    assert!(action.run().await?.from_cache());
    Ok(())
}

async fn a_server_can_be_for_reading_only(kit: Kit) -> Outcome {
    kit.only_on_the_host("the root of a VM's store outlives no flag")?;
    let mut writer = kit.daemon().start().await?;
    let action =
        |client: &Client| client.bare_action(["./tool"]).executable("tool", elf::exit_with(0));
    action(&writer.client()).run().await?.succeeded().await?;
    writer.terminate()?;
    writer.wait()?;
    let daemon = writer.successor().flag("--read-only").start().await?;
    let client = daemon.client();
    let message = proto::GetCapabilitiesRequest::default();
    let answer = client.capabilities().get_capabilities(message).await?.into_inner();
    assert_eq!(answer.execution_capabilities, None);
    let digest = action(&client).encode().0;
    assert!(client.cached(&digest).await?.is_some(), "what is stored is served");
    assert_eq!(update(&client, &digest).await, Code::PermissionDenied);
    let refused = client.put("new").await.unwrap_err().downcast::<tonic::Status>()?;
    assert_eq!(refused.code(), Code::PermissionDenied);
    let request = action(&client).request();
    let refused = client.execution().execute(request).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    Ok(())
}

async fn the_versions_span_all_of_v2(kit: Kit) -> Outcome {
    let capabilities = capabilities(&kit, "").await?;
    let version = |version: Option<proto::semver::SemVer>| {
        version.map(|version| (version.major, version.minor, version.patch))
    };
    // Some clients speak 2.0 only, and refuse a server that begins later.
    assert_eq!(version(capabilities.low_api_version), Some((2, 0, 0)));
    assert_eq!(version(capabilities.high_api_version), Some((2, 12, 0)));
    Ok(())
}

async fn sha256_comes_first(kit: Kit) -> Outcome {
    let capabilities = capabilities(&kit, "").await?;
    use digest_function::Value::{Blake3, Sha256, Sha384, Sha512};
    let functions = [Sha256, Blake3, Sha384, Sha512].map(i32::from);
    let execution = capabilities.execution_capabilities.context("execution capabilities")?;
    assert_eq!(execution.digest_function, functions[0]);
    assert_eq!(execution.digest_functions, functions);
    let cache = capabilities.cache_capabilities.context("cache capabilities")?;
    assert_eq!(cache.digest_functions, functions);
    Ok(())
}

async fn only_what_works_is_announced(kit: Kit) -> Outcome {
    let capabilities = capabilities(&kit, "").await?;
    let execution = capabilities.execution_capabilities.context("execution capabilities")?;
    assert!(execution.exec_enabled);
    let range = |announced: Option<proto::PriorityCapabilities>| {
        let ranges = announced.map(|announced| announced.priorities).unwrap_or_default();
        ranges.iter().map(|range| (range.min_priority, range.max_priority)).collect::<Vec<_>>()
    };
    assert_eq!(range(execution.execution_priority_capabilities), [(-1000, 1000)]);
    assert_eq!(execution.supported_node_properties, ["SubtreeReadOnly", "mtime", "unix_mode"]);
    let cache = capabilities.cache_capabilities.context("cache capabilities")?;
    assert!(cache.action_cache_update_capabilities.is_some_and(|update| update.update_enabled));
    assert_eq!(cache.max_batch_total_size_bytes, (4 << 20) - (64 << 10));
    let allowed = symlink_absolute_path_strategy::Value::Allowed;
    assert_eq!(cache.symlink_absolute_path_strategy, allowed as i32);
    let compressors = Compressor::ALL.map(|compressor| i32::from(compressor.value()));
    assert_eq!(cache.supported_compressors, compressors);
    assert_eq!(cache.supported_batch_update_compressors, compressors);
    assert_eq!(range(cache.cache_priority_capabilities), [(0, 0)]);
    assert!(cache.split_blob_support && cache.splice_blob_support);
    let fast_cdc = cache.fast_cdc_2020_params.context("parameters of FastCDC")?;
    assert_eq!((fast_cdc.avg_chunk_size_bytes, fast_cdc.seed), (512 << 10, 0));
    let rep_max = cache.rep_max_cdc_params.context("parameters of RepMaxCDC")?;
    assert_eq!((rep_max.min_chunk_size_bytes, rep_max.horizon_size_bytes), (256 << 10, 2 << 20));
    assert_eq!(cache.max_cas_blob_size_bytes, 0);
    Ok(())
}

async fn instances_are_all_the_same(kit: Kit) -> Outcome {
    assert_eq!(capabilities(&kit, "").await?, capabilities(&kit, "team/project").await?);
    assert!(capabilities(&kit, "a//b").await.is_err());
    Ok(())
}

async fn other_instances_than_the_allowed_ones_are_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().flag("--instance-names=main,team/a").start().await?;
    for (instance, is_allowed) in
        [("main", true), ("team/a", true), ("", false), ("team", false), ("main/x", false)]
    {
        let client = daemon.client().with_instance(instance);
        let content = format!("of {instance}");
        let digest = client.digest(&content);
        let (upload, download) = (client.upload_name(&digest), client.download_name(&digest));
        let action = client.bare_action(["./tool"]).executable("tool", elf::exit_with(0));
        let name = || instance.to_owned();
        let asked = proto::GetCapabilitiesRequest { instance_name: name() };
        let request =
            proto::BatchUpdateBlobsRequest { instance_name: name(), ..Default::default() };
        let result = proto::GetActionResultRequest {
            instance_name: name(),
            action_digest: Some(digest.to_proto()),
            ..Default::default()
        };
        let refusals = [
            client.capabilities().get_capabilities(asked).await.err(),
            client.write(&upload, content.as_bytes(), 100).await.err(),
            client.read(&download, 0, 0).await.err(),
            client.cas().batch_update_blobs(request).await.err(),
            client.action_cache().get_action_result(result).await.err(),
            client.execution().execute(action.request()).await.err(),
        ];
        for (call, refusal) in refusals.into_iter().enumerate() {
            let is_refused = refusal.as_ref().is_some_and(|status| {
                status.code() == Code::InvalidArgument
                    && status.message().contains("has no instance")
            });
            assert_eq!(is_refused, !is_allowed, "{instance}, call {call}: {refusal:?}");
        }
        if is_allowed {
            assert_eq!(client.get(&digest).await?, content.as_bytes());
            action.run().await?.succeeded().await?;
        }
    }
    Ok(())
}

async fn health_is_serving(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let response = daemon.client().health().check(HealthCheckRequest::default()).await?;
    assert_eq!(response.into_inner().status(), ServingStatus::Serving);
    Ok(())
}

async fn methods_that_are_not_there_say_so(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let mut grpc = tonic::client::Grpc::new(client.channel());
    grpc.ready().await?;
    let path = "/build.bazel.remote.execution.v2.ContentAddressableStorage/NoSuchMethod".parse()?;
    let codec = tonic_prost::ProstCodec::<_, proto::Digest>::default();
    let message = tonic::Request::new(proto::Digest::default());
    let status = grpc.unary(message, path, codec).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    // The connection is as good as before.
    client.put("still here").await?;
    Ok(())
}

/// Asks the server about itself.
async fn reflect(kit: &Kit, question: MessageRequest) -> anyhow::Result<MessageResponse> {
    let daemon = kit.daemon().start().await?;
    let mut client = ServerReflectionClient::new(daemon.client().channel());
    let message = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut answers =
        client.server_reflection_info(tokio_stream::iter([message])).await?.into_inner();
    let answer = answers.message().await?.context("an answer")?;
    answer.message_response.context("a message in the answer")
}

async fn reflection_lists_the_services(kit: Kit) -> Outcome {
    let answer = reflect(&kit, MessageRequest::ListServices(String::new())).await?;
    let MessageResponse::ListServicesResponse(list) = answer else {
        anyhow::bail!("{answer:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for service in [
        "actiond.internal.v1.CAS",
        "actiond.internal.v1.Images",
        "build.bazel.remote.asset.v1.Fetch",
        "build.bazel.remote.asset.v1.Push",
        "build.bazel.remote.execution.v2.ActionCache",
        "build.bazel.remote.execution.v2.Capabilities",
        "build.bazel.remote.execution.v2.ContentAddressableStorage",
        "build.bazel.remote.execution.v2.Execution",
        "google.bytestream.ByteStream",
        "google.longrunning.Operations",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|name| name == service), "{service} in {names:?}");
    }
    Ok(())
}

async fn reflection_describes_a_method(kit: Kit) -> Outcome {
    let symbol = "build.bazel.remote.execution.v2.Execution.Execute".to_owned();
    let answer = reflect(&kit, MessageRequest::FileContainingSymbol(symbol)).await?;
    let MessageResponse::FileDescriptorResponse(files) = answer else {
        anyhow::bail!("{answer:?}");
    };
    let file = files.file_descriptor_proto.first().context("a file")?;
    let file = prost_types::FileDescriptorProto::decode(file.as_slice())?;
    let messages: Vec<_> = file.message_type.iter().map(|message| message.name()).collect();
    assert!(messages.contains(&"ExecuteRequest") && messages.contains(&"Digest"), "{messages:?}");
    Ok(())
}
