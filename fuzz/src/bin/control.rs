//! The control protocol: a guest serves any bytes of a host, and a host reads any bytes of a guest.
#![no_main]

use fuzz::block_on;
use libfuzzer_sys::fuzz_target;
use vm::control::frame::{Response, read_response, write_response};
use vm::control::{Handler, MemoryRelease, ReleasedMemory, SetTime, TimeSet, serve_connection};

/// Refuses everything.
struct Refuses;

impl Handler for Refuses {
    async fn actiondfs_stats(&self) -> Result<Vec<u8>, String> {
        Ok(b"stats".to_vec())
    }

    async fn shutdown(&self) -> Result<(), String> {
        Ok(())
    }

    async fn set_time(&self, _: SetTime) -> Result<TimeSet, String> {
        Err("no".to_owned())
    }

    async fn memory_pressure(&self, _: MemoryRelease) -> Result<ReleasedMemory, String> {
        Err("no".to_owned())
    }
}

const MAX_BODY_BYTES: u64 = 1 << 20;

fuzz_target!(|input: &[u8]| {
    block_on(async {
        let mut answers = Vec::new();
        let mut stream = tokio::io::join(input, &mut answers);
        let _ = serve_connection(&mut stream, &Refuses).await;
        // The host understands every answer of the guest.
        let mut answers = answers.as_slice();
        while !answers.is_empty() {
            read_response(&mut answers, MAX_BODY_BYTES).await.expect("an answer");
        }
        let mut rest = input;
        if let Ok(response) = read_response(&mut rest, MAX_BODY_BYTES).await {
            let mut again = Vec::new();
            write_response(&mut again, &response).await.expect("memory");
            let read = input.len() - rest.len();
            let is_text = matches!(response, Response::ApplicationError(_));
            assert!(is_text || again == input[..read], "it is written as it was read");
        }
    });
});
