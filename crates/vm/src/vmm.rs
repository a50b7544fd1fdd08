//! The interface of a virtual machine monitor.
//!
//! The trait is all that the rest of the host knows of QEMU or Virtualization.framework. A clean
//! stop is not part of it: that is asked of the guest, over the control protocol.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

/// A future on the heap, as traits behind `dyn` need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The machine to boot.
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
    /// Flags of `serve` for the worker in the guest.
    pub worker_flags: Vec<WorkerFlag>,
}

impl Boot {
    /// The words for the guest's kernel command line that every VMM needs, each after a space; see
    /// `docs/control-protocol.md`.
    pub fn guest_words(&self) -> String {
        let format = if self.format_cas { " actiond.format_cas=1" } else { "" };
        let flags = self.worker_flags.iter().map(|flag| format!(" actiond.worker={}", flag.0));
        std::iter::once(format.to_owned()).chain(flags).collect()
    }
}

/// A flag of `serve`, as a word of a kernel's command line can carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerFlag(String);

impl WorkerFlag {
    /// All of them together may have so many bytes: a kernel's command line has 2048
    /// (`COMMAND_LINE_SIZE` of x86 and arm64), of which the other words take less than a quarter.
    pub const MAX_BYTES: usize = 1024;

    /// The flag as a word of a command line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WorkerFlag {
    type Err = String;

    fn from_str(flag: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
        if !flag.starts_with("--") {
            return Err("a flag of `serve` begins with --; its value follows an =".to_owned());
        }
        if !flag.bytes().all(plain) {
            return Err("printable ASCII only, without spaces and quotes".to_owned());
        }
        if flag.len() > Self::MAX_BYTES {
            return Err(format!("longer than {} bytes", Self::MAX_BYTES));
        }
        Ok(Self(flag.to_owned()))
    }
}

/// An error of starting a machine. The text names the cause and its cure.
#[derive(Debug, thiserror::Error)]
#[error("starting the VM")]
pub struct StartError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Errors of connecting to a port of the guest.
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
        /// The operating system's error.
        source: std::io::Error,
    },
}

/// The end of a machine.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_flag_is_one_word() {
        for good in ["--jobs=2", "--input-root-strategy=erofs-file", "--log=info,worker=debug"] {
            assert_eq!(good.parse(), Ok(WorkerFlag(good.to_owned())));
        }
        let long = format!("--log={}", "x".repeat(WorkerFlag::MAX_BYTES));
        for bad in ["", "jobs=2", "--a b", "--a=\"b\"", "--a=\u{e9}", "--a\n", &long] {
            assert!(bad.parse::<WorkerFlag>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_guest_is_told_what_it_needs() {
        let boot = crate::testing::boot();
        let flags = ["--jobs=2", "--queue-limit=5"].map(|flag| flag.parse().unwrap());
        let boot = Boot { format_cas: true, worker_flags: flags.to_vec(), ..boot };
        let words = " actiond.format_cas=1 actiond.worker=--jobs=2 actiond.worker=--queue-limit=5";
        assert_eq!(boot.guest_words(), words);
        let boot = Boot { format_cas: false, worker_flags: Vec::new(), ..boot };
        assert_eq!(boot.guest_words(), "");
    }
}
