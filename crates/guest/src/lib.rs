//! PID 1 inside the VM, and the guest's side of all that host and guest say to each other.
//!
//! The guest is one static program. As `/init` it makes a Linux of a bare kernel and supervises the
//! second instance of itself, the worker: the very same services as on a Linux host, wired in
//! `actiond`, on the two ports that [`transport`] serves.
//!
//! ```text
//!  kernel ──► init (PID 1): mounts, sysctls, disks
//!               │  spawns, reaps, at the end syncs and powers off
//!               ▼
//!             worker: gRPC on port 5001, control on port 5000
//! ```
//! A worker that ends takes the machine with it: the host boots a new one, which is clean, within a
//! second, and nothing has to be able to recover from half a guest.
//!
//! - [`settings`]: what the host says on the kernel's command line.
//! - [`init`]: PID 1. - [`mounts`]: what it mounts. - [`disk`]: finding and making the CAS disk.
//! - [`power`]: the end.
//! - [`transport`]: the two ports, over vsock or the mux.
//! - [`control`]: what the guest does when the host asks.

pub mod control;
pub mod disk;
pub mod init;
pub mod mounts;
pub mod power;
pub mod settings;
pub mod transport;

/// The mount point of the CAS disk.
pub const CAS: &str = "/cas";

/// The store's root directory: not the disk's own, which has a `lost+found` in it.
pub const STORE: &str = "/cas/store";

/// The mount point of the runtimes, if there are any.
pub const RUNTIMES: &str = "/runtimes";
