//! `Capabilities`: what this server does, and nothing that it does not.

use std::convert::Infallible;
use std::future::ready;
use std::ops::RangeInclusive;

use access::{Policy, Right};
use model::proto::{
    ActionCacheUpdateCapabilities, CacheCapabilities, ExecutionCapabilities,
    GetCapabilitiesRequest, PriorityCapabilities, ServerCapabilities,
    priority_capabilities::PriorityRange, semver::SemVer, symlink_absolute_path_strategy,
};
use model::{DigestFunction, DigestFunctions, InstanceNames, NodeProperties, SUBTREE_READ_ONLY};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Request, Response, Status};
use worker::PRIORITIES;

use crate::cas::{MAX_BATCH_TOTAL_SIZE_BYTES, fast_cdc_parameters, rep_max_cdc_parameters};
use crate::compression::Compression;
use crate::grpc::{Call, Methods};
use crate::offer::Offer;
use crate::request;

/// The service.
#[derive(Clone)]
pub(crate) struct Capabilities {
    offered: OfferedFunctions,
    instances: InstanceNames,
    /// Whether somebody may run actions.
    executes: bool,
    /// Whether somebody may upload results.
    updates_results: bool,
}

/// The digest functions that a server offers.
#[derive(Debug, Clone, Copy)]
pub struct OfferedFunctions {
    /// Those of blobs and cached results.
    pub cache: DigestFunctions,
    /// Those of actions: the mechanism that shows input trees may not know all.
    pub execution: DigestFunctions,
}

impl Capabilities {
    /// The capabilities of a server with those functions and instances, and that policy.
    pub(crate) fn new(
        offered: OfferedFunctions,
        instances: InstanceNames,
        policy: &Policy,
    ) -> Self {
        Self {
            offered,
            instances,
            executes: !policy.withholds(Right::Execute),
            updates_results: !policy.withholds(Right::WriteAc),
        }
    }
}

impl Methods for Capabilities {
    const NAME: &'static str = "build.bazel.remote.execution.v2.Capabilities";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        match method {
            "GetCapabilities" => call.unary(move |request| ready(self.get_capabilities(&request))),
            _ => call.unimplemented(),
        }
    }
}

impl Capabilities {
    fn get_capabilities(
        &self,
        request: &Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        let offer = Offer { functions: self.offered.cache, instances: self.instances.clone() };
        request::instance_name(&offer, &request.get_ref().instance_name)?;
        Ok(Response::new(self.capabilities()))
    }

    /// The same for every instance.
    fn capabilities(&self) -> ServerCapabilities {
        ServerCapabilities {
            cache_capabilities: Some(cache(&self.offered.cache, self.updates_results)),
            // Without them, clients take the server for a cache.
            execution_capabilities: self.executes.then(|| execution(&self.offered.execution)),
            deprecated_api_version: None,
            low_api_version: Some(version(2, 0)),
            high_api_version: Some(version(2, 12)),
        }
    }
}

fn cache(offered: &DigestFunctions, update_enabled: bool) -> CacheCapabilities {
    let compressors = Compression::ANNOUNCED.map(Compression::to_proto).to_vec();
    CacheCapabilities {
        digest_functions: digest_functions(offered),
        action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities { update_enabled }),
        max_batch_total_size_bytes: MAX_BATCH_TOTAL_SIZE_BYTES as i64,
        symlink_absolute_path_strategy: symlink_absolute_path_strategy::Value::Allowed.into(),
        supported_compressors: compressors.clone(),
        supported_batch_update_compressors: compressors,
        split_blob_support: true,
        splice_blob_support: true,
        fast_cdc_2020_params: Some(fast_cdc_parameters()),
        rep_max_cdc_params: Some(rep_max_cdc_parameters()),
        // All results are kept alike.
        cache_priority_capabilities: Some(priorities(0..=0)),
        // No limit to a blob's size.
        ..CacheCapabilities::default()
    }
}

fn execution(offered: &DigestFunctions) -> ExecutionCapabilities {
    ExecutionCapabilities {
        // Clients of REAPI 2.2 and before read only this one.
        digest_function: offered.iter().next().map_or(0, DigestFunction::to_proto),
        exec_enabled: true,
        digest_functions: digest_functions(offered),
        execution_priority_capabilities: Some(priorities(PRIORITIES)),
        supported_node_properties: node_properties(),
    }
}

/// The node properties of inputs, sorted. Outputs have the same but for the one of directories.
fn node_properties() -> Vec<String> {
    [SUBTREE_READ_ONLY].into_iter().chain(NodeProperties::NAMES).map(str::to_owned).collect()
}

fn priorities(range: RangeInclusive<i32>) -> PriorityCapabilities {
    let range = PriorityRange { min_priority: *range.start(), max_priority: *range.end() };
    PriorityCapabilities { priorities: vec![range] }
}

fn digest_functions(offered: &DigestFunctions) -> Vec<i32> {
    offered.iter().map(DigestFunction::to_proto).collect()
}

fn version(major: i32, minor: i32) -> SemVer {
    SemVer { major, minor, ..SemVer::default() }
}
