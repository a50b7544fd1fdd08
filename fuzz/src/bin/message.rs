//! The budget of messages: decoding takes no more memory than was counted before. An allocator that keeps
//! count says what it took.
#![no_main]

use std::alloc::System;

use fuzz::Choices;
use libfuzzer_sys::fuzz_target;
use model::proto::{self, Message};
use prost::bytes::Bytes;
use proto::google;
use proto_crate::encoded::reapi as encoded;
use proto_crate::shape::{Shaped, decoded_bytes};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn check<M: Message + Default + Shaped>(message: &[u8]) {
    let counted = decoded_bytes::<M>(message, u64::MAX);
    assert!(
        counted >= decoded_bytes::<M>(message, 100).min(counted),
        "a limit only ends it earlier"
    );
    // Fields of bytes share this buffer, which is borrowed apart from what is counted.
    let message = Bytes::copy_from_slice(message);
    let region = Region::new(ALLOCATOR);
    let decoded = M::decode(message.clone());
    let change = region.change();
    if decoded.is_ok() {
        let taken = change.bytes_allocated.saturating_sub(change.bytes_deallocated) as u64;
        assert!(taken <= counted, "{taken} bytes were taken, and {counted} counted");
    }
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let kind = choices.byte();
    let message = choices.bytes(input.len());
    match kind % 12 {
        0 => check::<proto::ActionResult>(message),
        1 => check::<proto::Action>(message),
        2 => check::<proto::Command>(message),
        3 => check::<proto::Directory>(message),
        4 => check::<proto::Tree>(message),
        5 => check::<proto::ExecuteRequest>(message),
        6 => check::<proto::UpdateActionResultRequest>(message),
        7 => check::<proto::RequestMetadata>(message),
        8 => check::<proto::GetTreeRequest>(message),
        9 => check::<encoded::BatchUpdateBlobsRequest>(message),
        10 => check::<encoded::FindMissingBlobsRequest>(message),
        _ => check::<google::longrunning::ListOperationsRequest>(message),
    }
});
