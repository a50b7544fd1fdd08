//! Numbers about calls and connections, for the operator's metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message as _;
use prost_types::FileDescriptorSet;

use super::budget::Budget;

/// Numbers that the services count. Clones are the same numbers.
#[derive(Clone)]
pub struct Meters(Arc<Numbers>);

struct Numbers {
    budget: Arc<Budget>,
    /// Calls of each method, by path. The keys are fixed at the start: what clients ask for besides is `other`.
    calls: HashMap<String, AtomicU64>,
    other_calls: AtomicU64,
}

impl Meters {
    /// All at zero, for a server with a budget of memory that fits this machine.
    pub fn of_this_machine() -> Self {
        let calls = paths().into_iter().map(|path| (path, AtomicU64::new(0))).collect();
        let (budget, other_calls) = (Budget::of_this_machine(), AtomicU64::new(0));
        Self(Arc::new(Numbers { budget, calls, other_calls }))
    }

    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.0.budget
    }

    /// Counts a call of the method at `path`, such as `/google.bytestream.ByteStream/Read`.
    pub(crate) fn call(&self, path: &str) {
        let counter = self.0.calls.get(path).unwrap_or(&self.0.other_calls);
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The methods that are counted, as `package.Service/Method`, and `other`; in order.
    pub fn methods(&self) -> Vec<String> {
        let mut methods: Vec<String> =
            self.0.calls.keys().map(|path| path.trim_start_matches('/').to_owned()).collect();
        methods.push("other".to_owned());
        methods.sort_unstable();
        methods
    }

    /// Calls of a method of [`Meters::methods`], answered or not.
    pub fn calls(&self, method: &str) -> u64 {
        let counter = self.0.calls.get(&format!("/{method}")).unwrap_or(&self.0.other_calls);
        counter.load(Ordering::Relaxed)
    }

    /// Open connections.
    pub fn connections(&self) -> u64 {
        self.0.budget.connections()
    }

    /// Memory that is held for clients, in bytes.
    pub fn lent_bytes(&self) -> u64 {
        self.0.budget.held_bytes()
    }

    /// The most that is lent beside what connections are guaranteed, in bytes.
    pub fn lendable_bytes(&self) -> u64 {
        self.0.budget.limit_bytes()
    }

    /// Bytes of requests, without headers.
    pub fn received_bytes(&self) -> u64 {
        self.0.budget.received_bytes()
    }

    /// Bytes of answers, without headers.
    pub fn sent_bytes(&self) -> u64 {
        self.0.budget.sent_bytes()
    }
}

/// The paths of all methods that are described.
fn paths() -> Vec<String> {
    // The descriptors are our own, and reflection fails to start with ones that can't be decoded.
    let described = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap_or_default();
    let mut paths = Vec::new();
    for file in described.file {
        for service in &file.service {
            for method in &service.method {
                let (package, service, method) = (file.package(), service.name(), method.name());
                paths.push(format!("/{package}.{service}/{method}"));
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_clients_invent_none() {
        let meters = Meters::of_this_machine();
        meters.call("/google.bytestream.ByteStream/Read");
        meters.call("/google.bytestream.ByteStream/Read");
        for invented in ["/a/b", "", "google.bytestream.ByteStream/Read", "/other"] {
            meters.call(invented);
        }
        assert_eq!(meters.calls("google.bytestream.ByteStream/Read"), 2);
        assert_eq!(meters.calls("build.bazel.remote.execution.v2.Execution/Execute"), 0);
        assert_eq!(meters.calls("other"), 4);
        let methods = meters.methods();
        assert!(methods.len() > 20 && methods.is_sorted(), "{methods:?}");
        assert!(methods.contains(&"actiond.internal.v1.History/ListRecords".to_owned()));
    }
}
