//! `Capabilities`: what a server says of itself holds together, and is true.

use anyhow::{Context as _, ensure};
use testkit::Digest;
use testkit::proto::{
    self, digest_function::Value as Function, priority_capabilities::PriorityRange,
    symlink_absolute_path_strategy::Value as Strategy,
};
use tonic::{Code, Status};

use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::same;
use crate::server::Server;

pub(crate) const CHECKS: &[Check] = &[
    must!(
        versions_are_announced,
        "ServerCapabilities.high_api_version",
        "Latest RE API version supported."
    ),
    must!(
        versions_are_in_order,
        "ServerCapabilities.low_api_version",
        "Earliest non-deprecated RE API version supported."
    ),
    must!(
        an_execution_endpoint_announces_cache_and_execution,
        "Capabilities.GetCapabilities",
        "Execution + CAS + Action Cache endpoints should return both CacheCapabilities and ExecutionCapabilities."
    ),
    must!(
        the_cache_names_its_digest_functions,
        "CacheCapabilities.digest_functions",
        "All the digest functions supported by the remote cache."
    ),
    must!(
        no_digest_function_is_unknown,
        "DigestFunction.Value",
        "It is an error for the server to return this value."
    ),
    must!(
        the_legacy_digest_function_is_set,
        "ExecutionCapabilities.digest_function",
        "It MUST be set to a value other than UNKNOWN."
    ),
    must!(
        the_legacy_digest_function_is_among_all,
        "ExecutionCapabilities.digest_functions",
        "If this field is set, it MUST also contain digest_function."
    ),
    must!(
        the_batch_limit_is_a_size,
        "CacheCapabilities.max_batch_total_size_bytes",
        "Maximum total size of blobs to be uploaded/downloaded using batch methods."
    ),
    must!(
        the_blob_limit_is_a_size,
        "CacheCapabilities.max_cas_blob_size_bytes",
        "The maximum blob size that the server will accept for CAS blob uploads."
    ),
    must!(
        the_symlink_strategy_is_told,
        "CacheCapabilities.symlink_absolute_path_strategy",
        "Whether absolute symlink targets are supported."
    ),
    should!(
        compressors_are_of_the_api,
        "CacheCapabilities.supported_compressors",
        "Compressors supported by the \"compressed-blobs\" bytestream resources."
    ),
    must!(
        cache_priorities_are_ranges,
        "PriorityCapabilities.PriorityRange",
        "Supported range of priorities, including boundaries."
    ),
    must!(
        execution_priorities_are_ranges,
        "ExecutionCapabilities.execution_priority_capabilities",
        "Supported execution priority range."
    ),
    must!(
        fast_cdc_chunks_have_a_valid_average,
        "FastCdc2020Params.avg_chunk_size_bytes",
        "The value MUST be between 1 KiB and 1 MiB."
    ),
    must!(
        rep_max_cdc_chunks_have_a_valid_minimum,
        "RepMaxCdcParams.min_chunk_size_bytes",
        "The value MUST be at least 64 bytes (the Gear hash window size)."
    ),
    must!(
        an_announced_execution_service_is_there,
        "ExecutionCapabilities.exec_enabled",
        "Whether remote execution is enabled for the particular server/instance."
    ),
    must!(
        an_announced_cache_is_there,
        "Capabilities.GetCapabilities",
        "CAS + Action Cache only endpoints should return CacheCapabilities."
    ),
    must!(
        announced_splitting_is_there,
        "ContentAddressableStorage.SplitBlob",
        "Servers which implement this functionality MUST declare that they support it by setting the"
    ),
    must!(
        splitting_that_is_there_is_announced,
        "CacheCapabilities.split_blob_support",
        "Whether blob splitting is supported for the particular server/instance."
    ),
    must!(
        announced_splicing_is_there,
        "ContentAddressableStorage.SpliceBlob",
        "Servers which implement this functionality MUST declare that they support it by setting the"
    ),
    must!(
        splicing_that_is_there_is_announced,
        "CacheCapabilities.splice_blob_support",
        "Whether blob splicing is supported for the particular server/instance."
    ),
];

async fn versions_are_announced(server: Server) -> Outcome {
    let high = server.capabilities.high_api_version.as_ref().context("no high_api_version")?;
    same("the major version", high.major, 2)
}

