//! What the server says about itself.

use anyhow::Context as _;
use testkit::proto::{self, digest_function, symlink_absolute_path_strategy};
use testkit::{DigestFunction, Kit, Outcome};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    the_versions_span_all_of_v2,
    sha256_comes_first,
    only_what_works_is_announced,
    instances_are_all_the_same,
    health_is_serving,
    methods_that_are_not_there_say_so,
}

async fn capabilities(kit: &Kit, instance: &str) -> anyhow::Result<proto::ServerCapabilities> {
    let daemon = kit.daemon().start().await?;
    let message = proto::GetCapabilitiesRequest { instance_name: instance.to_owned() };
    Ok(daemon.client().capabilities().get_capabilities(message).await?.into_inner())
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
    let functions = [digest_function::Value::Sha256 as i32, digest_function::Value::Blake3 as i32];
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
    assert_eq!(execution.execution_priority_capabilities, None);
    assert!(execution.supported_node_properties.is_empty());
    let cache = capabilities.cache_capabilities.context("cache capabilities")?;
    assert!(cache.action_cache_update_capabilities.is_some_and(|update| update.update_enabled));
    assert_eq!(cache.max_batch_total_size_bytes, 4 << 20);
    let allowed = symlink_absolute_path_strategy::Value::Allowed;
    assert_eq!(cache.symlink_absolute_path_strategy, allowed as i32);
    let zstd = [proto::compressor::Value::Zstd as i32];
    assert_eq!(cache.supported_compressors, zstd);
    assert_eq!(cache.supported_batch_update_compressors, zstd);
    assert_eq!(cache.cache_priority_capabilities, None);
    assert!(!cache.split_blob_support && !cache.splice_blob_support);
    assert_eq!(cache.max_cas_blob_size_bytes, 0);
    Ok(())
}

async fn instances_are_all_the_same(kit: Kit) -> Outcome {
    assert_eq!(capabilities(&kit, "").await?, capabilities(&kit, "team/project").await?);
    assert!(capabilities(&kit, "a//b").await.is_err());
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
    let digest = client.digest(b"blob");
    let split = proto::SplitBlobRequest {
        blob_digest: Some(digest.to_proto()),
        digest_function: DigestFunction::Sha256.to_proto(),
        ..proto::SplitBlobRequest::default()
    };
    let status = client.cas().split_blob(split).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    // The connection is as good as before.
    client.put("still here").await?;
    Ok(())
}
