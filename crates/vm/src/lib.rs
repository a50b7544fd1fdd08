//! The host side of a VM that owns the store and runs the actions.
//!
//! The host boots the VM and forwards bytes; it understands neither gRPC nor blobs. Linux and macOS
//! share everything here except the backend behind [`Vmm`]. The crate `guest` runs inside the VM.
//!
//! ```text
//!  payloads, CAS image ──► supervisor ──► Vmm (qemu, …) ──► a booted Machine
//!                            │ watches, restarts                ▲        ▲
//!                            ▼                                  │ 5001   │ 5000
//!  clients ──TCP──► bridge ─────────────────────────────────────┘        │
//!                   keeper (clock, statistics, memory) ──► control ──────┘
//! ```
//!
//! - [`serve`]: `serve-vm`: its flags, and everything below wired together.
//! - [`vmm`]: what a VMM must be able to do. - [`qemu`]: the one that QEMU does it with.
//! - [`mux`]: many connections over one byte stream, for machines without vsock.
//! - [`payloads`]: kernel, initramfs and runtimes as files. - [`cas_image`]: the disk of the store.
//! - [`supervisor`]: from boot to stop, and back when the guest went away.
//! - [`bridge`]: a client's TCP connection is a connection to the guest.
//! - [`control`]: the host's questions to the guest. - [`keeper`]: who asks them, and when.
//! - [`console`]: the guest's serial console in the log.

pub mod bridge;
pub mod cas_image;
pub mod console;
pub mod control;
pub mod guest;
pub mod keeper;
pub mod mux;
pub mod payloads;
#[cfg(target_os = "linux")]
pub mod qemu;
pub mod serve;
pub mod supervisor;
#[cfg(test)]
mod testing;
pub mod vmm;

pub use vmm::{Boot, ConnectError, Ended, GuestStream, Machine, StartError, Vmm, WorkerFlag};

/// The guest's port for the control protocol.
pub const CONTROL_PORT: u32 = 5000;

/// The guest's port for gRPC.
pub const GRPC_PORT: u32 = 5001;

/// The first line that the guest's init writes to the console: the kernel has booted.
pub const FIRST_WORDS: &str = "init: up";