async fn versions_are_in_order(server: Server) -> Outcome {
    let capabilities = &server.capabilities;
    let low = capabilities.low_api_version.as_ref().context("no low_api_version")?;
    let high = capabilities.high_api_version.as_ref().context("no high_api_version")?;
    let key = |version: &proto::semver::SemVer| (version.major, version.minor, version.patch);
    ensure!(key(low) <= key(high), "{low:?} comes after {high:?}");
    if let Some(deprecated) = &capabilities.deprecated_api_version {
        ensure!(key(deprecated) <= key(low), "{deprecated:?} comes after {low:?}");
    }
    Ok(())
}

async fn an_execution_endpoint_announces_cache_and_execution(server: Server) -> Outcome {
    server.execution()?;
    server.capabilities.cache_capabilities.as_ref().context("no cache_capabilities")?;
    Ok(())
}

async fn the_cache_names_its_digest_functions(server: Server) -> Outcome {
    ensure!(!server.cache()?.digest_functions.is_empty(), "no digest function is announced");
    Ok(())
}

async fn no_digest_function_is_unknown(server: Server) -> Outcome {
    let unknown = i32::from(Function::Unknown);
    let execution = server.capabilities.execution_capabilities.as_ref();
    let execution = execution.map_or(&[][..], |execution| &execution.digest_functions);
    let all = server.cache()?.digest_functions.iter().chain(execution);
    ensure!(all.copied().all(|function| function != unknown), "UNKNOWN is announced");
    Ok(())
}

async fn the_legacy_digest_function_is_set(server: Server) -> Outcome {
    let function = server.execution()?.digest_function;
    ensure!(function != i32::from(Function::Unknown), "it is UNKNOWN");
    Ok(())
}

async fn the_legacy_digest_function_is_among_all(server: Server) -> Outcome {
    let execution = server.execution()?;
    let all = &execution.digest_functions;
    ensure!(
        all.is_empty() || all.contains(&execution.digest_function),
        "{} is not in {all:?}",
        execution.digest_function
    );
    Ok(())
}

async fn the_batch_limit_is_a_size(server: Server) -> Outcome {
    let bytes = server.cache()?.max_batch_total_size_bytes;
    ensure!(bytes >= 0, "it is {bytes}");
    Ok(())
}

async fn the_blob_limit_is_a_size(server: Server) -> Outcome {
    let bytes = server.cache()?.max_cas_blob_size_bytes;
    ensure!(bytes >= 0, "it is {bytes}");
    Ok(())
}

async fn the_symlink_strategy_is_told(server: Server) -> Outcome {
    let strategy = server.cache()?.symlink_absolute_path_strategy;
    let known = [Strategy::Disallowed, Strategy::Allowed].map(i32::from);
    ensure!(known.contains(&strategy), "it is {strategy}");
    Ok(())
}

async fn compressors_are_of_the_api(server: Server) -> Outcome {
    let cache = server.cache()?;
    let all = cache.supported_compressors.iter().chain(&cache.supported_batch_update_compressors);
    for &compressor in all {
        let known = proto::compressor::Value::try_from(compressor).is_ok();
        ensure!(known, "compressor {compressor} is not one of the API");
    }
    Ok(())
}

async fn cache_priorities_are_ranges(server: Server) -> Outcome {
    match &server.cache()?.cache_priority_capabilities {
        Some(capabilities) => ranges(&capabilities.priorities),
        None => skip("no cache priorities are announced"),
    }
}

async fn execution_priorities_are_ranges(server: Server) -> Outcome {
    match &server.execution()?.execution_priority_capabilities {
        Some(capabilities) => ranges(&capabilities.priorities),
        None => skip("no execution priorities are announced"),
    }
}

fn ranges(priorities: &[PriorityRange]) -> Outcome {
    ensure!(!priorities.is_empty(), "no range is announced");
    for range in priorities {
        ensure!(range.min_priority <= range.max_priority, "{range:?} is empty");
    }
    Ok(())
}

async fn fast_cdc_chunks_have_a_valid_average(server: Server) -> Outcome {
    let Some(parameters) = &server.cache()?.fast_cdc_2020_params else {
        return skip("no fast_cdc_2020_params are announced");
    };
    let average = parameters.avg_chunk_size_bytes;
    ensure!((1 << 10..=1 << 20).contains(&average), "it is {average}");
    Ok(())
}

