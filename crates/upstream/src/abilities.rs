//! The abilities of an upstream.

use model::DigestFunction;
use model::proto::{ServerCapabilities, compressor};

/// The bytes of a batch without the digests and the status of its blobs, for servers that name no limit: gRPC's
/// default for a message is 4 MiB.
const BATCH_BYTES_MAX: u64 = (4 << 20) - (256 << 10);

/// The capabilities that a server announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Abilities {
    pub(crate) batch_bytes: u64,
    pub(crate) has_zstd: bool,
    pub(crate) has_batch_zstd: bool,
    functions: Vec<i32>,
    pub(crate) takes_results: bool,
    pub(crate) runs_actions: bool,
}

impl Abilities {
    /// Whether the server knows digests of that function.
    pub(crate) fn knows(&self, function: DigestFunction) -> bool {
        self.functions.contains(&function.to_proto())
    }

    /// The capabilities of an object store, which takes anything.
    #[cfg(feature = "objects")]
    pub(crate) fn of_objects() -> Self {
        Self {
            batch_bytes: BATCH_BYTES_MAX,
            has_zstd: false,
            has_batch_zstd: false,
            functions: DigestFunction::ALL.map(DigestFunction::to_proto).to_vec(),
            takes_results: true,
            runs_actions: false,
        }
    }

    /// The capabilities in a server's answer.
    pub(crate) fn of(capabilities: &ServerCapabilities) -> Self {
        let cache = capabilities.cache_capabilities.clone().unwrap_or_default();
        let zstd = compressor::Value::Zstd as i32;
        let announced = u64::try_from(cache.max_batch_total_size_bytes).unwrap_or(0);
        let execution = capabilities.execution_capabilities.as_ref();
        let updates = cache.action_cache_update_capabilities.unwrap_or_default();
        Self {
            batch_bytes: if announced == 0 {
                BATCH_BYTES_MAX
            } else {
                announced.min(BATCH_BYTES_MAX)
            },
            has_zstd: cache.supported_compressors.contains(&zstd),
            has_batch_zstd: cache.supported_batch_update_compressors.contains(&zstd),
            functions: cache.digest_functions,
            takes_results: updates.update_enabled,
            runs_actions: execution.is_some_and(|it| it.exec_enabled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::proto::{CacheCapabilities, ExecutionCapabilities, digest_function};

    #[test]
    fn batches_are_what_the_server_and_grpc_take() {
        let batch_bytes = |announced| {
            let cache =
                CacheCapabilities { max_batch_total_size_bytes: announced, ..Default::default() };
            let capabilities =
                ServerCapabilities { cache_capabilities: Some(cache), ..Default::default() };
            Abilities::of(&capabilities).batch_bytes
        };
        assert_eq!(batch_bytes(0), BATCH_BYTES_MAX);
        assert_eq!(batch_bytes(1 << 20), 1 << 20);
        assert_eq!(batch_bytes(1 << 40), BATCH_BYTES_MAX);
        assert_eq!(batch_bytes(-1), BATCH_BYTES_MAX);
    }

    #[test]
    fn an_engine_announces_that_it_runs_actions() {
        let runs = |execution_capabilities| {
            let answer = ServerCapabilities { execution_capabilities, ..Default::default() };
            Abilities::of(&answer).runs_actions
        };
        assert!(!runs(None));
        assert!(!runs(Some(ExecutionCapabilities::default())));
        let enabled = ExecutionCapabilities { exec_enabled: true, ..Default::default() };
        assert!(runs(Some(enabled)));
    }

    #[test]
    fn only_announced_functions_are_known() {
        let cache = CacheCapabilities {
            digest_functions: vec![digest_function::Value::Sha256 as i32],
            ..Default::default()
        };
        let abilities = Abilities::of(&ServerCapabilities {
            cache_capabilities: Some(cache),
            ..Default::default()
        });
        assert!(abilities.knows(DigestFunction::Sha256));
        assert!(!abilities.knows(DigestFunction::Blake3));
        assert!(!abilities.has_zstd && !abilities.takes_results);
    }
}
