//! The tier below the store, as slots use it: they wait for it, as long as their action is wanted.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use events::Origin;
use model::{Digest, proto};
use prost::Message as _;
use store::{Cas, Pending, Pin, PinSet, Tier};

/// How often it is looked at whether the action is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Blobs that an action needs and that are not deleted while its inputs are brought together.
struct Needed(Vec<Digest>);

impl PinSet for Needed {
    fn contains(&self, digest: &Digest) -> bool {
        self.0.binary_search(digest).is_ok()
    }
}

/// Brings blobs into the store, as far as the tier has them, and keeps them there until the pin is dropped.
pub(crate) fn fetch(
    tier: &dyn Tier,
    cas: &Cas,
    mut blobs: Vec<Digest>,
    caller: Bytes,
    is_wanted: &dyn Fn() -> bool,
) -> Pin {
    blobs.sort_unstable();
    let pin = cas.pin(std::sync::Arc::new(Needed(blobs.clone())));
    wait(tier.fetch(blobs, caller), is_wanted);
    pin
}

/// Waits for what a tier does, while somebody wants it.
pub(crate) fn wait(pending: Pending, is_wanted: &dyn Fn() -> bool) {
    // Work that is not wanted any more goes on without us.
    let _ = wait_for(pending, is_wanted);
}

/// Waits for what others do, and returns its outcome; `None` once nobody wants it.
pub(crate) fn wait_for<T>(
    pending: impl Future<Output = T>,
    is_wanted: &dyn Fn() -> bool,
) -> Option<T> {
    let mut pending = pin!(pending);
    // Most often there is nothing to wait for, and a runtime costs some system calls.
    let mut context = Context::from_waker(Waker::noop());
    if let Poll::Ready(outcome) = pending.as_mut().poll(&mut context) {
        return Some(outcome);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else {
        tracing::warn!("no timer for waiting for the tier below the store");
        return None;
    };
    runtime.block_on(async {
        loop {
            if let Ok(outcome) = tokio::time::timeout(LOOK, pending.as_mut()).await {
                return Some(outcome);
            }
            if !is_wanted() {
                return None;
            }
        }
    })
}

/// The encoded `RequestMetadata` of an action whose request had that origin.
pub(crate) fn caller(origin: &Origin, action: &Digest) -> Bytes {
    let tool = origin.tool.as_str();
    let (tool_name, tool_version) = tool.rsplit_once(' ').unwrap_or((tool, ""));
    let metadata = proto::RequestMetadata {
        tool_details: Some(proto::ToolDetails {
            tool_name: tool_name.to_owned(),
            tool_version: tool_version.to_owned(),
        }),
        action_id: action.hex(),
        tool_invocation_id: origin.invocation.as_str().to_owned(),
        action_mnemonic: origin.mnemonic.as_str().to_owned(),
        target_id: origin.target.as_str().to_owned(),
        configuration_id: origin.configuration.as_str().to_owned(),
        ..Default::default()
    };
    metadata.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn what_is_done_is_not_waited_for() {
        let looks = AtomicUsize::new(0);
        let is_wanted = || looks.fetch_add(1, Ordering::Relaxed) == usize::MAX;
        wait(Box::pin(std::future::ready(())), &is_wanted);
        assert_eq!(looks.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_not_wanted_any_more_is_not_waited_for() {
        let looks = AtomicUsize::new(0);
        wait(Box::pin(std::future::pending()), &|| looks.fetch_add(1, Ordering::Relaxed) < 2);
        assert_eq!(looks.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_wait_ends_with_the_work() {
        let (done, is_done) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || done.send(()));
        wait(Box::pin(async move { is_done.await.unwrap_or_default() }), &|| true);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn the_names_of_a_request_are_passed_on() {
        let origin = Origin {
            tool: "bazel 7.7.1".into(),
            invocation: "i".into(),
            mnemonic: "CppCompile".into(),
            target: "//a".into(),
            configuration: "c".into(),
            ..Origin::default()
        };
        let action = Digest::of(model::DigestFunction::Sha256, b"action");
        let metadata = proto::RequestMetadata::decode(caller(&origin, &action)).unwrap();
        let tool = metadata.tool_details.unwrap();
        assert_eq!((tool.tool_name.as_str(), tool.tool_version.as_str()), ("bazel", "7.7.1"));
        assert_eq!(metadata.action_id, action.hex());
        assert_eq!(metadata.action_mnemonic, "CppCompile");
    }
}