async fn rep_max_cdc_chunks_have_a_valid_minimum(server: Server) -> Outcome {
    let Some(parameters) = &server.cache()?.rep_max_cdc_params else {
        return skip("no rep_max_cdc_params are announced");
    };
    let minimum = parameters.min_chunk_size_bytes;
    ensure!(minimum >= 64, "it is {minimum}");
    Ok(())
}

/// Fails for a service that is announced, and UNIMPLEMENTED.
fn is_there<T>(result: Result<T, Status>, method: &str) -> Outcome {
    match result {
        Err(status) if status.code() == Code::Unimplemented => {
            // Not as the error's source: that would be a skip.
            anyhow::bail!("{method} is UNIMPLEMENTED: {}", status.message())
        }
        _ => Ok(()),
    }
}

/// A digest that no server has a blob of.
fn absent(server: &Server) -> Digest {
    server.client.digest(crate::server::unique("absent"))
}

async fn an_announced_execution_service_is_there(server: Server) -> Outcome {
    server.execution()?;
    let request = proto::ExecuteRequest {
        instance_name: server.client.instance().to_owned(),
        action_digest: Some(absent(&server).to_proto()),
        ..Default::default()
    };
    is_there(server.client.execution().execute(request).await, "Execute")?;
    let request = proto::WaitExecutionRequest { name: "operations/none".to_owned() };
    is_there(server.client.execution().wait_execution(request).await, "WaitExecution")
}

async fn an_announced_cache_is_there(server: Server) -> Outcome {
    server.cache()?;
    let (client, digest) = (&server.client, Some(absent(&server).to_proto()));
    let instance_name = client.instance().to_owned();
    let find = proto::FindMissingBlobsRequest {
        instance_name: instance_name.clone(),
        ..Default::default()
    };
    is_there(client.cas().find_missing_blobs(find).await, "FindMissingBlobs")?;
    let update = proto::BatchUpdateBlobsRequest {
        instance_name: instance_name.clone(),
        ..Default::default()
    };
    is_there(client.cas().batch_update_blobs(update).await, "BatchUpdateBlobs")?;
    let read =
        proto::BatchReadBlobsRequest { instance_name: instance_name.clone(), ..Default::default() };
    is_there(client.cas().batch_read_blobs(read).await, "BatchReadBlobs")?;
    let get = proto::GetActionResultRequest {
        instance_name,
        action_digest: digest,
        ..Default::default()
    };
    is_there(client.action_cache().get_action_result(get).await, "GetActionResult")
}

async fn split(server: &Server) -> Result<(), Status> {
    let request = proto::SplitBlobRequest {
        instance_name: server.client.instance().to_owned(),
        blob_digest: Some(absent(server).to_proto()),
        ..Default::default()
    };
    server.client.cas().split_blob(request).await.map(|_| ())
}

async fn splice(server: &Server) -> Result<(), Status> {
    let request = proto::SpliceBlobRequest {
        instance_name: server.client.instance().to_owned(),
        blob_digest: Some(absent(server).to_proto()),
        chunk_digests: vec![absent(server).to_proto()],
        ..Default::default()
    };
    server.client.cas().splice_blob(request).await.map(|_| ())
}

async fn announced_splitting_is_there(server: Server) -> Outcome {
    if !server.cache()?.split_blob_support {
        return skip("split_blob_support is false");
    }
    is_there(split(&server).await, "SplitBlob")
}

async fn splitting_that_is_there_is_announced(server: Server) -> Outcome {
    is_announced(server.cache()?.split_blob_support, split(&server).await)
}

async fn announced_splicing_is_there(server: Server) -> Outcome {
    if !server.cache()?.splice_blob_support {
        return skip("splice_blob_support is false");
    }
    is_there(splice(&server).await, "SpliceBlob")
}

async fn splicing_that_is_there_is_announced(server: Server) -> Outcome {
    is_announced(server.cache()?.splice_blob_support, splice(&server).await)
}

fn is_announced(announced: bool, answer: Result<(), Status>) -> Outcome {
    let code = answer.map_or_else(|status| status.code(), |()| Code::Ok);
    let there = matches!(code, Code::Ok | Code::NotFound);
    ensure!(announced || !there, "the method answers {code:?}, and is not announced");
    Ok(())
}
