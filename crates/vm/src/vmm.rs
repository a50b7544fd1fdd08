//! What a virtual machine monitor must be able to do.
//!
//! The trait is all that the rest of the host knows of QEMU or Virtualization.framework. A clean
//! stop is not part of it: that is asked of the guest, over the control protocol.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

/// A future on the heap, as traits behind `dyn` need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel, in a form that the VMM loads without help.
    pub kernel: PathBuf,
    /// The initramfs, a cpio archive.
    pub initramfs: PathBuf,
    /// The disk that holds the store, read-write.
    pub cas_image: PathBuf,
    /// Whether the guest may make a file system on that disk if it finds it blank.
    pub format_cas: bool,
    /// The disk with the runtimes, read-only.
    pub runtime_image: Option<PathBuf>,
    /// The guest's memory, in MiB.
    pub memory_mib: u32,
    /// The guest's CPUs.
    pub cpus: u32,
}

/// Why a machine did not start. The text names the cause and what can be done about it.
#[derive(Debug, thiserror::Error)]
#[error("starting the VM")]
pub struct StartError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Why there is no connection to a port of the guest.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The machine is not there any more.
    #[error("the VM has ended")]
    Ended,
    /// All the connections that the transport can carry are in use.
    #[error("too many connections to the guest")]
    TooMany,
    /// The guest does not listen (yet), or the transport failed.
    #[error("connecting to guest port {port}")]
    Refused {
        /// The guest's port.
        port: u32,
        /// What the system says.
        source: std::io::Error,
    },
}

/// How a machine came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// For the log: the VMM's exit status and its last words.
    pub description: String,
}

/// A connection to a port of the guest. Shutting down its writing half tells the guest so and
/// leaves the other half open.
pub trait GuestStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> GuestStream for T {}

/// Boots machines.
pub trait Vmm: Send + Sync {
    /// For the log.
    fn name(&self) -> &'static str;

    /// Boots a machine. Returns when the VMM runs, which is before the guest can be talked to.
    fn start<'a>(&'a self, boot: &'a Boot) -> BoxFuture<'a, Result<Arc<dyn Machine>, StartError>>;
}

/// A machine that was booted. Dropping the last reference kills it.
pub trait Machine: Send + Sync {
    /// Connects to `port` of the guest. While the guest boots, vsock refuses and the mux waits: callers
    /// must be ready for both.
    fn connect(&self, port: u32) -> BoxFuture<'_, Result<Box<dyn GuestStream>, ConnectError>>;

    /// Waits for the machine's end, whatever the reason. May be asked any number of times.
    fn ended(&self) -> BoxFuture<'_, Ended>;

    /// Ends the machine at once, as if by pulling the plug. [`ended`](Self::ended) tells when it is
    /// done.
    fn kill(&self);
}
