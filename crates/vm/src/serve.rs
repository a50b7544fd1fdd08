//! `serve-vm`: its flags, and the host wired bottom up. The same for every VMM.
//!
//! ```text
//!  socket listens ─► root directory ─► CAS image locked ─► payloads ready ─► bridge, supervisor ─► READY
//!        (a mistake in any of these is told before anything boots)                                    │
//!                                                                      SIGTERM, SIGINT: guest stops ◄─┘
//! ```

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use embedded::{ExtractError, Source};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::bridge::{self, Bridge};
use crate::cas_image::{CasImage, CasImageError};
use crate::guest::Guest;
use crate::keeper;
use crate::payloads::Payloads;
use crate::supervisor::{SuperviseError, Supervisor, Timeouts};
use crate::vmm::{Boot, Vmm, WorkerFlag};

/// The part of the guest's memory that it is asked for when the host's is short: its caches are
/// seldom larger, and what actions use can't be given.
const RELIEF_PART: u64 = 2;

/// Descriptors for all of the bridge's connections, each with a socket to either side, and for the
/// rest.
const OPEN_FILES: u64 = 2 * bridge::MAX_CONNECTIONS as u64 + 256;

/// The time that connections have to end after their guest.
const CLOSING: Duration = Duration::from_secs(1);

/// Flags of `serve-vm`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Address to listen on. There is no authentication: whoever can connect can run actions
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8980")]
    pub listen: SocketAddr,

    /// Directory of the VM: what was extracted for it, and its disk
    #[arg(long, value_name = "DIR", default_value = "/tmp/actiond-vm")]
    pub root: PathBuf,

    /// The VM's disk, which holds the store [default: cas.ext4 in the root directory]
    #[arg(long, value_name = "FILE")]
    pub cas_image: Option<PathBuf>,

    /// Size of that disk. It takes only the space that is used; a smaller one grows, a larger one
    /// stays
    #[arg(long, value_name = "MIB", default_value_t = 32_768)]
    pub cas_image_size_mib: u64,

    /// Linux kernel, as it is or compressed with zstd [default: the one in this program]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,

    /// Initramfs with the guest, as it is or compressed with zstd [default: the one in this program]
    #[arg(long, value_name = "FILE")]
    pub initramfs: Option<PathBuf>,

    /// SquashFS image of the runtimes that actions ask for with the platform property `libc`
    /// [default: the one in this program, if any]
    #[arg(long, value_name = "FILE")]
    pub runtime_image: Option<PathBuf>,

    /// Memory of the VM
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(128..))]
    pub memory_mib: u32,

    /// CPUs of the VM
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,

    /// The time that the VMM has to start
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    pub start_timeout_ms: u64,

    /// The time that the guest has until it serves, and that clients wait for it
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    pub connect_timeout_ms: u64,

    /// File that gets the guest's counters once a second
    #[arg(long, value_name = "FILE")]
    pub actiondfs_stats_path: Option<PathBuf>,

    /// Give the worker in the VM this flag of `serve`, such as --worker-flag=--jobs=4; as often as
    /// needed
    #[arg(long = "worker-flag", value_name = "FLAG", allow_hyphen_values = true)]
    pub worker_flags: Vec<WorkerFlag>,
}

