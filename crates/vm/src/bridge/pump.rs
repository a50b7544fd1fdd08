//! One direction of a connection.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes that are moved at a time, and all that a direction ever holds.
const BUFFER_BYTES: usize = 64 << 10;

/// The bytes that went one way, and the time they took.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// Bytes that were passed on.
    pub(super) bytes: u64,
    /// Successful reads.
    pub(super) reads: u64,
    /// Time waited for the sender.
    pub(super) reading: Duration,
    /// Time waited for the receiver.
    pub(super) writing: Duration,
}

/// Passes on bytes until the end, then the end. `direction` is true at any time, also when this
/// future is dropped half-way.
pub(super) async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: &mut Direction,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let begun = Instant::now();
        let read = from.read(&mut buffer).await?;
        let arrived = Instant::now();
        direction.reading += arrived - begun;
        if read == 0 {
            return to.shutdown().await;
        }
        direction.reads += 1;
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        direction.writing += arrived.elapsed();
        direction.bytes += read as u64;
    }
}
