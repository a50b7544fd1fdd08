//! TCP in front of the guest: a client's connection becomes one to the guest's gRPC port.
//!
//! Bytes only: no HTTP/2, no gRPC. Half-closes are kept, and a side that reads slowly slows the
//! other one down, as there is one buffer for each direction and nothing else. A client that comes
//! while the guest boots waits for it; when there is no guest, or it goes away in the middle, the
//! connection is closed, which every gRPC client reports as UNAVAILABLE and may retry.

mod pump;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use access::accept_tcp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::GRPC_PORT;
use crate::guest::{Guest, Running};
use crate::mux;
use crate::vmm::{ConnectError, GuestStream};
use pump::{Direction, pump};

/// Connections at a time: what the narrower of the two transports can carry. At the limit, new ones
/// wait in the kernel's backlog.
pub(crate) const MAX_CONNECTIONS: usize = mux::MAX_CONNECTIONS;

/// The wait between attempts to connect to a guest that is there but does not take it.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// Connections below both of these are not logged: health checks, and calls that carry no data.
const LOG_FROM_BYTES: u64 = 64 << 10;
const LOG_FROM: Duration = Duration::from_millis(10);

/// A listening TCP socket in front of a guest.
pub struct Bridge {
    listener: TcpListener,
    guest: watch::Receiver<Guest>,
    connect_timeout: Duration,
    free: Arc<Semaphore>,
}

/// The connections of a bridge.
pub struct Connections(Arc<Semaphore>);

impl Connections {
    /// Waits until none is open. No new one may come meanwhile: the bridge does not serve any more.
    pub async fn ended(&self) {
        // Never closed, so never an error.
        let _all = self.0.acquire_many(MAX_CONNECTIONS as u32).await;
    }
}

impl Bridge {
    /// A bridge from what comes to `listener`. Clients wait up to `connect_timeout` for the guest.
    pub fn new(
        listener: TcpListener,
        guest: watch::Receiver<Guest>,
        connect_timeout: Duration,
    ) -> Self {
        Self { listener, guest, connect_timeout, free: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    /// The connections, to wait for their end.
    pub fn connections(&self) -> Connections {
        Connections(Arc::clone(&self.free))
    }

    /// Accepts connections for ever. Dropping the future stops that; the connections that it has
    /// accepted live until either side or the guest ends them.
    pub async fn serve(self) -> Infallible {
        loop {
            let permit = Arc::clone(&self.free).acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            let client = accept_tcp(&self.listener).await;
            let guest = self.guest.clone();
            let connect_timeout = self.connect_timeout;
            tokio::spawn(async move {
                carry(client, guest, connect_timeout).await;
                drop(permit);
            });
        }
    }
}

/// One client's connection, from its beginning to its end.
async fn carry(client: TcpStream, guest: watch::Receiver<Guest>, connect_timeout: Duration) {
    let accepted = Instant::now();
    let connecting = tokio::time::timeout(connect_timeout, connect(guest));
    let (running, stream) = match connecting.await {
        Ok(Some(connected)) => connected,
        Ok(None) => return tracing::debug!("a client was turned away: there is no guest"),
        Err(_) => {
            return tracing::warn!(
                waited_ms = connect_timeout.as_millis() as u64,
                "a client was turned away: the guest could not be reached"
            );
        }
    };
    let connect = accepted.elapsed();
    let (from_client, to_client) = client.into_split();
    let (from_guest, to_guest) = tokio::io::split(stream);
    let mut up = Direction::default();
    let mut down = Direction::default();
    let both = async {
        // The first failure ends the connection; an end of one half does not.
        tokio::try_join!(
            pump(from_client, to_guest, &mut up),
            pump(from_guest, to_client, &mut down)
        )
    };
    let outcome = tokio::select! {
        both = both => match both {
            Ok(_) => "closed",
            Err(_) => "broken",
        },
        // Else a client that says nothing would keep a connection to nowhere.
        _ = running.machine.ended() => "guest gone",
    };
    log(outcome, accepted.elapsed(), connect, &up, &down);
}

/// A connection to the guest, as soon as there is one; `None` when there won't be any more.
async fn connect(
    mut guest: watch::Receiver<Guest>,
) -> Option<(Arc<Running>, Box<dyn GuestStream>)> {
    loop {
        let running = running(&mut guest).await?;
        match running.machine.connect(GRPC_PORT).await {
            Ok(stream) => return Some((running, stream)),
            Err(ConnectError::TooMany) => return None,
            Err(ConnectError::Ended | ConnectError::Refused { .. }) => {
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
        }
    }
}

/// Waits for a guest that serves.
async fn running(guest: &mut watch::Receiver<Guest>) -> Option<Arc<Running>> {
    let settled = guest.wait_for(|guest| !matches!(guest, Guest::Booting)).await;
    match &*settled.ok()? {
        Guest::Ready(running) => Some(Arc::clone(running)),
        Guest::Booting | Guest::Stopped => None,
    }
}

/// The line that `cargo xtask timings` reads. All times in microseconds.
fn log(outcome: &str, total: Duration, connect: Duration, up: &Direction, down: &Direction) {
    if up.bytes.max(down.bytes) < LOG_FROM_BYTES && total < LOG_FROM {
        return;
    }
    tracing::info!(
        outcome,
        total_us = total.as_micros() as u64,
        connect_us = connect.as_micros() as u64,
        client_to_guest_bytes = up.bytes,
        client_to_guest_reads = up.reads,
        client_to_guest_read_us = up.reading.as_micros() as u64,
        client_to_guest_write_us = up.writing.as_micros() as u64,
        guest_to_client_bytes = down.bytes,
        guest_to_client_reads = down.reads,
        guest_to_client_read_us = down.reading.as_micros() as u64,
        guest_to_client_write_us = down.writing.as_micros() as u64,
        "vm bridge timing"
    );
}

#[cfg(test)]
mod tests;