/// Errors of serving from a VM.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The root directory can't be made or looked at.
    #[error("the root directory {}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Somebody else could put another kernel there.
    #[error(
        "the root directory {} belongs to somebody else or can be written by others: choose \
         another with --root",
        path.display()
    )]
    RootNotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// The address can't be listened on.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
    /// The disk can't be had.
    #[error(transparent)]
    CasImage(#[from] CasImageError),
    /// A payload is neither given nor built in.
    #[error("this program carries no {0}: give one with --{0}")]
    NoPayload(&'static str),
    /// A payload can't be used.
    #[error(transparent)]
    Payload(#[from] ExtractError),
    /// They don't fit.
    #[error("all --worker-flag together may have {} bytes", WorkerFlag::MAX_BYTES)]
    WorkerFlags,
    /// The guest does not boot, or does not stay.
    #[error(transparent)]
    Guest(#[from] SuperviseError),
    /// Signals can't be listened for.
    #[error("listening for signals")]
    Signals(#[source] io::Error),
    /// A task of ours panicked.
    #[error("a part of the program was lost")]
    Lost(#[source] tokio::task::JoinError),
}

/// Serves until a signal asks for the end, or the guest can't be kept. `program` is what the line on
/// standard error that tells the address begins with.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    arguments: Arguments,
    payloads: Payloads,
    vmm: Arc<dyn Vmm>,
    program: &str,
) -> Result<(), ServeError> {
    let stop = stop_asked().map_err(ServeError::Signals)?;
    allow_open_files();
    let listen = |source| ServeError::Listen { address: arguments.listen, source };
    // First: clients of a program that is started again wait, and are not turned away.
    let listener = TcpListener::bind(arguments.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let prepared = tokio::task::spawn_blocking({
        let arguments = arguments.clone();
        move || prepare(&arguments, &payloads)
    });
    let (boot, image) = prepared.await.map_err(ServeError::Lost)??;
    let milliseconds = Duration::from_millis;
    let timeouts = Timeouts {
        start: milliseconds(arguments.start_timeout_ms),
        connect: milliseconds(arguments.connect_timeout_ms),
    };
    let relief_bytes = u64::from(boot.memory_mib) * (1 << 20) / RELIEF_PART;
    let supervisor = Supervisor::new(vmm, boot, timeouts);
    let guest = supervisor.guest();
    let bridge = Bridge::new(listener, guest.clone(), timeouts.connect);
    let connections = bridge.connections();
    let helpers = async {
        let (never, ..) = tokio::join!(
            bridge.serve(),
            announce(guest.clone(), address, program),
            keeper::relieve(guest.clone(), relief_bytes),
            write_stats(guest, arguments.actiondfs_stats_path),
        );
        never
    };
    let result = tokio::select! {
        result = supervisor.run(stop) => result,
        never = helpers => match never {},
    };
    // They end with the guest, and say how long they took.
    if tokio::time::timeout(CLOSING, connections.ended()).await.is_err() {
        tracing::warn!("connections were still open at the end");
    }
    // The lock on the image is held until the guest is gone.
    drop(image);
    Ok(result?)
}

/// Takes as many descriptors as the bridge may need. Many systems give a process 1024 or less unless
/// it asks; where there are no more, clients beyond that wait.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if limit.current.is_none_or(|now| now >= current) {
        return;
    }
    let raised = Rlimit { current: Some(current), maximum: limit.maximum };
    if let Err(errno) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%errno, "the limit of open files stays as it is");
    }
}

/// Everything on disk that a boot needs.
fn prepare(arguments: &Arguments, payloads: &Payloads) -> Result<(Boot, CasImage), ServeError> {
    let root = &arguments.root;
    make_root(root)?;
    let image_path = arguments.cas_image.clone().unwrap_or_else(|| root.join("cas.ext4"));
    let image = CasImage::open(&image_path, arguments.cas_image_size_mib)?;
    let given = |path: &Option<PathBuf>| path.as_ref().map(Source::file);
    let wanted = Payloads {
        kernel: given(&arguments.kernel).or_else(|| payloads.kernel.clone()),
        initramfs: given(&arguments.initramfs).or_else(|| payloads.initramfs.clone()),
        runtimes: given(&arguments.runtime_image).or_else(|| payloads.runtimes.clone()),
    };
    let ready = wanted.extract(root)?;
    let boot = Boot {
        kernel: ready.kernel.ok_or(ServeError::NoPayload("kernel"))?,
        initramfs: ready.initramfs.ok_or(ServeError::NoPayload("initramfs"))?,
        cas_image: image.path().to_owned(),
        format_cas: image.is_blank(),
        runtime_image: ready.runtimes,
        memory_mib: arguments.memory_mib,
        cpus: arguments.cpus,
        worker_flags: arguments.worker_flags.clone(),
    };
    if boot.guest_words().len() > WorkerFlag::MAX_BYTES {
        return Err(ServeError::WorkerFlags);
    }
    Ok((boot, image))
}

/// Makes the root directory for us alone, or checks that one that is there is ours: whoever can write
/// to it can choose what the VM boots.
fn make_root(path: &Path) -> Result<(), ServeError> {
    let failed = |source| ServeError::Root { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let metadata = path.metadata().map_err(failed)?;
    if is_ours(&metadata) { Ok(()) } else { Err(ServeError::RootNotOurs { path: path.to_owned() }) }
}

fn is_ours(metadata: &Metadata) -> bool {
    let writable_by_others = metadata.mode() & 0o022 != 0;
    metadata.uid() == rustix::process::geteuid().as_raw() && !writable_by_others
}

/// Ready when a signal asks for the end.
fn stop_asked() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Tells where the service is, once it is.
async fn announce(mut guest: watch::Receiver<Guest>, address: SocketAddr, program: &str) {
    if guest.wait_for(|guest| matches!(guest, Guest::Ready(_))).await.is_ok() {
        eprintln!("{program}: serving on {address}");
    }
}

async fn write_stats(guest: watch::Receiver<Guest>, path: Option<PathBuf>) {
    if let Some(path) = path {
        keeper::write_stats(guest, path).await;
    }
}

#[cfg(test)]
mod tests;
